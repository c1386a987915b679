"""The verdict on sets of features: every metric that a protocol allows, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.evaluation.knn import knn_predict
from polysense.evaluation.linear import LinearProbe
from polysense.evaluation.protocol import Parts, Protocol, class_codes, identity_codes
from polysense.evaluation.rank import rankme
from polysense.evaluation.retrieval import match_ranks
from polysense.modalities.base import Dataset

if TYPE_CHECKING:
    from rich.table import Table

MAJORITY = "majority"
"""The row of the answer that is always the commonest class: what labels alone are worth."""

_RANKME_ROWS = 25_600  # as its paper does
_RANKME_SIDE = 2048
_RESAMPLES = 1000
_WIDE = 6
Hits = dict[str, NDArray[np.bool_]]
"""For each metric, which of its questions were answered rightly."""


class Judgement(NamedTuple):
    """What :func:`judge` found.

    ``results``: for each feature set its metrics by name, shares in percent. ``intervals``: for the
    same names the bootstrap's 95 % intervals of those shares. ``notes``: what was left out, and why.
    """

    results: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    notes: list[str]


def judge(features: Mapping[str, Tensor], dataset: Dataset, protocol: Protocol) -> Judgement:
    """Judge several sets of features of one dataset under one protocol.

    For each label ``knn_{label}``, for the first ``linear_{label}`` (``knn`` and ``linear`` where there
    is one label only), ``recall_at_1`` and ``recall_at_5`` where identities repeat, and ``rankme`` always.
    The row "majority" answers with the commonest class. Rows whose label is missing are left out and
    counted in the notes, as is a label that cannot be judged.

    Args:
        features: ``[N, D]`` for each name, a row for each sample, such as "pretrained", "pixels".
        dataset: whose table holds the labels.
        protocol: see :class:`~polysense.evaluation.protocol.Protocol`.

    Raises:
        PolysenseError: where rows and samples differ in number, or the protocol does not fit the table.
    """
    for name, rows in features.items():
        if len(rows) != len(dataset):
            raise PolysenseError(
                f"the features {name!r} have {len(rows)} rows, but the dataset {len(dataset)} samples"
            )
    parts = protocol.parts(dataset.table)
    labels, notes = _labels(dataset.table, protocol, parts)
    identity = (
        torch.from_numpy(identity_codes(dataset.table, protocol.identity)) if protocol.identity else None
    )

    hits: dict[str, Hits] = {}
    results: dict[str, dict[str, float]] = {}
    for name, rows in features.items():
        hits[name] = {}
        for label in labels:
            hits[name] |= _label_hits(rows, label, parts, identity, protocol)
        if identity is not None:
            hits[name] |= _recall_hits(rows, parts, identity, whole=protocol.bank is None)
        results[name] = percent(hits[name]) | {"rankme": rankme(_sample(rows, protocol.seed))}
    if labels:
        hits[MAJORITY] = {}
        for label in labels:
            hits[MAJORITY] |= _majority_hits(label, parts)
        results[MAJORITY] = percent(hits[MAJORITY])
    return Judgement(results, intervals(hits, protocol.seed), notes)


def table(judgement: Judgement) -> Table:
    """A judgement for the terminal: a row for each feature set (or a column, where there are
    many metrics), shares with half their interval.

    >>> found = Judgement({"pixels": {"knn": 41.13}}, {"pixels": {"knn": (39.0, 43.4)}}, [])
    >>> table(found).row_count
    1
    """
    from rich.table import Table

    metrics = list(dict.fromkeys(metric for row in judgement.results.values() for metric in row))

    def cell(name: str, metric: str) -> str:
        interval = judgement.intervals.get(name, {}).get(metric)
        return _cell(judgement.results[name].get(metric), interval)

    names = list(judgement.results)
    if len(metrics) > _WIDE:  # more than a terminal has room for side by side
        shown = Table("metric")
        for name in names:
            shown.add_column(name, justify="right")
        for metric in metrics:
            shown.add_row(metric.replace("_", " "), *(cell(name, metric) for name in names))
        return shown
    shown = Table("features")
    for metric in metrics:
        shown.add_column(metric.replace("_", " "), justify="right")
    for name in names:
        shown.add_row(name, *(cell(name, metric) for metric in metrics))
    return shown


def _cell(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "–"
    digits = 1 if interval or abs(value) >= 1 else 2  # a share in percent, or such as R²
    return f"{value:.{digits}f}" + (f" ± {(interval[1] - interval[0]) / 2:.1f}" if interval else "")


class _Label(NamedTuple):
    """A label that can be judged: ``codes`` ``[N]``, -1 where missing."""

    suffix: str
    codes: NDArray[np.int64]
    linear: bool

    def rows(self, part: NDArray[np.bool_]) -> Tensor:
        """The places of a part's rows that have the label."""
        return torch.from_numpy(np.flatnonzero(part & (self.codes >= 0)))

    def classes(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.codes)[rows]

    def variety(self, part: NDArray[np.bool_]) -> int:
        """How many classes a part holds."""
        return len(np.unique(self.codes[part & (self.codes >= 0)]))


def _labels(table: pd.DataFrame, protocol: Protocol, parts: Parts) -> tuple[list[_Label], list[str]]:
    """The labels that can be judged, and notes on what cannot."""
    labels, notes = [], []
    for name in protocol.labels:
        codes = class_codes(table, name)
        suffix = f"_{name}" if len(protocol.labels) > 1 else ""
        label = _Label(suffix, codes, linear=name == protocol.labels[0])
        if missing := int((codes < 0).sum()):
            notes.append(f"{name}: {missing} of {len(codes)} rows have no label and are left out")
        if _continuous(table[name]):
            notes.append(f"{name}: holds real numbers, not classes, and is not judged")
        elif label.variety(parts.bank) < 2:
            notes.append(f"{name}: fewer than two classes to tell apart, so it is not judged")
        elif label.variety(parts.queries) == 0:
            notes.append(f"{name}: no query has the label, so it is not judged")
        else:
            few = label.variety(parts.train) < 2 or label.variety(parts.test) == 0
            if label.linear and few:
                notes.append(f"{name}: too few rows with the label for a linear probe")
            labels.append(label._replace(linear=label.linear and not few))
    if not protocol.labels:
        notes.append("the dataset has no labels, so only measures that need none are given")
    return labels, notes


def _continuous(values: pd.Series[Any]) -> bool:
    present = values.dropna()
    return pd.api.types.is_float_dtype(present) and bool((present % 1 != 0).any())


def _label_hits(
    features: Tensor, label: _Label, parts: Parts, identity: Tensor | None, protocol: Protocol
) -> Hits:
    """Which queries the kNN and the linear probe classify rightly."""
    bank, queries = label.rows(parts.bank), label.rows(parts.queries)
    predicted = knn_predict(
        features[bank],
        label.classes(bank),
        features[queries],
        k=protocol.k,
        temperature=protocol.temperature,
        bank_identity=None if identity is None else identity[bank],
        query_identity=None if identity is None else identity[queries],
    )
    hits = {f"knn{label.suffix}": (predicted == label.classes(queries)).numpy()}
    if label.linear:
        train, test = label.rows(parts.train), label.rows(parts.test)
        probe = LinearProbe(seed=protocol.seed).fit(features[train], label.classes(train))
        hits[f"linear{label.suffix}"] = (probe.predict(features[test]) == label.classes(test)).numpy()
    return hits


def _majority_hits(label: _Label, parts: Parts) -> Hits:
    pairs = {"knn": (parts.bank, parts.queries)} | (
        {"linear": (parts.train, parts.test)} if label.linear else {}
    )
    hits = {}
    for probe, (seen, asked) in pairs.items():
        commonest = label.classes(label.rows(seen)).bincount().argmax()
        hits[f"{probe}{label.suffix}"] = (label.classes(label.rows(asked)) == commonest).numpy()
    return hits


def _recall_hits(features: Tensor, parts: Parts, identity: Tensor, *, whole: bool) -> Hits:
    """Which queries find their identity; ``whole``: among all rows but themselves, not in the bank alone."""
    queries = torch.from_numpy(np.flatnonzero(parts.queries))
    bank = torch.arange(len(features)) if whole else torch.from_numpy(np.flatnonzero(parts.bank))
    own = queries if whole else None
    ranks = match_ranks(features[queries], identity[queries], features[bank], identity[bank], own=own)
    ranks = ranks[ranks > 0]
    return {f"recall_at_{k}": (ranks <= k).numpy() for k in (1, 5)} if len(ranks) else {}


def _sample(features: Tensor, seed: int) -> Tensor:
    """Rows enough for RankMe, and few of wide raw inputs, on which it would take minutes."""
    count = _RANKME_ROWS if features.shape[1] <= _RANKME_SIDE else _RANKME_SIDE
    if len(features) <= count:
        return features
    rows = np.random.default_rng(seed).choice(len(features), count, replace=False)
    return features[torch.from_numpy(rows)]


def percent(hits: Hits) -> dict[str, float]:
    """The share of hits, in percent, by metric."""
    return {metric: 100 * float(hit.mean()) for metric, hit in hits.items()}


def intervals(hits: Mapping[str, Hits], seed: int) -> dict[str, dict[str, tuple[float, float]]]:
    """The bootstrap's 95 % intervals of those shares, by row and metric."""
    return {
        name: {metric: _interval(hit, seed) for metric, hit in metrics.items()}
        for name, metrics in hits.items()
    }


def _interval(hit: NDArray[np.bool_], seed: int) -> tuple[float, float]:
    """The bootstrap's 95 % interval of the mean, in percent.

    The sum of n hits and misses drawn with replacement is a binomial number: no need to draw each.
    """
    sums = np.random.default_rng(seed).binomial(len(hit), hit.mean(), _RESAMPLES)
    low, high = 100 * np.quantile(sums / len(hit), [0.025, 0.975])
    return float(low), float(high)
