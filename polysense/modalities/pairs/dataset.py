"""Data sets side by side: samples with several parts, some of which they may lack or have several of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.modalities.base import Dataset

LANGUAGE = "language"
"""The column of a part's own table that tells the language of its texts."""
_LANGUAGES = 20
"""Languages are told apart up to so many, the commonest."""


@dataclass(frozen=True)
class Members:
    """The rows of one part's data set that belong to each sample: none where it lacks the part, several
    where one is to be drawn.

    Sample i has ``rows[starts[i] : starts[i + 1]]``.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, samples: NDArray[np.int64], count: int) -> Members:
        """From the sample of each row, which are of ``count`` samples; those below 0 belong to none.

        >>> members = Members.of(np.array([2, 0, 0]), 3)
        >>> members.counts.tolist()
        [2, 0, 1]
        """
        order = np.argsort(samples, kind="stable")
        order = order[samples[order] >= 0]
        starts = np.concatenate([[0], np.cumsum(np.bincount(samples[order], minlength=count))])
        return cls(order.astype(np.int64), starts.astype(np.int64))

    @property
    def counts(self) -> NDArray[np.int64]:
        """``[N]``: how many rows each sample has."""
        counts: NDArray[np.int64] = np.diff(self.starts)
        return counts

    def first(self, samples: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The first row of each of some samples, which have one."""
        return self.rows[self.starts[:-1][samples]]

    def owners(self, rows: int) -> NDArray[np.int64]:
        """The sample of each of so many rows, -1 for those of none; what :meth:`of` was given.

        >>> Members.of(np.array([2, -1, 0]), 3).owners(3).tolist()
        [2, -1, 0]
        """
        owners = np.full(rows, -1)
        owners[self.rows] = np.repeat(np.arange(len(self.counts)), self.counts)
        return owners

    def fetch(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows ``[M]`` of some samples, and each sample's places in them ``[B, K]``, -1 behind its last.

        A sample that lacks the part gets row 0, to keep its place.
        """
        counts = self.counts[index]
        filled = np.maximum(counts, 1)
        there = np.arange(filled.max(initial=1)) < filled[:, None]
        owner = np.repeat(np.arange(len(index)), filled)
        first = np.cumsum(filled) - filled
        turn = np.arange(len(owner)) - first[owner]
        known = np.minimum(self.starts[index][owner] + turn, len(self.rows) - 1)
        rows = np.where(counts[owner] > 0, self.rows[known], 0)
        places = np.full(there.shape, -1, np.int64)
        places[there] = np.arange(len(owner))
        return rows, places


@dataclass(frozen=True)
class PairSamples:
    """What :class:`Pairs` gives for some samples.

    ``parts``: what each part's data set gave. ``choices``: for parts of which samples may have several,
    ``[B, K]`` the places in it that belong to each sample, -1 behind its last. ``present``: ``[B]``, for
    parts that samples may lack. ``index`` and ``identity`` ``[B]``: places in the data set, and numbers
    that are equal for samples of the same thing.
    """

    parts: dict[str, Any]
    choices: dict[str, Tensor]
    present: dict[str, Tensor]
    index: Tensor
    identity: Tensor | None


@dataclass(eq=False)
class Pairs:
    """Samples with two or more parts, each in a data set of its own; a ``modalities.base.Dataset``.

    ``members`` tells which rows of ``parts`` belong to which sample. ``table``: one row per sample, with
    ``name``. ``bad``: name and reason of each that was skipped.
    """

    parts: Mapping[str, Dataset]
    members: Mapping[str, Members]
    table: pd.DataFrame
    label: str | None = None
    identity: str | None = None
    evaluation: Mapping[str, Any] | None = None
    bad: Sequence[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._identity = None if self.identity is None else _numbers(self.table[self.identity])

    @classmethod
    def of(
        cls,
        parts: Mapping[str, Dataset],
        present: Mapping[str, Sequence[bool] | NDArray[np.bool_]] | None = None,
    ) -> Pairs:
        """Join data sets of which the first rows belong together, the second ones, and so on.

        ``present`` tells of a part which samples have it, ``[N]``; its data set holds only those, in order.
        Columns with one name come from the first part that has them; so do label and identity.

        Raises:
            PolysenseError: for fewer than two parts, or data sets that do not fit each other.
        """
        if len(parts) < 2:
            raise PolysenseError(f"a pair has two parts or more, but only {', '.join(parts) or 'none'} given")
        masks = {part: np.asarray(mask, bool) for part, mask in (present or {}).items()}
        for part in masks:
            if part not in parts:
                raise PolysenseError(f"present names {part!r}, which is no part; the parts are {[*parts]}")
        count = len(next(iter(masks.values()), next(iter(parts.values()))))
        members = {}
        for part, dataset in parts.items():
            mask = masks.get(part, np.ones(count, bool))
            if len(mask) != count or len(dataset) != mask.sum():
                raise PolysenseError(
                    f"the part {part!r} has {len(dataset)} rows where {int(mask.sum())} of {count} samples"
                    " have it; give each part one row for each sample that has it, in order"
                )
            members[part] = Members.of(np.flatnonzero(mask), count)
        tables = [
            dataset.table.set_axis(np.flatnonzero(masks.get(part, np.ones(count, bool)))).reindex(
                range(count)
            )
            for part, dataset in parts.items()
        ]
        table = tables[0]
        for other in tables[1:]:
            table = table.combine_first(other)
        first = {
            what: next((value for one in parts.values() if (value := getattr(one, what)) is not None), None)
            for what in ("label", "identity", "evaluation")
        }
        return cls(dict(parts), members, table, **first)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.table)

    def languages(self) -> list[str]:
        """The languages of the texts, the commonest first; none where they are not known or there is one."""
        spoken = [part.table[LANGUAGE] for part in self.parts.values() if LANGUAGE in part.table]
        found = pd.concat(spoken).dropna().astype(str).value_counts() if spoken else pd.Series(dtype=int)
        return [str(name) for name in found.index[:_LANGUAGES]] if len(found) > 1 else []

    def in_language(self, language: str) -> Pairs:
        """The samples that have a text in a language, with their texts in it alone."""
        owners = {part: members.owners(len(self.parts[part])) for part, members in self.members.items()}
        there = np.zeros(len(self), bool)
        for part, dataset in self.parts.items():
            if LANGUAGE in dataset.table:
                owners[part][(dataset.table[LANGUAGE].astype(str) != language).to_numpy()] = -1
                there[owners[part][owners[part] >= 0]] = True
        number = np.append(np.where(there, np.cumsum(there) - 1, -1), -1)  # the last is for owner -1
        members = {part: Members.of(number[own], int(there.sum())) for part, own in owners.items()}
        table = self.table[there].reset_index(drop=True)
        return Pairs(self.parts, members, table, self.label, self.identity)

    def __getitems__(self, indices: Sequence[int]) -> PairSamples:
        """Every part of some samples; of several captions all, for one is drawn when views are made."""
        index = np.asarray(indices, np.int64)
        parts, choices, present = {}, {}, {}
        for part, dataset in self.parts.items():
            counts = self.members[part].counts
            rows, places = self.members[part].fetch(index)
            parts[part] = dataset.__getitems__(rows.tolist())
            if counts.max() > 1:
                choices[part] = torch.from_numpy(places)
            if counts.min() < 1:
                present[part] = torch.from_numpy(counts[index] > 0)
        identity = None if self._identity is None else torch.from_numpy(self._identity[index])
        return PairSamples(parts, choices, present, torch.from_numpy(index), identity)


def _numbers(column: pd.Series[Any]) -> NDArray[np.int64]:
    """A column as numbers; what is missing is like nothing else."""
    numbers = pd.factorize(column)[0].astype(np.int64)
    missing = numbers < 0
    numbers[missing] = -1 - np.arange(missing.sum())
    return numbers
