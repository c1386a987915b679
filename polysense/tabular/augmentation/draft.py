"""Rows in the making: which row each one starts from, and columns built one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd

from polysense.errors import PolysenseError, unknown
from polysense.tabular.augmentation.values import Array, Values, calculable, values_of
from polysense.tabular.schema import Schema

COPIED = frozenset({"text", "identifier", "constant"})
"""Kinds of columns that augmentation leaves as they are: their values belong to their row."""


Seed = int | tuple[int, int]
"""A seed, or one for the whole and one for the part of it that these rows are."""


class Draft:
    """``times`` copies of a frame's rows, waiting for new cells.

    Columns are built one by one, never through one matrix of objects, so the dtypes stay and the memory
    beside the result is that of one column. Partners, levels and statistics come from ``bank``, by default
    the frame itself: a part of a large file can be augmented by the statistics of all of it.

    Attributes:
        origin: ``[N]``, the row of the frame that each new row starts from.
        start: where the rows of the bank begin in :meth:`pool`.
        rng: where random numbers for the rows come from.
        once: where those come from that are the same for all parts of a file.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        *,
        times: int = 1,
        label: str | None = None,
        bank: pd.DataFrame | None = None,
        schema: Schema | None = None,
        seed: Seed = 0,
    ) -> None:
        check_table(frame)
        if times < 1:
            raise PolysenseError(f"times is {times}, but at least one copy of the rows is made")
        if label is not None:
            check_column(frame, label)
        self.frame, self.label, self.bank = frame, label, frame if bank is None else bank
        self.schema = schema
        self.origin = np.tile(np.arange(len(frame)), times)
        self.start = 0 if self.bank is frame else len(frame)
        self.rng = np.random.default_rng(seed)
        self.once = np.random.default_rng(seed[0] if isinstance(seed, tuple) else seed)

    def __len__(self) -> int:
        return len(self.origin)

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each column, inferred from the bank where no schema is given."""
        schema = self.schema or Schema.infer(self.bank)
        return {name: schema[str(name)].kind for name in names_of(self.frame)}

    @property
    def changeable(self) -> list[str]:
        """The columns that may get new cells.

        Raises:
            PolysenseError: when there is none.
        """
        found = [
            name for name in names_of(self.frame) if name != self.label and self.kinds[name] not in COPIED
        ]
        if not found:
            raise PolysenseError(
                "no column can be augmented: all are constants, identifiers, text or the label;"
                " correct their kinds in a schema"
            )
        return found

    def choose(self, columns: Iterable[str] | None) -> list[str]:
        """The named columns, by default all that are changeable."""
        return self.changeable if columns is None else [check_column(self.frame, name) for name in columns]

    def pool(self, name: str) -> pd.Series[Any]:
        """A column of the frame, and below it the bank's: where :meth:`partners` point into."""
        column = self.frame[name]
        return column if self.bank is self.frame else pd.concat([column, self.bank[name]], ignore_index=True)

    def partners(self, within: str | None = None) -> Array:
        """A random row of the bank for each new row; with ``within`` one that is equal in that column.

        A row that has no equal in the bank is its own partner.
        """
        start = self.start
        if within is None:
            return start + self.rng.integers(len(self.bank), size=len(self))
        groups = pd.factorize(self.pool(check_column(self.frame, within)))[0]
        mine, theirs = groups[self.origin] + 1, groups[start:] + 1  # missing is a group too
        order, counts = np.argsort(theirs, kind="stable"), np.bincount(theirs, minlength=groups.max() + 2)
        first, many = (np.cumsum(counts) - counts)[mine], counts[mine]
        drawn = first + (self.rng.random(len(self)) * many).astype(np.int64)
        return np.where(many > 0, start + order[np.minimum(drawn, len(order) - 1)], self.origin)

    def calculated(self, name: str) -> bool:
        """Whether the cells of a column are calculated with; else they are chosen among."""
        return self.kinds[name] in ("number", "integer", "date") and calculable(self.frame[name])

    def values(self, name: str, column: pd.Series[Any]) -> Values:
        """Cells of a column that is calculated with; integers that are kept as floats stay integers."""
        return values_of(column, whole=self.kinds[name] == "integer")

    def finish(self, columns: Mapping[str, Any]) -> pd.DataFrame:
        """The new rows: columns that are not given are copied, the index is that of the origins.

        A plain index, 0, 1, 2, …, counts on instead.
        """
        plain = isinstance(self.frame.index, pd.RangeIndex)
        index = pd.RangeIndex(len(self)) if plain else self.frame.index.take(self.origin)
        cells = {
            name: columns[name] if name in columns else taken(self.frame[name], self.origin)
            for name in names_of(self.frame)
        }
        made = framed(cells, index)
        made.columns = self.frame.columns
        return made


def framed(cells: Mapping[str, Any], index: pd.Index[Any]) -> pd.DataFrame:
    """A frame of columns as they are, without the copy that a dictionary costs by default."""
    series = {name: pd.Series(column, copy=False).set_axis(index) for name, column in cells.items()}
    return pd.DataFrame(series, index=index, copy=False)


def taken(column: pd.Series[Any], rows: Array) -> pd.Series[Any]:
    """Some rows of a column, numbered anew."""
    return pd.Series(column.array.take(rows))


def names_of(frame: pd.DataFrame) -> list[str]:
    """The names of the columns, in their order."""
    return cast("list[str]", list(frame))


def check_table(frame: pd.DataFrame) -> None:
    """Refuse a table without rows or columns, or with two columns of one name."""
    if not len(frame) or not len(frame.columns):
        raise PolysenseError(f"the table is empty: {len(frame)} rows, {len(frame.columns)} columns")
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise PolysenseError(f"two columns are named {twice[0]!r}; rename one of them")


def check_column(frame: pd.DataFrame, name: str) -> str:
    """The name of a column that is there."""
    if name not in frame:
        raise unknown("column", str(name), map(str, frame))
    return name


def check_share(name: str, share: float) -> float:
    """A share between 0 and 1."""
    if not 0 <= share <= 1:
        raise PolysenseError(f"{name} is {share:g}, but it is a share between 0 and 1")
    return share
