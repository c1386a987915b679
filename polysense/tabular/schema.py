"""What the columns of a table are: told from the data, corrected by the user, and later held against them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from polysense.errors import PolysenseError, unknown
from polysense.tabular.columns import Family, as_floats, family, plain_value, row_of, row_where

KINDS = ("number", "integer", "category", "boolean", "ordinal", "date", "text", "constant", "identifier")
"""What a column can be; of text, constant and identifier there is nothing to learn cell by cell."""

LEVELLED = ("category", "boolean", "ordinal")
MOST_LEVELS = 1000
"""A column of more different strings is text or an identifier and no category."""

_FEW = 20  # so many rows or levels say nothing about a column
_SENTENCE = 3  # words
_SUITS: Mapping[str, tuple[Family, ...]] = {
    "number": ("number",),
    "integer": ("number",),
    "boolean": ("boolean", "number", "string", "category"),
    "date": ("date",),
}
"""The families of values that may be declared of a kind; of the other kinds all may."""


@dataclass(frozen=True)
class Column:
    """What is known of one column.

    ``dtype``: its type in the data, as pandas writes it. ``levels``: the values of a category, boolean or
    ordinal, in their order. ``minimum``, ``maximum``: of a number, integer or date (as ISO 8601).
    ``missing``: the share of its cells that are.
    """

    name: str
    kind: str
    dtype: str
    levels: tuple[Any, ...] | None = None
    minimum: float | str | None = None
    maximum: float | str | None = None
    missing: float = 0.0

    @property
    def family(self) -> Family:
        """The kind of values that later tables must hold too."""
        families: dict[str, Family] = {"number": "number", "integer": "number", "date": "date"}
        return families.get(self.kind, "string")

    @property
    def pandas_dtype(self) -> Any:
        """The type as pandas has it, of a categorical with its levels."""
        if self.dtype == "category" and self.levels:
            return pd.CategoricalDtype(list(self.levels), ordered=self.kind == "ordinal")
        return pd.api.types.pandas_dtype(self.dtype)

    def describe(self) -> str:
        """What it holds, in words.

        >>> Column("cut", "category", "str", levels=("Fair", "Good")).describe()
        '2 levels: Fair, Good'
        """
        if self.levels is not None:
            shown = ", ".join(map(str, self.levels[:4])) + (", …" if len(self.levels) > 4 else "")
            return f"{len(self.levels)} levels: {shown}"
        if self.minimum is not None:
            low, high = (
                f"{end:g}" if isinstance(end, float) else end for end in (self.minimum, self.maximum)
            )
            return f"{low} to {high}"
        return ""


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in their order.

    >>> schema = Schema.infer(pd.DataFrame({"carat": [0.5, 1.2, 0.7], "cut": ["Good", "Fair", "Good"]}))
    >>> print(schema.describe())
    carat  number    0.5 to 1.2
    cut    category  2 levels: Fair, Good
    """

    columns: tuple[Column, ...]

    @classmethod
    def infer(cls, frame: pd.DataFrame, *, kinds: Mapping[str, str] | None = None) -> Schema:
        """Tell every column's kind from its type, its number of different values and their form.

        One value, or none, is a constant. Numbers without a fraction are integers, and identifiers if they
        are a run without gaps or repeats. Strings are categories up to 1,000 levels and while rows repeat;
        beyond, they are text if most have three words or more, and identifiers if not. Ordered
        categoricals are ordinal. ``kinds`` corrects what was inferred, by column.

        Raises:
            PolysenseError: for a kind or column that does not exist or does not fit, mixed values or an
                infinity, naming the column and the row.
        """
        given = dict(kinds or {})
        for name, kind in given.items():
            if name not in frame.columns:
                raise unknown("column", name, map(str, frame.columns))
            if kind not in KINDS:
                raise unknown("kind of column", kind, KINDS)
        return cls(tuple(_column(frame[name], given.get(name)) for name in frame.columns))

    def __getitem__(self, name: str) -> Column:
        """The column of this name.

        Raises:
            PolysenseError: with the nearest names, if there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise unknown("column", name, self.names)

    @property
    def names(self) -> list[str]:
        """The names of the columns, in their order."""
        return [column.name for column in self.columns]

    def of_kind(self, *kinds: str) -> list[Column]:
        """The columns of these kinds, in their order."""
        return [column for column in self.columns if column.kind in kinds]

    def describe(self) -> str:
        """A line for each column: its name, kind, what it holds, and the share that is missing."""
        rows = [
            (c.name, c.kind, c.describe(), f"{100 * c.missing:.3g} % missing" if c.missing else "")
            for c in self.columns
        ]
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)

    def check(self, frame: pd.DataFrame, *, unseen: Literal["error", "missing"] = "error") -> pd.DataFrame:
        """The columns of a later table in this schema's order, after they were found to be of its kinds.

        With ``unseen="missing"`` unknown levels are let pass, to be read as missing.

        Raises:
            PolysenseError: for a new or missing column, a changed type, an unknown level or an infinity,
                naming the column and the row.
        """
        self._check_names(frame)
        for column in self.columns:
            _check_values(column, frame[column.name], unseen)
        return frame[self.names]

    def to_json(self) -> str:
        """The schema as text, for :meth:`from_json`."""
        return json.dumps({"columns": [asdict(column) for column in self.columns]}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """The schema that was written with :meth:`to_json`.

        Raises:
            PolysenseError: for a text that is none.
        """
        try:
            columns = [
                Column(**{**column, "levels": _tuple(column["levels"])})
                for column in json.loads(text)["columns"]
            ]
        except (ValueError, TypeError, KeyError) as error:
            raise PolysenseError(
                f"this is no schema of a table ({error}); give one written with to_json"
            ) from error
        for column in columns:
            if column.kind not in KINDS:
                raise unknown("kind of column", str(column.kind), KINDS)
        return cls(tuple(columns))

    def _check_names(self, frame: pd.DataFrame) -> None:
        missing = [name for name in self.names if name not in frame.columns]
        new = [str(name) for name in frame.columns if name not in self.names]
        if missing:
            near = f"; the table has {', '.join(map(repr, new))} instead" if new else ""
            raise PolysenseError(
                f"the table lacks {_listed(missing)}{near}: add what is missing, if only empty"
            )
        if new:
            raise PolysenseError(f"the table has {_listed(new)}, unknown to the schema: leave that out")


def _column(values: pd.Series[Any], kind: str | None) -> Column:
    """Tell one column's kind, unless it is given, and measure it."""
    name, found = str(values.name), family(values)
    if found == "number":
        _check_finite(values)
    kind = kind or _kind(values, found)
    if found not in _SUITS.get(kind, (found,)):
        raise PolysenseError(
            f"the column {name!r} holds {found} values, which are no {kind}; choose another kind"
        )
    levels: tuple[Any, ...] | None = None
    low: float | str | None = None
    high: float | str | None = None
    if kind in LEVELLED:
        levels = _levels(values, kind, found)
    elif kind in ("number", "integer") and found == "number":
        numbers = as_floats(values)
        if not np.isnan(numbers).all():
            low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    elif kind == "date":
        low, high = (pd.Timestamp(end).isoformat() for end in (values.dropna().min(), values.dropna().max()))
    return Column(name, kind, str(values.dtype), levels, low, high, float(values.isna().mean()))


def _kind(values: pd.Series[Any], found: Family) -> str:
    if found == "number":
        return _number_kind(as_floats(values.dropna()), len(values))
    different = values.nunique()
    if different <= 1:
        return "constant"
    if found == "category":
        if values.dtype.ordered:  # type: ignore[union-attr]
            return "ordinal"
        return "category" if different <= MOST_LEVELS else "identifier"
    return _string_kind(values.dropna(), different) if found == "string" else found


def _number_kind(numbers: np.ndarray[Any, Any], rows: int) -> str:
    if not len(numbers) or numbers.min() == numbers.max():
        return "constant"
    if (numbers != np.round(numbers)).any():
        return "number"
    run = numbers.max() - numbers.min() == rows - 1 and len(np.unique(numbers)) == rows
    return "identifier" if run and rows > _FEW else "integer"


def _string_kind(strings: pd.Series[Any], different: int) -> str:
    if different <= max(_FEW, min(MOST_LEVELS, len(strings) / 2)):
        return "category"
    words = strings.astype(str).str.count(r"\s+") + 1
    return "text" if words.median() >= _SENTENCE else "identifier"


def _levels(values: pd.Series[Any], kind: str, found: Family) -> tuple[Any, ...]:
    if kind == "ordinal" and found == "string":
        raise PolysenseError(
            f"the order of the levels of {values.name!r} is not known: make it an ordered pandas Categorical"
        )
    ordered = list(values.cat.categories) if found == "category" else list(pd.unique(values.dropna()))
    levels = [plain_value(level) for level in ordered]
    if found != "category":
        levels = sorted(levels)
    if kind == "boolean" and len(levels) > 2:
        raise PolysenseError(f"the column {values.name!r} has {len(levels)} levels, and a boolean has two")
    return (False, True) if found == "boolean" else tuple(levels)


def _check_values(column: Column, values: pd.Series[Any], unseen: str) -> None:
    if column.kind in ("text", "constant", "identifier"):
        return
    found = family(values)
    if values.isna().all():
        return
    if column.levels is not None:
        if unseen == "error":
            _check_levels(column, values)
    elif found != column.family:
        raise PolysenseError(
            f"the column {column.name!r} holds {found} values where {column.dtype} was expected"
            f" ({row_where(values.notna(), values)}); convert it"
        )
    elif found == "number":
        _check_finite(values)


def _check_levels(column: Column, values: pd.Series[Any]) -> None:
    known = set(column.levels or ())
    for level in pd.unique(values.dropna()):
        if plain_value(level) not in known:
            raise PolysenseError(
                f"{row_where(values == level, values)} of the column {column.name!r}, which is not among its"
                f" {column.describe()}; mend it, or leave it empty"
            )


def _check_finite(values: pd.Series[Any]) -> None:
    infinite = np.isinf(as_floats(values))
    if infinite.any():
        raise PolysenseError(
            f"the column {values.name!r} is infinite in row {row_of(infinite, values)!r}: put a number there,"
            " or leave it empty"
        )


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
    return f"the column{'s' if len(names) > 1 else ''} {shown}"
