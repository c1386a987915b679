"""Augmentations by name, from any table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from polysense.errors import PolysenseError, unknown
from polysense.tabular.augmentation.corruption import corrupt
from polysense.tabular.augmentation.draft import Seed, check_table, framed, names_of
from polysense.tabular.augmentation.missing import hide
from polysense.tabular.augmentation.mixing import cutmix, mixup, softened
from polysense.tabular.augmentation.noise import gaussian, swap
from polysense.tabular.augmentation.oversample import oversample
from polysense.tabular.reading import to_frame

HOWS: dict[str, Callable[..., Any]] = {
    "mixup": mixup,
    "cutmix": cutmix,
    "swap": swap,
    "gaussian": gaussian,
    "missing": hide,
    "corrupt": corrupt,
    "oversample": oversample,
}
"""What :func:`augment` knows, each a function with options of its own."""

COMMON = ("frame", "times", "label", "seed")
"""What all of them take, and is not asked for among their options."""


def augment(
    data: Any,
    how: str,
    *,
    times: int = 1,
    keep: bool = False,
    label: str | None = None,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """New rows made from a table's: the same columns, in the same order, of the same types.

    Numbers, dates, classes and gaps are each treated as what they are; constants, identifiers and text are
    copied. A plain index counts on; of any other, new rows carry the index of the row that they start from.
    Only where a column must be able to hold a gap does its type change, which is told, and soft labels are
    a column for each class.

    Args:
        data: a DataFrame (pandas or polars), an Arrow table, a CSV, TSV, Parquet or JSONL file, or a
            built-in table.
        how: mixup, cutmix, swap, gaussian, missing, corrupt or oversample.
        times: how many new rows for each; oversample makes as many as a class lacks.
        keep: put the rows of ``data`` first.
        label: the column that is the label: mixed by mixup and cutmix, else copied.
        seed: the same seed makes the same rows.
        options: of :func:`mixup`, :func:`cutmix`, :func:`swap`, :func:`gaussian`, :func:`hide`,
            :func:`corrupt` or :func:`oversample`.

    Raises:
        PolysenseError: for a table that is none, an unknown way or option, and what the ways refuse.

    >>> table = pd.DataFrame({"n": [1, 5, 9], "city": ["Bonn", "Rome", "Rome"]})
    >>> more = augment(table, "mixup", times=2, keep=True)
    >>> len(more), more.dtypes.equals(table.dtypes)
    (9, True)
    """
    frame = to_frame(data, least=1)
    check_table(frame)
    made = apply(frame, how, times=times, label=label, seed=seed, **options)
    return below(frame, made, label) if keep else made


def apply(
    frame: pd.DataFrame,
    how: str,
    *,
    times: int = 1,
    label: str | None = None,
    seed: Seed = 0,
    **options: Any,
) -> pd.DataFrame:
    """The new rows that one of :data:`HOWS` makes, its options checked by name."""
    check_options(how, options)
    if how == "oversample":
        if times != 1:
            raise PolysenseError("oversample makes as many rows as a class lacks: ask for more with to=")
        if label is None:
            raise PolysenseError("oversample balances classes: name the column that holds them as label")
        return oversample(frame, label=label, seed=seed, **options)
    made = HOWS[how](frame, times=times, label=label, seed=seed, **options)
    rows: pd.DataFrame = made[0] if isinstance(made, tuple) else made
    return rows


def check_options(how: str, options: Iterable[str]) -> None:
    """Refuse a way or an option that does not exist, with the nearest that do."""
    if how not in HOWS:
        raise unknown("way to augment", how, HOWS)
    known = [name for name in inspect.signature(HOWS[how]).parameters if name not in COMMON]
    for name in options:
        if name not in known:
            raise unknown(f"option of {how}", name, known)


def below(frame: pd.DataFrame, made: pd.DataFrame, label: str | None) -> pd.DataFrame:
    """The rows of ``frame`` and below them those made from it, column by column."""
    if label is not None and label not in made:
        frame = softened(frame, label)
    plain = isinstance(frame.index, pd.RangeIndex)
    index = pd.RangeIndex(len(frame) + len(made)) if plain else frame.index.append(made.index)
    cells = {name: pd.concat([frame[name], made.pop(name)], ignore_index=True) for name in names_of(frame)}
    return framed(cells, index)
