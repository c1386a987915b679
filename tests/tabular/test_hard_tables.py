"""Tables that are hard to learn, through the real commands: a file, or a sentence on what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.tabular import sampler
from polysense.tabular.generate import Generator
from polysense.tabular.schema import Schema
from polysense.tasks.generation import fit_generator
from polysense.tasks.imputation import impute
from tests.cli_tools import command


def hard(rows: int = 60) -> pd.DataFrame:
    """Dates before 1678 and with a zone, gaps, a constant, an identifier."""
    rng = np.random.default_rng(0)
    old = pd.Timestamp("1500-01-01").as_unit("s") + pd.to_timedelta(rng.integers(0, 900, rows), unit="D")
    return pd.DataFrame(
        {
            "x": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows).round(2)),
            "old": pd.Series(old).mask(rng.random(rows) < 0.2),
            "zoned": pd.date_range("2024-03-30", periods=rows, freq="h", tz="Europe/Berlin", unit="us"),
            "same": "always",
            "id": [f"stone {at}" for at in range(rows)],
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables")
    hard().to_parquet(path / "hard.parquet")
    fit_generator(path / "hard.parquet", out=path / "run", steps=2)
    return path


def test_old_and_zoned_dates_keep_their_types_in_all_commands(folder: Path) -> None:
    frame = hard()
    for words in (
        ("generate", folder / "run", "--rows", 30, "--where", "old < '1501-06-01'"),
        ("augment", folder / "hard.parquet", "--how", "mixup"),
        ("impute", folder / "hard.parquet"),
        ("impute", folder / "hard.parquet", "--model", folder / "run"),
    ):
        outcome = command(*words, "--out", folder / "made.parquet", "--overwrite")
        assert outcome.code == 0, outcome.err
        made = pd.read_parquet(folder / "made.parquet")
        assert made.dtypes.equals(frame.dtypes)
        assert made.old.dropna().between("1500-01-01", "1502-12-31").all()
        assert made.zoned.between(frame.zoned.min(), frame.zoned.max()).all()
        assert (made.same == "always").all()
        assert words[0] != "generate" or (made.old < "1501-06-01").all()
        assert words[0] != "impute" or made[["x", "old"]].notna().all(axis=None)


def test_what_contradicts_itself_is_told(folder: Path) -> None:
    for where, sentence in (
        ("x > 1 and x < 0", "contradicts itself"),
        ("zoned > '2031-01-01'", "of 'zoned' no value that was seen is allowed"),
        ("same == 'always'", "the column 'same' is constant, which is not learned"),
        ("id == 'stone 3'", "the column 'id' is identifier, which is not learned"),
    ):
        out = folder / "none.csv"
        outcome = command("generate", folder / "run", "--where", where, "--out", out)
        assert outcome.code == 2
        assert sentence in outcome.err
        assert not out.exists()


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("x,x\n1,2\n3,4\n")
    for name in ("generate", "augment", "impute"):
        outcome = command(name, tmp_path / "twice.csv", "--out", tmp_path / "made.csv")
        assert outcome.code == 2
        assert "it has the column 'x' twice; rename one of them" in outcome.err
    with pytest.raises(PolysenseError, match="the DataFrame has the column 'x' twice"):
        fit_generator(pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=["x", "x"]))


def test_ten_thousand_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are an identifier, or learned where the user says that they are levels."""
    frame = pd.DataFrame({"city": [f"city {at}" for at in range(10_000)] * 2, "x": np.arange(20_000) % 7})
    assert Schema.infer(frame)["city"].kind == "identifier"
    generator = fit_generator(frame, out=tmp_path / "run", kinds={"city": "category"}, steps=1)
    monkeypatch.setattr(sampler, "_ODDS", 500_000)  # so many are held at a time
    rows = generator.sample(200)
    assert rows.city.isin(frame.city).all()
    assert rows.city.nunique() > 100
    assert set(generator.sample(20, where="city in ['city 3', 'city 9999']").city) == {"city 3", "city 9999"}
    holes = frame[:300].assign(x=None, city=frame.city[:300].mask(frame.index[:300] > 150))
    whole = impute(holes, model=generator)
    assert whole.city[:150].equals(frame.city[:150])
    assert whole.notna().all(axis=None)


def test_a_label_of_one_class(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.5, 2.5, 3.5], "label": ["a"] * 3}).to_csv(tmp_path / "one.csv", index=False)
    outcome = command(
        *("pretrain", tmp_path / "one.csv", "--modality", "table", "--method", "scarf"),
        *("--out", tmp_path / "run", "--steps", 1),
    )
    assert outcome.code == 2
    assert "the label 'label' has one class only" in outcome.err
    made = command("augment", tmp_path / "one.csv", "--label", "label", "--out", tmp_path / "more.csv")
    assert made.code == 0, made.err
    assert set(pd.read_csv(tmp_path / "more.csv").label) == {"a"}
    assert isinstance(fit_generator(tmp_path / "one.csv", out=tmp_path / "run", steps=1), Generator)
