"""Holes with a mechanism, and errors with the truth about them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.tabular.augmentation import augment, corrupt, hide
from polysense.tabular.augmentation.corruption import ERRORS, SLIPS, differing
from polysense.tabular.augmentation.missing import intercept
from tests.tabular.test_augment import every_type


def independent(rows: int = 20_000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["x", "y", "z"])
    return frame.assign(kind=rng.choice(["a", "b", "c"], rows))


def dependence(hidden: pd.Series[Any], values: pd.Series[Any]) -> float:
    """How many standard deviations the mean of the hidden rows lies off."""
    return float(values[hidden].mean() - values[~hidden].mean())


def test_mcar_depends_on_nothing() -> None:
    frame = independent()
    hidden = hide(frame, rate=0.2, seed=1).isna()
    assert hidden.mean().to_numpy() == pytest.approx(0.2, abs=0.015)
    for mask in ("x", "y", "kind"):
        for column in ("x", "y", "z"):
            assert abs(dependence(hidden[mask], frame[column])) < 0.07


def test_mar_depends_on_the_complete_columns_only() -> None:
    frame = independent()
    made = hide(frame, mechanism="mar", rate=0.3, columns=["x", "kind"], seed=1)
    hidden = made.isna()
    assert hidden[["x", "kind"]].mean().to_numpy() == pytest.approx(0.3, abs=0.015)
    assert not hidden[["y", "z"]].any(axis=None)
    assert abs(dependence(hidden.x, frame.x)) < 0.07
    assert max(abs(dependence(hidden.x, frame[column])) for column in ("y", "z")) > 0.3


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_mnar_depends_on_the_cell_itself(rate: float) -> None:
    frame = independent()
    hidden = hide(frame, mechanism="mnar", rate=rate, seed=1).isna()
    assert hidden.mean().to_numpy() == pytest.approx(rate, abs=0.02)
    assert dependence(hidden.x, frame.x) > 0.5
    assert abs(dependence(hidden.x, frame.y)) < 0.07
    shares = hidden.kind.groupby(frame.kind).mean()
    assert shares.max() - shares.min() > 0.1


def test_the_rate_is_solved_exactly() -> None:
    score = np.random.default_rng(0).normal(size=1000) ** 3
    for rate in (0.001, 0.3, 0.99):
        chance = 1 / (1 + np.exp(-(intercept(score, rate) + score)))
        assert chance.mean() == pytest.approx(rate, rel=1e-6)


def test_types_know_gaps_or_say_so(caplog: pytest.LogCaptureFixture) -> None:
    table = every_type()
    with caplog.at_level(logging.WARNING):
        made = augment(table, "missing", rate=0.5)
    changed = {name: str(made[name].dtype) for name in table if made[name].dtype != table[name].dtype}
    assert changed == {"int64": "Int64", "uint8": "UInt8", "bool": "boolean", "constant": "Int64"}
    assert "made nullable, so that cells can be missing: int64, uint8, bool" in caplog.text
    gaps = made.isna().mean() - table.isna().mean() / 2
    assert gaps.to_numpy() == pytest.approx(0.5, abs=0.1)
    whole = table[["int64", "bool", "float64"]]
    assert hide(whole, on_int="float").dtypes.astype(str).tolist() == ["float64"] * 3
    with pytest.raises(PolysenseError, match="column 'int64' is int64, which knows no missing cells"):
        hide(whole, on_int="error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mechanism": "mnr"}, "unknown mechanism 'mnr'; did you mean 'mnar'"),
        ({"rate": 1.2}, "rate is 1.2, but it is a share"),
        ({"on_int": "maybe"}, "unknown choice of on_int 'maybe'"),
        ({"mechanism": "mar", "columns": ["x", "n"]}, "mar needs a column that gets holes and one"),
    ],
)
def test_bad_holes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        hide(pd.DataFrame({"x": [0.5, 1.5], "n": [1, 5]}), **options)


def one_error(name: str, share: float = 0.1) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "x": rng.normal(20, 3, 5000),
            "n": rng.integers(0, 500, 5000),
            "kind": rng.choice(["Anna", "Bo"], 5000),
            "y": rng.normal(20, 3, 5000),
            "when": pd.date_range("1600-01-01", periods=5000, freq="h", unit="s", tz="UTC"),
        }
    )
    return frame, *corrupt(frame, errors=[name], share=share, seed=1)


@pytest.mark.parametrize("error", ERRORS)
def test_the_truth_about_touched_cells(error: str) -> None:
    frame, made, touched = one_error(error)
    assert made.dtypes.equals(frame.dtypes)
    assert touched.shape == frame.shape
    assert touched.index.equals(made.index)
    for name in frame:
        assert (made[name] != frame[name]).equals(touched[name])
    suits = {
        "typo": ["kind"],
        "level": ["kind"],
        "clock": ["when"],
        "swapped": ["x", "y"],
        "shuffled": list(frame),
        "duplicated": list(frame),
    }.get(error, ["x", "y", "n"])
    for name in frame:
        share = touched[name].mean()
        assert (0.02 < share < 0.14) if name in suits else share == 0


def test_what_each_error_does() -> None:
    frame, made, touched = one_error("outlier")
    off = (made.x - frame.x)[touched.x].abs() / 3
    assert off.between(4.5, 22).all()
    frame, made, touched = one_error("unit")
    ratios = {round(value, 6) for value in (made.x / frame.x)[touched.x]}
    factors = {round(factor, 6) for factor, offset in SLIPS if not offset}
    assert len(ratios) == 1 or not ratios & factors
    frame, made, touched = one_error("stuck")
    changes = (made.x != made.x.shift()).sum()
    assert changes == pytest.approx(5000 * 0.9, abs=150)
    frame, made, touched = one_error("shuffled")
    assert sorted(made.x) == sorted(frame.x)
    frame, made, touched = one_error("level")
    assert set(made.kind) == {"Anna", "Bo"}
    frame, made, touched = one_error("typo")
    assert made.kind[touched.kind].map(len).between(1, 5).all()
    assert not made.kind[touched.kind].isin(["Anna", "Bo"]).any()


def test_errors_of_sensors_clocks_and_whole_rows() -> None:
    frame, made, touched = one_error("drift")
    off = ((made.x - frame.x) / 3).where(touched.x)
    runs = (touched.x != touched.x.shift()).cumsum()[touched.x]
    for _, run in off.groupby(runs):
        if len(run) > 5 and run.abs().is_monotonic_increasing:  # no other run begins within it
            assert 1.8 < run.abs().max() < 5.5
            assert run.diff().dropna().to_numpy() == pytest.approx(run.iloc[0], rel=1e-6)
    assert off.abs().max() > 1.8
    frame, made, touched = one_error("clock")
    (hours,) = ((made.when - frame.when)[touched.when] / pd.Timedelta(hours=1)).unique()
    assert hours in (1, -1, 12, 24)
    assert touched.when.ne(touched.when.shift()).sum() < 60  # runs of rows
    frame, made, touched = one_error("swapped")
    hit = touched.x & touched.y
    assert (made.x[hit] == frame.y[hit]).all()
    assert (made.y[hit] == frame.x[hit]).all()
    frame, made, touched = one_error("duplicated")
    copies = made[touched.x].merge(frame.drop_duplicates())
    assert len(copies) == touched.x.sum()


def test_dates_without_an_hour_are_off_by_days() -> None:
    frame = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=400, unit="us")})
    made, touched = corrupt(frame, errors=["clock"], share=0.3)
    assert touched.day.any()
    assert set((made.day - frame.day)[touched.day].dt.days) == {1}


def test_a_duplicated_row_brings_its_label_and_no_other_error_touches_it() -> None:
    frame = pd.DataFrame({"x": np.arange(50) / 7, "y": np.arange(50) / 3, "kind": np.arange(50).astype(str)})
    made, touched = corrupt(frame, label="kind", errors=["duplicated"], share=0.5)
    assert touched.kind.any()
    assert len(made.merge(frame)) == 50
    made, touched = corrupt(
        frame.drop(columns="y"), label="x", errors=["swapped", "drift", "shuffled"], share=1
    )
    assert not touched.x.any()
    assert touched.kind.any()


def test_the_label_is_never_corrupted_and_gaps_stay() -> None:
    table = every_type()
    made, touched = corrupt(table, label="str", share=0.5, errors=["outlier", "typo", "level", "unit"])
    assert made["str"].equals(table["str"])
    assert not touched["str"].any()
    assert made["gaps"].isna().equals(table["gaps"].isna())


def test_bad_corruption() -> None:
    frame = pd.DataFrame({"x": [0.5, 1.5]})
    with pytest.raises(PolysenseError, match="unknown error 'typoo'; did you mean 'typo'"):
        corrupt(frame, errors=["typoo"])
    with pytest.raises(PolysenseError, match="no column suits any of these errors"):
        corrupt(frame, errors=["typo"])


def test_missing_cells_are_equal_to_each_other() -> None:
    before = pd.Series([1, None, 3, None], dtype="Int64")
    after = pd.Series([1, None, None, 4], dtype="Int64")
    assert differing(before, after).tolist() == [False, False, True, True]
