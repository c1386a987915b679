"""Rows drawn cell by cell from a masked-cell transformer, each value one that the table was seen with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.encoders.cell_transformers import CellTransformer
from polysense.tabular.coder import Coder

Array = NDArray[Any]

_ROWS = 512
"""So many rows are asked about in one pass."""

_ODDS = 20_000_000
"""So many odds are held at a time, where a column has thousands of levels."""

POOL = 8
"""So many rows are drawn for each that is kept where several columns are restricted."""


@dataclass(frozen=True)
class Support:
    """The A values that a column was seen with, in the order of their classes.

    ``values``: as the table has them, perhaps one missing; ``rows``: where each is first; ``classes``: the
    bin or level of each, 0 for missing; ``counts``: how many rows hold it; ``of_row``: the value of each
    training row, -1 for a missing one that is not among them.
    """

    values: pd.Series[Any]
    rows: Tensor
    classes: Tensor
    counts: Tensor
    of_row: Array

    @classmethod
    def of(cls, column: pd.Series[Any], classes: Tensor, *, gaps: bool) -> Support:
        """Of a column whose cells have these classes; with ``gaps`` missing is a value, too."""
        codes, _ = pd.factorize(column)
        _, first, back, counts = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
        kept = np.flatnonzero(gaps | (codes[first] >= 0))
        order = kept[np.argsort(classes.numpy()[first[kept]], kind="stable")]
        place = np.full(len(first), -1)
        place[order] = np.arange(len(order))
        rows = torch.from_numpy(first[order])
        return cls(
            column.iloc[first[order]].reset_index(drop=True),
            rows,
            classes[rows],
            torch.from_numpy(counts[order]).double(),
            place[back],
        )

    @property
    def width(self) -> int:
        """Up to which class there are values, K."""
        return int(self.classes.max()) + 1

    def draw(self, logits: Tensor, allowed: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A value for each of B rows, and how likely the allowed values were together: both ``[B]``.

        A class is drawn by ``logits`` ``[B, K]`` times the share of it that is allowed, and a value of that
        class by how often it was seen.
        """
        weights = self.counts * allowed
        total, left = (
            torch.zeros(logits.shape[1], dtype=torch.float64).index_add_(0, self.classes, each)
            for each in (self.counts, weights)
        )
        share = left / total.clamp(min=1)
        chances = logits.double().masked_fill(total == 0, -torch.inf).softmax(1)
        odds = chances * share + 1e-30 * share  # a class may be so unlikely that nothing is left of it
        drawn = torch.multinomial(odds, 1, generator=generator)[:, 0]
        inside = torch.rand(len(drawn), dtype=torch.float64, generator=generator) * left[drawn]
        ends = weights.cumsum(0)
        picks = torch.searchsorted(ends, left.cumsum(0)[drawn] - left[drawn] + inside, right=True)
        return picks.clamp(max=int(allowed.nonzero()[-1])), odds.sum(1)


@dataclass(frozen=True)
class Draft:
    """Rows that are being drawn: their cells, ``hidden`` ``[B, columns]`` where nothing is known yet, and
    ``picks`` ``[B, columns]``, the values drawn so far."""

    row: dict[str, Tensor]
    hidden: Tensor
    picks: Tensor

    def __len__(self) -> int:
        return len(self.picks)

    def take(self, rows: Tensor) -> Draft:
        """Some of the rows, in this order."""
        return Draft(
            {name: each[rows] for name, each in self.row.items()}, self.hidden[rows], self.picks[rows]
        )


class Sampler:
    """Draws what is hidden of rows, one column after the other, each given all that is known by then.

    Args:
        encoder: a trained network that answers for every cell.
        coder: how rows become its cells.
        frame: the table that it was trained on.
        gaps: whether it learned where a table has gaps; else it never leaves one.
    """

    def __init__(self, encoder: CellTransformer, coder: Coder, frame: pd.DataFrame, *, gaps: bool) -> None:
        self.encoder, self.coder = encoder, coder
        self._encoded = coder.encode(frame)
        with torch.inference_mode():
            device = next(encoder.parameters()).device
            tokens = encoder.tokenise({k: v.to(device) for k, v in self._encoded.items()}).cpu()
        columns = np.array(coder.cells.columns)
        self._cells = [torch.from_numpy(np.flatnonzero(columns == at)) for at in range(len(coder.names))]
        self.supports = {
            name: Support.of(frame[name], tokens[:, int(cells[0])], gaps=gaps)
            for name, cells in zip(coder.names, self._cells, strict=True)
        }

    @cached_property
    def not_missing(self) -> dict[str, Tensor]:
        """Of each column, the values that are there: what may be drawn where no gap is to be left."""
        return {
            name: torch.tensor(support.values.notna().to_numpy(dtype=bool))
            for name, support in self.supports.items()
        }

    def blank(self, rows: int) -> Draft:
        """Rows of which nothing is known."""
        columns = len(self.coder.names)
        hidden = torch.ones(rows, columns, dtype=torch.bool)
        return Draft(self.coder.cells.blank(rows), hidden, torch.full((rows, columns), -1))

    def given(self, frame: pd.DataFrame) -> Draft:
        """Rows of which the cells of a checked table are known and its missing ones are not."""
        row, picks = self.coder.encode(frame), self.blank(len(frame)).picks
        first = [int(cells[0]) for cells in self._cells]
        return Draft(row, ~self.coder.cells.known(row)[:, first], picks)

    def draw(
        self,
        draft: Draft,
        columns: Iterable[str],
        generator: torch.Generator,
        *,
        allowed: Mapping[str, Tensor] | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw columns where they are hidden, in this order, into the draft; ``[B]``: the log of the mass.

        The mass of a row is the product of the chances that its columns would be allowed by themselves.
        """
        mass = torch.zeros(len(draft), dtype=torch.float64)
        for name in columns:
            at, support = self.coder.names.index(name), self.supports[name]
            rows = draft.hidden[:, at].nonzero()[:, 0]
            if not len(rows):
                continue
            may = (allowed or {}).get(name, torch.ones(len(support.rows), dtype=torch.bool))
            for some in rows.split(max(1, _ODDS // support.width)):
                logits = self._ask(draft.take(some), at) / temperature
                picks, left = support.draw(logits, may, generator)
                self._fill(draft, some, at, picks)
                mass[some] += left.log()
        return mass

    def chances(self, draft: Draft) -> dict[str, Array]:
        """How likely each class of each column is, given what is known: by column ``[B, K]``.

        Missing, and a class that no row of the table holds, is none.
        """
        found: dict[str, list[Array]] = {name: [] for name in self.supports}
        for answers in self._answers(draft):
            for cells, (name, support) in zip(self._cells, self.supports.items(), strict=True):
                unseen = torch.ones(support.width, dtype=torch.bool)
                unseen[support.classes[support.classes > 0]] = False
                logits = answers[:, int(cells[0]), : support.width].masked_fill(unseen, -torch.inf)
                found[name].append(logits.softmax(1).numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def table(self, picks: Array) -> dict[str, pd.Series[Any]]:
        """The values that were picked, ``[B, columns]``, in the types of the training table."""
        return {
            name: support.values.take(picks[:, at]).reset_index(drop=True)
            for at, (name, support) in enumerate(self.supports.items())
        }

    def copies(self, picks: Array) -> NDArray[np.bool_]:
        """Which rows are, in all columns that are learned, a row of the training table: ``[B]``."""
        seen = pd.MultiIndex.from_arrays([support.of_row for support in self.supports.values()])
        copied: NDArray[np.bool_] = pd.MultiIndex.from_arrays(list(picks.T)).isin(seen)
        return copied

    def _fill(self, draft: Draft, rows: Tensor, at: int, picks: Tensor) -> None:
        numbers = self.coder.cells.numbers
        cells, where = self._cells[at], self.supports[self.coder.names[at]].rows[picks]
        if int(cells[0]) < numbers:
            for name in ("numbers", "missing"):
                draft.row[name][rows[:, None], cells] = self._encoded[name][where[:, None], cells]
        else:
            draft.row["codes"][rows[:, None], cells - numbers] = self._encoded["codes"][
                where[:, None], cells - numbers
            ]
        draft.hidden[rows, at] = False
        draft.picks[rows, at] = picks

    def _ask(self, draft: Draft, at: int) -> Tensor:
        """The logits ``[B, K]`` of one column; rows of which the same is known are asked about once."""
        cell, width = int(self._cells[at][0]), self.supports[self.coder.names[at]].width
        first, back = _distinct([*draft.row.values(), draft.hidden])
        answers = [each[:, cell, :width] for each in self._answers(draft.take(torch.from_numpy(first)))]
        return torch.cat(answers)[torch.from_numpy(back)]

    @torch.inference_mode()
    def _answers(self, draft: Draft) -> Iterator[Tensor]:
        """The logits ``[B, cells, K]`` of all cells, some rows at a time."""
        device = next(self.encoder.parameters()).device
        for start in range(0, len(draft), _ROWS):
            row = {name: each[start : start + _ROWS].to(device) for name, each in draft.row.items()}
            mask = self.coder.cells.of_columns(draft.hidden[start : start + _ROWS]).to(device)
            yield self.encoder.predict(self.encoder(row, mask)).float().cpu()


def resample(mass: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, float]:
    """Rows by their mass, evenly spread (systematic resampling), and the effective share of the pool.

    That share is ``(sum w)^2 / (N sum w^2)``: 1 where all masses w are equal, 1/N where one row has all.

    >>> resample(torch.zeros(4), 4, torch.Generator().manual_seed(0))
    (tensor([0, 1, 2, 3]), 1.0)
    """
    weights = (mass.double() - mass.max()).exp()
    effective = float(weights.sum() ** 2 / weights.square().sum() / len(weights))
    start = torch.rand(1, dtype=torch.float64, generator=generator)
    places = (torch.arange(count, dtype=torch.float64) + start) * (weights.sum() / count)
    rows = torch.searchsorted(weights.cumsum(0), places, right=True).clamp(max=len(weights) - 1)
    return rows, effective


def _distinct(tensors: Sequence[Tensor]) -> tuple[Array, Array]:
    """The first of each set of equal rows, and for each row its place among those."""
    joined = np.ascontiguousarray(np.concatenate([each.numpy().view(np.uint8) for each in tensors], axis=1))
    keys = joined.view(np.dtype((np.void, joined.shape[1])))[:, 0]
    _, first, back = np.unique(keys, return_index=True, return_inverse=True)
    return first, back.reshape(-1)
