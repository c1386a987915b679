"""Rows by condition: exactly the conditional distribution of a network that knows the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from polysense.errors import PolysenseError
from polysense.front import pretrain
from polysense.tabular.generate import TABLE, Generator
from polysense.tabular.modality import Table
from polysense.tabular.sampler import resample
from polysense.tasks.generation import fit_generator, generate_file
from tests.tabular.remembering import readings, remembering
from tests.tabular.toy_table import stones

FRAME = readings()


@pytest.fixture(scope="module")
def generator() -> Generator:
    return remembering(FRAME)


def apart(one: Any, other: Any) -> float:
    """The total variation between two columns."""
    shares = [pd.Series(np.asarray(each)).value_counts(normalize=True) for each in (one, other)]
    return float(shares[0].sub(shares[1], fill_value=0).abs().sum()) / 2


def test_free_rows_have_the_columns_types_and_joint_distribution_of_the_table(generator: Generator) -> None:
    rows = generator.sample(3000)
    assert rows.dtypes.equals(FRAME.dtypes)
    assert list(rows) == list(FRAME)
    assert (rows.total == rows.high + rows.low).all()
    assert apart(rows.high * 10 + rows.low, FRAME.high * 10 + FRAME.low) < 0.1
    assert abs(rows.gust.isna().mean() - FRAME.gust.isna().mean()) < 0.05
    assert rows.code.min() > FRAME.code.max()  # identifiers go on


@pytest.mark.parametrize(
    "where",
    [
        "high >= 7",
        "high > 6 and site == 'south'",
        "high >= 5 and low <= 4",  # they depend on each other
        "high >= 8 or low <= 1",
        "high >= 5 or low >= 5",  # they overlap
        "low > high",
        "gust == None and not high > 5",
        "gust != None and gust < 2",
    ],
)
def test_rows_under_a_condition_are_drawn_from_the_conditional_distribution(
    generator: Generator, where: str
) -> None:
    rows = generator.sample(1500, where=where)
    truth = FRAME.query(where.replace("gust == None", "gust.isna()").replace("gust != None", "gust.notna()"))
    assert len(rows) == 1500
    assert set(rows.high) <= set(truth.high)
    assert set(rows.low) <= set(truth.low)
    key = [(frame.high * 10 + frame.low).to_numpy() for frame in (rows, truth)]
    assert apart(*key) < 0.12
    assert rows.attrs["report"]["query"] == where


def test_truncation_alone_would_be_wrong_and_weights_mend_it(generator: Generator) -> None:
    sampler, truth = generator.sampler, FRAME.query("high >= 5 and low <= 4")
    region = {
        "high": torch.tensor((sampler.supports["high"].values >= 5).to_numpy()),
        "low": torch.tensor((sampler.supports["low"].values <= 4).to_numpy()),
    }
    draft = sampler.blank(4000)
    mass = sampler.draw(draft, region, torch.Generator().manual_seed(0), allowed=region)
    truncated = sampler.supports["high"].values.take(draft.picks[:, 0].numpy())
    kept, effective = resample(mass, 4000, torch.Generator().manual_seed(0))
    assert apart(truncated, truth.high) > 0.2 > 0.06 > apart(truncated.iloc[kept.numpy()], truth.high)
    assert generator.sample(500, where="high >= 5 and low <= 4").attrs["report"][
        "effective_sample_size"
    ] == pytest.approx(effective, abs=0.1)


@pytest.mark.parametrize("order", [["high", "low"], ["low", "high"]])
def test_the_effective_share_is_that_of_the_weights_and_depends_on_the_order(
    generator: Generator, order: list[str]
) -> None:
    """A row whose first column is x weighs P(first) P(second | x), and x is drawn from p(x | first).

    So the share is E[q]^2 / E[q^2] with q(x) = P(second | x): 0.47 where high comes first, 0.43 where low
    does.
    """
    fits = {"high": FRAME.high >= 5, "low": FRAME.low <= 4}
    first, second = order
    q = fits[second].groupby(FRAME[first]).mean().reindex(FRAME[first][fits[first]])
    sampler = generator.sampler
    allowed = {name: torch.tensor(fits[name].to_numpy()[sampler.supports[name].rows]) for name in order}
    mass = sampler.draw(sampler.blank(8000), order, torch.Generator().manual_seed(0), allowed=allowed)
    _, effective = resample(mass, 10, torch.Generator().manual_seed(0))
    assert effective == pytest.approx(q.mean() ** 2 / (q**2).mean(), abs=0.02)
    assert mass.exp().mean() == pytest.approx((fits["high"] & fits["low"]).mean(), abs=0.01)


def test_one_range_needs_no_weights(generator: Generator) -> None:
    report = generator.sample(200, where="high >= 8 and site == 'north'").attrs["report"]
    assert report["effective_sample_size"] == 1
    assert report["acceptance"] == 1


def test_a_context_is_kept_and_the_rest_follows_it(generator: Generator) -> None:
    rows = generator.sample(800, given={"high": 9, "low": (7, None), "site": ["north"], "gust": None})
    assert (rows.high == 9).all()
    assert (rows.low >= 7).all()
    assert rows.gust.isna().all()
    assert (rows.site == "north").all()
    assert (rows.total == 9 + rows.low).all()


def test_a_value_that_was_never_seen_may_be_given() -> None:
    frame = FRAME.assign(high=FRAME.high * 1.5)
    rows = remembering(frame).sample(5, given={"high": 1.51})
    assert rows.high.tolist() == [1.51] * 5
    assert rows.high.dtype == "float64"
    assert rows.attrs["report"]["copies"] == 0


def partial() -> pd.DataFrame:
    """Rows of which one or two columns are known, with an index of their own."""
    return pd.DataFrame(
        {"high": [9, None, 2, 2], "site": ["north", None, "south", None], "gust": [None, 0.5, None, None]},
        index=["a", "b", "c", "c"],
    )


def test_of_each_row_of_a_table_what_is_known_is_kept_and_the_rest_is_drawn(generator: Generator) -> None:
    rows = generator.sample(200, given=partial())
    assert rows.dtypes.equals(FRAME.dtypes)
    assert rows.index.tolist() == partial().index.repeat(200).tolist()
    for at, (_, row) in enumerate(partial().iterrows()):
        mine = rows.iloc[200 * at : 200 * (at + 1)]
        for name in row.dropna().index:
            assert (mine[name] == row[name]).all()
    first, last = rows.iloc[:200], rows.iloc[600:]
    assert apart(first.low, FRAME.low[(FRAME.high == 9) & (FRAME.site == "north")]) < 0.15
    assert (last.total == 2 + last.low).all()
    assert last.gust.isna().mean() == pytest.approx(FRAME.gust.isna().mean(), abs=0.1)


def test_a_table_of_rows_goes_together_with_a_condition(generator: Generator) -> None:
    asked = "(low >= 2 and total <= 9) or low == 1"
    rows = generator.sample(150, given=pd.DataFrame({"high": [3, None, 2]}), where=asked)
    assert rows.query(asked).index.equals(rows.index)
    assert rows.attrs["report"]["query"] == asked
    assert apart(rows.high[150:300], FRAME.query(asked).high) < 0.25
    assert (rows.high.iloc[300:] == 2).all()
    assert apart(rows.low.iloc[300:], FRAME.query(f"high == 2 and ({asked})").low) < 0.12


def test_columns_that_are_not_learned_are_kept_as_given(generator: Generator) -> None:
    rows = generator.sample(2, given=pd.DataFrame({"high": [3, 4], "code": [17, 18]}))
    assert rows.code.tolist() == [17, 17, 18, 18]


def test_constraints_are_kept(generator: Generator) -> None:
    rows = generator.sample(400, constraints=["low >= high", "high + low == total"], where="high < 6")
    assert (rows.low >= rows.high).all()
    assert (rows.high < 6).all()
    assert 0.05 < rows.attrs["report"]["acceptance"] < 0.9


def test_a_temperature_below_one_makes_the_likely_likelier(generator: Generator) -> None:
    shares = [
        (generator.sample(800, given={"high": 6}, temperature=t).site == "north").mean() for t in (1, 0.2)
    ]
    assert shares[0] < 0.85 < 0.9 < shares[1]


def test_the_same_seed_draws_the_same_rows(generator: Generator) -> None:
    one, again, other = (generator.sample(50, where="high > 2", seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert not one.equals(other)


def test_copies_are_counted_and_can_be_avoided(generator: Generator) -> None:
    copied = generator.sample(100)
    assert copied.attrs["report"]["copies"] == 100  # the network knows nothing but its rows
    with pytest.raises(
        PolysenseError, match=r"0 of \d+ rows drawn can be kept without copies of training rows; loosen"
    ):
        generator.sample(5, avoid_copies=True)
    vague = remembering(FRAME, vague=0.01)
    rows, learned = vague.sample(100, avoid_copies=True), [name for name in FRAME if name != "code"]
    assert rows.attrs["report"]["copies"] == 0
    assert 0.02 < rows.attrs["report"]["acceptance"] < 1
    assert rows[learned].merge(FRAME[learned].drop_duplicates()).empty


def test_gaps_are_drawn_only_where_they_were_learned() -> None:
    plain = remembering(FRAME, gaps=False, vague=1e-3)
    assert plain.sample(200).gust.notna().all()
    with pytest.raises(PolysenseError, match="gaps were not learned: train with gaps"):
        plain.sample(5, where="gust == None")


def test_holes_are_filled_by_what_the_row_says(generator: Generator) -> None:
    holed = FRAME.head(60).astype({"low": "Int16"})
    holed.loc[:29, "low"] = None
    holed.loc[30:, "site"] = None
    filled = generator.complete(holed.drop(columns="gust"))
    assert (filled.low == FRAME.low[:60]).all()  # the sum tells it
    assert filled.gust.notna().all()
    assert filled.site.notna().all()
    assert filled.dtypes.equals(FRAME.dtypes)
    assert filled.index.equals(holed.index)
    assert (filled.site[:30] == FRAME.site[:30]).all()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"where": "high > 90"},
            "no row can be drawn: of 'high' no value that was seen is allowed .it has 0 to 9",
        ),
        ({"where": "high > 3 and high < 2"}, "contradicts itself"),
        ({"where": "high > 7 and low > high + 8"}, "only 0 of .* rows drawn can be kept under"),
        ({"where": "hihg > 3"}, "did you mean 'high'"),
        ({"where": "code > 3"}, "the column 'code' is identifier, which is not learned"),
        ({"where": "high == None"}, "never missing"),
        ({"given": {"site": "nroth"}}, "'nroth' of the column 'site'"),
        ({"given": {"sight": "north"}}, "did you mean 'site'"),
        ({"given": {"high": 40}}, "high is given as 40, but the table has 0 to 9"),
        ({"given": {"high": (1, 2, 3)}}, r"a range is \(low, high\)"),
        ({"given": {"high": 3}, "where": "high > 5"}, "of 'high' no value"),
        (
            {"given": FRAME.head(2).drop(columns="low"), "where": "high > 9"},
            "of row 0 of the table given: no",
        ),
        ({"given": FRAME.head(2).assign(high=[3, 40])}, "high is given as 40, but the table has 0 to 9"),
        ({"given": FRAME.head(2).assign(hihg=1)}, "the column 'hihg', unknown to the schema"),
        ({"given": FRAME.head(0)}, "the table given has no rows"),
        ({"prompt": "purple rain"}, "'purple', 'rain'"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_sentence(
    generator: Generator, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(PolysenseError, match=sentence):
        generator.sample(5, **asked)


def test_at_least_one_row_is_drawn(generator: Generator) -> None:
    with pytest.raises(PolysenseError, match="n is 0"):
        generator.sample(0)


def test_a_trained_generator_goes_through_its_run_folder(tmp_path: Path) -> None:
    frame = stones(150)
    made = fit_generator(frame, out=tmp_path / "run", steps=4)
    again = Generator.load(tmp_path / "run")  # the table lies in it
    one, other = (each.sample(40, prompt="good with high price") for each in (made, again))
    pd.testing.assert_frame_equal(one, other)
    assert one.dtypes.equals(frame.dtypes)
    assert one.when.isin(frame.when).all()
    assert (one.cut == "good").all()
    (tmp_path / "run" / TABLE).unlink()
    with pytest.raises(PolysenseError, match="was a DataFrame in memory: give it again, as data="):
        Generator.load(tmp_path / "run")
    pd.testing.assert_frame_equal(Generator.load(tmp_path / "run", frame).sample(40), made.sample(40))
    with pytest.raises(PolysenseError, match="lacks the column 'cut'"):
        Generator.load(tmp_path / "run", frame.drop(columns="cut"))


def test_rows_are_written_to_a_file(tmp_path: Path) -> None:
    stones(100).to_csv(tmp_path / "stones.csv", index=False)
    asked: dict[str, Any] = {"rows": 20, "where": "price > 0 and cut in ['fair', 'good']"}
    # the run folder remembers where its table lies
    fit_generator(tmp_path / "stones.csv", out=tmp_path / "run", steps=2)
    out = generate_file(tmp_path / "run", tmp_path / "more.parquet", **asked)
    rows = pd.read_parquet(out)
    assert len(rows) == 20
    assert (rows.price > 0).all()
    assert rows.cut.isin(["fair", "good"]).all()
    with pytest.raises(PolysenseError, match="exists"):
        generate_file(tmp_path / "run", tmp_path / "more.parquet", **asked)
    with pytest.raises(PolysenseError, match="no value that was seen"):
        generate_file(tmp_path / "run", tmp_path / "none.csv", where="price > 1e9")
    assert not (tmp_path / "none.csv").exists()


def test_an_empty_label_means_that_all_columns_are_learned() -> None:
    stones = "builtin:diamonds?carat > 3"
    assert "cut" not in Table().read(stones).frame
    rows = Table().read(stones, label="")
    assert "cut" in rows.frame
    assert rows.label is None


def test_another_run_cannot_draw_rows(tmp_path: Path) -> None:
    run = pretrain(
        stones(64), method="dae", encoder="table_mlp", steps=1, out=tmp_path, judge=False, overwrite=True
    )
    assert run is not None
    with pytest.raises(PolysenseError, match="cannot draw rows; pretrain the method masked_cells"):
        Generator.load(run, stones(64))
