"""Commands on tables write a page on what they made, beside the table it was made from."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.tabular.quality import imputation_errors
from polysense.tasks.comparison import write_comparison
from polysense.tasks.generation import fit_generator
from tests.cli_tools import command
from tests.report.test_page import Outline
from tests.tabular.toy_table import stones


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """``whole.csv`` and ``holes.csv`` of the same rows."""
    frame = stones(40).drop(columns="when").fillna({"weight": 0.5})
    frame.to_csv(tmp_path / "whole.csv", index=False)
    hidden = frame.assign(weight=frame.weight.mask(frame.index < 10), cut=frame.cut.mask(frame.index > 34))
    hidden.to_csv(tmp_path / "holes.csv", index=False)
    return tmp_path


def sections(page: Path) -> list[str]:
    return [str(anchor) for anchor in Outline(page.read_text("utf-8")).ids()]


def shown(page: Path, name: str) -> float:
    """The error that the page shows for a column."""
    found = re.search(rf">{name}</text><rect[^>]*/><text[^>]*>([\d.]+)<", page.read_text("utf-8"))
    assert found
    return float(found[1])


@pytest.mark.parametrize("draws", [1, 2])
def test_imputing_shows_the_error_where_the_truth_is_known(tables: Path, draws: int) -> None:
    page, out = tables / "page.html", tables / "filled.parquet"
    outcome = command(
        *("impute", tables / "holes.csv", "--how", "mode", "--draws", draws, "--out", out),
        *("--report", page, "--truth", tables / "whole.csv"),
    )
    assert outcome.code == 0, outcome.err
    assert "page.html" in outcome.out.replace("\n", "")
    assert sections(page) == ["columns", "trends", "errors", "nearest"]
    whole, holes = (pd.read_csv(tables / f"{name}.csv") for name in ("whole", "holes"))
    filled = pd.read_parquet(out)
    gaps = np.tile(holes.weight.isna(), draws)
    missed = filled.weight.to_numpy()[gaps] - np.tile(whole.weight[:10], draws)
    assert shown(page, "weight") == pytest.approx(np.sqrt((missed**2).mean()) / whole.weight.std(), rel=0.02)
    assert shown(page, "cut") <= 1


def test_augmenting_and_generating_show_what_they_made(tables: Path) -> None:
    holes = tables / "holes.csv"
    made = command("augment", holes, "--out", tables / "more.csv", "--report", tables / "more.html")
    assert made.code == 0, made.err
    assert sections(tables / "more.html") == ["columns", "trends", "nearest"]
    fit_generator(holes, out=tables / "run", steps=1)
    given = tables / "given.csv"
    pd.DataFrame({"cut": ["good", None], "sold": [None, True]}).to_csv(given, index=False)
    made = command(
        *("generate", tables / "run", "--given", given, "--rows", 3, "--where", "price > -50"),
        *("--out", tables / "rows.csv", "--report", tables / "rows.html"),
    )
    assert made.code == 0, made.err
    assert "6 rows made from 40" in (tables / "rows.html").read_text("utf-8")
    rows = pd.read_csv(tables / "rows.csv")
    assert (rows.cut[:3] == "good").all()
    assert rows.sold[3:].all()
    assert (rows.price > -50).all()


def test_soft_labels_are_left_out_of_the_page(tmp_path: Path) -> None:
    real = stones(20)
    made = real.drop(columns="kind").assign(**{"kind 0": 0.5, "kind 1": 0.5})
    page = write_comparison(tmp_path / "page.html", real, made)
    assert "<b>kind" not in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--report", "page.pdf"], "the report is a page, and 'page.pdf' ends otherwise"),
        (["--report", "nowhere/page.html"], "there is no folder nowhere for the report"),
        (["--truth", "whole.csv"], "the truth is for the report: ask for that with --report"),
    ],
)
def test_a_page_that_cannot_be_written_is_told_before_the_work(
    tables: Path, options: list[str], sentence: str
) -> None:
    outcome = command("impute", tables / "holes.csv", "--out", tables / "filled.csv", *options)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert not (tables / "filled.csv").exists()


def test_errors_of_every_kind() -> None:
    truth = pd.DataFrame(
        {
            "x": [1.0, 2.0, 4.5, None],
            "when": pd.to_datetime(["2024-01-01", "2024-01-03", "2024-01-05", "2024-01-07"]),
            "kind": pd.Categorical(["a", "b", "b", "a"]),
            "full": [1, 2, 3, 5],
        }
    )
    holes = truth.assign(x=[None, 2, None, None], when=pd.NaT, kind=pd.Categorical([None, None, "b", "a"]))
    guesses = pd.Categorical(["a", "a", "b", "a"])
    filled = truth.assign(x=[2.0, 2.0, 4.5, 9.0], when=truth.when + pd.Timedelta("1D"), kind=guesses)
    errors = imputation_errors(truth, holes, filled)
    assert errors["x"] == pytest.approx(np.sqrt(0.5) / truth.x.std())
    assert errors["when"] == pytest.approx(pd.Timedelta("1D") / truth.when.std())
    assert errors["kind"] == 0.5
    assert "full" not in errors
    with pytest.raises(PolysenseError, match="the tables have 3, 4, 4 rows; the truth must be the same rows"):
        imputation_errors(truth[:3], holes, filled)
