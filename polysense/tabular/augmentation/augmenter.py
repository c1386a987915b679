"""Augmentation as a step of a pipeline of imbalanced-learn, and whether it helps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from polysense.errors import PolysenseError
from polysense.tabular.augmentation.by_name import apply, below
from polysense.tabular.augmentation.draft import check_column, check_table
from polysense.tabular.reading import to_frame
from polysense.tabular.trees import score


class Augmenter(BaseEstimator):  # type: ignore[misc]
    """An augmentation with the interface of imbalanced-learn's samplers: rows in, more rows out.

    It takes part in :class:`imblearn.pipeline.Pipeline`, which augments when it is fitted and never when it
    predicts.

    Args:
        how: mixup, cutmix, swap, gaussian, missing, corrupt or oversample.
        times: how many new rows for each; oversample makes as many as a class lacks.
        options: of the augmentation, by name.
        seed: the same seed makes the same rows.

    >>> X, y = pd.DataFrame({"x": [0.0, 1.0, 2.0, 9.0, 8.0]}), pd.Series(["a", "a", "a", "b", "b"])
    >>> more, labels = Augmenter("oversample").fit_resample(X, y)
    >>> len(more), labels.value_counts().tolist()
    (6, [3, 3])
    """

    def __init__(
        self, how: str = "mixup", *, times: int = 1, options: Mapping[str, Any] | None = None, seed: int = 0
    ) -> None:
        self.how, self.times, self.options, self.seed = how, times, options, seed

    def fit_resample(self, X: Any, y: Any = None) -> Any:
        """The rows and below them the new ones, with their labels where ``y`` is given.

        Args:
            X: ``[N, columns]``, a DataFrame or an array; what comes back is of the same type.
            y: ``[N]``, the labels: classes, or numbers to regress on.

        Raises:
            PolysenseError: when the two differ in length, and what :func:`augment` refuses.
        """
        frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))
        names, label, seed = list(frame), None, self.seed
        if y is not None:
            if len(y) != len(frame):
                raise PolysenseError(f"there are {len(frame)} rows and {len(y)} labels; give as many of both")
            label = _free_name(getattr(y, "name", None), names)
            frame = frame.assign(**{label: y.array if isinstance(y, pd.Series) else np.asarray(y)})
        check_table(frame)
        new = apply(frame, self.how, times=self.times, label=label, seed=seed, **dict(self.options or {}))
        made = below(frame, new, label)
        rows = made[names] if isinstance(X, pd.DataFrame) else made[names].to_numpy()
        if label is None:
            return rows
        labels = made[label].rename(getattr(y, "name", None)) if label in made else made.drop(columns=names)
        return rows, labels if isinstance(y, pd.Series) else labels.to_numpy()


def helps(
    data: Any,
    label: str,
    how: str,
    *,
    splits: int = 5,
    train: float | int = 0.7,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Whether an augmentation makes boosted trees better: with it and without, on the same test rows.

    Each split trains twice, on the training rows and on these and what was made from them; the test rows
    take part in neither. Trees often gain nothing.

    Args:
        data: the table, as in :func:`augment`.
        label: the column to predict: classes, by accuracy, or quantities, by R².
        how: the augmentation; its ``options`` follow.
        splits: how often rows are split anew.
        train: the share or the number of rows to train on.
        seed: the same seed makes the same splits and rows.

    Returns:
        A row for each split: ``without``, ``with`` and their difference ``gain``.

    Raises:
        PolysenseError: what :func:`augment` refuses, and a label with gaps only.

    >>> frame = pd.DataFrame({"x": range(40), "kind": list("ab") * 20})
    >>> list(helps(frame, "kind", "mixup", splits=1).columns)
    ['without', 'with', 'gain']
    """
    from sklearn.model_selection import train_test_split

    frame = to_frame(data)
    frame = frame[frame[check_column(frame, label)].notna()].reset_index(drop=True)
    scores = []
    for split in range(seed, seed + splits):
        known, unseen = train_test_split(frame, train_size=train, random_state=split)
        known = known.reset_index(drop=True)
        made = apply(known, how, label=label, seed=split, **options)
        if label not in made:
            raise PolysenseError("trees learn no soft labels: ask for label_as='drawn' or 'mixed'")
        scores.append([score(rows, unseen, label) for rows in (known, below(known, made, label))])
    table = pd.DataFrame(scores, columns=["without", "with"])
    return table.assign(gain=table["with"] - table["without"])


def _free_name(name: Any, taken: list[Any]) -> str:
    """A name for the label that no column has."""
    free = name if isinstance(name, str) else "label"
    while free in taken:
        free += "_"
    return free
