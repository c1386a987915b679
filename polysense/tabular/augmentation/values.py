"""Cells as numbers to calculate with, and back into a column of the same dtype."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[Any]

_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""How many of a unit make a second."""

FEW = 20
"""Integers of so many different values are classes, when they are a label."""

_STEPS = (86400, 3600, 60, 1)
"""Seconds in a day, an hour, a minute and a second: the steps that dates may come in."""


@dataclass(frozen=True)
class Values:
    """The cells of a column of numbers, dates or durations.

    ``numbers`` are float64, or int64 for integers, dates and durations (in ticks of the column's unit), so
    that nothing is lost; those of missing cells mean nothing. Of dates and durations, ``ticks`` make a
    second.
    """

    numbers: Array
    missing: NDArray[np.bool_]
    ticks: int = 0

    @property
    def whole(self) -> bool:
        """Whether the numbers are integers."""
        return self.numbers.dtype.kind == "i"

    @property
    def step(self) -> int:
        """The longest of a day, an hour, a minute and a second that all dates are multiples of, in ticks.

        One tick where there is none, and for integers.
        """
        if self.ticks:
            known = self.numbers[~self.missing]
            for step in (seconds * self.ticks for seconds in _STEPS):
                if not (known[:1000] % step).any() and not (known % step).any():
                    return step
        return 1

    def known(self) -> NDArray[np.float64]:
        """The numbers of the cells that are there."""
        return self.numbers[~self.missing].astype(float)

    def take(self, rows: Array) -> Values:
        """The cells of some rows."""
        return replace(self, numbers=self.numbers[rows], missing=self.missing[rows])

    def moved(self, by: Array, step: int = 1) -> Values:
        """The numbers plus ``by``; whole ones rounded to steps, halves away from zero.

        >>> Values(np.array([2, -2]), np.zeros(2, bool)).moved(np.array([0.5, -0.5])).numbers
        array([ 3, -3])
        """
        if not self.whole:
            return replace(self, numbers=self.numbers + by)
        by = np.nan_to_num(by / step, posinf=0.0, neginf=0.0)
        positive = self.numbers / step + by >= 0
        rounded = np.where(positive, np.floor(by + 0.5), np.ceil(by - 0.5))
        return replace(self, numbers=self.numbers + rounded.astype(np.int64) * step)

    def clipped(self, low: Any, high: Any) -> Values:
        """The numbers between two bounds, each a number or an array."""
        return replace(self, numbers=np.clip(self.numbers, low, high).astype(self.numbers.dtype))


def calculable(column: pd.Series[Any]) -> bool:
    """Whether a column holds numbers, dates or durations; Booleans are none.

    >>> calculable(pd.Series([1, 2])), calculable(pd.Series(["a", "b"])), calculable(pd.Series([True]))
    (True, False, False)
    """
    dtype = cast(Any, column.dtype)
    return getattr(dtype, "kind", "O") in "iufmM" and not isinstance(dtype, pd.PeriodDtype | pd.SparseDtype)


def is_quantity(column: pd.Series[Any]) -> bool:
    """Whether a label is a quantity and no class: decimals, dates, or integers of more than 20 values.

    >>> is_quantity(pd.Series([0.5, 1.5])), is_quantity(pd.Series([0, 1])), is_quantity(pd.Series(range(99)))
    (True, False, True)
    """
    if not calculable(column):
        return False
    whole = cast(Any, column.dtype).kind in "iu"
    return not whole or column.nunique() > FEW


def values_of(column: pd.Series[Any], *, whole: bool = False) -> Values:
    """The cells of a column that is :func:`calculable`; ``whole`` for integers that are kept as floats.

    >>> values_of(pd.Series([1, None], dtype="Int8"))
    Values(numbers=array([1, 0]), missing=array([False,  True]), ticks=0)
    """
    dtype, missing = cast(Any, column.dtype), column.isna().to_numpy(dtype=bool)
    if dtype.kind == "f":
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
        return Values(np.where(missing, 0, numbers).astype(np.int64) if whole else numbers, missing)
    if dtype.kind in "iu":
        return Values(
            column.to_numpy(dtype=np.int64, na_value=0) if missing.any() else column.to_numpy(np.int64),
            missing,
        )
    if isinstance(dtype, pd.ArrowDtype):
        return _from_arrow(column, missing)
    ticks = np.where(missing, 0, cast(Any, pd.Index(column)).asi8)
    return Values(ticks, missing, _TICKS[_unit(dtype)])


def column_of(values: Values, like: pd.Series[Any]) -> pd.Series[Any]:
    """A column of the dtype of ``like``; numbers that it cannot hold become the nearest that it can.

    >>> column_of(Values(np.array([300, 0]), np.array([False, True])), pd.Series([1], dtype="UInt8"))
    0     255
    1    <NA>
    dtype: UInt8
    """
    dtype, numbers, missing = cast(Any, like.dtype), values.numbers, values.missing
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype.numpy_dtype if hasattr(dtype, "numpy_dtype") else dtype)
        numbers = np.clip(numbers, max(bounds.min, -(2**63)), min(bounds.max, 2**63 - 1))
    if isinstance(dtype, pd.ArrowDtype):
        return _to_arrow(numbers, missing, dtype)
    if dtype.kind in "mM":
        stamps = np.where(missing, np.iinfo(np.int64).min, numbers).view(f"{dtype.kind}8[{_unit(dtype)}]")
        zone = getattr(dtype, "tz", None)
        plain = pd.Series(stamps)
        return plain.dt.tz_localize("UTC").dt.tz_convert(zone) if zone is not None else plain
    if isinstance(dtype, np.dtype):
        with np.errstate(over="ignore"):
            return pd.Series(
                np.where(missing, np.nan, numbers).astype(dtype)
                if dtype.kind == "f"
                else numbers.astype(dtype)
            )
    masked = pd.array(numbers.astype(dtype.numpy_dtype), dtype=dtype)
    masked[missing] = pd.NA
    return pd.Series(masked)


def _unit(dtype: Any) -> str:
    """The unit of NumPy's or pandas' dates and durations."""
    return str(getattr(dtype, "unit", None) or np.datetime_data(dtype)[0])


def _from_arrow(column: pd.Series[Any], missing: Array) -> Values:
    import pyarrow as pa

    cells = pa.array(column)
    if pa.types.is_date32(cells.type):  # in days
        return Values(cells.cast(pa.int32()).fill_null(0).to_numpy().astype(np.int64), missing)
    unit = getattr(cells.type, "unit", "ms")
    return Values(cells.cast(pa.int64()).fill_null(0).to_numpy(), missing, _TICKS[unit])


def _to_arrow(numbers: Array, missing: Array, dtype: pd.ArrowDtype) -> pd.Series[Any]:
    import pyarrow as pa

    kind = dtype.pyarrow_dtype
    cells = pa.array(numbers, mask=missing)
    if pa.types.is_date32(kind):
        cells = cells.cast(pa.int32())
    return pd.Series(pd.arrays.ArrowExtensionArray(cells.cast(kind, safe=False)))
