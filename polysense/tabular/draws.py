"""The rows that a wish is granted: drawn from regions by their mass, weighted, and the rest rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.conditions import Condition
from polysense.errors import PolysenseError
from polysense.tabular.sampler import POOL, Draft, Sampler, resample

Region = Mapping[str, Tensor]
"""Of some columns, which of the values seen in the table a row may hold."""

_PILOT = 512
"""So many rows tell how likely a region is."""

_TRIES = 50
"""So many rows, and 5,000 more, are drawn at most for each that is wanted."""


Assemble = Callable[[NDArray[Any], pd.DataFrame], pd.DataFrame]
"""From the values that were picked and those that were given to whole rows."""


@dataclass(frozen=True)
class Wish:
    """What rows must satisfy: the cells they start from, regions to draw from, and the rest, row by row."""

    start: Draft
    fixed: pd.DataFrame
    regions: Sequence[Region]
    condition: Condition | None = None


class Draws:
    """The rows that one wish is granted, and what it took."""

    def __init__(self, sampler: Sampler, wish: Wish, generator: torch.Generator, temperature: float) -> None:
        self.sampler, self.wish, self.generator, self.temperature = sampler, wish, generator, temperature
        self.effective, self.tried, self.granted = 1.0, 0, 0
        self._masses = self._pilot() if len(wish.regions) > 1 else torch.ones(1)

    @property
    def acceptance(self) -> float:
        """The share of the rows drawn that could be kept."""
        return self.granted / max(1, self.tried)

    def rows(self, n: int, assembled: Assemble, *, avoid_copies: bool) -> NDArray[Any]:
        """The values of ``n`` rows, ``[n, columns]``; those rejected are drawn anew, up to a limit."""
        kept: list[NDArray[Any]] = []
        while self.granted < n:
            if self.tried >= _TRIES * n + 5000:
                raise PolysenseError(
                    f"only {self.granted} of {self.tried} rows drawn can be kept"
                    f"{_because(self.wish.condition, avoid_copies)}; loosen that, or ask for fewer rows"
                )
            missing = n - self.granted
            rate = self.acceptance if self.tried else 1.0
            count = int(min(1.1 * missing / max(rate, 1e-3), max(1000, 4 * n))) if rate < 1 else missing
            picks = self._mixture(count)
            fine = np.ones(len(picks), dtype=bool)
            if self.wish.condition is not None:
                fine &= self.wish.condition.mask(assembled(picks, self.wish.fixed))
            if avoid_copies:
                fine &= ~self.sampler.copies(picks)
            self.tried, self.granted = self.tried + count, self.granted + int(fine.sum())
            kept.append(picks[fine])
        return np.concatenate(kept)[:n]

    def _mixture(self, count: int) -> NDArray[Any]:
        """Rows of all regions, each region by its mass; a row that an earlier region has too is left out."""
        chosen = torch.multinomial(self._masses, count, replacement=True, generator=self.generator)
        parts = []
        for at, wanted in enumerate(torch.bincount(chosen, minlength=len(self.wish.regions)).tolist()):
            if not wanted:
                continue
            picks = self._from(self.wish.regions[at], wanted).picks
            earlier = torch.zeros(len(picks), dtype=torch.bool)
            for region in self.wish.regions[:at]:
                earlier |= self._inside(picks, region)
            parts.append(picks[~earlier])
        drawn = torch.cat(parts)
        return drawn[torch.randperm(len(drawn), generator=self.generator)].numpy()

    def _from(self, region: Region, count: int) -> Draft:
        """Rows of one region: its columns first, then, of those that count, all others."""
        ranged = sum(int(may.sum()) > 1 for may in region.values())
        draft, mass = self._restricted(region, count * POOL if ranged > 1 else count)
        if ranged > 1:
            rows, effective = resample(mass, count, self.generator)
            self.effective, draft = min(self.effective, effective), draft.take(rows)
        rest = [name for name in self.sampler.coder.names if name not in region]
        self.sampler.draw(draft, shuffled(rest, self.generator), self.generator, temperature=self.temperature)
        return draft

    def _restricted(self, region: Region, count: int) -> tuple[Draft, Tensor]:
        """Rows of which the region's columns are drawn, the narrowest first, and their mass."""
        draft = self.wish.start.take(torch.zeros(count, dtype=torch.long))
        order = sorted(region, key=lambda name: int(region[name].sum()))
        mass = self.sampler.draw(draft, order, self.generator, allowed=region, temperature=self.temperature)
        return draft, mass

    def _pilot(self) -> Tensor:
        """How likely each region is, up to a common factor."""
        logs = torch.stack([self._restricted(region, _PILOT)[1].logsumexp(0) for region in self.wish.regions])
        return (logs - logs.max()).exp()

    def _inside(self, picks: Tensor, region: Region) -> Tensor:
        inside = torch.ones(len(picks), dtype=torch.bool)
        for name, may in region.items():
            inside &= may[picks[:, self.sampler.coder.names.index(name)]]
        return inside


def _because(condition: Condition | None, avoid_copies: bool) -> str:
    asked = [f"under {condition.text!r}"] if condition else []
    return " ".join(["", *asked, *(["without copies of training rows"] if avoid_copies else [])])


def shuffled(names: Sequence[str], generator: torch.Generator) -> list[str]:
    """The names in random order."""
    return [names[at] for at in torch.randperm(len(names), generator=generator).tolist()]
