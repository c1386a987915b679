"""The errors that real tables have, put in on purpose, with the truth about which cells they touched."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

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
"""How many rows a sensor is stuck for, on average."""

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
    numbers. ``shuffled``: cells exchanged with those of other rows; in any
    column.

    Args:
        frame: the rows; ``stuck`` takes them to be in the order of time.
        times: how many new rows for each.
        errors: which ones, by default all; one that suits no column is left out.
        share: of the cells, for each kind of error.
        columns: which may be corrupted, by default all but the label.
        label: the column that is the label; it is copied.
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
    names = [name for name in names_of(frame) if name != label] if columns is None else draft.choose(columns)
    if not any(error.suits(draft.kinds[name], frame[name]) for error in wanted for name in names):
        raise PolysenseError("no column suits any of these errors; choose others, or other columns")
    made, touched = {}, {name: np.zeros(len(draft), dtype=bool) for name in names_of(frame)}
    for name in names:
        before = made[name] = taken(frame[name], draft.origin)
        for error in wanted:
            if error.suits(draft.kinds[name], frame[name]):
                made[name] = error.put(draft.rng, made[name], share, draft.bank[name])
        touched[name] = differing(before, made[name])
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


@dataclass(frozen=True)
class Error:
    """``put(rng, column, share, bank)`` into a column that ``suits(kind, column)``."""

    suits: Callable[[str, pd.Series[Any]], bool]
    put: Callable[[np.random.Generator, pd.Series[Any], float, pd.Series[Any]], pd.Series[Any]]


def _error(name: str) -> Error:
    if name not in ERRORS:
        raise unknown("error", name, ERRORS)
    return ERRORS[name]


def _is_number(kind: str, column: pd.Series[Any]) -> bool:
    return kind in ("number", "integer") and calculable(column)


def _is_string(kind: str, column: pd.Series[Any]) -> bool:
    return family(column) == "string" and bool(column.notna().any())


def _has_levels(kind: str, column: pd.Series[Any]) -> bool:
    return kind in ("category", "boolean", "ordinal")


def _typo(
    rng: np.random.Generator, column: pd.Series[Any], share: float, bank: pd.Series[Any]
) -> pd.Series[Any]:
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


def _level(
    rng: np.random.Generator, column: pd.Series[Any], share: float, bank: pd.Series[Any]
) -> pd.Series[Any]:
    levels = pd.Series(pd.factorize(bank, sort=True)[1])
    if len(levels) < 2:
        return column
    codes = pd.Index(levels).get_indexer(pd.Index(column))
    wrong = (codes + rng.integers(1, len(levels), len(column))) % len(levels)
    hit = (rng.random(len(column)) < share) & (codes >= 0)
    pool = pd.concat([column, levels.astype(column.dtype)], ignore_index=True)
    return taken(pool, np.where(hit, len(column) + wrong, np.arange(len(column))))


def _unit(
    rng: np.random.Generator, column: pd.Series[Any], share: float, bank: pd.Series[Any]
) -> pd.Series[Any]:
    factor, offset = SLIPS[int(rng.integers(len(SLIPS)))]
    cells = values_of(column)
    slipped = cells.numbers * (factor - 1.0) + offset
    return column_of(cells.moved(np.where(rng.random(len(column)) < share, slipped, 0.0)), column)


def _outlier(
    rng: np.random.Generator, column: pd.Series[Any], share: float, bank: pd.Series[Any]
) -> pd.Series[Any]:
    cells, size = values_of(column), rng.uniform(5, 20, len(column)) * rng.choice([-1, 1], len(column))
    hit = rng.random(len(column)) < share
    return column_of(cells.moved(np.where(hit, size * spread(values_of(bank).known()), 0.0)), column)


def _stuck(
    rng: np.random.Generator, column: pd.Series[Any], share: float, bank: pd.Series[Any]
) -> pd.Series[Any]:
    rows = np.arange(len(column))
    starts = rng.random(len(column)) < share / RUN
    last = np.maximum.accumulate(np.where(starts, rows, 0))
    end = np.where(starts, rows + rng.geometric(1 / RUN, len(column)), 0)
    return taken(column, np.where(rows < end[last], last, rows))


def _shuffled(
    rng: np.random.Generator, column: pd.Series[Any], share: float, bank: pd.Series[Any]
) -> pd.Series[Any]:
    rows, hit = np.arange(len(column)), np.flatnonzero(rng.random(len(column)) < share)
    rows[hit] = rng.permutation(hit)
    return taken(column, rows)


ERRORS: dict[str, Error] = {
    "typo": Error(_is_string, _typo),
    "level": Error(_has_levels, _level),
    "unit": Error(_is_number, _unit),
    "outlier": Error(_is_number, _outlier),
    "stuck": Error(_is_number, _stuck),
    "shuffled": Error(lambda kind, column: kind != "constant", _shuffled),
}
"""The errors that :func:`corrupt` knows."""
