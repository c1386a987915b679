"""Boosted trees on tables as they are: scikit-learn's histogram ones, with gaps and categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError
from polysense.tabular.augmentation.values import is_quantity
from polysense.tabular.columns import as_dates, as_floats
from polysense.tabular.forest import Forest
from polysense.tabular.schema import LEVELLED, Schema

Array = NDArray[Any]

MOST_LEVELS = 200
"""Levels of a category that trees tell apart, the most frequent ones; they know 255 bins."""

_PARTS = ("month", "day", "dayofweek", "hour")


@dataclass(frozen=True)
class Features:
    """How the columns of a table become the numbers that trees split: ``[rows, features]``.

    Numbers stay as they are, missing cells too; categories become codes; dates become days and, since no
    split finds what comes round again, the month, day, weekday and hour.

    Attributes:
        levels: the levels of each category.
        names: the column that each feature is of.
        categorical: which features are codes.
    """

    kinds: dict[str, str]
    levels: dict[str, pd.Index[Any]]
    names: NDArray[np.str_]
    categorical: NDArray[np.bool_]

    @classmethod
    def of(cls, frame: pd.DataFrame, schema: Schema) -> Features:
        """Told from the rows to learn from; text, identifiers and constants have nothing to split by."""
        kinds = {
            column.name: column.kind
            for column in schema.columns
            if column.kind in ("number", "integer", "date", *LEVELLED)
        }
        levels = {
            name: frame[name].value_counts().index[:MOST_LEVELS].sort_values()
            for name, kind in kinds.items()
            if kind in LEVELLED
        }
        widths = [1 + len(_PARTS) if kind == "date" else 1 for kind in kinds.values()]
        names = np.repeat(np.array(list(kinds), dtype=str), widths)
        return cls(kinds, levels, names, np.isin(names, list(levels)))

    def matrix(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """The features of a table with these columns: ``[rows, features]``."""
        columns = [self.of_column(frame[name], name) for name in self.kinds]
        return np.concatenate(columns, axis=1) if columns else np.empty((len(frame), 0))

    def of_column(self, column: pd.Series[Any], name: str) -> NDArray[np.float64]:
        """The features of one column: ``[rows, 1]``, more of a date."""
        if self.kinds[name] == "date":
            dates = as_dates(column)
            days = dates.to_numpy().astype("datetime64[us]").astype(float) / 86_400e6
            parts = [getattr(dates.dt, part).to_numpy(dtype=float, na_value=np.nan) for part in _PARTS]
            return np.column_stack([np.where(dates.isna(), np.nan, days), *parts])
        if self.kinds[name] in LEVELLED:
            codes = self.levels[name].get_indexer(pd.Index(column)).astype(float)
            return np.where(codes < 0, np.nan, codes)[:, None]
        return as_floats(column)[:, None]

    def others(self, name: str) -> NDArray[np.bool_]:
        """The features that are not of one column."""
        mask: NDArray[np.bool_] = self.names != name
        return mask


def fit_trees(
    X: Array, y: Array, categorical: Array, *, classes: int = 0, rounds: int = 200, seed: int = 0
) -> Forest:
    """A regression or, with ``classes``, a classification; of many classes each gets fewer, larger steps."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    common = {"categorical_features": categorical if categorical.any() else None, "random_state": seed}
    if not classes:
        return Forest.of(HistGradientBoostingRegressor(max_iter=rounds, **common).fit(X, y), X, categorical)
    rounds = int(np.clip(800 / classes, 10, min(rounds, 100)))
    classifier = HistGradientBoostingClassifier(
        max_iter=rounds, learning_rate=min(0.3, 10 / rounds), early_stopping=False, **common
    )
    return Forest.of(classifier.fit(X, y), X, categorical)


def score(train: pd.DataFrame, test: pd.DataFrame, label: str) -> float:
    """How well trees predict a label of other rows: accuracy for classes, R² for quantities.

    Raises:
        PolysenseError: for a label with a single class.
    """
    from sklearn.metrics import r2_score

    schema = Schema.infer(train.drop(columns=label))
    features = Features.of(train, schema)
    X, unseen = features.matrix(train), features.matrix(test)
    if is_quantity(train[label]):
        trees = fit_trees(X, as_floats(train[label]), features.categorical)
        return float(r2_score(as_floats(test[label]), trees.predict(unseen)))
    classes = train[label].unique()
    if len(classes) < 2:
        raise PolysenseError(f"the label {label!r} holds a single class, and there is nothing to tell apart")
    classes = pd.Index(classes)
    trees = fit_trees(X, classes.get_indexer(train[label]), features.categorical, classes=len(classes))
    guessed = trees.predict_proba(unseen).argmax(1)
    return float((guessed == classes.get_indexer(pd.Index(test[label]))).mean())
