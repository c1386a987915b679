"""Holes: cells hidden completely at random, at random given other columns, or not at random."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError, unknown
from polysense.tabular.augmentation.draft import Draft, Seed, check_share, names_of, taken
from polysense.tabular.augmentation.values import Array, calculable, values_of
from polysense.tabular.schema import Schema

Mechanism = Literal["mcar", "mar", "mnar"]
OnInt = Literal["nullable", "float", "error"]

logger = logging.getLogger(__name__)


def hide(
    frame: pd.DataFrame,
    *,
    times: int = 1,
    mechanism: Mechanism = "mcar",
    rate: float = 0.2,
    columns: Iterable[str] | None = None,
    strength: float = 2.0,
    on_int: OnInt = "nullable",
    label: str | None = None,
    bank: pd.DataFrame | None = None,
    schema: Schema | None = None,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Hide cells, each with a probability whose mean over the rows is ``rate``.

    ``mcar``: the same for all. ``mar``: ``σ(a + strength·w·z)``, where z are the standardised cells of the
    columns that stay complete. ``mnar``: ``σ(a + strength·z)`` of the cell itself, larger ones rather than
    smaller. ``a`` is found numerically. Classes stand in by a random score each. A cell that z needs and
    that is missing counts as average.

    Integers and Booleans of NumPy know no missing cells: their columns become nullable, which is told.

    Args:
        frame: the rows.
        times: how many new rows for each.
        mechanism: mcar, mar or mnar.
        rate: the share of cells to hide in each column that gets holes.
        columns: which get holes; by default all but the label, under mar a random half of them.
        strength: how much the values matter under mar and mnar; 0 is mcar.
        on_int: what becomes of integers and Booleans of NumPy: nullable, float, or error.
        label: the column that is the label; it is never hidden.
        bank: what values are standardised by, by default ``frame``.
        schema: of the columns, by default inferred from the bank.
        seed: the same seed hides the same cells.

    Raises:
        PolysenseError: for an empty table, an unknown column or mechanism, or where no column is left for
            mar to depend on.

    Paper: Rubin, Inference and Missing Data (1976), https://doi.org/10.1093/biomet/63.3.581

    >>> hide(pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]}), rate=0.5, seed=1).x.tolist()
    [1.0, 2.0, nan, 4.0]
    """
    check_share("rate", rate)
    draft = Draft(frame, times=times, label=label, bank=bank, schema=schema, seed=seed)
    able = [name for name in names_of(frame) if name != label]
    holed, complete = _roles(draft, mechanism, None if columns is None else draft.choose(columns), able)
    columns_nullable = {name: nullable(frame[name], on_int) for name in holed}
    told = [str(name) for name in holed if columns_nullable[name].dtype != frame[name].dtype]
    if told:
        logger.warning("made nullable, so that cells can be missing: %s", ", ".join(told))
    shared = _mixture(draft, complete) if mechanism == "mar" else None
    made = {}
    for name in holed:
        score = _score(draft, name) if mechanism == "mnar" else shared
        chance = np.float64(rate) if score is None else _chance(draft, strength * score, rate)
        hidden = draft.rng.random(len(draft)) < chance
        made[name] = taken(columns_nullable[name], draft.origin).mask(hidden)
    return draft.finish(made)


def intercept(score: Array, rate: float) -> float:
    """The ``a`` for which the mean of ``σ(a + score)`` is ``rate``, by narrowing it down.

    >>> round(intercept(np.array([0.0]), 0.2), 6) == round(float(np.log(0.2 / 0.8)), 6)
    True
    """
    from scipy.optimize import brentq
    from scipy.special import expit, logit

    if rate in (0, 1):
        return float(np.where(rate, np.inf, -np.inf))
    ends = logit(rate) - score.max(), logit(rate) - score.min()
    return float(brentq(lambda a: expit(a + score).mean() - rate, ends[0] - 1, ends[1] + 1, xtol=1e-9))


def nullable(column: pd.Series[Any], on_int: OnInt = "nullable") -> pd.Series[Any]:
    """The column in a dtype that knows missing cells.

    >>> nullable(pd.Series([1, 2])).dtype, nullable(pd.Series([1, 2]), "float").dtype
    (Int64Dtype(), dtype('float64'))
    """
    kind = column.dtype.kind if isinstance(column.dtype, np.dtype) else "O"
    if kind not in "iub":
        return column
    if on_int == "float":
        return column.astype(float)
    if on_int == "nullable":
        width = str(column.dtype)  # int64 → Int64, uint8 → UInt8
        name = "boolean" if kind == "b" else width.replace("i", "I").replace("u", "U")
        return column.astype(cast(Any, name))
    if on_int == "error":
        raise PolysenseError(
            f"column {column.name!r} is {column.dtype}, which knows no missing cells; allow on_int='nullable'"
            " or 'float', or leave the column out"
        )
    raise unknown("choice of on_int", on_int, ("nullable", "float", "error"))


def _roles(
    draft: Draft, mechanism: str, columns: Sequence[str] | None, able: list[str]
) -> tuple[list[str], list[str]]:
    """The columns that get holes, and those that decide where under mar."""
    if mechanism not in ("mcar", "mar", "mnar"):
        raise unknown("mechanism", mechanism, ("mcar", "mar", "mnar"))
    holed = able if columns is None else list(columns)
    if mechanism != "mar":
        return holed, []
    if columns is None:
        chosen = draft.once.permutation(len(able))[: len(able) // 2]
        holed = [able[at] for at in sorted(chosen)]
    complete = [name for name in draft.changeable if name not in holed]
    if not holed or not complete:
        raise PolysenseError(
            "mar needs a column that gets holes and one that stays complete; name fewer columns"
        )
    return holed, complete


def _chance(draft: Draft, score: Array, rate: float) -> NDArray[np.float64]:
    """How likely each new row's cell is to be hidden, where the bank's are with the mean ``rate``."""
    from scipy.special import expit

    chances: NDArray[np.float64] = expit(intercept(score[draft.start :], rate) + score)[draft.origin]
    return chances


def _mixture(draft: Draft, complete: list[str]) -> NDArray[np.float64]:
    """A random direction in the standardised columns, over the pool's rows, standardised itself."""
    weights = draft.once.standard_normal(len(complete))
    parts = [weight * _score(draft, name) for weight, name in zip(weights, complete, strict=True)]
    return _standardised(np.sum(parts, axis=0), draft.start)


def _score(draft: Draft, name: str) -> NDArray[np.float64]:
    """The standardised cells of a column, over the pool's rows; 0 where they are missing."""
    pool = draft.pool(name)
    if calculable(pool):
        cells = values_of(pool)
        numbers, missing = cells.numbers.astype(float), cells.missing
    else:
        levels = pd.factorize(draft.bank[name], sort=True)[1]
        codes = pd.Index(levels).get_indexer(pd.Index(pool))
        numbers, missing = draft.once.standard_normal(len(levels) + 1)[codes], codes < 0
    return np.where(missing, 0.0, _standardised(np.where(missing, np.nan, numbers), draft.start))


def _standardised(numbers: Array, start: int) -> NDArray[np.float64]:
    """Minus the mean, by the standard deviation, both of the cells from ``start`` on."""
    bank = numbers[start:][~np.isnan(numbers[start:])]
    if not len(bank):
        return np.zeros(len(numbers))
    standardised: NDArray[np.float64] = (numbers - bank.mean()) / (bank.std() or 1.0)
    return standardised
