"""What fills the holes of a table: each column told from the others, or all by one masked-cell network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from polysense.errors import PolysenseError
from polysense.tabular.answers import Answer, Domain, Likely, Odds
from polysense.tabular.augmentation.draft import names_of, taken
from polysense.tabular.augmentation.values import calculable, values_of
from polysense.tabular.fillers import Filler
from polysense.tabular.generate import Generator
from polysense.tabular.sampler import Draft
from polysense.tabular.schema import LEVELLED
from polysense.tabular.trees import Features

Array = NDArray[Any]

Gaps = Mapping[str, Array]
"""The rows to fill in each column."""


class Completer(Protocol):
    """Fills some columns of tables."""

    @property
    def columns(self) -> Iterable[str]:
        """The columns that it can fill."""

    def answers(self, frame: pd.DataFrame, gaps: Gaps) -> dict[str, Answer]:
        """What is believed of the cells in the gaps, each column by itself."""

    def drawn(
        self, frame: pd.DataFrame, gaps: Gaps, like: pd.DataFrame, rngs: Iterable[np.random.Generator]
    ) -> Iterator[dict[str, pd.Series[Any]]]:
        """For each ``rng`` random cells for the gaps of all columns, which fit together, as in ``like``."""


@dataclass(frozen=True)
class ByColumn:
    """A filler for each column, which reads the features of the others."""

    features: Features
    fillers: dict[str, Filler]

    @property
    def columns(self) -> Iterable[str]:
        return self.fillers

    def answers(self, frame: pd.DataFrame, gaps: Gaps) -> dict[str, Answer]:
        matrix = self.features.matrix(frame)
        return {name: self.fillers[name](matrix[rows]) for name, rows in gaps.items()}

    def drawn(
        self, frame: pd.DataFrame, gaps: Gaps, like: pd.DataFrame, rngs: Iterable[np.random.Generator]
    ) -> Iterator[dict[str, pd.Series[Any]]]:
        """Column by column, each given those drawn before it."""
        known = self.features.matrix(frame)
        for rng in rngs:
            matrix, drawn = known.copy(), {}
            for name, rows in gaps.items():
                drawn[name] = self.fillers[name](matrix[rows]).draw(like[name], rng)
                own = np.flatnonzero(~self.features.others(name))
                if len(own):
                    matrix[np.ix_(rows, own)] = self.features.of_column(drawn[name], name)
            yield drawn


@dataclass(frozen=True)
class ByCells:
    """The network of a generator: asked once for the odds of all gaps, or cell by cell for joint draws.

    Levels that it does not know are hidden from it.
    """

    generator: Generator

    @cached_property
    def columns(self) -> Iterable[str]:
        frame, schema = self.generator.frame, self.generator.schema
        return [
            name
            for name in self.generator.coder.names
            if schema[name].kind in LEVELLED or calculable(frame[name])
        ]

    def answers(self, frame: pd.DataFrame, gaps: Gaps) -> dict[str, Answer]:
        if not gaps:
            return {}
        asked = np.unique(np.concatenate(list(gaps.values())))
        chances = self.generator.sampler.chances(self._given(frame, asked))
        return {
            name: self._answer(name, chances[name][np.searchsorted(asked, rows)])
            for name, rows in gaps.items()
        }

    def drawn(
        self, frame: pd.DataFrame, gaps: Gaps, like: pd.DataFrame, rngs: Iterable[np.random.Generator]
    ) -> Iterator[dict[str, pd.Series[Any]]]:
        """Column after column in random order, each given all that is known by then."""
        if not gaps:
            yield from ({} for _ in rngs)
            return
        asked, sampler = np.unique(np.concatenate(list(gaps.values()))), self.generator.sampler
        known = self._given(frame, asked)
        for rng in rngs:
            draft, order = known.take(torch.arange(len(known))), rng.permutation(list(gaps))
            random = torch.Generator().manual_seed(int(rng.integers(2**62)))
            sampler.draw(draft, map(str, order), random, allowed=sampler.not_missing)
            table = sampler.table(draft.picks.numpy())
            yield {
                name: table[name].iloc[np.searchsorted(asked, rows)].astype(like[name].dtype)
                for name, rows in gaps.items()
            }

    def _given(self, frame: pd.DataFrame, rows: Array) -> Draft:
        known = [name for name in self.generator.schema.names if name in frame]
        checked = self.generator.checked(frame[known].iloc[rows].reset_index(drop=True), unseen="missing")
        return self.generator.sampler.given(checked)

    def _answer(self, name: str, chances: Array) -> Answer:
        support, column = self.generator.sampler.supports[name], self.generator.frame[name]
        seen = support.values.notna().to_numpy(bool)
        values, classes = support.values[seen], support.classes.numpy()[seen]
        kind = self.generator.schema[name].kind
        if kind in LEVELLED:
            return Odds(pd.Index(values), chances[:, classes])
        numbers = values_of(values).numbers
        order = np.argsort(numbers, kind="stable")
        counts = support.counts.numpy()[seen]
        return Likely(chances, numbers[order], classes[order], counts[order], Domain.of(column, kind))


def completed(frame: pd.DataFrame, gaps: Gaps, cells: dict[str, pd.Series[Any]]) -> dict[str, Any]:
    """The table's columns with new cells in their gaps."""
    columns = {name: frame[name].array for name in names_of(frame)}
    for name, rows in gaps.items():
        if len(rows) == len(frame):
            columns[name] = cells[name].array
            continue
        places = np.arange(len(frame))
        places[rows] = len(frame) + np.arange(len(rows))
        columns[name] = taken(pd.concat([frame[name], cells[name]], ignore_index=True), places).array
    return columns


def uncertainty(
    frame: pd.DataFrame, like: pd.DataFrame, gaps: Gaps, answers: dict[str, Answer]
) -> dict[str, pd.Series[Any]]:
    """How sure each filled cell is; missing where a cell was observed."""
    columns = {
        f"{name}_{word}": pd.Series(cells.array, index=rows).reindex(range(len(frame)))
        for name, rows in gaps.items()
        for word, cells in answers[name].beside(like[name]).items()
    }
    for name in columns:
        if name in frame:
            raise PolysenseError(f"the table has a column {name!r}, where its uncertainty goes; rename it")
    return columns
