"""Tables from everywhere are one DataFrame, and what is no table is said in a sentence."""

from __future__ import annotations

import datetime
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from polysense.errors import PolysenseError
from polysense.tabular.reading import to_frame, usual_label, with_dates
from polysense.tabular.schema import Schema
from tests.tabular.toy_table import stones


def test_every_source_gives_the_same_schema(tmp_path: Path) -> None:
    frame = stones()
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "t.parquet")
    polars = pl.from_pandas(frame)
    sources = [frame, polars, polars.lazy(), polars.to_arrow()]
    sources += [tmp_path / f"t.{suffix}" for suffix in ("csv", "tsv", "parquet")]
    expected = [(c.name, c.kind, c.levels) for c in Schema.infer(frame).columns]
    for source in sources:
        schema = Schema.infer(to_frame(source))
        assert [(c.name, c.kind, c.levels) for c in schema.columns] == expected, source
        assert schema["weight"].missing == pytest.approx(frame["weight"].isna().mean())


def test_types_are_kept() -> None:
    table = pl.DataFrame({"n": [1, None], "b": [True, None], "c": ["x", None]}).with_columns(
        c=pl.col("c").cast(pl.Categorical)
    )
    frame = to_frame(table)
    assert [str(kind) for kind in frame.dtypes] == ["int64[pyarrow]", "bool[pyarrow]", "category"]
    own = stones()
    assert to_frame(own) is own


def test_dates_before_1678_and_in_zones_are_read() -> None:
    frame = pd.DataFrame({"born": [datetime.date(1500, 2, 3), datetime.date(1600, 1, 1)]})
    assert Schema.infer(to_frame(frame))["born"].minimum == "1500-02-03T00:00:00"
    zoned = with_dates(pd.DataFrame({"at": ["2024-01-01T00:00:00+01:00", "2024-06-01 12:00:00+01:00"]}))
    assert zoned["at"].iloc[0] == pd.Timestamp("2023-12-31T23:00", tz="UTC")
    assert with_dates(pd.DataFrame({"at": ["2024-02-30", "2024-01-01"]}))["at"].iloc[0] == "2024-02-30"


def test_labels_of_built_in_tables_are_known() -> None:
    frame = pd.DataFrame({"label": [1]})
    assert usual_label("builtin:weather", frame) == "origin"
    assert usual_label(frame, frame) == "label"
    assert usual_label(frame, frame.rename(columns={"label": "x"})) is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (pd.DataFrame({"x": []}), "the DataFrame has no rows; a table needs"),
        (pd.DataFrame(index=range(3)), "the DataFrame has no columns"),
        (pd.DataFrame({"x": [1]}), "the DataFrame has one row only"),
        (pd.DataFrame([[1, 2]] * 2, columns=["x", "x"]), "has the column 'x' twice"),
        (pd.DataFrame([[1, 2]] * 2), "has a column named 0; name columns by strings"),
        (pd.DataFrame({"x": [1, "a"]}), "the column 'x' mixes types: row 1 holds 'a' among int values"),
        (
            pd.DataFrame(
                {"x": [datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)]}
            ),
            "'x' holds dates of several time zones",
        ),
        (3, "cannot read a table from a int; give a DataFrame"),
        ("no_such.csv", "no such file or folder: no_such.csv"),
        ("builtin:emoji", "builtin:emoji is no table but data for 'image'"),
    ],
)
def test_what_is_no_table_is_said(source, said: str) -> None:
    with pytest.raises(PolysenseError, match=said):
        to_frame(source)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a")
    with pytest.raises(PolysenseError, match="is no table; give a DataFrame"):
        to_frame(tmp_path / "t.txt")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(PolysenseError, match="line 3 has 3 fields where the header has 2; mend it"):
        to_frame(tmp_path / "t.csv")


def test_one_row_is_enough_where_that_is_asked() -> None:
    assert len(to_frame(pd.DataFrame({"x": [1]}), least=1)) == 1
