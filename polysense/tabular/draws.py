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
"""So many rows tell how likely a region is, and no smaller pool is resampled."""

_TRIES = 50
"""So many rows, and 5,000 more, are drawn at most for each that is wanted."""


Assemble = Callable[[NDArray[Any], pd.DataFrame], pd.DataFrame]
"""From the values that were picked and what was known of their rows to whole rows."""


@dataclass(frozen=True)
class Wish:
    """What rows must satisfy: the row they start from with what is known of it, regions to draw from, and the
    rest, row by row."""

    start: Draft
    known: pd.DataFrame
    regions: Sequence[Region]
    condition: Condition | None = None


class Draws:
    """The rows that wishes are granted, and what it took.

    Attributes:
        effective: the share of a pool's rows that count after weighting, the least of all wishes.
        tried: how many rows were drawn.
        granted: how many of them could be kept.
    """

    def __init__(
        self, sampler: Sampler, generator: torch.Generator, temperature: float, avoid_copies: bool
    ) -> None:
        self.sampler, self.generator, self.temperature = sampler, generator, temperature
        self.avoid_copies = avoid_copies
        self.effective, self.tried, self.granted = 1.0, 0, 0

    @property
    def acceptance(self) -> float:
        """The share of the rows drawn that could be kept."""
        return self.granted / max(1, self.tried)

    def free(self, draft: Draft) -> NDArray[Any]:
        """The values of rows of which all that is hidden is drawn, ``[rows, columns]``."""
        self._fill(draft, self.sampler.coder.names)
        self.tried, self.granted = self.tried + len(draft), self.granted + len(draft)
        return draft.picks.numpy()

    def rows(self, n: int, wish: Wish, assembled: Assemble) -> NDArray[Any]:
        """The values of ``n`` rows, ``[n, columns]``; those rejected are drawn anew, up to a limit."""
        masses = self._pilot(wish) if len(wish.regions) > 1 else torch.ones(1)
        kept: list[NDArray[Any]] = []
        tried = granted = 0
        while granted < n:
            if tried >= _TRIES * n + 5000:
                raise PolysenseError(
                    f"only {granted} of {tried} rows drawn can be kept"
                    f"{_because(wish.condition, self.avoid_copies)}; loosen that, or ask for fewer rows"
                )
            missing, rate = n - granted, granted / tried if tried else 1.0
            count = int(min(1.1 * missing / max(rate, 1e-3), max(1000, 4 * n))) if rate < 1 else missing
            picks = self._mixture(wish, masses, count)
            fine = np.ones(len(picks), dtype=bool)
            if wish.condition is not None:
                known = wish.known.take(np.zeros(len(picks), dtype=int))
                fine &= wish.condition.mask(assembled(picks, known))
            if self.avoid_copies:
                fine &= ~self.sampler.copies(picks)
            tried, granted = tried + count, granted + int(fine.sum())
            kept.append(picks[fine])
        self.tried, self.granted = self.tried + tried, self.granted + granted
        return np.concatenate(kept)[:n]

    def _mixture(self, wish: Wish, masses: Tensor, count: int) -> NDArray[Any]:
        """Rows of all regions, each region by its mass; a row that an earlier region has too is left out."""
        chosen = torch.multinomial(masses, count, replacement=True, generator=self.generator)
        parts = []
        for at, wanted in enumerate(torch.bincount(chosen, minlength=len(wish.regions)).tolist()):
            if not wanted:
                continue
            picks = self._from(wish.start, wish.regions[at], wanted).picks
            earlier = torch.zeros(len(picks), dtype=torch.bool)
            for region in wish.regions[:at]:
                earlier |= self._inside(picks, region)
            parts.append(picks[~earlier])
        drawn = torch.cat(parts)
        return drawn[torch.randperm(len(drawn), generator=self.generator)].numpy()

    def _from(self, start: Draft, region: Region, count: int) -> Draft:
        """Rows of one region: its columns first, then, of those that count, all others."""
        ranged = sum(int(may.sum()) > 1 for may in region.values())
        pool = max(_PILOT, count * POOL) if ranged > 1 else count
        draft, mass = self._restricted(start, region, pool)
        if ranged > 1:
            rows, effective = resample(mass, count, self.generator)
            self.effective, draft = min(self.effective, effective), draft.take(rows)
        self._fill(draft, [name for name in self.sampler.coder.names if name not in region])
        return draft

    def _fill(self, draft: Draft, names: Sequence[str]) -> None:
        """Draw what is hidden of columns, in random order."""
        order = shuffled(names, self.generator)
        self.sampler.draw(draft, order, self.generator, temperature=self.temperature)

    def _restricted(self, start: Draft, region: Region, count: int) -> tuple[Draft, Tensor]:
        """Rows of which the region's columns are drawn, the narrowest first, and their mass."""
        draft = start.take(torch.zeros(count, dtype=torch.long))
        order = sorted(region, key=lambda name: int(region[name].sum()))
        mass = self.sampler.draw(draft, order, self.generator, allowed=region, temperature=self.temperature)
        return draft, mass

    def _pilot(self, wish: Wish) -> Tensor:
        """How likely each region is, up to a common factor."""
        logs = torch.stack(
            [self._restricted(wish.start, region, _PILOT)[1].logsumexp(0) for region in wish.regions]
        )
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
