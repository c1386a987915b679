"""What a hole may hold: odds of levels, or a number with its spread; as a best guess or as a draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.tabular.augmentation.values import Values, column_of, values_of

Array = NDArray[Any]

INTERVAL = (0.05, 0.95)
"""The quantiles that an interval reaches between."""


class Answer(Protocol):
    """What is believed of R cells of one column."""

    def best(self, like: pd.Series[Any]) -> pd.Series[Any]:
        """The most likely values, in the type of a column."""

    def draw(self, like: pd.Series[Any], rng: np.random.Generator) -> pd.Series[Any]:
        """Random values, each as often as it is likely."""

    def beside(self, like: pd.Series[Any]) -> dict[str, pd.Series[Any]]:
        """How sure the best values are, by a word for it."""


@dataclass(frozen=True)
class Odds:
    """How likely each of K levels is: ``chances`` ``[R, K]``."""

    levels: pd.Index[Any]
    chances: Array

    def best(self, like: pd.Series[Any]) -> pd.Series[Any]:
        return self._cells(self.chances.argmax(1), like)

    def draw(self, like: pd.Series[Any], rng: np.random.Generator) -> pd.Series[Any]:
        reached = self.chances.cumsum(1)
        drawn = (reached < rng.random((len(reached), 1)) * reached[:, -1:]).sum(1)
        return self._cells(np.minimum(drawn, len(self.levels) - 1), like)

    def beside(self, like: pd.Series[Any]) -> dict[str, pd.Series[Any]]:
        return {"probability": pd.Series(self.chances.max(1))}

    def _cells(self, codes: Array, like: pd.Series[Any]) -> pd.Series[Any]:
        return pd.Series(self.levels.take(codes)).astype(like.dtype)


@dataclass(frozen=True)
class Domain:
    """What numbers, dates or durations a column holds: bounds, and the values or the step they keep to.

    Dates and durations are in ticks, of which ``ticks`` make a second.
    """

    low: float
    high: float
    seen: Array | None = None
    step: int | None = None
    ticks: int = 0

    @classmethod
    def of(cls, column: pd.Series[Any], kind: str) -> Domain:
        """Told from the cells of a column of numbers that are there."""
        values = values_of(column)
        known = values.numbers[~values.missing]
        seen = np.unique(known) if kind == "integer" else None
        step = values.step if kind == "date" or values.ticks else None
        return cls(known.min(), known.max(), seen, step, values.ticks)

    def column(self, numbers: Array, like: pd.Series[Any]) -> pd.Series[Any]:
        """Numbers as a column, each the nearest that the domain has; in the unit of time of ``like``."""
        numbers = np.clip(numbers, self.low, self.high)
        if self.seen is not None:
            above = np.clip(np.searchsorted(self.seen, numbers), 1, max(1, len(self.seen) - 1))
            pair = self.seen[above - 1], self.seen[np.minimum(above, len(self.seen) - 1)]
            numbers = np.where(numbers - pair[0] <= pair[1] - numbers, *pair)
        if self.step is not None:
            numbers = np.rint(numbers / self.step).astype(np.int64) * self.step
        if self.ticks:
            ticks = values_of(like).ticks
            numbers = (
                numbers * (ticks // self.ticks) if ticks > self.ticks else numbers // (self.ticks // ticks)
            )
        return column_of(Values(numbers, np.zeros(len(numbers), dtype=bool)), like)


@dataclass(frozen=True)
class Errors:
    """The errors of predictions on rows that were held out, by their scale, in the order of the predictions.

    Near a prediction, errors are taken from the ``window`` of held-out rows whose predictions are nearest.
    """

    predictions: Array
    errors: Array
    window: int

    @classmethod
    def of(cls, predictions: Array, scaled: Array, window: int = 100) -> Errors:
        """Of held-out rows."""
        order = np.argsort(predictions, kind="stable")
        return cls(predictions[order], scaled[order], min(window, len(scaled)))

    def near(self, predictions: Array) -> NDArray[np.int64]:
        """Where the window of each prediction begins."""
        middle = np.searchsorted(self.predictions, predictions)
        return np.clip(middle - self.window // 2, 0, len(self.errors) - self.window)

    def quantiles(self) -> Array:
        """The ends of the interval for each place where a window may begin: ``[2, places]``."""
        windows = np.lib.stride_tricks.sliding_window_view(self.errors, self.window)
        ends: Array = np.quantile(windows, INTERVAL, axis=1)
        return ends


@dataclass(frozen=True)
class Spread:
    """Predictions ``[R]`` of numbers, how large their errors are ``[R]``, and how such errors lie."""

    predictions: Array
    scales: Array
    errors: Errors
    domain: Domain

    def best(self, like: pd.Series[Any]) -> pd.Series[Any]:
        return self.domain.column(self.predictions, like)

    def draw(self, like: pd.Series[Any], rng: np.random.Generator) -> pd.Series[Any]:
        chosen = self.errors.near(self.predictions) + rng.integers(
            self.errors.window, size=len(self.predictions)
        )
        return self.domain.column(self.predictions + self.scales * self.errors.errors[chosen], like)

    def beside(self, like: pd.Series[Any]) -> dict[str, pd.Series[Any]]:
        ends = self.errors.quantiles()[:, self.errors.near(self.predictions)]
        low, high = self.predictions + self.scales * ends
        return {"low": self.domain.column(low, like), "high": self.domain.column(high, like)}


@dataclass(frozen=True)
class Likely:
    """How likely each of K classes of a number is, ``chances`` ``[R, K]``, and the values that they hold.

    ``numbers``: the values that were seen, in rising order; ``classes``: the class of each; ``counts``: how
    often each was seen. Within a class each value is as likely as it was frequent.
    """

    chances: Array
    numbers: Array
    classes: Array
    counts: Array
    domain: Domain

    def best(self, like: pd.Series[Any]) -> pd.Series[Any]:
        """The means, which miss by the least square."""
        totals, weighted = (
            np.bincount(self.classes, each, self.chances.shape[1])
            for each in (self.counts, self.counts * self.numbers)
        )
        return self.domain.column(self.chances @ (weighted / np.maximum(totals, 1)), like)

    def draw(self, like: pd.Series[Any], rng: np.random.Generator) -> pd.Series[Any]:
        return self.domain.column(self._quantiles(rng.random(len(self.chances))), like)

    def beside(self, like: pd.Series[Any]) -> dict[str, pd.Series[Any]]:
        ends = [self._quantiles(np.full(len(self.chances), share)) for share in INTERVAL]
        return {word: self.domain.column(end, like) for word, end in zip(("low", "high"), ends, strict=True)}

    def _quantiles(self, shares: Array) -> Array:
        """The value up to which a share of what is likely lies, for each row."""
        reached = self.chances.cumsum(1)
        reached /= reached[:, -1:]
        at = (reached < shares[:, None]).sum(1)
        rows = np.arange(len(at))
        before = np.where(at > 0, reached[rows, at - 1], 0)
        inside = (shares - before) / np.maximum(reached[rows, at] - before, np.finfo(float).tiny)
        totals = np.bincount(self.classes, self.counts, self.chances.shape[1])
        behind = totals.cumsum()[at] - totals[at] * (1 - inside)
        places = np.searchsorted(self.counts.cumsum(), behind - 1e-9)
        found: Array = self.numbers[np.minimum(places, len(self.numbers) - 1)]
        return found
