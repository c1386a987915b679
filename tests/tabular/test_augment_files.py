"""More rows of rare classes, the sampler of imbalanced-learn, and files part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from polysense.errors import PolysenseError
from polysense.tabular.augmentation import Augmenter, augment, augment_file, helps, oversample
from polysense.tabular.augmentation import streaming as streaming_module
from tests.tabular.toy_table import stones


def two_classes(rows: int = 300) -> pd.DataFrame:
    """A rare class in a corner of its own, within which numbers and a category go together."""
    rng = np.random.default_rng(0)
    rare = rng.random(rows) < 0.2
    side = rng.choice([-1.0, 1.0], rows)
    return pd.DataFrame(
        {
            "x": 5 * side + rng.normal(size=rows) / 5 + 100 * rare,
            "n": rng.integers(0, 100, rows) + 1000 * rare,
            "side": np.where(side < 0, "left", "right"),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 50, rows), unit="D"),
            "kind": np.where(rare, "rare", "usual"),
        }
    )


def test_rare_classes_get_rows_between_their_own() -> None:
    frame = two_classes()
    made = oversample(frame, label="kind", seed=0)
    counts = frame.kind.value_counts()
    assert len(made) == counts["usual"] - counts["rare"]
    assert set(made.kind) == {"rare"}
    assert made.dtypes.equals(frame.dtypes)
    rare = frame[frame.kind == "rare"]
    for name in ("x", "n", "when"):
        assert made[name].between(rare[name].min(), rare[name].max()).all()
    assert (made.when == made.when.dt.floor("D")).all()
    assert ((made.x > 100) == (made.side == "right")).all()
    assert not made.x.isin(rare.x).any()
    assert len(augment(frame, "oversample", label="kind", keep=True)) == 2 * counts["usual"]


def test_neighbours_are_the_nearest() -> None:
    """New rows lie on the line to one of the five nearest, found here by all distances."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=400), "y": rng.normal(size=400), "kind": ["a"] * 100 + ["b"] * 300}
    )
    made = oversample(frame, label="kind", seed=0)
    points = frame.loc[:99, ["x", "y"]].to_numpy()
    squares = ((points[:, None] - points[None]) ** 2).sum(-1)
    near = np.sqrt(np.sort(squares, axis=1)[:, 5])
    own = np.argsort(((made[["x", "y"]].to_numpy()[:, None] - points[None]) ** 2).sum(-1), axis=1)[:, 0]
    length = np.sqrt((made[["x", "y"]].to_numpy() - points[own]) ** 2).max(1)
    assert (length <= 2 * near[own]).all()


def test_how_many_rows_a_class_gets() -> None:
    frame = two_classes()
    assert len(oversample(frame, label="kind", to={"rare": 100})) == 100 - (frame.kind == "rare").sum()
    half = round(0.5 * (frame.kind == "usual").sum()) - (frame.kind == "rare").sum()
    assert len(oversample(frame, label="kind", to=0.5)) == half


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name the column that holds them as label"),
        ({"label": "kind", "times": 2}, "oversample makes as many rows as a class lacks"),
        ({"label": "kind", "to": {"rarer": 5}}, "unknown class 'rarer'; did you mean 'rare'"),
        ({"label": "kind", "to": 0.01}, "no class of 'kind' is rarer than asked for"),
        ({"label": "kind", "neighbours": 0}, "neighbours is 0"),
    ],
)
def test_bad_oversampling(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        augment(two_classes(), "oversample", **options)


def test_classes_that_cannot_be_oversampled() -> None:
    frame = two_classes()
    with pytest.raises(PolysenseError, match="holds a single class"):
        oversample(frame[frame.kind == "rare"], label="kind")
    single = pd.concat([frame, frame.iloc[:1].assign(kind="single")])
    with pytest.raises(PolysenseError, match="the class 'single' has a single row"):
        oversample(single, label="kind")


def test_the_augmenter_is_a_sampler() -> None:
    frame = two_classes()
    X, y = frame.drop(columns="kind"), frame.kind
    sampler = clone(Augmenter("oversample", options={"neighbours": 3}, seed=1))
    assert sampler.get_params() == {"how": "oversample", "times": 1, "options": {"neighbours": 3}, "seed": 1}
    more, labels = sampler.fit_resample(X, y)
    assert labels.name == "kind"
    assert labels.value_counts().nunique() == 1
    pd.testing.assert_frame_equal(more.iloc[: len(X)], X)
    rows, classes = Augmenter("mixup", times=2).fit_resample(
        X[["x", "n"]].to_numpy(), (y == "rare").to_numpy(int)
    )
    assert rows.shape == (900, 2)
    assert set(classes) == {0, 1}
    assert isinstance(Augmenter("swap").set_params(times=3).fit_resample(X), pd.DataFrame)
    with pytest.raises(PolysenseError, match="there are 300 rows and 299 labels"):
        sampler.fit_resample(X, y[:-1])


def test_whether_it_helps_is_asked_of_rows_that_were_not_augmented() -> None:
    frame = two_classes()
    scores = helps(frame, "kind", "mixup", splits=2)
    assert (scores["without"] == 1).all()
    assert np.allclose(scores["gain"], scores["with"] - scores["without"])
    noise = frame.assign(kind=np.random.default_rng(0).choice(["a", "b"], len(frame)))
    assert helps(noise, "kind", "oversample", splits=2)["with"].mean() < 0.7
    with pytest.raises(PolysenseError, match="trees learn no soft labels"):
        helps(frame, "kind", "mixup", label_as="soft")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    frame = stones(500).assign(cut=lambda frame: frame.cut.astype("category"))
    frame.to_parquet(tmp_path / "stones.parquet", row_group_size=60)
    frame.to_csv(tmp_path / "stones.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("how", ["mixup", "swap", "gaussian", "missing", "corrupt"])
def test_a_parquet_file_part_by_part(folder: Path, how: str) -> None:
    source, out = folder / "stones.parquet", folder / "out" / "more.parquet"
    assert augment_file(source, out, how, times=2, keep=True, label="kind", chunk_rows=100) == out
    frame, made = pd.read_parquet(source), pd.read_parquet(out)
    assert len(made) == 1500
    assert list(made) == list(frame)
    if how == "missing":
        frame = frame.astype({"price": "Int64", "sold": "boolean"})
    assert made.dtypes.to_dict() == frame.dtypes.to_dict()
    pd.testing.assert_frame_equal(
        made.iloc[300:400].reset_index(drop=True), frame.iloc[100:200].reset_index(drop=True)
    )
    for part in range(0, 1500, 300):
        rows = made.iloc[part : part + 300]
        alike = (rows.iloc[100:200].kind.to_numpy() == rows.iloc[:100].kind.to_numpy()).mean()
        assert alike > {"mixup": 0, "corrupt": 0.85}.get(how, 0.999)  # a duplicated row brings its label


def test_a_text_file_part_by_part(folder: Path) -> None:
    rows = pd.read_csv(folder / "stones.csv")
    rows.assign(note=["1"] * 400 + ["one"] * 100, late=[np.nan] * 400 + [1.5] * 100).to_csv(
        folder / "late.csv", index=False, sep=";"
    )
    augment_file(folder / "late.csv", folder / "more.csv", "mixup", keep=True, chunk_rows=100)
    made = pd.read_csv(folder / "more.csv")
    assert len(made) == 1000
    assert set(made.note) == {"1", "one"}
    assert made.late.notna().sum() == 200
    when = pd.to_datetime(made.when)
    assert (when == when.dt.floor("h")).all()
    assert not when.isin(pd.to_datetime(rows.when)).all()


def test_partners_come_from_the_whole_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_module, "BANK", 200)
    frame = pd.DataFrame({"part": np.repeat(range(5), 100), "x": np.arange(500) + 0.5})
    frame.to_parquet(folder / "sorted.parquet")
    augment_file(
        folder / "sorted.parquet", folder / "swapped.parquet", "swap", chunk_rows=100, options={"share": 1.0}
    )
    swapped = pd.read_parquet(folder / "swapped.parquet")
    for part in range(5):
        assert set(swapped.part.iloc[100 * part : 100 * part + 100]) == set(range(5))
    assert swapped.x.nunique() <= 200


def test_soft_labels_of_classes_that_are_in_one_part_only(folder: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(500) + 0.5, "kind": ["a"] * 499 + ["b"]})
    frame.to_parquet(folder / "rare.parquet")
    options = {"label_as": "soft"}
    augment_file(folder / "rare.parquet", folder / "o.parquet", label="kind", chunk_rows=100, options=options)
    assert list(pd.read_parquet(folder / "o.parquet")) == ["x", "kind=a", "kind=b"]


def test_small_tables_are_written_whole(folder: Path) -> None:
    augment_file(folder / "stones.csv", folder / "more.tsv", "oversample", label="kind")
    assert pd.read_csv(folder / "more.tsv", sep="\t").kind.nunique() <= 3


def test_bad_files(folder: Path) -> None:
    source = folder / "stones.parquet"
    with pytest.raises(PolysenseError, match=r"cannot write a table as 'more\.xlsx'"):
        augment_file(source, folder / "more.xlsx")
    with pytest.raises(PolysenseError, match=r"stones\.csv exists; choose another out"):
        augment_file(source, folder / "stones.csv")
    with pytest.raises(PolysenseError, match="oversample needs all rows at once"):
        augment_file(source, folder / "o.parquet", "oversample", label="kind", chunk_rows=100)
    with pytest.raises(PolysenseError, match="chunk_rows is 0"):
        augment_file(source, folder / "o.parquet", chunk_rows=0)
    with pytest.raises(PolysenseError, match="unknown column 'kin'"):
        augment_file(source, folder / "o.parquet", label="kin", chunk_rows=100)
    (folder / "broken.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(PolysenseError, match=r"cannot read .*broken\.parquet"):
        augment_file(folder / "broken.parquet", folder / "o.parquet")
    (folder / "broken.csv").write_text("a,b\n" + "1,2\n" * 300 + "1,2,3\n")
    with pytest.raises(PolysenseError, match=r"cannot read .*broken\.csv"):
        augment_file(folder / "broken.csv", folder / "o.parquet", chunk_rows=100)
    assert [path for path in folder.iterdir() if path.name.lstrip(".").startswith("o.")] == []


def test_what_is_common_to_all_ways_is_no_option(folder: Path) -> None:
    with pytest.raises(PolysenseError, match="unknown option of mixup 'seed'"):
        augment_file(folder / "stones.csv", folder / "o.parquet", options={"seed": 1})
