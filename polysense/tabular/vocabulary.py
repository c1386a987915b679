"""The words that prompts may hold, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping

FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "at",
        "in",
        "on",
        "of",
        "with",
        "and",
        "is",
        "are",
        "was",
        "were",
        "be",
        "has",
        "have",
        "that",
        "which",
        "whose",
        "by",
        "for",
        "to",
        "from",
        "row",
        "rows",
        "day",
        "days",
        "time",
        "record",
        "records",
        "where",
        "it",
        "its",
        "case",
        "cases",
    ]
)

QUANTILES = {"high": (0.75, ">="), "low": (0.25, "<="), "very high": (0.9, ">="), "very low": (0.1, "<=")}
"""What amounts mean: the share of the table's rows below, and the side of it."""

AMOUNTS: Mapping[str, str] = {
    **dict.fromkeys(("high", "much", "strong", "large", "big", "great", "lots", "many"), "high"),
    **dict.fromkeys(("low", "little", "weak", "small", "few", "hardly"), "low"),
    "almost no": "very low",
    "no": "least",
}
"""Words before a column's name, and the amount of it that they ask for."""

ADJECTIVES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("hot", "warm"), ("temp", "high")),
    **dict.fromkeys(("cold", "cool", "freezing"), ("temp", "low")),
    "humid": ("humid", "high"),
    "dry": ("humid", "low"),
    "windy": ("wind", "high"),
    "calm": ("wind", "low"),
    "rainy": ("precip", "high"),
    **dict.fromkeys(("expensive", "dear"), ("price", "high")),
    "cheap": ("price", "low"),
    "heavy": ("weight carat", "high"),
    "light": ("weight carat", "low"),
    **dict.fromkeys(("old", "elderly"), ("age", "high")),
    "young": ("age", "low"),
    "rich": ("income", "high"),
    "poor": ("income", "low"),
}
"""What adjectives say: of which columns, and the amount."""

TIMES: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "winter": ("month", (12, 1, 2)),
    "spring": ("month", (3, 4, 5)),
    "summer": ("month", (6, 7, 8)),
    **dict.fromkeys(("autumn", "fall"), ("month", (9, 10, 11))),
    "morning": ("hour", (6, 7, 8, 9, 10, 11)),
    "noon": ("hour", (12,)),
    "afternoon": ("hour", (12, 13, 14, 15, 16, 17)),
    "evening": ("hour", (18, 19, 20, 21)),
    "night": ("hour", (22, 23, 0, 1, 2, 3, 4, 5)),
    **{
        name: ("month", (number,))
        for number, name in enumerate(
            [
                "january",
                "february",
                "march",
                "april",
                "may",
                "june",
                "july",
                "august",
                "september",
                "october",
                "november",
                "december",
            ],
            1,
        )
    },
}
"""Seasons (of the northern hemisphere) and times of day, by the column that tells them."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "newark": ("EWR",),
    "kennedy": ("JFK",),
    "laguardia": ("LGA",),
    **dict.fromkeys(("woman", "women", "female", "females"), ("F", "female", "woman")),
    **dict.fromkeys(("man", "men", "male", "males"), ("M", "male", "man")),
}
"""Other names of usual levels."""

UNITS: Mapping[str, str] = {
    **dict.fromkeys(("year", "years"), "age"),
    **dict.fromkeys(("dollar", "dollars", "$"), "price"),
    **dict.fromkeys(("degree", "degrees", "°f", "fahrenheit"), "temp"),
    **dict.fromkeys(("mph",), "wind speed"),
    **dict.fromkeys(("percent", "%"), "humid"),
    **dict.fromkeys(("carats",), "carat"),
}
"""Units, and the column that they count where none is named."""

COMPARED: Mapping[str, str] = {
    **dict.fromkeys(("above", "over", "exceeding", "more than", "greater than", "higher than"), ">"),
    **dict.fromkeys(("older than", "warmer than", "hotter than", "larger than", "heavier than"), ">"),
    **dict.fromkeys(("below", "under", "less than", "lower than", "fewer than", "smaller than"), "<"),
    **dict.fromkeys(("younger than", "colder than", "cheaper than", "lighter than"), "<"),
    **dict.fromkeys(("at least", "no less than", ">="), ">="),
    **dict.fromkeys(("at most", "up to", "no more than", "<="), "<="),
    **dict.fromkeys(("exactly", "equal to", "="), "=="),
    ">": ">",
    "<": "<",
}
"""Words of comparison."""

FIRST_COMPARED = frozenset(phrase.split()[0] for phrase in COMPARED)

_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBERS = {word: number for number, word in enumerate(_SMALL)} | {
    word: 10 * number for number, word in enumerate(_TENS, 2)
}
