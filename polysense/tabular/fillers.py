"""How one column is predicted from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.tabular.answers import Answer, Domain, Errors, Odds, Spread
from polysense.tabular.augmentation.values import calculable, values_of
from polysense.tabular.forest import Forest
from polysense.tabular.trees import MOST_LEVELS, Features, fit_trees

Array = NDArray[Any]

FEWEST = 50
"""So many observed cells are needed to learn from."""

HELD_OUT = 0.2
MOST_HELD_OUT = 5000
"""The share and number of rows that errors are measured on."""

FEW_GAPS, GAPS = 0.01, 0.2
"""Where a smaller share of a feature's cells is missing, this one is hidden: trees send gaps that they never
saw anywhere."""


class Filler(Protocol):
    """From the features ``[R, F]`` of rows to what is believed of their cells of one column."""

    def __call__(self, rows: Array) -> Answer: ...


@dataclass(frozen=True)
class Frequent:
    """Each level by its share, whatever the other columns hold."""

    levels: pd.Index[Any]
    shares: Array

    def __call__(self, rows: Array) -> Answer:
        return Odds(self.levels, np.broadcast_to(self.shares, (len(rows), len(self.shares))))


@dataclass(frozen=True)
class Middle:
    """The median, whatever the other columns hold."""

    middle: float
    errors: Errors
    domain: Domain

    def __call__(self, rows: Array) -> Answer:
        return Spread(np.full(len(rows), self.middle), np.ones(len(rows)), self.errors, self.domain)


@dataclass(frozen=True)
class Classified:
    """A level by trees on the ``others`` of the features."""

    levels: pd.Index[Any]
    trees: Forest
    others: Array

    def __call__(self, rows: Array) -> Answer:
        return Odds(self.levels, self.trees.predict_proba(rows[:, self.others]))


@dataclass(frozen=True)
class Scale:
    """How large errors are, told from few rows and therefore by few trees."""

    trees: Forest
    least: float

    @classmethod
    def of(cls, X: Array, size: Array, codes: Array, seed: int) -> Scale:
        """Told from errors of this size."""
        least = float(size.mean() / 20 + np.finfo(float).tiny)
        return cls(fit_trees(X, size, codes, rounds=30, seed=seed), least)

    def __call__(self, rows: Array) -> Array:
        return np.maximum(self.trees.predict(rows), self.least)


@dataclass(frozen=True)
class Regressed:
    """A number by trees on the ``others`` of the features, with the errors they made on rows held out."""

    trees: Forest
    scale: Scale
    errors: Errors
    domain: Domain
    others: Array

    def __call__(self, rows: Array) -> Answer:
        known = rows[:, self.others]
        return Spread(self.trees.predict(known), self.scale(known), self.errors, self.domain)


def fill_by_mode(column: pd.Series[Any], kind: str, X: Array, features: Features, seed: int) -> Filler:
    """The most frequent level or the median, whatever the other columns hold."""
    if kind in ("number", "integer", "date") and calculable(column):
        known = np.sort(values_of(column).known())
        middle = float(np.median(known))
        errors = Errors(np.full(len(known), middle), known - middle, window=len(known))
        return Middle(middle, errors, Domain.of(column, kind))
    frequent = column.value_counts(normalize=True)[:MOST_LEVELS]
    frequent = frequent[frequent > 0]
    return Frequent(frequent.index, frequent.to_numpy(float))


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
    return Classified(levels, trees, others)


HOWS: dict[str, Callable[[pd.Series[Any], str, Array, Features, int], Filler]] = {
    "trees": fill_by_trees,
    "mode": fill_by_mode,
}
"""How columns are filled one by one."""


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
    scale, scaled = Scale.of(known, np.abs(missed), codes, seed), np.empty(len(held))
    first = np.arange(len(held)) % 2 == 0
    for half in (first, ~first):  # by the scale that the other half tells, which did not see these errors
        scaled[half] = missed[half] / Scale.of(known[~half], np.abs(missed[~half]), codes, seed)(known[half])
    return Regressed(trees, scale, Errors.of(predicted, scaled), Domain.of(column, kind), others)


def _with_gaps(X: Array, rng: np.random.Generator) -> Array:
    """Features of which each has gaps."""
    for at in np.flatnonzero(np.isnan(X).mean(0) < FEW_GAPS):
        X[rng.random(len(X)) < GAPS, at] = np.nan
    return X
