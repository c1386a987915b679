"""Mixing and noise: the same columns, types and index; values where the formulas say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from polysense.errors import PolysenseError
from polysense.tabular.augmentation import HOWS, augment, cutmix, gaussian, mixup, swap
from polysense.tabular.augmentation.values import Values, column_of, values_of
from polysense.tabular.schema import Schema

ROWS = 400


def every_type(rows: int = ROWS, *, seed: int = 0) -> pd.DataFrame:
    """A column of each of the types that tables come in, some with gaps, under an index of its own."""
    rng = np.random.default_rng(seed)
    number, whole = rng.normal(size=rows), rng.integers(0, 200, rows)
    gap = rng.random(rows) < 0.2
    words = np.array(["low", "mid", "high"])[rng.integers(0, 3, rows)]
    when = pd.Series(pd.Timestamp("2024-03-01") + pd.to_timedelta(rng.integers(0, 5000, rows), unit="h"))
    day = when.dt.floor("D")
    columns: dict[str, Any] = {
        "float64": number,
        "float32": number.astype(np.float32),
        "gaps": np.where(gap, np.nan, number),
        "Float64": pd.array(np.where(gap, np.nan, number), dtype="Float64"),
        "int64": whole,
        "uint8": whole.astype(np.uint8),
        "Int64": pd.Series(whole, dtype="Int64").mask(gap),
        "whole floats": np.where(gap, np.nan, whole),
        "naive": when,
        "zone": when.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
        "date gaps": day.mask(gap),
        "duration": pd.to_timedelta(whole, unit="min"),
        "str": words,
        "category": pd.Categorical(words),
        "ordered": pd.Categorical(words, ["low", "mid", "high"], ordered=True),
        "bool": whole > 100,
        "boolean": pd.Series(whole > 100, dtype="boolean").mask(gap),
        "arrow int": pd.Series(whole, dtype="Int64").mask(gap).astype("int16[pyarrow]"),
        "arrow float": pd.array(number, dtype="double[pyarrow]"),
        "arrow str": pd.array(words, dtype=pd.ArrowDtype(pa.string())),
        "arrow stamp": when.astype(pd.ArrowDtype(pa.timestamp("ms", "UTC"))),
        "arrow day": day.astype(pd.ArrowDtype(pa.date32())),
        "id": [f"row {at}" for at in range(rows)],
        "constant": [7] * rows,
    }
    return pd.DataFrame({name: pd.Series(column).array for name, column in columns.items()}).set_axis(
        pd.Index([f"key {at}" for at in range(rows)], name="key")
    )


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return every_type()


@pytest.mark.parametrize("how", ["mixup", "cutmix", "swap", "gaussian", "corrupt"])
def test_columns_types_and_index_stay(table: pd.DataFrame, how: str) -> None:
    before = table.copy(deep=True)
    made = augment(table, how, times=2, seed=1)
    pd.testing.assert_frame_equal(table, before)
    assert list(made) == list(table)
    assert made.dtypes.to_dict() == table.dtypes.to_dict()
    assert list(made.index) == [*table.index, *table.index]
    assert made.index.name == "key"
    assert not made.iloc[:ROWS].equals(table)
    if how != "corrupt":
        for name in ("id", "constant"):
            assert made[name].tolist() == [*table[name], *table[name]]
    pd.testing.assert_frame_equal(made, augment(table, how, times=2, seed=1))
    assert not made.equals(augment(table, how, times=2, seed=2))


def test_a_plain_index_counts_on_and_keep_puts_the_rows_first(table: pd.DataFrame) -> None:
    plain = table.reset_index(drop=True)
    made = augment(plain, "mixup", times=2, keep=True)
    assert made.index.equals(pd.RangeIndex(3 * ROWS))
    pd.testing.assert_frame_equal(made.iloc[:ROWS], plain)


@pytest.mark.parametrize("how", ["swap", "cutmix", "mixup"])
def test_what_is_no_quantity_comes_from_the_table(table: pd.DataFrame, how: str) -> None:
    made = augment(table, how, seed=3)
    for name in ("str", "category", "ordered", "bool", "arrow str"):
        assert set(made[name]) <= set(table[name])
    assert made["ordered"].cat.categories.tolist() == ["low", "mid", "high"]


def test_mixup_is_the_formula() -> None:
    """λ of each row is told from one column, and must hold in all others."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"at": np.arange(50) + 0.5, "x": rng.normal(size=50), "n": rng.integers(0, 90, 50)})
    frame["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(frame.n * 24, unit="h")
    made = mixup(frame, alpha=1.0, seed=4)
    draft_rng = np.random.default_rng(4)
    partner, weight = draft_rng.integers(50, size=50), draft_rng.beta(1.0, 1.0, 50)
    for name in ("at", "x"):
        expected = weight * frame[name] + (1 - weight) * frame[name].to_numpy()[partner]
        np.testing.assert_allclose(made[name], expected, atol=1e-12)
    exact = weight * frame.n + (1 - weight) * frame.n.to_numpy()[partner]
    assert (made.n == np.floor(exact + 0.5)).all()
    days = (made.when - pd.Timestamp("2024-01-01")) / pd.Timedelta(days=1)
    assert (days == np.floor(exact + 0.5)).all()


def test_halves_are_rounded_away_from_zero() -> None:
    values = Values(np.array([1, -1, 2, -2]), np.zeros(4, dtype=bool))
    assert values.moved(np.array([0.5, -0.5, 0.5, 0.5])).numbers.tolist() == [2, -2, 3, -2]


def test_mixup_keeps_the_weight_of_categories_and_integers_kept_as_floats(table: pd.DataFrame) -> None:
    made = mixup(table, alpha=0.2, times=20, seed=0)
    kept = (made["str"].to_numpy() == np.tile(table["str"], 20)).mean()
    assert kept == pytest.approx(1 / 2 + 1 / 6, abs=0.03)
    whole = made["whole floats"].dropna()
    assert (whole == whole.round()).all()


@pytest.mark.parametrize(
    ("gaps", "missing"), [("keep", 0.2), ("other", 0.2 * 0.2), ("propagate", 1 - 0.8 * 0.8)]
)
def test_gaps(gaps: Any, missing: float) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=4000), "kind": rng.choice(["a", "b"], 4000)})
    frame = frame.mask(rng.random(frame.shape) < 0.2)
    made = mixup(frame, gaps=gaps, seed=1)
    assert made.x.isna().mean() == pytest.approx(missing, abs=0.03)
    assert made.kind.isna().mean() == pytest.approx(missing, abs=0.03)
    if gaps == "keep":
        assert made.isna().equals(frame.isna())


def test_labels_drawn_soft_and_mixed() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=3000), "kind": rng.choice(["a", "b", "c"], 3000)})
    frame["price"] = frame.x * 2
    drawn = mixup(frame, label="kind", seed=1)
    assert drawn.kind.dtype == frame.kind.dtype
    assert 0 < (drawn.kind != frame.kind).mean() < 0.5
    soft = mixup(frame, label="kind", label_as="soft", seed=1)
    classes = ["kind=a", "kind=b", "kind=c"]
    assert list(soft) == ["x", "price", *classes]
    np.testing.assert_allclose(soft[classes].sum(axis=1), 1)
    pd.testing.assert_series_equal(soft.x, drawn.x)
    mixed = mixup(frame, label="price", seed=1)
    np.testing.assert_allclose(mixed.price, 2 * mixed.x)
    kept = augment(frame, "mixup", label="kind", label_as="soft", keep=True)
    assert len(kept) == 6000
    assert set(kept[classes].iloc[0]) == {0.0, 1.0}


def test_partners_within_a_group() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 600)
    frame = pd.DataFrame({"group": np.array(["a", "b", None], dtype=object)[groups]})
    frame["x"] = 10.0 * groups + rng.random(600)
    for how in (mixup, cutmix, swap):
        made = how(frame, within="group", label="group", seed=1)
        assert ((made.x // 10).astype(int) == groups).all()
        assert not made.x.equals(frame.x)


@pytest.mark.parametrize("span", [False, True])
def test_cutmix_takes_cells_from_one_partner_and_mixes_the_label_by_their_share(span: bool) -> None:
    at = np.arange(500)
    frame = pd.DataFrame({f"c{column}": at + 1000 * column + 0.5 for column in range(5)})
    frame["kind"] = np.where(at % 2, "odd", "even")
    made = cutmix(frame, share=0.4, span=span, label="kind", label_as="soft", seed=0)
    sources = np.column_stack([made[f"c{column}"] - 1000 * column - 0.5 for column in range(5)]).astype(int)
    replaced = sources != at[:, None]
    assert replaced.mean() == pytest.approx(0.4, abs=0.03)
    for row, changed in zip(sources, replaced, strict=True):
        assert len(set(row[changed])) <= 1
    partner = np.where(replaced, sources, -1).max(1)
    own, kept = np.where(at % 2, made["kind=odd"], made["kind=even"]), 1 - replaced.mean(1)
    expected = np.where((partner < 0) | (partner % 2 == at % 2), 1.0, kept)
    np.testing.assert_allclose(own, expected)
    if span:
        assert (replaced.sum(1)[partner >= 0] == 2).all()


def test_swap_keeps_each_columns_distribution_and_breaks_ties() -> None:
    at = np.arange(20_000)
    frame = pd.DataFrame({"x": at / 20_000 + 0.01, "y": at / 20_000 + 0.01, "kind": at % 2})
    made = swap(frame, share=0.15, label="kind", seed=0)
    assert (made.x != frame.x).mean() == pytest.approx(0.15, abs=0.01)
    assert made.x.mean() == pytest.approx(frame.x.mean(), abs=0.01)
    assert (made.x != made.y).mean() == pytest.approx(1 - 0.85**2, abs=0.01)
    assert made.kind.equals(frame.kind)


def test_gaussian_noise_has_the_scale_of_the_quartiles() -> None:
    x = np.random.default_rng(0).normal(3, 2, 20_000)
    frame = pd.DataFrame({"x": x, "flat": np.where(np.arange(20_000) < 19_000, 0.0, 5.5), "n": x.round(0)})
    frame.loc[0, "x"] = 1e6  # one outlier does not inflate it
    made = gaussian(frame, scale=0.1, clip=False, seed=0)
    assert (made.x - frame.x).std() == pytest.approx(0.1 * 2, rel=0.03)
    assert (made.flat - frame.flat).std() == pytest.approx(0.1 * frame.flat.std(), rel=0.03)
    assert (made.n == made.n.round()).all()
    positive = pd.DataFrame({"price": np.exp(x)})
    made = gaussian(positive, log=["price"], clip=True, seed=0)
    assert (np.log(made.price) - x).std() == pytest.approx(0.2, rel=0.05)
    assert made.price.between(positive.price.min(), positive.price.max()).all()


def test_partners_and_statistics_come_from_the_bank() -> None:
    frame, bank = pd.DataFrame({"x": [0.5, 1.5]}), pd.DataFrame({"x": [10.5, 11.5, 12.5]})
    assert set(swap(frame, share=1, times=50, bank=bank).x) == {10.5, 11.5, 12.5}


def test_integers_beyond_the_precision_of_floats_stay_in_the_pair() -> None:
    frame = pd.DataFrame({"n": [2**62, 2**62 + 1, 2**62 + 2, 5]})
    for seed in range(5):
        made = mixup(frame.iloc[:3], alpha=1.0, seed=seed, schema=Schema.infer(frame))
        assert made.n.between(2**62, 2**62 + 2).all()


def test_values_round_trip(table: pd.DataFrame) -> None:
    for name in table:
        column = table[name].reset_index(drop=True)
        if column.dtype.kind in "iufmM" and name != "constant":
            back = column_of(values_of(column), column)
            pd.testing.assert_series_equal(back, column, check_names=False)


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        ("mixupp", {}, "unknown way to augment 'mixupp'; did you mean 'mixup'"),
        ("mixup", {"alpa": 1}, "unknown option of mixup 'alpa'; did you mean 'alpha'"),
        ("mixup", {"alpha": 0}, "alpha is 0"),
        ("mixup", {"gaps": "fill"}, "unknown way to treat gaps 'fill'"),
        ("mixup", {"label": "kin"}, "unknown column 'kin'; did you mean 'kind'"),
        ("mixup", {"label": "kind", "label_as": "mixed"}, "holds classes, and no cell holds two"),
        ("mixup", {"label": "kind", "label_as": "hard"}, "unknown kind of label 'hard'"),
        ("cutmix", {"share": 1.5}, "share is 1.5, but it is a share between 0 and 1"),
        (
            "gaussian",
            {"columns": ["kind"]},
            "column 'kind' is of kind category, and noise is added to numbers",
        ),
        ("gaussian", {"log": ["x"]}, "column 'x' holds numbers of 0 or less"),
        ("gaussian", {"scale": -1}, "scale is -1"),
        ("swap", {"within": "knd"}, "unknown column 'knd'"),
        ("swap", {"times": 0}, "times is 0"),
    ],
)
def test_bad_options(how: str, options: dict[str, Any], message: str) -> None:
    frame = pd.DataFrame({"x": [0.5, -1.0, 2.0], "kind": ["a", "b", "a"]})
    with pytest.raises(PolysenseError, match=message):
        augment(frame, how, **options)


def test_bad_tables() -> None:
    with pytest.raises(PolysenseError, match="no rows"):
        augment(pd.DataFrame({"x": []}), "mixup")
    with pytest.raises(PolysenseError, match="no column can be augmented"):
        augment(pd.DataFrame({"x": [1, 1, 1]}), "mixup")
    with pytest.raises(PolysenseError, match="two columns are named 'x'"):
        mixup(pd.DataFrame([[1, 2], [3, 4]], columns=["x", "x"]))
    with pytest.raises(PolysenseError, match="infinite in row 1"):
        augment(pd.DataFrame({"x": [1.5, np.inf, 2.0]}), "mixup")
    many = pd.DataFrame({"x": np.arange(1500) / 7, "kind": [f"k{at // 2}" for at in range(3000)][:1500]})
    with pytest.raises(PolysenseError, match="too many for soft labels"):
        mixup(
            pd.concat([many] * 2).assign(kind=[f"k{at}" for at in range(3000)]), label="kind", label_as="soft"
        )


@pytest.mark.parametrize("how", [how for how in HOWS if how != "oversample"])
def test_one_row_is_enough(how: str) -> None:
    frame = pd.DataFrame({"x": [1.5, 2.5], "n": [1, 2], "kind": ["a", "b"]})
    assert len(augment(frame.iloc[:1], how, schema=Schema.infer(frame))) == 1
