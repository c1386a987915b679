"""What boosted trees learned, as arrays: they predict what scikit-learn's do, and are kept without pickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polysense.errors import PolysenseError

Array = NDArray[Any]


@dataclass(frozen=True)
class Forest:
    """Trees that were boosted, of all rounds below each other.

    Attributes:
        nodes: ``[nodes]``, records as scikit-learn has them.
        ends: ``[trees]``, where the nodes of each tree end.
        subsets: ``[splits, 8]``, the codes that go to the left where a category is split, as bits.
        subset_ends: ``[trees]``, where the subsets of each tree end.
        base: ``[1, outputs]``, what is answered without any tree.
        ranks: ``[categories, codes]``, the rank of each code among those seen, NaN for the others.
        known: ``[categories, 8]``, the ranks that there are, as bits.
        order: ``[features]``, the features as the trees read them, categories first.
    """

    nodes: Array
    ends: Array
    subsets: Array
    subset_ends: Array
    base: Array
    ranks: Array
    known: Array
    order: Array

    @classmethod
    def of(cls, fitted: Any, X: Array, categorical: Array) -> Forest:
        """From a fitted ``HistGradientBoostingRegressor`` or ``…Classifier`` and what it was fitted to."""
        trees = [tree for round_ in fitted._predictors for tree in round_]
        known = np.zeros((0, 8), np.uint32)
        if categorical.any():
            known, _ = fitted._bin_mapper.make_known_categories_bitsets()
        return cls(
            np.concatenate([tree.nodes for tree in trees]),
            np.cumsum([len(tree.nodes) for tree in trees]),
            np.concatenate([tree.raw_left_cat_bitsets for tree in trees]),
            np.cumsum([len(tree.raw_left_cat_bitsets) for tree in trees]),
            np.array(fitted._baseline_prediction),
            _ranks(X[:, categorical]),
            known,
            np.argsort(~categorical, kind="stable"),
        )

    def predict(self, X: Array) -> Array:
        """The predicted number of each row of features: ``[R]``."""
        answered: Array = self._raw(X)[:, 0]
        return answered

    def predict_proba(self, X: Array) -> Array:
        """How likely each class is: ``[R, classes]``."""
        from scipy.special import expit, softmax

        raw = self._raw(X)
        if raw.shape[1] > 1:
            chances: Array = softmax(raw, axis=1)
            return chances
        second = expit(raw[:, 0])
        return np.stack([1 - second, second], axis=1)

    def check(self) -> Forest:
        """The same, if it is whole: every split leads on within its tree, and reads a feature that exists.

        Raises:
            PolysenseError: for a file that was changed or cut off, or of another version of scikit-learn.
        """
        from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

        whole = self.nodes.dtype == PREDICTOR_RECORD_DTYPE and len(self.nodes) > 0
        if whole:
            sizes, at = np.diff(self.ends, prepend=0), np.arange(len(self.nodes))
            tree = np.repeat(np.arange(len(self.ends)), sizes)
            here, split = at - (self.ends - sizes)[tree], self.nodes["is_leaf"] == 0
            on = [self.nodes[side] for side in ("left", "right")]
            whole = bool(
                self.ends[-1] == len(self.nodes)
                and all(((child > here) & (child < sizes[tree]))[split].all() for child in on)
                and (self.nodes["feature_idx"] < len(self.order))[split].all()
                and (self.nodes["feature_idx"] >= 0)[split].all()
                and self._subsets_fit(tree)
            )
        if not whole:
            raise PolysenseError(
                "the trees of this imputer are damaged, or of another version of scikit-learn; fit it anew"
            )
        return self

    def _subsets_fit(self, tree: Array) -> bool:
        """Whether every split of a category finds its subset."""
        categories, counts = self.nodes["is_categorical"] == 1, np.diff(self.subset_ends, prepend=0)
        inside = self.nodes["bitset_idx"] < counts[tree]
        ranked = self.nodes["feature_idx"] < len(self.ranks)
        shaped = all(
            bits.dtype == np.uint32 and bits.shape[1:] == (8,) for bits in (self.subsets, self.known)
        )
        return bool(
            (inside & ranked)[categories].all()
            and self.subset_ends[-1] == len(self.subsets)
            and shaped
            and len(self.known) == len(self.ranks)
        )

    def _raw(self, X: Array) -> Array:
        from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
        from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

        rows, places, threads = (
            self._read(X),
            np.zeros(len(self.order), np.uint32),
            _openmp_effective_n_threads(),
        )
        places[: len(self.known)] = np.arange(len(self.known))
        raw = np.zeros((len(rows), self.base.shape[1])) + self.base
        parts = zip(
            np.split(self.nodes, self.ends[:-1]), np.split(self.subsets, self.subset_ends[:-1]), strict=True
        )
        for at, (nodes, subsets) in enumerate(parts):
            tree = TreePredictor(nodes, subsets, subsets)
            raw[:, at % raw.shape[1]] += tree.predict(rows, self.known, places, threads)
        return raw

    def _read(self, X: Array) -> Array:
        """The features as the trees read them: categories first, their codes as ranks."""
        rows = np.array(X[:, self.order], dtype=float)
        for at, ranks in enumerate(self.ranks):
            codes = np.nan_to_num(rows[:, at], nan=-1).astype(np.int64)
            seen = (codes >= 0) & (codes < len(ranks))
            rows[:, at] = np.where(seen, ranks[np.where(seen, codes, 0)], np.nan)
        return rows


def _ranks(codes: Array) -> Array:
    """``[categories, codes]`` of codes ``[rows, categories]``, which are missing where they are NaN."""
    most = int(np.nan_to_num(codes).max(initial=0)) + 1
    ranks = np.full((codes.shape[1], most), np.nan)
    for at, column in enumerate(codes.T):
        seen = np.unique(column[~np.isnan(column)]).astype(np.int64)
        ranks[at, seen] = np.arange(len(seen))
    return ranks
