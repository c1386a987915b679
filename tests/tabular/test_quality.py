"""Scores of generated tables, held against their formulas, a floor and a ceiling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.tabular.quality import (
    column_shapes,
    copies,
    missing_alike,
    nearer_to_training,
    pair_trends,
    quality,
)
from tests.tabular.remembering import readings

TRAIN, TEST = readings(500, seed=0).drop(columns="code"), readings(400, seed=1).drop(columns="code")


def test_shapes_are_those_of_scipy_and_of_the_shares() -> None:
    from scipy.stats import ks_2samp

    shapes = column_shapes(TRAIN, TEST)
    for name in ("high", "low", "total", "gust"):
        assert shapes[name] == pytest.approx(
            1 - ks_2samp(TRAIN[name].dropna(), TEST[name].dropna()).statistic
        )
    shares = [(each.site == "north").mean() for each in (TRAIN, TEST)]
    assert shapes["site"] == pytest.approx(1 - abs(shares[0] - shares[1]))


def test_trends_are_correlations_and_contingencies() -> None:
    trends = pair_trends(TRAIN, TEST)
    near = [each.high.corr(each.low) for each in (TRAIN, TEST)]
    assert trends["high", "low"] == pytest.approx(1 - abs(near[0] - near[1]) / 2)
    tables = [pd.crosstab(each.high, each.site, normalize=True) for each in (TRAIN, TEST)]
    # ten values in ten quantiles may share a class, which never lowers the score
    assert trends["high", "site"] >= 1 - np.abs(tables[0] - tables[1]).to_numpy().sum() / 2 - 1e-9
    assert len(trends) == 10


def test_equal_tables_are_alike_and_the_order_of_rows_and_the_index_do_not_count() -> None:
    other = TRAIN.sample(frac=1, random_state=0).set_index(np.arange(len(TRAIN)) + 7)
    for compare in (column_shapes, pair_trends):
        assert min(compare(TRAIN, other).values()) > 1 - 1e-9
    assert missing_alike(TRAIN, other) == 1
    assert copies(TRAIN, other) == 1


def test_missing_cells_are_compared() -> None:
    assert missing_alike(TRAIN, TRAIN.assign(gust=1.0)) == pytest.approx(1 - TRAIN.gust.isna().mean() / 5)
    empty = TRAIN.assign(gust=np.nan)
    assert column_shapes(TRAIN, empty)["gust"] == 0


def test_rows_learned_by_heart_are_nearer_to_the_training_part() -> None:
    rng = np.random.default_rng(0)
    train, test, fresh = (pd.DataFrame(rng.normal(size=(400, 3)), columns=list("xyz")) for _ in range(3))
    assert nearer_to_training(train, test, train) == 1
    assert 0.4 < nearer_to_training(train, test, fresh) < 0.6


def test_the_floor_lies_below_and_the_ceiling_above() -> None:
    table = quality(TRAIN, TEST, {"second": readings(500, seed=2).drop(columns="code")}, labels=["site"])
    floor, second, ceiling = table.index
    assert table.loc[floor, "shapes"] == 1
    assert table.loc[floor, "trends"] < 0.92 < table.loc[second, "trends"]
    assert table.loc[floor, "site"] < 0.6 < table.loc[second, "site"]
    assert table.loc[ceiling, "site"] > 0.6
    assert np.isnan(table.loc[ceiling, "nearer"])
    assert 0 <= table.loc[second, "copies"] <= 1


def test_other_columns_or_labels_are_refused() -> None:
    with pytest.raises(PolysenseError, match="cannot be compared; give both the same"):
        column_shapes(TRAIN, TEST.drop(columns="site"))
    with pytest.raises(PolysenseError, match="did you mean 'site'"):
        quality(TRAIN, TEST, {}, labels=["sight"])
    with pytest.raises(PolysenseError, match="without rows"):
        pair_trends(TRAIN, TEST.head(0))
