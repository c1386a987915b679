"""The errors that real tables have, put in on purpose, with the truth about which cells they touched."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError, unknown
from polysense.tabular.augmentation.draft import Draft, Seed, check_share, framed, names_of, taken
from polysense.tabular.augmentation.noise import spread
from polysense.tabular.augmentation.values import calculable, column_of, values_of
from polysense.tabular.columns import family
from polysense.tabular.schema import Schema

SLIPS = ((10, 0), (0.1, 0), (1000, 0), (0.001, 0), (2.54, 0), (1 / 2.54, 0), (1.8, 32), (1 / 1.8, -32 / 1.8))
"""Factor and offset of the units that are mistaken: tens, thousands, inches, degrees Fahrenheit."""

RUN = 20
"""How many rows a sensor is stuck for or a clock wrong, on average."""

DRIFT = 100
"""How many rows a sensor drifts for, on average."""

SHIFTS = (3600, -3600, 43_200, 86_400)
"""Seconds by which clocks are wrong: summer time, noon for midnight, the day after."""

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "1234567890")
NEIGHBOURS = {
    key: "".join(row[max(0, at - 1) : at] + row[at + 1 : at + 2])
    for row in _ROWS
    for at, key in enumerate(row)
}
"""The keys beside each key."""


def corrupt(
    frame: pd.DataFrame,
    *,
    times: int = 1,
    errors: Iterable[str] | None = None,
    share: float = 0.05,
    columns: Iterable[str] | None = None,
    label: str | None = None,
    bank: pd.DataFrame | None = None,
    schema: Schema | None = None,
    seed: Seed = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put errors into a table, each kind into about ``share`` of the cells of the columns it suits.

    ``typo``: a letter dropped, doubled, exchanged, in the other case, or the key beside it; in strings.
    ``level``: another known value; in categories, Booleans and ordinals. ``unit``: one wrong unit for each
    column. ``outlier``: 5 to 20 spreads off; in numbers. ``stuck``: the value held for a run of rows; in
    numbers. ``drift``: off by more and more during a run of rows, by 2 to 5 spreads at its end; in numbers.
    ``clock``: for runs of rows an hour off, twelve or a day, the same for each column; in dates.
    ``shuffled``: cells exchanged with those of other rows; in any column. ``swapped``: the cells of two
    columns exchanged in the same row; in one pair of columns of the same type. ``duplicated``: a row that is
    a copy of another, with its label.

    Args:
        frame: the rows; ``stuck``, ``drift`` and ``clock`` take them to be in the order of time.
        times: how many new rows for each.
        errors: which ones, by default all; one that suits no column is left out.
        share: of the cells, for each kind of error.
        columns: which may be corrupted, by default all but the label.
        label: the column that is the label; it is copied, but for rows that are duplicates of others.
        bank: where levels and spreads come from, by default ``frame``.
        schema: of the columns, by default inferred from the bank.
        seed: the same seed makes the same errors.

    Returns:
        The corrupted rows, and a frame of Booleans of the same shape: which cells are not what they were.

    Raises:
        PolysenseError: for an empty table, an unknown column or error, or when no error suits.

    >>> made, touched = corrupt(pd.DataFrame({"city": ["Bonn", "Rome", "Rome"]}), errors=["typo"], share=1)
    >>> (made.city != ["Bonn", "Rome", "Rome"]).equals(touched.city)
    True
    """
    check_share("share", share)
    draft = Draft(frame, times=times, label=label, bank=bank, schema=schema, seed=seed)
    wanted = [_error(name) for name in (ERRORS if errors is None else errors)]
    names = names_of(frame) if columns is None else draft.choose(columns)
    made = {name: taken(frame[name], draft.origin) for name in names}
    fits = [(error, error.fitting(draft.kinds, frame, names, label)) for error in wanted]
    if not any(found for _, found in fits):
        raise PolysenseError("no column suits any of these errors; choose others, or other columns")
    for error, found in fits:
        if found:
            made |= error.put(draft.rng, {name: made[name] for name in found}, share, draft.bank)
    touched = {name: np.zeros(len(draft), dtype=bool) for name in names_of(frame)}
    touched |= {name: differing(taken(frame[name], draft.origin), made[name]) for name in names}
    corrupted = draft.finish(made)
    return corrupted, framed(touched, corrupted.index)


def differing(before: pd.Series[Any], after: pd.Series[Any]) -> NDArray[np.bool_]:
    """Which cells are not the same; two missing ones are.

    >>> differing(pd.Series([1.0, None, 2.0]), pd.Series([1.0, None, 3.0])).tolist()
    [False, False, True]
    """
    gone, now = before.isna().to_numpy(bool), after.isna().to_numpy(bool)
    equal = (before == after).fillna(False).to_numpy(bool)
    return ~(equal | (gone & now))


Columns: TypeAlias = "dict[str, pd.Series[Any]]"

Random = np.random.Generator


@dataclass(frozen=True)
class Error:
    """``put(rng, columns, share, bank)`` into the columns that ``suits(kinds, frame)``, labels or not."""

    suits: Callable[[Mapping[str, str], pd.DataFrame], list[str]]
    put: Callable[[Random, Columns, float, pd.DataFrame], Columns]
    labels: bool = False

    def fitting(
        self, kinds: Mapping[str, str], frame: pd.DataFrame, names: Iterable[str], label: str | None
    ) -> list[str]:
        """The columns among some that it may be put into."""
        return self.suits({name: kinds[name] for name in names if self.labels or name != label}, frame)


def in_each(
    suits: Callable[[str, pd.Series[Any]], bool],
    put: Callable[[Random, pd.Series[Any], float, pd.Series[Any]], pd.Series[Any]],
) -> Error:
    """An error that is put into each column by itself: ``put(rng, column, share, bank)``."""
    return Error(
        lambda kinds, frame: [name for name in kinds if suits(kinds[name], frame[name])],
        lambda rng, columns, share, bank: {
            name: put(rng, column, share, bank[name]) for name, column in columns.items()
        },
    )


def _error(name: str) -> Error:
    if name not in ERRORS:
        raise unknown("error", name, ERRORS)
    return ERRORS[name]


def _is_number(kind: str, column: pd.Series[Any]) -> bool:
    return kind in ("number", "integer") and calculable(column)


def _is_string(kind: str, column: pd.Series[Any]) -> bool:
    return family(column) == "string" and bool(column.notna().any())


def _is_date(kind: str, column: pd.Series[Any]) -> bool:
    return kind == "date" and calculable(column)


def _has_levels(kind: str, column: pd.Series[Any]) -> bool:
    return kind in ("category", "boolean", "ordinal")


def _in_pairs(kinds: Mapping[str, str], frame: pd.DataFrame) -> list[str]:
    """The columns that are not the only one of their type."""
    types = {name: frame[name].dtype for name, kind in kinds.items() if kind != "constant"}
    return [name for name, dtype in types.items() if list(types.values()).count(dtype) > 1]


def _typo(rng: Random, column: pd.Series[Any], share: float, bank: pd.Series[Any]) -> pd.Series[Any]:
    made = column.copy()
    cells = np.flatnonzero((rng.random(len(made)) < share) & made.notna().to_numpy(bool))
    made.iloc[cells] = [misspelt(str(cell), rng) for cell in made.iloc[cells]]
    return made


def misspelt(word: str, rng: np.random.Generator) -> str:
    """A word with one slip of the hand: a different word, unless it is empty.

    >>> misspelt("Bonn", np.random.default_rng(0))
    'Bonm'
    """
    if not word:
        return word
    at = int(rng.integers(len(word)))
    head, letter, tail = word[:at], word[at], word[at + 1 :]
    beside = NEIGHBOURS.get(letter.lower(), string.ascii_lowercase)
    key = beside[int(rng.integers(len(beside)))]
    key = key.upper() if letter.isupper() else key
    replaced = [
        letter.swapcase() + tail,
        letter + letter + tail,
        tail[:1] + letter + tail[1:],
        key + tail,
        tail,
    ]
    different = [head + slip for slip in replaced if head + slip not in ("", word)]
    return different[int(rng.integers(len(different)))]


def _level(rng: Random, column: pd.Series[Any], share: float, bank: pd.Series[Any]) -> pd.Series[Any]:
    levels = pd.Series(pd.factorize(bank, sort=True)[1])
    if len(levels) < 2:
        return column
    codes = pd.Index(levels).get_indexer(pd.Index(column))
    wrong = (codes + rng.integers(1, len(levels), len(column))) % len(levels)
    hit = (rng.random(len(column)) < share) & (codes >= 0)
    pool = pd.concat([column, levels.astype(column.dtype)], ignore_index=True)
    return taken(pool, np.where(hit, len(column) + wrong, np.arange(len(column))))


def _unit(rng: Random, column: pd.Series[Any], share: float, bank: pd.Series[Any]) -> pd.Series[Any]:
    factor, offset = SLIPS[int(rng.integers(len(SLIPS)))]
    cells = values_of(column)
    slipped = cells.numbers * (factor - 1.0) + offset
    return column_of(cells.moved(np.where(rng.random(len(column)) < share, slipped, 0.0)), column)


def _outlier(rng: Random, column: pd.Series[Any], share: float, bank: pd.Series[Any]) -> pd.Series[Any]:
    cells, size = values_of(column), rng.uniform(5, 20, len(column)) * rng.choice([-1, 1], len(column))
    hit = rng.random(len(column)) < share
    return column_of(cells.moved(np.where(hit, size * spread(values_of(bank).known()), 0.0)), column)


def _runs(rng: Random, rows: int, share: float, length: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """How far into a run each row is, -1 outside of one, and how long that is; runs make up about a share."""
    at, starts = np.arange(rows), rng.random(rows) < share / length
    first = np.maximum.accumulate(np.where(starts, at, 0))
    lengths = np.where(starts, rng.geometric(1 / length, rows), 0)[first]
    return np.where(at - first < lengths, at - first, -1), lengths


def _stuck(rng: Random, column: pd.Series[Any], share: float, bank: pd.Series[Any]) -> pd.Series[Any]:
    into, _ = _runs(rng, len(column), share, RUN)
    return taken(column, np.arange(len(column)) - np.maximum(into, 0))


def _drift(rng: Random, column: pd.Series[Any], share: float, bank: pd.Series[Any]) -> pd.Series[Any]:
    into, lengths = _runs(rng, len(column), share, DRIFT)
    first = np.arange(len(column)) - np.maximum(into, 0)
    ends = rng.uniform(2, 5, len(column)) * rng.choice([-1, 1], len(column)) * spread(values_of(bank).known())
    return column_of(values_of(column).moved((into + 1) / np.maximum(lengths, 1) * ends[first]), column)


def _clock(rng: Random, column: pd.Series[Any], share: float, bank: pd.Series[Any]) -> pd.Series[Any]:
    into, _ = _runs(rng, len(column), share, RUN)
    cells = values_of(column)
    ticks = np.array(SHIFTS) * max(1, cells.ticks)
    fitting = ticks[ticks % cells.step == 0]  # of dates without an hour, a day
    off = int(rng.choice(fitting)) if len(fitting) else cells.step
    return column_of(cells.moved(np.where(into >= 0, off, 0)), column)


def _shuffled(rng: Random, column: pd.Series[Any], share: float, bank: pd.Series[Any]) -> pd.Series[Any]:
    rows, hit = np.arange(len(column)), np.flatnonzero(rng.random(len(column)) < share)
    rows[hit] = rng.permutation(hit)
    return taken(column, rows)


def _swapped(rng: Random, columns: Columns, share: float, bank: pd.DataFrame) -> Columns:
    """Of one pair of columns, which is drawn."""
    names = list(columns)
    one = names[int(rng.integers(len(names)))]
    others = [name for name in names if name != one and columns[name].dtype == columns[one].dtype]
    other = others[int(rng.integers(len(others)))]
    rows = len(columns[one])
    pool = pd.concat([columns[one], columns[other]], ignore_index=True)
    hit = rng.random(rows) < share
    return {
        name: taken(pool, (np.arange(rows) + rows * np.where(hit, not first, first)))
        for name, first in ((one, 0), (other, 1))
    }


def _duplicated(rng: Random, columns: Columns, share: float, bank: pd.DataFrame) -> Columns:
    rows = np.arange(len(next(iter(columns.values()))))
    copied = np.where(rng.random(len(rows)) < share, rng.integers(len(rows), size=len(rows)), rows)
    return {name: taken(column, copied) for name, column in columns.items()}


ERRORS: dict[str, Error] = {
    "typo": in_each(_is_string, _typo),
    "level": in_each(_has_levels, _level),
    "unit": in_each(_is_number, _unit),
    "outlier": in_each(_is_number, _outlier),
    "stuck": in_each(_is_number, _stuck),
    "drift": in_each(_is_number, _drift),
    "clock": in_each(_is_date, _clock),
    "shuffled": in_each(lambda kind, column: kind != "constant", _shuffled),
    "swapped": Error(_in_pairs, _swapped),
    "duplicated": Error(lambda kinds, frame: list(kinds), _duplicated, labels=True),
}
"""The errors that :func:`corrupt` knows."""
