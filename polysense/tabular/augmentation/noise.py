"""Noise in single cells: values of other rows, and Gaussian noise on numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from polysense.errors import PolysenseError
from polysense.tabular.augmentation.draft import Draft, Seed, check_share, taken
from polysense.tabular.augmentation.values import Array, Values, column_of
from polysense.tabular.schema import Schema

NORMAL_IQR = 1.349
"""The interquartile range of a standard normal distribution."""


def swap(
    frame: pd.DataFrame,
    *,
    times: int = 1,
    share: float = 0.15,
    columns: Iterable[str] | None = None,
    label: str | None = None,
    within: str | None = None,
    bank: pd.DataFrame | None = None,
    schema: Schema | None = None,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Replace a share of the cells, each by its column's cell of a random row of its own.

    Every column keeps its distribution, missing cells included; what ties columns together is loosened.

    Args:
        frame: the rows.
        times: how many new rows for each.
        share: of the cells.
        columns: which ones, by default all but constants, identifiers, text and the label.
        label: the column that is the label; it is copied.
        within: a column in which both rows are equal.
        bank: where cells come from, by default ``frame``.
        schema: of the columns, by default inferred from the bank.
        seed: the same seed makes the same rows.

    Raises:
        PolysenseError: for an empty table, an unknown column, or a share outside of 0 to 1.

    >>> swap(pd.DataFrame({"n": [1, 2, 3], "city": ["Bonn", "Rome", "Rome"]}), share=0.5, seed=0)
       n  city
    0  1  Bonn
    1  1  Rome
    2  1  Rome
    """
    check_share("share", share)
    draft = Draft(frame, times=times, label=label, bank=bank, schema=schema, seed=seed)

    def swapped(name: str) -> pd.Series[Any]:
        kept = draft.rng.random(len(draft)) >= share
        return taken(draft.pool(name), np.where(kept, draft.origin, draft.partners(within)))

    return draft.finish({name: swapped(name) for name in draft.choose(columns)})


def gaussian(
    frame: pd.DataFrame,
    *,
    times: int = 1,
    scale: float = 0.1,
    columns: Iterable[str] | None = None,
    log: Iterable[str] = (),
    clip: bool = True,
    label: str | None = None,
    bank: pd.DataFrame | None = None,
    schema: Schema | None = None,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Add Gaussian noise to numbers and dates, of ``scale`` times the spread of their column.

    The spread is ``(q75 − q25) / 1.349``, that of a normal distribution with these quartiles, so that an
    outlier does not inflate it; where that is 0, the standard deviation. Integers are rounded, dates keep
    to the step they come in.

    Args:
        frame: the rows.
        times: how many new rows for each.
        scale: of the noise.
        columns: which ones, by default all numbers and dates but the label.
        log: columns of positive numbers whose logarithm gets the noise: skewed ones.
        clip: stay within the range that the bank holds.
        label: the column that is the label; it is copied.
        bank: what the spread and the range are of, by default ``frame``.
        schema: of the columns, by default inferred from the bank.
        seed: the same seed makes the same rows.

    Raises:
        PolysenseError: for an empty table, an unknown column, or one without numbers.

    >>> gaussian(pd.DataFrame({"n": [10, 20, 30], "x": [0.5, 1.5, 2.5]}), seed=0)
        n         x
    0  10  0.507776
    1  20  1.460291
    2  30  2.500000
    """
    if not (np.isfinite(scale) and scale >= 0):
        raise PolysenseError(f"scale is {scale:g}, but noise needs one of 0 or more")
    draft = Draft(frame, times=times, label=label, bank=bank, schema=schema, seed=seed)
    if columns is None:
        columns = [name for name in draft.changeable if draft.calculated(name)]
    logarithmic = set(draft.choose(log))
    made = {}
    for name in draft.choose(columns):
        if not draft.calculated(name):
            raise PolysenseError(
                f"column {name!r} is of kind {draft.kinds[name]}, and noise is added to numbers"
            )
        made[name] = _noisy(draft, name, scale, clip, name in logarithmic)
    return draft.finish(made)


def spread(numbers: Array) -> float:
    """The standard deviation that a normal distribution with the same quartiles has; else the one there is.

    >>> float(spread(np.array([0.0, 0.0, 0.0, 0.0, 5.0])))
    2.0
    """
    if not len(numbers):
        return 0.0
    low, high = np.quantile(numbers, [0.25, 0.75])
    return float((high - low) / NORMAL_IQR or numbers.std())


def _noisy(draft: Draft, name: str, scale: float, clip: bool, log: bool) -> pd.Series[Any]:
    """One column with its noise."""
    cells, bank = draft.values(name, draft.frame[name]), draft.values(name, draft.bank[name])
    known = bank.known()
    if log and not ((known > 0).all() and (cells.known() > 0).all()):
        raise PolysenseError(f"column {name!r} holds numbers of 0 or less, which have no logarithm")
    noise = scale * spread(np.log(known) if log else known) * draft.rng.standard_normal(len(draft))
    origin = cells.take(draft.origin)
    moved = origin.moved(origin.numbers * np.expm1(noise) if log else noise, bank.step)
    if clip and len(known):
        seen = bank.numbers[~bank.missing]
        moved = moved.clipped(seen.min(), seen.max())
    return column_of(Values(moved.numbers, origin.missing, cells.ticks), draft.frame[name])
