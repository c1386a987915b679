"""Sentences, and the conditions that they are understood as."""

from __future__ import annotations

import pandas as pd
import pytest

from polysense.conditions import Condition
from polysense.errors import PolysenseError
from polysense.modalities.builtin import builtin
from polysense.tabular.prompts import understand
from polysense.tabular.schema import Schema

WEATHER, STONES = builtin("builtin:weather"), builtin("builtin:diamonds")
SCHEMAS = {id(WEATHER): Schema.infer(WEATHER), id(STONES): Schema.infer(STONES)}
NIGHT = "hour in [22, 23, 0, 1, 2, 3, 4, 5]"


def query(sentence: str, frame: pd.DataFrame = WEATHER, **options: dict[str, str]) -> str:
    return understand(sentence, frame, SCHEMAS[id(frame)], **options)


@pytest.mark.parametrize(
    ("sentence", "meant"),
    [
        (
            "a humid summer night at Newark with almost no wind",
            f"humid >= 78.79 and month in [6, 7, 8] and {NIGHT} and origin in ['EWR']"
            " and wind_speed <= 4.60312",
        ),
        ("temperature above 80 degrees at JFK or LGA", "temp > 80 and origin in ['JFK', 'LGA']"),
        ("over eighty degrees in winter", "temp > 80 and month in [12, 1, 2]"),
        ("wind speed between 10 and 20 mph", "wind_speed >= 10 and wind_speed <= 20"),
        ("mornings without wind gust", "hour in [6, 7, 8, 9, 10, 11] and wind_gust == None"),
        ("no wind at LaGuardia", "wind_speed == 0 and origin in ['LGA']"),
        ("a very hot July", "temp >= 78.8 and month in [7]"),
        ("humidity at most 30 percent", "humid <= 30"),
    ],
)
def test_weather(sentence: str, meant: str) -> None:
    assert query(sentence) == meant
    Condition(meant, list(WEATHER))


@pytest.mark.parametrize(
    ("sentence", "meant"),
    [
        (
            "a fair cut, price under 4,000 dollars, at least 1 carat",
            "cut in ['Fair'] and price < 4000 and carat >= 1",
        ),
        ("very good cut of over two carats", "cut in ['Very Good'] and carat > 2"),
        ("color E or F", "color in ['E', 'F']"),
        ("cheap ideal with a price of more than 400", "price <= 950 and cut in ['Ideal'] and price > 400"),
    ],
)
def test_stones(sentence: str, meant: str) -> None:
    assert query(sentence, STONES) == meant


def test_amounts_are_quantiles_of_the_table() -> None:
    mask = Condition(query("high temperature"), list(WEATHER)).mask(WEATHER)
    assert 0.23 < mask.mean() < 0.28
    mask = Condition(query("very high temperature"), list(WEATHER)).mask(WEATHER)
    assert 0.08 < mask.mean() < 0.12


def test_own_words_are_conditions() -> None:
    words = {"bad flying weather": "visib < 3 or wind_speed > 30"}
    assert (
        query("bad flying weather in May", words=words) == "(visib < 3 or wind_speed > 30) and month in [5]"
    )


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("purple rain at JFK", "'purple', 'rain'"),
        ("a hot day in Berlin", "'berlin'"),
        ("above 80", "'above', '80'"),  # of what?
        ("30 celsius", "'30', 'celsius'"),
        ("temperature", "'temperature'"),
        ("", "asks for nothing"),
    ],
)
def test_what_is_not_understood_is_an_error_and_not_ignored(sentence: str, said: str) -> None:
    with pytest.raises(PolysenseError, match=said):
        query(sentence)


def test_own_words_must_be_conditions() -> None:
    with pytest.raises(PolysenseError, match="did you mean 'temp'"):
        query("hot", words={"mild": "tmp > 3"})
