"""What texts are asked besides their classes: whether partners find each other, and who is like whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from polysense.errors import PolysenseError, unknown
from polysense.evaluation.joint import CHANCE, recall_by_chance, recall_hits
from polysense.evaluation.judge import Judgement, intervals, percent
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.sphere import alignment, narrow, uniformity
from polysense.modalities.pairs.dataset import Pairs
from polysense.modalities.text.store import Texts

_RESAMPLES = 200
_ALIKE = 0.8
"""Pairs above this share of the range of scores belong together (STS-B's 4 of 5)."""


class MatchedTexts(Texts):
    """The texts of the first two parts of pairs one behind the other, judged by how they find each other.

    :meth:`judge` gives recall at 1, 5 and 10 both ways, as :func:`.joint.judge_joint` does, ``alignment`` of
    the first texts of each sample, and ``uniformity``.
    """

    def __init__(self, pairs: Pairs) -> None:
        parts = {name: part for name, part in list(pairs.parts.items())[:2] if isinstance(part, Texts)}
        texts = [text for part in parts.values() for text in part.texts]
        super().__init__(texts, pd.DataFrame({"name": texts}))
        self.pairs, self.sizes = pairs, {name: len(part) for name, part in parts.items()}

    def judge(self, features: Mapping[str, Tensor], protocol: Protocol) -> Judgement:
        """The judgement of ``[N, D]`` features of all the texts, for each row of ``features``."""
        hits, results, notes = {}, {}, []
        for name, rows in features.items():
            vectors = dict(zip(self.sizes, rows.split(list(self.sizes.values())), strict=True))
            hits[name] = recall_hits(vectors, self.pairs)
            own, theirs = (vectors[part][self._first_rows(part)] for part in self.sizes)
            results[name] = percent(hits[name]) | _on_the_sphere(own, theirs, rows)
            notes += narrow(name, rows)
        results[CHANCE] = recall_by_chance(self.pairs, self.sizes)
        return Judgement(results, intervals(hits, protocol.seed), notes)

    def _first_rows(self, part: str) -> NDArray[np.int64]:
        """The first text of each sample that has both parts."""
        both = np.all([self.pairs.members[one].counts > 0 for one in self.sizes], axis=0)
        return self.pairs.members[part].first(both)


class ScoredTexts(Texts):
    """Pairs of texts that people have scored by how alike they are, one side behind the other (STS).

    :meth:`judge` gives Spearman's correlation of the cosines with the scores in percent, ``alignment`` of
    pairs in the upper fifth of the scores' range, and ``uniformity``.

    Raises:
        PolysenseError: for fewer than three pairs, or scores that are all alike.

    >>> scored = ScoredTexts(["a", "b", "c"], ["a", "c", "d"], [5.0, 3.0, 1.0])
    >>> len(scored), scored.scores.tolist()
    (6, [5.0, 3.0, 1.0])
    """

    def __init__(self, first: Sequence[str], second: Sequence[str], scores: Sequence[float]) -> None:
        self.scores = np.asarray(scores, dtype=np.float64)
        if len(self.scores) < 3 or np.ptp(self.scores) == 0:
            raise PolysenseError(
                "a correlation needs three pairs or more, with scores that differ; give such"
            )
        texts = [*first, *second]
        super().__init__(texts, pd.DataFrame({"name": texts}))

    @classmethod
    def of(cls, frame: pd.DataFrame, columns: Sequence[str], score: str) -> ScoredTexts:
        """The pairs in two columns of a table and their scores; rows that lack any of the three do not count.

        Raises:
            PolysenseError: for columns that there are not, or of another kind.
        """
        for name in (*columns, score):
            if name not in frame.columns:
                raise unknown("column", name, map(str, frame.columns))
        if len(columns) != 2 or not pd.api.types.is_numeric_dtype(frame[score]):
            raise PolysenseError(
                f"scored pairs are two columns of texts and one of numbers, but {score!r} of"
                f" {', '.join(map(repr, columns))} was given; name such columns"
            )
        whole = frame[[*columns, score]].dropna()
        first, second = (whole[name].astype(str).tolist() for name in columns)
        return cls(first, second, whole[score].tolist())

    def judge(self, features: Mapping[str, Tensor], protocol: Protocol) -> Judgement:
        """The judgement of ``[N, D]`` features of all the texts, for each row of ``features``."""
        results, ranges, notes = {}, {}, []
        alike = self.scores >= self.scores.min() + _ALIKE * np.ptp(self.scores)
        for name, rows in features.items():
            a, b = rows.split(len(self.scores))
            cosines = functional.cosine_similarity(a.double(), b.double()).numpy()
            found = 100 * spearman(cosines, self.scores)
            results[name] = {"spearman": found} | _on_the_sphere(a[alike], b[alike], rows)
            ranges[name] = {"spearman": self._interval(cosines, protocol.seed)}
            notes += narrow(name, rows)
        return Judgement(results, ranges, notes)

    def _interval(self, cosines: NDArray[np.float64], seed: int) -> tuple[float, float]:
        """The bootstrap's 95 % interval over the pairs, in percent."""
        draws = np.random.default_rng(seed).integers(len(cosines), size=(_RESAMPLES, len(cosines)))
        found = [100 * spearman(cosines[rows], self.scores[rows]) for rows in draws]
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's correlation: that of the ranks, ties sharing theirs. 0 where one side is all alike.

    >>> spearman(np.array([1, 2, 3]), np.array([10, 100, 1000])), spearman(np.array([1, 2]), np.array([2, 1]))
    (1.0, -1.0)
    """
    ranks = [pd.Series(side).rank().to_numpy() for side in (a, b)]
    spreads = [each - each.mean() for each in ranks]
    scale = float(np.sqrt((spreads[0] ** 2).sum() * (spreads[1] ** 2).sum()))
    return float((spreads[0] * spreads[1]).sum()) / scale if scale else 0.0


def _on_the_sphere(a: Tensor, b: Tensor, rows: Tensor) -> dict[str, float]:
    return {"alignment": alignment(a, b), "uniformity": uniformity(rows)}
