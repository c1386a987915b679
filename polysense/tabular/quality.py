"""How good generated rows are: beside a floor (columns shuffled) and a ceiling (real rows held out)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError, unknown
from polysense.tabular.columns import as_dates, as_floats
from polysense.tabular.schema import LEVELLED, Schema
from polysense.tabular.trees import score

Array = NDArray[Any]

_CLASSES = 10
"""Into so many quantiles numbers fall, where they meet a category."""

_NEAREST = 2000
"""So many rows are asked for their nearest."""


def column_shapes(real: pd.DataFrame, made: pd.DataFrame, schema: Schema | None = None) -> dict[str, float]:
    """How alike the distributions of each column are, from 0 to 1, by what is not missing.

    Of numbers and dates 1 - the Kolmogorov-Smirnov distance; of levels 1 - the total variation.

    >>> column_shapes(pd.DataFrame({"x": [1.5, 2.0, 3.0, 4.0]}), pd.DataFrame({"x": [1.5, 2.0, 9.0, 9.0]}))
    {'x': 0.5}
    """
    schema = schema or Schema.infer(real)
    _check(real, made, schema)
    shapes = {}
    for name, levelled in _learned(schema).items():
        one, other = real[name].dropna(), made[name].dropna()
        if one.empty or other.empty:
            shapes[name] = float(one.empty and other.empty)
        elif levelled:
            shares = [each.astype(str).value_counts(normalize=True) for each in (one, other)]
            shapes[name] = 1 - float(shares[0].sub(shares[1], fill_value=0).abs().sum()) / 2
        else:
            shapes[name] = 1 - _ks(_floats(one), _floats(other))
    return shapes


def pair_trends(
    real: pd.DataFrame, made: pd.DataFrame, schema: Schema | None = None
) -> dict[tuple[str, str], float]:
    """How alike the dependence of each two columns is, from 0 to 1.

    Of two numbers 1 - half the difference of their correlations; else 1 - the total variation between the
    contingency tables, numbers in ten quantiles of the real rows and missing a class of its own.

    >>> frame = pd.DataFrame({"x": [1.5, 2.5, 3.5], "y": [1.5, 2.5, 3.5]})
    >>> pair_trends(frame, frame.assign(y=[3.5, 2.5, 1.5]))
    {('x', 'y'): 0.0}
    """
    schema = schema or Schema.infer(real)
    _check(real, made, schema)
    kinds, trends = _learned(schema), {}
    classes = {name: _classes(real[name], made[name], levelled) for name, levelled in kinds.items()}
    numbers = {
        name: (_floats(real[name]), _floats(made[name])) for name, levelled in kinds.items() if not levelled
    }
    for one, other in combinations(kinds, 2):
        if one in numbers and other in numbers:
            near = [_correlation(*pair) for pair in zip(numbers[one], numbers[other], strict=True)]
            trends[one, other] = 1 - abs(near[0] - near[1]) / 2
        else:
            shares = [_shares(*pair) for pair in zip(classes[one], classes[other], strict=True)]
            trends[one, other] = 1 - float(shares[0].sub(shares[1], fill_value=0).abs().sum()) / 2
    return trends


def imputation_errors(
    truth: pd.DataFrame, holes: pd.DataFrame, filled: pd.DataFrame, schema: Schema | None = None
) -> dict[str, float]:
    """How far filled cells are from the truth, for each column of which some are known, row for row.

    Of numbers and dates the root of the mean squared error over the standard deviation of the truth; of
    levels the share that is wrong.

    >>> truth, holes = pd.DataFrame({"x": [1.5, 2.5, 3.5]}), pd.DataFrame({"x": [1.5, None, 3.5]})
    >>> imputation_errors(truth, holes, holes.fillna(3.5))
    {'x': 1.0}
    """
    schema = schema or Schema.infer(truth)
    _check(truth, holes, schema)
    if not len(truth) == len(holes) == len(filled):
        rows = ", ".join(f"{len(each):,}" for each in (truth, holes, filled))
        raise PolysenseError(f"the tables have {rows} rows; the truth must be the same rows, without holes")
    errors = {}
    for name, levelled in _learned(schema).items():
        asked = truth[name].notna().to_numpy(bool) & holes[name].isna().to_numpy(bool)
        asked &= filled[name].notna().to_numpy(bool)
        if not asked.any():
            continue
        real, made = truth[name][asked], filled[name][asked]
        if levelled:
            errors[name] = float((real.astype(str).to_numpy() != made.astype(str).to_numpy()).mean())
        else:
            spread = float(np.nanstd(_floats(truth[name]), ddof=1))
            errors[name] = float(np.sqrt(np.mean((_floats(made) - _floats(real)) ** 2)) / spread)
    return errors


def missing_alike(real: pd.DataFrame, made: pd.DataFrame) -> float:
    """1 - the mean difference between the columns' shares of missing cells."""
    return 1 - float((real.isna().mean() - made[list(real)].isna().mean()).abs().mean())


def copies(real: pd.DataFrame, made: pd.DataFrame) -> float:
    """The share of rows that equal a real row in all columns.

    >>> copies(pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"x": [2, 3]}))
    0.5
    """
    hashes = [
        pd.util.hash_pandas_object(each[list(real)].astype(object), index=False) for each in (real, made)
    ]
    return float(hashes[1].isin(hashes[0]).mean())


def nearer_to_training(
    train: pd.DataFrame, test: pd.DataFrame, made: pd.DataFrame, *, seed: int = 0
) -> float:
    """The share of rows whose nearest real row is a training row and not one of equally many held out.

    Near 0.5 is ideal where the split is random by row; 1 is learned by heart. The distance is the L1 of
    numbers as ranks plus 1 for each level that differs; missing cells are levels of their own.
    """
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    schema, count = Schema.infer(train), min(len(train), len(test))
    chosen = [each.take(rng.permutation(len(each))[:count]) for each in (train, test)]
    asked = made.take(rng.permutation(len(made))[:_NEAREST])
    points = _points(schema, train, [*chosen, asked])
    near = [cKDTree(each).query(points[2], p=1)[0] for each in points[:2]]
    return float(((near[0] < near[1]) + 0.5 * (near[0] == near[1])).mean())


def quality(
    train: pd.DataFrame,
    test: pd.DataFrame,
    made: Mapping[str, pd.DataFrame],
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of generated tables, of a floor and of a ceiling, a row each; they may be printed.

    The floor is the training part with every column shuffled, the ceiling the held-out real rows (of which
    half is compared with the training part, where labels are predicted the training part itself: TRTR).
    Columns: ``shapes`` and ``trends`` (means of :func:`column_shapes` and :func:`pair_trends` against the
    training part), ``quality`` (their mean), ``missing`` (:func:`missing_alike`), for each label the
    accuracy or R^2 of boosted trees on ``test`` (trained on synthetic: TSTR), ``nearer`` and ``copies``.

    Raises:
        PolysenseError: for tables with other columns, or a label that is no column.
    """
    for label in labels:
        if label not in train:
            raise unknown("column", label, map(str, train.columns))
    rng = np.random.default_rng(seed)
    shuffled = pd.DataFrame({name: train[name].take(rng.permutation(len(train))).array for name in train})
    schema = Schema.infer(train)
    rows = {}
    for name, frame in {"floor: columns shuffled": shuffled, **made, "ceiling: real rows": test}.items():
        teachers = train if frame is test else frame
        shapes, trends = (
            float(np.mean(list(compare(train, frame, schema).values()) or [1.0]))
            for compare in (column_shapes, pair_trends)
        )
        rows[name] = {
            "quality": (shapes + trends) / 2,
            "shapes": shapes,
            "trends": trends,
            "missing": missing_alike(train, frame),
            **{label: _predicts(teachers, test, label) for label in labels},
            "nearer": np.nan if frame is test else nearer_to_training(train, test, frame, seed=seed),
            "copies": copies(train, frame),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _predicts(train: pd.DataFrame, test: pd.DataFrame, label: str) -> float:
    known = [each[each[label].notna()] for each in (train, test)]
    if known[0][label].nunique() < 2:
        return 0.0  # nothing can be learned from one class
    return score(known[0], known[1], label)


def _check(real: pd.DataFrame, made: pd.DataFrame, schema: Schema) -> None:
    if set(real) != set(made):
        raise PolysenseError(
            f"tables with the columns {', '.join(map(str, real))} and {', '.join(map(str, made))} cannot be"
            " compared; give both the same"
        )
    if not len(real) or not len(made):
        raise PolysenseError("a table without rows cannot be compared; give at least one row")


def _learned(schema: Schema) -> dict[str, bool]:
    """The columns to compare, and whether they hold levels."""
    return {
        column.name: column.kind in LEVELLED
        for column in schema.columns
        if column.kind in ("number", "integer", "date", *LEVELLED)
    }


def _floats(values: pd.Series[Any]) -> Array:
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        dates = as_dates(values)
        return np.where(dates.isna(), np.nan, dates.to_numpy().astype("datetime64[us]").astype(float))
    return as_floats(values)


def _ks(one: Array, other: Array) -> float:
    """The largest difference between two distribution functions."""
    both = np.concatenate([one, other])
    reached = [np.searchsorted(np.sort(each), both, side="right") / len(each) for each in (one, other)]
    return float(np.abs(reached[0] - reached[1]).max())


def _correlation(one: Array, other: Array) -> float:
    known = ~np.isnan(one) & ~np.isnan(other)
    if known.sum() < 2 or one[known].std() == 0 or other[known].std() == 0:
        return 0.0
    return float(np.corrcoef(one[known], other[known])[0, 1])


def _classes(real: pd.Series[Any], made: pd.Series[Any], levelled: bool) -> tuple[Array, Array]:
    """Both columns as classes."""
    if levelled:
        one, other = (each.astype(object).where(each.notna(), "missing").astype(str) for each in (real, made))
        return one.to_numpy(), other.to_numpy()
    values = _floats(real)
    edges = np.unique(np.nanquantile(values, np.linspace(0, 1, _CLASSES + 1)[1:-1])) if len(real) else values
    one_, other_ = (
        np.where(np.isnan(each), -1, np.searchsorted(edges, each, side="right"))
        for each in (values, _floats(made))
    )
    return one_, other_


def _shares(one: Array, other: Array) -> pd.Series[float]:
    return pd.DataFrame({"one": one, "other": other}).value_counts(normalize=True)


def _points(schema: Schema, train: pd.DataFrame, frames: Sequence[pd.DataFrame]) -> list[Array]:
    """Rows as points: a number by its rank in the training part, a level as a corner."""
    columns: list[list[Array]] = [[] for _ in frames]
    for name, levelled in _learned(schema).items():
        if levelled:
            levels = train[name].dropna().unique()[:50]
            for at, frame in enumerate(frames):
                columns[at].append(
                    np.stack([(frame[name] == level).to_numpy(bool) for level in levels], 1) / 2
                )
            continue
        known = np.sort(_floats(train[name].dropna()))
        for at, frame in enumerate(frames):
            values = _floats(frame[name])
            ranks = np.searchsorted(known, values) / max(1, len(known))
            gaps = np.isnan(values)
            columns[at].append(np.stack([np.where(gaps, 0.5, ranks), gaps], 1).astype(float))
    return [np.concatenate(parts, axis=1) for parts in columns]
