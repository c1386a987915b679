"""The page of a table beside one made from it: the figures it draws, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.report.tables import distribution, heat_map, nearest_rows, write_table_report
from tests.report.test_page import HOSTILE, Outline
from tests.tabular.toy_table import stones


def test_the_page_is_well_formed_and_holds_every_column(tmp_path: Path) -> None:
    frame = stones(60)
    page = write_table_report(
        tmp_path / "page.html",
        frame,
        frame.sample(20, random_state=0).assign(price=frame["price"].astype(float)),
        trends={("weight", "depth"): 0.75, ("weight", "cut"): 0.9},
        errors={"weight": 0.4, "cut": 0.7},
    )
    html = page.read_text("utf-8")
    assert Outline(html).ids() == ["columns", "trends", "errors", "nearest"]
    assert "20 rows made from 60" in html
    for name in frame.columns:
        assert f"<b>{name}</b>" in html
    assert not re.search(r"https?://(?!www\.w3\.org)", html)  # it opens offline


def test_what_is_not_given_is_not_shown(tmp_path: Path) -> None:
    frame = stones(10)
    html = write_table_report(tmp_path / "page.html", frame, frame).read_text("utf-8")
    assert Outline(html).ids() == ["columns", "nearest"]


def test_the_words_of_a_table_do_no_harm(tmp_path: Path) -> None:
    frame = pd.DataFrame({HOSTILE: ["a", HOSTILE, "a"], "x": [1.0, 2.0, 3.0]})
    trends = {(HOSTILE, "x"): 0.5}
    page = write_table_report(tmp_path / "page.html", frame, frame, trends=trends, errors={HOSTILE: 1.0})
    assert "<script>alert" not in page.read_text("utf-8")


def test_shares_of_levels_are_those_of_each_table() -> None:
    real = pd.Series(["a"] * 6 + ["b"] * 2 + [None] * 4)
    made = pd.Series(["b"] * 3 + ["c"])
    words, shares = distribution(real, made)
    assert words == ["a", "b", "others"]
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0, 0.75, 0.25]])


@pytest.mark.parametrize(
    "kind", ["float64", "Int64", "datetime64[us, UTC]", "timedelta64[us]", "float64[pyarrow]"]
)
def test_numbers_dates_and_lengths_of_time_fall_into_bins(kind: str) -> None:
    counted = pd.Series(np.repeat(np.arange(320), 2))
    real = counted.astype("datetime64[us]").dt.tz_localize("UTC") if "UTC" in kind else counted.astype(kind)
    words, shares = distribution(real, real.iloc[-20:])
    assert len(words) == 32
    np.testing.assert_allclose(shares[0], 1 / 32, atol=0.002)
    np.testing.assert_allclose(shares[1, -1], 1)


def test_each_of_few_numbers_has_a_bar_and_others_go_to_the_nearest() -> None:
    words, shares = distribution(pd.Series([1, 1, 4, 12]), pd.Series([0, 5, 5, 99]))
    assert words == ["1", "4", "12"]
    np.testing.assert_allclose(shares, [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])


@pytest.mark.parametrize("values", [[np.nan] * 3, [2.0] * 3])
def test_a_column_without_values_or_with_one_is_drawn(tmp_path: Path, values: list[float]) -> None:
    frame = pd.DataFrame({"x": values})
    words, shares = distribution(frame["x"], frame["x"])
    assert shares.sum() == (2 if words else 0)
    Outline(write_table_report(tmp_path / "page.html", frame, frame).read_text("utf-8"))


def test_the_heat_map_is_fuller_where_trends_differ_more() -> None:
    drawn = heat_map({("a", "b"): 1.0, ("a", "c"): 0.8, ("b", "c"): 0.2})
    shown = dict(re.findall(r'fill-opacity="([\d.]+)"[^>]*><title>(\w, \w)', drawn))
    assert shown == {"0.00": "a, b", "0.40": "a, c", "1.00": "b, c"}
    assert drawn.count("<rect") == 6
    assert "least b and c: 0.200" in drawn


def test_the_nearest_row_is_that_of_a_search_by_hand() -> None:
    real = pd.DataFrame({"x": [0.0, 1.0, 2.0, 30.0], "cut": ["a", "b", "b", "a"]})
    made = pd.DataFrame({"x": [29.0], "cut": ["b"]})
    html = nearest_rows(real, made)
    # ranks of 29 and 2 among four values: 3/4 and 2/4, against 1 + 0 for the level of 30
    assert "distance 0.250" in html
    assert re.findall(r"<td>(.*?)</td>", html) == ["29", "<b>b</b>", "2", "<b>b</b>"]


def test_a_copy_is_at_distance_0_gaps_and_all() -> None:
    real = stones(40)
    html = nearest_rows(real, real.iloc[[3, 7]])
    assert re.findall(r"distance (\S+?)<", html) == ["0", "0"]


def test_tables_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    frame, page = stones(10), tmp_path / "page.html"
    with pytest.raises(PolysenseError, match="differ in the columns cut; give both the same"):
        write_table_report(page, frame, frame.drop(columns="cut"))
    with pytest.raises(PolysenseError, match="made rows is empty"):
        write_table_report(page, frame, frame.iloc[:0])
    with pytest.raises(PolysenseError, match="unknown column 'wieght'; did you mean 'weight'"):
        write_table_report(page, frame, frame, trends={("wieght", "cut"): 1.0})
    with pytest.raises(PolysenseError, match=r"there is no folder .*nowhere: make it"):
        write_table_report(tmp_path / "nowhere" / "page.html", frame, frame)
    assert not page.exists()
