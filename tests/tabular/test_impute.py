"""Filling holes: observed cells stay, values are near what was hidden, intervals hold what they say."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from polysense.errors import PolysenseError
from polysense.tabular.answers import Errors
from polysense.tabular.augmentation import hide
from polysense.tabular.schema import Schema
from polysense.tabular.trees import Features, score
from polysense.tasks.imputation import Imputer, impute, impute_file
from tests.tabular.test_augment import every_type


def related(rows: int = 1500, *, seed: int = 0) -> pd.DataFrame:
    """Columns that tell each other: a number with noise that grows, an integer, a date, a category."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 10, rows)
    return pd.DataFrame(
        {
            "x": x + 0.01,
            "y": 3 * x + (0.05 + x / 10) * rng.normal(size=rows),
            "n": (10 * x).round().astype(int),
            "when": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta((20 * x).round(), unit="D"),
            "size": np.array(["small", "middle", "large"])[np.digitize(x, [3, 7])],
            "big": x > 5,
        }
    )


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    return related()


@pytest.fixture(scope="module")
def holes(whole: pd.DataFrame) -> pd.DataFrame:
    return hide(whole, rate=0.2, seed=1)


@pytest.fixture(scope="module")
def imputer(whole: pd.DataFrame) -> Imputer:
    return Imputer().fit(related(seed=5))


def test_holes_are_filled_and_nothing_else_changes(whole: pd.DataFrame, holes: pd.DataFrame) -> None:
    before = holes.copy(deep=True)
    filled = impute(holes)
    pd.testing.assert_frame_equal(holes, before)
    assert not filled.isna().any(axis=None)
    assert filled.dtypes.equals(holes.dtypes)
    for name in holes:
        seen = holes[name].notna()
        assert filled[name][seen].equals(holes[name][seen])
    hidden = holes.isna()
    for name in ("x", "y", "n"):
        error = (filled[name] - whole[name])[hidden[name]].astype(float)
        assert np.sqrt((error**2).mean()) < 0.25 * whole[name].std()
    for name in ("size", "big"):
        assert (filled[name] == whole[name])[hidden[name]].mean() > 0.9
    days = (filled.when - whole.when)[hidden.when].abs() / pd.Timedelta(days=1)
    assert days.mean() < 10
    assert (filled.when == filled.when.dt.floor("D")).all()
    pd.testing.assert_frame_equal(impute(holes[:200]), impute(holes[:200]))


def test_fitted_on_a_whole_table_applied_to_one_with_holes(
    whole: pd.DataFrame, holes: pd.DataFrame, imputer: Imputer
) -> None:
    """Trees that never saw a gap would send it anywhere."""
    filled = impute(holes, model=imputer)
    hidden = holes.isna()
    assert np.sqrt(((filled.y - whole.y)[hidden.y] ** 2).mean()) < 0.25 * whole.y.std()
    assert (filled["size"] == whole["size"])[hidden["size"]].mean() > 0.9
    one = imputer.transform(holes[holes.y.isna()].iloc[:1])
    assert one.y.notna().all()


def test_intervals_hold_nine_in_ten_and_are_wide_where_noise_is(
    whole: pd.DataFrame, holes: pd.DataFrame, imputer: Imputer
) -> None:
    rows = whole.assign(y=np.nan)
    told = imputer.transform(rows, with_uncertainty=True)
    assert whole.y.between(told.y_low, told.y_high).mean() == pytest.approx(0.9, abs=0.06)
    width = told.y_high - told.y_low
    assert width[whole.x > 8].mean() > 1.7 * width[whole.x < 2].mean()
    told = imputer.transform(holes, with_uncertainty=True)
    assert list(told)[: len(list(holes))] == list(holes)
    assert told.y_low.isna().equals(holes.y.notna())
    assert told.when_low.dtype == holes.when.dtype
    sure = told.size_probability.dropna()
    right = (told["size"] == whole["size"])[sure.index].mean()
    assert sure.mean() == pytest.approx(right, abs=0.05)


def test_draws_have_the_spread_that_the_best_guess_lacks(whole: pd.DataFrame, imputer: Imputer) -> None:
    rows = whole.assign(y=np.nan)
    drawn = imputer.transform(rows, draws=3, seed=1)
    assert drawn.index.names[0] == "draw"
    assert len(drawn) == 3 * len(whole)
    assert not drawn.loc[0].y.equals(drawn.loc[1].y)
    truth, best = whole.y - 3 * whole.x, imputer.transform(rows).y - 3 * whole.x
    low, high = (drawn.loc[0].y - 3 * whole.x).groupby(whole.x > 5).std()
    assert 0.9 < high / truth[whole.x > 5].std() < 1.7
    assert high > 1.5 * low
    assert best.std() < 0.7 * truth.std()
    pd.testing.assert_frame_equal(drawn, imputer.transform(rows, draws=3, seed=1))
    assert not drawn.equals(imputer.transform(rows, draws=3, seed=2))


def test_draws_of_several_columns_fit_together() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=2000), "c": rng.normal(size=2000)})
    frame["b"] = frame.a + 0.1 * rng.normal(size=2000)
    frame.loc[:399, ["a", "b"]] = np.nan
    drawn = impute(frame, draws=2).loc[0][:400]
    assert np.corrcoef(drawn.a, drawn.b)[0, 1] > 0.9
    assert drawn.a.std() == pytest.approx(1, abs=0.25)


def test_draws_of_levels_follow_their_odds() -> None:
    frame = pd.DataFrame(
        {"kind": ["a"] * 60 + ["b"] * 30 + ["c"] * 10 + [None] * 900, "x": np.arange(1000) / 7}
    )
    drawn = Imputer("mode").fit(frame).transform(frame, draws=2).loc[1].kind[100:]
    shares = drawn.value_counts(normalize=True)
    assert shares[["a", "b", "c"]].to_numpy() == pytest.approx([0.6, 0.3, 0.1], abs=0.05)


@pytest.mark.parametrize("how", ["trees", "mode"])
def test_every_type_keeps_its_type_and_domain(how: str, caplog: pytest.LogCaptureFixture) -> None:
    skipped = [
        "float64",
        "gaps",
        "Float64",
        "uint8",
        "naive",
        "bool",
        "arrow float",
        "arrow str",
        "arrow stamp",
    ]
    table = hide(every_type(120).drop(columns=skipped), rate=0.1, seed=2).assign(empty=np.nan)
    with caplog.at_level(logging.WARNING):
        filled = impute(table, how=how)
    assert filled.dtypes.equals(table.dtypes)
    assert filled.index.equals(table.index)
    for name in table:
        if name in ("id", "empty"):
            assert filled[name].equals(table[name])
            continue
        assert not filled[name].isna().any()
        if name in ("int64", "whole floats", "arrow int", "str", "ordered", "constant"):
            assert set(filled[name]) <= set(table[name].dropna())
    assert "left missing, since there is nothing to tell them from: " in caplog.text
    assert "id" in caplog.text


@pytest.mark.parametrize("how", ["trees", "mode"])
def test_dates_and_durations_in_any_unit(how: str) -> None:
    at = np.arange(200)
    frame = pd.DataFrame(
        {
            "x": at / 7,
            "day": pd.Timestamp("2020-01-01").as_unit("s") + pd.to_timedelta(at, unit="D"),
            "lasts": pd.to_timedelta(1370 * at, unit="ms").astype("timedelta64[ms]"),
        }
    )
    holes = frame.mask(pd.DataFrame({"x": at < 0, "day": at % 7 == 0, "lasts": at % 5 == 0}))
    imputer, finer = Imputer(how).fit(holes), {"day": "datetime64[us]", "lasts": "timedelta64[ns]"}
    filled, finely = imputer.transform(holes), imputer.transform(holes.astype(finer))
    assert finely.dtypes.equals(frame.astype(finer).dtypes)
    assert (finely == filled).all(axis=None)
    assert filled.day.between(frame.day.min(), frame.day.max()).all()
    assert filled.lasts.between(frame.lasts.min(), frame.lasts.max()).all()
    drawn = imputer.transform(holes.astype(finer), draws=2, with_uncertainty=True)
    assert drawn.day.between(frame.day.min(), frame.day.max()).all()
    assert (drawn.lasts_low.dropna() <= drawn.lasts_high.dropna()).all()
    if how == "trees":
        missed = (filled.lasts - frame.lasts).abs()[holes.lasts.isna()]
        assert missed.mean() < pd.Timedelta(seconds=20)


def test_text_and_many_levels_are_left_to_their_mode(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    many = [f"level {at}" for at in rng.integers(0, 300, 999)]
    notes = [f"a note of {at} words" for at in range(998)]
    frame = pd.DataFrame(
        {"many": ["level 5", *many], "note": ["the most usual note", "the most usual note", *notes]}
    )
    frame = frame.assign(x=rng.normal(size=1000))
    frame.loc[900:, ["many", "note"]] = None
    with caplog.at_level(logging.WARNING):
        filled = impute(frame)
    assert (filled.many[900:] == frame.many.mode()[0]).all() or filled.many[900:].nunique() == 1
    assert set(filled.note[900:]) == {"the most usual note"}
    assert "many has too many different values to predict" in caplog.text
    assert "note has too many different values to predict" in caplog.text


def test_few_rows_are_filled_by_their_mode() -> None:
    frame = pd.DataFrame({"x": [1.5, None, 3.5, 2.5], "kind": ["a", "a", None, "b"]})
    filled = impute(frame)
    assert filled.x.tolist() == [1.5, 2.5, 3.5, 2.5]
    assert filled.kind.tolist() == ["a", "a", "a", "b"]


def test_nothing_to_fill() -> None:
    frame = pd.DataFrame({"x": [1.5, 2.5]})
    pd.testing.assert_frame_equal(impute(frame), frame)


def test_a_step_of_a_pipeline() -> None:
    frame = pd.DataFrame({"x": [1.5, None, 2.5], "y": [1.0, 2.0, 4.5]})
    pipeline = make_pipeline(clone(Imputer("mode")), FunctionTransformer())
    assert pipeline.fit_transform(frame).x.tolist() == [1.5, 2.0, 2.5]


def test_files(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.5, None, 3.5], "kind": ["a", "a", None]})
    frame.to_csv(tmp_path / "holes.csv", index=False)
    out = impute_file(tmp_path / "holes.csv", tmp_path / "whole.parquet", how="mode", with_uncertainty=True)
    filled = pd.read_parquet(out)
    assert list(filled) == ["x", "kind", "x_low", "x_high", "kind_probability"]
    assert filled.x.tolist() == [1.5, 2.5, 3.5]
    drawn = pd.read_csv(impute_file(tmp_path / "holes.csv", tmp_path / "draws.csv", how="mode", draws=2))
    assert drawn.draw.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(PolysenseError, match="exists; choose another out"):
        impute_file(tmp_path / "holes.csv", out)


def test_errors_are_those_of_the_nearest_predictions() -> None:
    predictions = np.arange(1000.0)
    errors = Errors.of(predictions, np.where(predictions < 500, 1.0, 9.0), window=10)
    low, high = errors.quantiles()[:, errors.near(np.array([-5.0, 100.0, 900.0, 2000.0]))]
    assert low.tolist() == high.tolist() == [1.0, 1.0, 9.0, 9.0]


def test_dates_come_round_again_for_trees() -> None:
    frame = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=2000, freq="7h")})
    frame["night"] = frame.when.dt.hour < 6
    assert score(frame[:1000], frame[1000:], "night") == 1
    features = Features.of(frame, Schema.infer(frame))
    assert features.matrix(frame).shape == (2000, 6)
    assert features.others("night").sum() == 5


def test_bad_imputing(imputer: Imputer) -> None:
    frame = related(10)
    with pytest.raises(PolysenseError, match="unknown way to impute 'tree'; did you mean 'trees'"):
        impute(frame, how="tree")
    with pytest.raises(PolysenseError, match="draws is 0"):
        impute(frame, draws=0)
    with pytest.raises(PolysenseError, match="call fit first"):
        Imputer().transform(frame)
    with pytest.raises(PolysenseError, match="the table lacks the column 'y'"):
        imputer.transform(frame.drop(columns="y"))
    with pytest.raises(PolysenseError, match="unknown column 'z'"):
        Imputer().fit(frame, columns=["z"])
    with pytest.raises(PolysenseError, match="has a column 'y_low', where its uncertainty goes"):
        impute(frame.assign(y_low=1.5, y=[*frame.y[:9], np.nan]), how="mode", with_uncertainty=True)
    with pytest.raises(PolysenseError, match="holds a single class"):
        score(frame.assign(big=True), frame, "big")
