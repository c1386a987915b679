"""How one column is predicted from the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.tabular.answers import Answer, Domain, Errors, Odds, Spread
from polysense.tabular.augmentation.values import calculable, values_of
from polysense.tabular.trees import MOST_LEVELS, Features, fit_trees

Array = NDArray[Any]

Filler = Callable[[Array], Answer]
"""From the features ``[R, F]`` of rows to what is believed of their cells of one column."""

FEWEST = 50
"""So many observed cells are needed to learn from."""

HELD_OUT = 0.2
MOST_HELD_OUT = 5000
"""The share and number of rows that errors are measured on."""

FEW_GAPS, GAPS = 0.01, 0.2
"""Where a smaller share of a feature's cells is missing, this one is hidden: trees send gaps that they never
saw anywhere."""


def fill_by_mode(column: pd.Series[Any], kind: str, X: Array, features: Features, seed: int) -> Filler:
    """The most frequent level or the median, whatever the other columns hold."""
    if kind in ("number", "integer", "date") and calculable(column):
        known = np.sort(values_of(column).known())
        middle = float(np.median(known))
        errors = Errors(np.full(len(known), middle), known - middle, window=len(known))
        domain = Domain.of(column, kind)
        return lambda rows: Spread(np.full(len(rows), middle), np.ones(len(rows)), errors, domain)
    frequent = column.value_counts(normalize=True)[:MOST_LEVELS]
    frequent = frequent[frequent > 0]
    return lambda rows: Odds(
        frequent.index, np.broadcast_to(frequent.to_numpy(float), (len(rows), len(frequent)))
    )


def fill_by_trees(column: pd.Series[Any], kind: str, X: Array, features: Features, seed: int) -> Filler:
    """Boosted trees on all other columns."""
    others = features.others(str(column.name))
    observed = np.flatnonzero(column.notna())
    rng = np.random.default_rng(seed)
    if len(observed) < FEWEST or column.nunique() < 2 or not others.any():
        return fill_by_mode(column, kind, X, features, seed)
    seen = _with_gaps(X[np.ix_(observed, others)], rng)
    if kind in ("number", "integer", "date") and calculable(column):
        return _numbers(column.iloc[observed], kind, seen, others, features, seed)
    levels = pd.Index(column.iloc[observed].unique())
    codes = levels.get_indexer(pd.Index(column.iloc[observed]))
    trees = fit_trees(seen, codes, features.categorical[others], classes=len(levels), seed=seed)
    return lambda rows: Odds(levels, trees.predict_proba(rows[:, others]))


HOWS: dict[str, Callable[[pd.Series[Any], str, Array, Features, int], Filler]] = {
    "trees": fill_by_trees,
    "mode": fill_by_mode,
}
"""How columns are filled."""


def _numbers(
    column: pd.Series[Any], kind: str, seen: Array, others: Array, features: Features, seed: int
) -> Filler:
    """A regression, with the errors it makes on rows that are held out.

    How large they are is learned too: they depend on the row, and on which of its other cells are missing.
    """
    truth, codes = values_of(column).numbers.astype(float), features.categorical[others]
    order = np.random.default_rng(seed).permutation(len(truth))
    held, rest = np.split(order, [min(MOST_HELD_OUT, max(10, int(HELD_OUT * len(order))))])
    trees = fit_trees(seen[rest], truth[rest], codes, seed=seed)
    predicted = trees.predict(seen[held])
    missed, known = truth[held] - predicted, seen[held]
    scale, scaled = _scale(known, np.abs(missed), codes, seed), np.empty(len(held))
    first = np.arange(len(held)) % 2 == 0
    for half in (first, ~first):  # by the scale that the other half tells, which did not see these errors
        scaled[half] = missed[half] / _scale(known[~half], np.abs(missed[~half]), codes, seed)(known[half])
    errors, domain = Errors.of(predicted, scaled), Domain.of(column, kind)
    return lambda rows: Spread(trees.predict(rows[:, others]), scale(rows[:, others]), errors, domain)


def _scale(X: Array, size: Array, codes: Array, seed: int) -> Callable[[Array], Array]:
    """How large errors are, told from few rows and therefore by few trees."""
    trees, least = fit_trees(X, size, codes, rounds=30, seed=seed), size.mean() / 20 + np.finfo(float).tiny
    return lambda rows: np.maximum(trees.predict(rows), least)


def _with_gaps(X: Array, rng: np.random.Generator) -> Array:
    """Features of which each has gaps."""
    for at in np.flatnonzero(np.isnan(X).mean(0) < FEW_GAPS):
        X[rng.random(len(X)) < GAPS, at] = np.nan
    return X
