"""Columns of any type that pandas has (NumPy's, nullable, Arrow's) as one of five families of values."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from polysense.errors import PolysenseError

Family = Literal["number", "boolean", "date", "category", "string"]

_INFERRED: dict[str, Family] = {
    "string": "string",
    "boolean": "boolean",
    "integer": "number",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
    "date": "date",
    "datetime": "date",
    "datetime64": "date",
    "timedelta": "number",
    "timedelta64": "number",
    "empty": "string",
}
"""What pandas finds in a column of Python objects, and the family that it is."""


def family(values: pd.Series[Any]) -> Family:
    """The family of a column's values, by its type or, for Python objects, by what they are.

    Lengths of time are numbers, of seconds.

    Raises:
        PolysenseError: naming column and row, for mixed types and for values that are no cells (lists).

    >>> family(pd.Series([1, None], dtype="Int64")), family(pd.Series(["a"], dtype="category"))
    ('number', 'category')
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        return "category"
    if types.is_bool_dtype(values):
        return "boolean"
    if types.is_numeric_dtype(values) and not types.is_complex_dtype(values):
        return "number"
    if types.is_datetime64_any_dtype(values):
        return "date"
    if types.is_string_dtype(values) and not types.is_object_dtype(values):
        return "string"
    found = _INFERRED.get(types.infer_dtype(values, skipna=True))
    if found is None:
        raise _no_family(values)
    return found


def as_floats(values: pd.Series[Any]) -> NDArray[np.float64]:
    """A column of numbers as float64, NaN where it has none; lengths of time in seconds.

    >>> as_floats(pd.Series([1, None], dtype="Int64")).tolist()
    [1.0, nan]
    """
    if types.infer_dtype(values, skipna=True).startswith("timedelta"):
        values = pd.to_timedelta(values).dt.total_seconds()
    numbers: NDArray[np.float64] = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def as_dates(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column of dates as UTC microseconds without a zone; those without one are taken as they are."""
    dates = pd.to_datetime(values)
    if dates.dt.tz is not None:
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    return dates.astype("datetime64[us]")


def plain_value(value: Any) -> Any:
    """A cell as a value that JSON knows: a boolean, a number, or else a string."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, bool | int | float | str) else str(value)


def row_of(mask: Any, values: pd.Series[Any]) -> Any:
    """The label of the first row that is True in a mask."""
    return plain_value(values.index[int(np.argmax(np.asarray(mask, dtype=bool)))])


def row_where(mask: Any, values: pd.Series[Any]) -> str:
    """The first row that is True in a mask and what it holds, in words: "row 3 holds 'Awful'"."""
    mask = pd.Series(mask).fillna(False).to_numpy(dtype=bool)
    value = plain_value(values.iloc[int(np.argmax(mask))])
    return f"row {row_of(mask, values)!r} holds {value!r}"


def _no_family(values: pd.Series[Any]) -> PolysenseError:
    """The error for a column of mixed values, with the first two that differ."""
    known = values.dropna()
    if known.empty:
        return PolysenseError(f"the column {values.name!r} is of the type {values.dtype}, which is not read")
    first = type(known.iloc[0])
    other = known.map(lambda value: type(value) is not first)
    if not other.any():
        return PolysenseError(
            f"the column {values.name!r} holds {first.__name__} values in its cells; give numbers, strings,"
            " booleans or dates"
        )
    return PolysenseError(
        f"the column {values.name!r} mixes types: {row_where(other, known)} among {first.__name__} values;"
        " convert it to one type"
    )
