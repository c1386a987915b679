"""Conditions on rows: what they mean, what they allow each column, and what they refuse."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysense.conditions import Allowed, Condition
from polysense.errors import PolysenseError

FRAME = pd.DataFrame(
    {
        "temp": [70.0, 85.0, None, 90.0, 40.0],
        "origin": ["JFK", "JFK", "EWR", "LGA", None],
        "dewp": [60.0, 86.0, 10.0, 50.0, 39.0],
        "wind speed": [0, 5, 10, 20, 30],
        "when": pd.to_datetime(["2013-01-01", "2013-06-01", "2013-07-01", None, "2014-01-01"]),
        "size": pd.Categorical(["S", "L", "M", "S", "L"], ["S", "M", "L"], ordered=True),
    }
)


def mask(text: str) -> list[bool]:
    return Condition(text, list(FRAME)).mask(FRAME).tolist()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("temp > 80", [1, 3]),
        ("80 < temp", [1, 3]),
        ("70 <= temp < 90", [0, 1]),
        ("not temp > 80", [0, 4]),
        ("not (70 <= temp < 90)", [3, 4]),
        ("temp > 80 and origin in ['JFK']", [1]),
        ("temp < 50 or origin == 'EWR'", [2, 4]),
        ("origin not in ['JFK', 'LGA']", [2]),
        ("origin != 'JFK'", [2, 3]),
        ("origin == None", [4]),
        ("temp != None", [0, 1, 3, 4]),
        ("`wind speed` >= 10", [2, 3, 4]),
        ("dewp > temp", [1]),
        ("temp - dewp > 20", [3]),
        ("when >= '2013-06-01'", [1, 2, 4]),
        ("size > 'S'", [1, 2, 4]),
        ("(temp > 80 or temp < 50) and not origin == 'LGA'", [1]),
        ("temp > -5", [0, 1, 3, 4]),
    ],
)
def test_which_rows(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(mask(text)).tolist() == rows


def test_boxes_say_what_each_column_may_hold() -> None:
    (box,) = Condition(
        "temp > 60 and temp >= 70 and temp < 90 and origin in ['JFK', 'LGA'] and origin != 'LGA'", list(FRAME)
    ).boxes()
    assert box.columns["temp"] == Allowed(low=70, high=90, below=True)
    assert box.columns["origin"] == Allowed(among=("JFK", "LGA"), without=("LGA",))
    assert not box.by_row


def test_alternatives_and_what_is_left_to_check_by_row() -> None:
    boxes = Condition("(temp > 60 or dewp > temp) and origin == 'JFK'", list(FRAME)).boxes()
    assert [sorted(box.columns) for box in boxes] == [["origin", "temp"], ["origin"]]
    assert [box.by_row for box in boxes] == [False, True]


@given(
    st.integers(-5, 5),
    st.integers(-5, 5),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.booleans(),
)
def test_the_boxes_hold_exactly_the_rows_of_the_mask(low: int, high: int, sign: str, negate: bool) -> None:
    frame = pd.DataFrame({"x": [*range(-6, 7), None] * 2, "y": np.arange(28) % 5})
    text = f"x {sign} {low} or y > {high}"
    condition = f"not ({text}) or x == 3" if negate else text
    made = Condition(condition, ["x", "y"])
    boxed = np.zeros(len(frame), bool)
    for box in made.boxes():
        inside = np.ones(len(frame), bool)
        for column, allowed in box.columns.items():
            inside &= allowed.mask(frame[column])
        boxed |= inside
    assert (boxed == made.mask(frame)).all()
    known = frame["x"].notna().to_numpy()
    expected = [eval(condition, {}, row) for row in frame[known].to_dict("records")]
    assert made.mask(frame)[known].tolist() == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tmp > 80", "did you mean 'temp'"),
        ("temp >", "not written as one"),
        ("1 > 2", "names no column"),
        ("temp", "compares nothing"),
        ("__import__('os').system('x')", "compares nothing"),
        ("temp > len('x')", "neither a column nor a value"),
        ("temp.mean() > 3", "neither a column nor a value"),
        ("temp > 80 and temp < 70", "contradicts itself"),
        ("origin == 'JFK' and origin == 'LGA'", "contradicts itself"),
        ("temp == None and temp > 3", "contradicts itself"),
        ("temp is None", "use =="),
        ("origin in 'JFK'", "write in [a, b]"),
        ("origin > None", "only == and !="),
        ("temp > 'hot' and temp > 80", "with texts and with numbers"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(PolysenseError, match=said.replace("[", r"\[").replace("(", r"\(")) as error:
        Condition(text, list(FRAME))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("temp > 'hot'", "holds numbers"), ("origin > 3", "holds texts"), ("when > 'soon'", "no date")],
)
def test_values_of_another_kind_are_told_when_the_column_is_seen(text: str, said: str) -> None:
    with pytest.raises(PolysenseError, match=said):
        mask(text)
