"""Holes filled by a masked-cell network: by one that knows the truth, and by one that is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.tabular.answers import Domain, Likely
from polysense.tabular.generate import Generator
from polysense.tasks.imputation import Imputer, impute, impute_file
from tests.tabular.remembering import readings, remembering

FRAME = readings()
WHOLE = FRAME.fillna({"gust": 0.25})


@pytest.fixture(scope="module")
def generator() -> Generator:
    return remembering(FRAME)


@pytest.fixture(scope="module")
def imputer(generator: Generator) -> Imputer:
    return Imputer("cells", model=generator).fit(FRAME)


@pytest.fixture(scope="module")
def of_whole_rows() -> Imputer:
    return Imputer("cells", model=remembering(WHOLE)).fit(WHOLE)


def holed() -> pd.DataFrame:
    """A third of the rows without ``low``, a third without ``high`` and ``low``, a third without ``site``."""
    frame = WHOLE.sample(300, random_state=7).astype({"high": "Int64", "low": "Int16"})
    frame.iloc[:100, [1]] = None
    frame.iloc[100:200, [0, 1]] = None
    frame.iloc[200:, [3]] = None
    return frame


def test_what_is_observed_stays_and_what_the_row_tells_is_filled(of_whole_rows: Imputer) -> None:
    frame = holed()
    before = frame.copy(deep=True)
    filled = of_whole_rows.transform(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert filled.dtypes.equals(frame.dtypes)
    assert filled.index.equals(frame.index)
    assert not filled.isna().any(axis=None)
    for name in frame:
        seen = frame[name].notna()
        assert filled[name][seen].equals(frame[name][seen])
    assert (filled.low == filled.total - filled.high)[:100].all()


def test_draws_fit_together_and_follow_the_odds(of_whole_rows: Imputer) -> None:
    frame = holed()
    drawn = of_whole_rows.transform(frame, draws=3, seed=1)
    assert drawn.index.names[0] == "draw"
    for _, rows in drawn.groupby("draw"):
        assert (rows.high + rows.low == rows.total).all()
    assert not drawn.loc[0].high.equals(drawn.loc[1].high)
    pd.testing.assert_frame_equal(drawn, of_whole_rows.transform(frame, draws=3, seed=1))
    alone = pd.DataFrame({"high": [6] * 2000}).reindex(columns=list(FRAME))
    alone = of_whole_rows.transform(alone, draws=2)
    assert (alone.site == "north").mean() == pytest.approx(
        (FRAME.site[FRAME.high == 6] == "north").mean(), abs=0.06
    )


def test_how_sure_it_is(imputer: Imputer) -> None:
    row = pd.DataFrame({"high": [6]}, index=[5]).reindex(columns=list(FRAME))
    told = imputer.transform(row, with_uncertainty=True)  # no gaps, though they were learned
    assert told[list(FRAME)].drop(columns="code").dtypes.equals(FRAME.drop(columns="code").dtypes)
    known = FRAME[FRAME.high == 6]
    assert told.site.item() == "north"
    assert told.site_probability.item() == pytest.approx((known.site == "north").mean())
    ends = known.low.sort_values().reset_index(drop=True)
    assert told.low_low.item() == ends[int(0.05 * len(ends))]
    assert told.low_high.item() == ends[int(0.95 * len(ends))]
    assert told.gust.item() == pytest.approx(known.gust.mean())
    assert told.low.item() == round(known.low.mean())
    assert "high_low" not in told


def test_quantiles_within_classes_are_those_of_the_values() -> None:
    numbers = np.array([1.0, 2.0, 5.0, 9.0])
    likely = Likely(
        np.array([[0, 0.5, 0.5], [0, 1.0, 0.0]]),
        numbers,
        np.array([1, 1, 2, 2]),
        np.array([3, 1, 1, 1]),
        Domain(1, 9),
    )
    like = pd.Series([0.5])
    assert likely.best(like).tolist() == [(0.75 * 1 + 0.25 * 2 + 5 / 2 + 9 / 2) / 2, 1.25]
    drawn = pd.DataFrame([likely.draw(like, np.random.default_rng(seed)) for seed in range(2000)])
    shares = drawn[0].value_counts(normalize=True).reindex(numbers).to_numpy()
    assert shares == pytest.approx([0.375, 0.125, 0.25, 0.25], abs=0.04)
    assert set(drawn[1]) == {1.0, 2.0}
    low, high = (likely.beside(like)[word].tolist() for word in ("low", "high"))
    assert (low, high) == ([1.0, 1.0], [9.0, 2.0])


def test_levels_that_it_does_not_know_and_columns_that_it_does_not_have() -> None:
    frame = holed().assign(site="east", notes="dry")
    frame.loc[frame.index[:3], ["notes", "low"]] = None
    filled = impute(frame, model=remembering(WHOLE))
    assert (filled.site == "east").all()
    assert (filled.notes == "dry").all()  # by its mode
    assert (filled.low == filled.total - filled.high)[:100].all()


def test_a_trained_network_fills_other_tables(tmp_path: Path) -> None:
    frame, out = readings(200).astype({"low": "Int16"}), tmp_path / "whole.csv"
    frame.loc[::5, "low"] = None
    imputer = Imputer("cells", run=tmp_path / "run", max_time="1s").fit(frame)
    filled = imputer.transform(holed())
    assert not filled.isna().any(axis=None)
    pd.testing.assert_frame_equal(filled, impute(holed(), model=tmp_path / "run"))
    holed().to_csv(tmp_path / "holes.csv", index=False)
    impute_file(tmp_path / "holes.csv", out, model=tmp_path / "run", draws=2)
    assert pd.read_csv(out).draw.value_counts().tolist() == [300, 300]
    with pytest.raises(PolysenseError, match="is kept in its run folder: give that as model"):
        imputer.save(tmp_path / "imputer.npz")
    with pytest.raises(PolysenseError, match="is kept in its run folder: give that as model"):
        impute_file(tmp_path / "holes.csv", tmp_path / "more.csv", how="cells", save=tmp_path / "a.npz")
    assert not (tmp_path / "more.csv").exists()


def test_bad_models(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match="are for cells, and how is 'trees'; leave them out"):
        Imputer(max_time="3s").fit(FRAME)
    with pytest.raises(PolysenseError, match="is not a run folder"):
        impute(FRAME, model=tmp_path)
    with pytest.raises(PolysenseError, match="there is no imputer"):
        impute(FRAME, model=tmp_path / "nothing.npz")
    with pytest.raises(PolysenseError, match="unknown way to impute 'cell'; did you mean 'cells'"):
        impute(FRAME, how="cell")
