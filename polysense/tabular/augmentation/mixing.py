"""Rows between two rows: mixup and CutMix, with their labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError, unknown
from polysense.tabular.augmentation.draft import Draft, Seed, check_share, framed, taken
from polysense.tabular.augmentation.values import Array, Values, calculable, column_of, is_quantity
from polysense.tabular.schema import Schema

Gaps = Literal["keep", "other", "propagate"]
LabelAs = Literal["drawn", "soft", "mixed"]

MOST_CLASSES = 1000
"""Soft labels are one column for each class; more of them are refused."""


def mixup(
    frame: pd.DataFrame,
    *,
    times: int = 1,
    alpha: float = 0.2,
    gaps: Gaps = "keep",
    label: str | None = None,
    label_as: LabelAs | None = None,
    within: str | None = None,
    bank: pd.DataFrame | None = None,
    schema: Schema | None = None,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Mix each row with a random partner: ``λ·row + (1 − λ)·partner``, ``λ ~ Beta(α, α)``, one for each row.

    Integers are rounded, halves away from zero, also those that are kept as floats; dates are mixed in ticks
    and keep to the step they come in (hours, days); of anything else the row's value is kept with
    probability λ, column by column. Constants, identifiers and text are copied.

    Args:
        frame: the rows.
        times: how many new rows for each.
        alpha: of the Beta distribution.
        gaps: what comes of a pair in which one cell is missing: keep the row's, take the other (the known
            one), or propagate the gap.
        label: the column that is the label.
        label_as: drawn (one of the two labels, the row's with probability λ; the default for classes), soft
            (a probability for each class, in columns ``label=class``), or mixed (the default for decimals,
            dates, and integers of more than 20 values).
        within: a column in which partners are equal, such as the label.
        bank: where partners come from, by default ``frame``.
        schema: of the columns, by default inferred from the bank.
        seed: the same seed makes the same rows.

    Raises:
        PolysenseError: for an empty table, an unknown column or option, or classes that cannot be mixed.

    Paper: https://arxiv.org/abs/1710.09412

    >>> mixup(pd.DataFrame({"n": [0, 10, 20], "x": [0.5, 1.5, 2.5]}), alpha=1.0, seed=1)
        n         x
    0   6  1.075831
    1  10  1.500000
    2  20  2.500000
    """
    if alpha <= 0:
        raise PolysenseError(f"alpha is {alpha:g}, but a Beta distribution needs one above 0")
    draft = Draft(frame, times=times, label=label, bank=bank, schema=schema, seed=seed)
    partner, weight = draft.partners(within), draft.rng.beta(alpha, alpha, len(draft))
    columns = {name: _mixed(draft, name, partner, weight, gaps) for name in draft.changeable}
    return _finish(draft, columns, partner, weight, label_as)


def cutmix(
    frame: pd.DataFrame,
    *,
    times: int = 1,
    share: float = 0.3,
    span: bool = False,
    label: str | None = None,
    label_as: LabelAs | None = None,
    within: str | None = None,
    bank: pd.DataFrame | None = None,
    schema: Schema | None = None,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Replace a share of each row's cells by those of one partner, which keeps them consistent.

    Args:
        frame: the rows.
        times: how many new rows for each.
        share: of the cells, each by a coin of its own.
        span: replace neighbouring columns instead, that share of them.
        label: the column that is the label; it is mixed by the share of columns kept.
        label_as: as in :func:`mixup`.
        within: a column in which partners are equal.
        bank: where partners come from, by default ``frame``.
        schema: of the columns, by default inferred from the bank.
        seed: the same seed makes the same rows.

    Raises:
        PolysenseError: for an empty table, an unknown column or option, or classes that cannot be mixed.

    Paper: https://arxiv.org/abs/1905.04899, for tables https://arxiv.org/abs/2106.01342

    >>> cutmix(pd.DataFrame({"n": [0, 10], "city": ["Bonn", "Rome"]}), share=0.5, seed=2)
        n  city
    0  10  Rome
    1  10  Rome
    """
    check_share("share", share)
    draft = Draft(frame, times=times, label=label, bank=bank, schema=schema, seed=seed)
    names, partner = draft.changeable, draft.partners(within)
    start = draft.rng.integers(len(names), size=len(draft)) if span else None
    columns, replaced = {}, np.zeros(len(draft))
    for at, name in enumerate(names):
        if start is not None:
            cut = (at - start) % len(names) < round(share * len(names))
        else:
            cut = draft.rng.random(len(draft)) < share
        columns[name] = taken(draft.pool(name), np.where(cut, partner, draft.origin))
        replaced += cut
    return _finish(draft, columns, partner, 1 - replaced / len(names), label_as)


def between(mine: Values, theirs: Values, weight: Array, step: int = 1) -> Values:
    """``weight·mine + (1 − weight)·theirs``, inside of the pair; whole numbers keep to ``step``."""
    gap = theirs.numbers - mine.numbers
    low, high = np.minimum(mine.numbers, theirs.numbers), np.maximum(mine.numbers, theirs.numbers)
    return mine.moved((1 - weight) * gap, step).clipped(low, high)


def _mixed(draft: Draft, name: str, partner: Array, weight: Array, gaps: Gaps) -> pd.Series[Any]:
    """One column of the mixed rows."""
    pool = draft.pool(name)
    missing = pool.isna().to_numpy(dtype=bool)
    ours, other = missing[draft.origin], missing[partner]
    swap = _settled(ours, other, gaps)
    if draft.calculated(name):
        values = draft.values(name, pool)
        mixed = between(values.take(draft.origin), values.take(partner), weight, values.step)
        chosen = values.take(np.where(swap, partner, draft.origin))
        unclear = ours | other
        numbers = np.where(unclear, chosen.numbers, mixed.numbers)
        return column_of(Values(numbers, unclear & chosen.missing, values.ticks), pool)
    swap = np.where(ours | other, swap, draft.rng.random(len(draft)) >= weight)
    return taken(pool, np.where(swap, partner, draft.origin))


def _settled(ours: Array, other: Array, gaps: Gaps) -> NDArray[np.bool_]:
    """Whether a pair with a gap takes the partner's cell."""
    rules = {"keep": np.zeros_like(ours), "other": ours & ~other, "propagate": ~ours & other}
    if gaps not in rules:
        raise unknown("way to treat gaps", gaps, rules)
    return rules[gaps]


def _finish(
    draft: Draft, columns: dict[str, Any], partner: Array, weight: Array, label_as: LabelAs | None
) -> pd.DataFrame:
    """The rows with their label, as the column that it is or as one for each class."""
    if draft.label is None:
        return draft.finish(columns)
    pool = draft.pool(draft.label)
    label_as = label_as or ("mixed" if is_quantity(pool) else "drawn")
    if label_as == "mixed":
        return draft.finish({**columns, draft.label: _mixed_label(draft, draft.label, partner, weight)})
    if label_as == "drawn":
        mine = draft.rng.random(len(draft)) < weight
        return draft.finish({**columns, draft.label: taken(pool, np.where(mine, draft.origin, partner))})
    if label_as == "soft":
        made = draft.finish(columns).drop(columns=draft.label)
        codes, classes = pd.factorize(pool, sort=True)
        shares = _shares(draft.label, classes, codes[draft.origin], codes[partner], weight)
        return pd.concat([made, framed(shares, made.index)], axis=1)
    raise unknown("kind of label", label_as, ("drawn", "soft", "mixed"))


def _mixed_label(draft: Draft, label: str, partner: Array, weight: Array) -> pd.Series[Any]:
    pool = draft.pool(label)
    if not calculable(pool):
        raise PolysenseError(
            f"the label {label!r} holds classes, and no cell holds two of them: ask for label_as='soft', a"
            " column of probabilities for each class, or 'drawn'"
        )
    values = draft.values(label, pool)
    mine, theirs = values.take(draft.origin), values.take(partner)
    mixed = between(mine, theirs, weight, values.step)
    return column_of(replace(mixed, missing=mine.missing | theirs.missing), pool)


def softened(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    """A frame with its label as one column for each class, ``label=class``, of ones and zeros.

    >>> softened(pd.DataFrame({"x": [1, 2], "kind": ["a", "b"]}), "kind")
       x  kind=a  kind=b
    0  1     1.0     0.0
    1  2     0.0     1.0
    """
    codes, classes = pd.factorize(frame[label], sort=True)
    shares = _shares(label, classes, codes, codes, np.ones(len(frame)))
    return pd.concat([frame.drop(columns=label), framed(shares, frame.index)], axis=1)


def _shares(label: str, classes: Any, mine: Array, theirs: Array, weight: Array) -> dict[str, Array]:
    """Each class's share of two labels, given as codes; missing where a label is."""
    if len(classes) > MOST_CLASSES:
        raise PolysenseError(
            f"the label {label!r} has {len(classes):,} values, too many for soft labels; ask for"
            " label_as='drawn' or 'mixed'"
        )
    known = np.where((mine < 0) | (theirs < 0), np.nan, 1.0)
    return {
        f"{label}={name}": known * (weight * (mine == at) + (1 - weight) * (theirs == at))
        for at, name in enumerate(classes)
    }
