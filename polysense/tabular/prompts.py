"""Sentences about rows ("a humid summer night at Newark"), read by rules as the condition that they mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from polysense.conditions import Condition
from polysense.errors import PolysenseError
from polysense.tabular.columns import as_floats
from polysense.tabular.schema import LEVELLED, Column, Schema
from polysense.tabular.vocabulary import (
    ADJECTIVES,
    AMOUNTS,
    COMPARED,
    FILLERS,
    FIRST_COMPARED,
    NAMES,
    NUMBERS,
    QUANTILES,
    TIMES,
    UNITS,
)

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"-?\d+(?:[.,]\d+)*|[<>]=?|=|°f|[%$]|[^\W\d][\w'-]*")


def understand(
    sentence: str, frame: pd.DataFrame, schema: Schema, *, words: Mapping[str, str] | None = None
) -> str:
    """The condition that a sentence means, in the language of :class:`~polysense.conditions.Condition`.

    Read are: levels and usual other names of them; seasons, months and times of day for columns named month
    and hour; comparisons ("over 30", "between 1 and 2 carat"), with units; amounts of a column ("humid",
    "almost no wind", "very high price"), which mean quantiles of the table: a quarter of its rows, a tenth
    with "very" or "almost no", and the least value for "no"; "without X" for a missing one. Where a word
    fits several columns it is the number with the fewest gaps.

    Args:
        sentence: in English.
        frame: the table, for its quantiles.
        schema: of its columns.
        words: what further words mean, as conditions, such as ``{"gusty": "wind_gust > 30"}``.

    Raises:
        PolysenseError: naming the words that could not be read; none is ignored but fillers.

    >>> frame = pd.DataFrame({"carat": [0.3, 0.9, 1.1, 2.0], "cut": ["Fair", "Ideal", "Good", "Fair"]})
    >>> understand("fair stones over one carat", frame, Schema.infer(frame), words={"stones": "carat > 0"})
    "cut in ['Fair'] and carat > 0 and carat > 1"
    """
    own = {word.lower(): condition for word, condition in (words or {}).items()}
    for condition in own.values():
        Condition(condition, schema.names)
    reader = _Reader(_TOKEN.findall(sentence.lower()), frame, schema, own)
    conditions = list(dict.fromkeys(reader.conditions()))
    if reader.unread:
        unread = ", ".join(map(repr, reader.unread))
        raise PolysenseError(
            f"the prompt {sentence!r} holds what is not understood: {unread}; say it by columns"
            f" ({', '.join(schema.names[:12])}), or explain it with words={{...}}"
        )
    if not conditions:
        raise PolysenseError(f"the prompt {sentence!r} asks for nothing; name levels or amounts of columns")
    query = " and ".join(f"({each})" if " or " in each else each for each in conditions)
    Condition(query, schema.names)
    return query


@dataclass
class _Reader:
    """Reads a sentence from left to right, at each place by the first rule that takes some words."""

    tokens: Sequence[str]
    frame: pd.DataFrame
    schema: Schema
    words: Mapping[str, str]

    def __post_init__(self) -> None:
        self.unread: list[str] = []
        self.at = 0
        self._last: Column | None = None
        self._levels = {
            str(level).lower(): (column, level)
            for column in reversed(self.schema.of_kind(*LEVELLED))
            for level in column.levels or ()
        }

    def conditions(self) -> Iterator[str]:
        rules: list[Callable[[], str | None]] = [
            self._own,
            self._comparison,
            self._absent,
            self._level,
            self._time,
            self._amount,
            self._adjective,
        ]
        while self.at < len(self.tokens):
            start = self.at
            for rule in rules:
                found = rule()
                if found is not None:
                    yield found
                    break
                self.at = start
            else:
                self._pass_over()

    def _pass_over(self) -> None:
        """A column's name may stand alone before what is said of it; fillers mean nothing."""
        word = self.tokens[self.at]
        self.at += 1
        if word not in FILLERS:
            column = self._column(word)
            if column is None or self.at >= len(self.tokens):
                self.unread.append(word)
            self._last = column

    def _own(self) -> str | None:
        for word in sorted(self.words, key=len, reverse=True):
            if self._take(word):
                return self.words[word]
        return None

    def _comparison(self) -> str | None:
        """[column] over 30 [unit or column], or between two numbers."""
        column = self._named()
        while self._stands(FILLERS) and not self._stands(FIRST_COMPARED):
            self.at += 1
        if self._take("between"):
            low = self._number()
            high = self._number() if self._take("and") else None
            signs = (">=", "<=")
        else:
            sign = next((COMPARED[word] for word in _longest(COMPARED) if self._take(word)), None)
            low, high, signs = self._number() if sign else None, None, (sign or "", "")
        if low is None or (signs[1] and high is None):
            return None
        column = self._counted() or column or self._last
        if column is None or column.kind not in ("number", "integer"):
            return None
        bounds = [(sign, value) for sign, value in zip(signs, (low, high), strict=True) if value is not None]
        return " and ".join(f"{_quoted(column.name)} {sign} {value:.12g}" for sign, value in bounds)

    def _counted(self) -> Column | None:
        """The column that a number is of, by the unit or the name behind it."""
        if self._stands(UNITS):
            self.at += 1
            return self._number_column(UNITS[self.tokens[self.at - 1]])
        return self._named()

    def _absent(self) -> str | None:
        if self._take("without") or self._take("unknown") or self._take("missing"):
            column = self._named()
            return None if column is None else f"{_quoted(column.name)} == None"
        return None

    def _level(self) -> str | None:
        """A level by its own or another name; several of one column with "or" between."""
        found = self._one_level()
        if found is None:
            return None
        column, levels = found[0], [found[1]]
        while self._take("or"):
            more = self._one_level()
            if more is None or more[0] is not column:
                return None
            levels.append(more[1])
        return f"{_quoted(column.name)} in {levels!r}"

    def _one_level(self) -> tuple[Column, Any] | None:
        for level in _longest(self._levels):
            if level not in FILLERS and self._take(level):  # "a" is a word before it is a level
                return self._levels[level]
        if self.at < len(self.tokens):
            for level in NAMES.get(self.tokens[self.at], ()):
                if level.lower() in self._levels:
                    self.at += 1
                    return self._levels[level.lower()]
        return None

    def _time(self) -> str | None:
        for word, (name, values) in TIMES.items():
            column = next((c for c in self.schema.of_kind("integer") if c.name.lower() == name), None)
            if column is not None and (self._take(word) or self._take(f"{word}s")):
                return f"{_quoted(column.name)} in {list(values)}"
        return None

    def _amount(self) -> str | None:
        """Much or little of a column."""
        very = self._take("very")
        for word in _longest(AMOUNTS):
            if self._take(word):
                column = self._named(self._number_column)
                return None if column is None else self._bound(column, AMOUNTS[word], very)
        return None

    def _adjective(self) -> str | None:
        very = self._take("very")
        word = self.tokens[self.at] if self.at < len(self.tokens) else ""
        stems, amount = ADJECTIVES.get(word, ("", ""))
        column = next(filter(None, map(self._number_column, stems.split())), None)
        self.at += 1
        return None if column is None else self._bound(column, amount, very)

    def _bound(self, column: Column, amount: str, very: bool) -> str:
        values = pd.Series(as_floats(self.frame[column.name])).dropna()
        if amount == "least":
            return f"{_quoted(column.name)} == {values.min():.12g}"
        share, sign = QUANTILES[f"very {amount}" if very and not amount.startswith("very") else amount]
        return f"{_quoted(column.name)} {sign} {values.quantile(share, interpolation='nearest'):.12g}"

    def _named(self, find: Callable[[str], Column | None] | None = None) -> Column | None:
        """The column whose name stands here, in up to three words."""
        for length in (3, 2, 1):
            words = self.tokens[self.at : self.at + length]
            column = (find or self._column)(" ".join(words)) if len(words) == length else None
            if column is not None:
                self.at += length
                return column
        return None

    def _column(self, words: str) -> Column | None:
        wanted = words.replace("_", " ")
        exact = [c for c in self.schema.columns if c.name.lower().replace("_", " ") == wanted]
        return exact[0] if exact else self._number_column(words)

    def _number_column(self, words: str) -> Column | None:
        """The number whose name begins, as a whole or in its parts, like these words; with fewest gaps."""
        wanted = words.replace("_", " ").split()
        fitting = [
            column
            for column in self.schema.of_kind("number", "integer")
            if _fits(wanted, column.name.lower().replace("_", " ").split())
        ]
        return min(fitting, key=lambda c: (c.kind != "number", c.missing), default=None)

    def _number(self) -> float | None:
        if self.at >= len(self.tokens):
            return None
        word = self.tokens[self.at].replace(",", "")
        self.at += 1
        if word == "$":
            return self._number()
        if word in NUMBERS:
            return float(NUMBERS[word])
        return float(word) if re.fullmatch(r"-?\d+(\.\d+)?", word) else None

    def _take(self, phrase: str) -> bool:
        """Whether these words stand here; then they are read."""
        words = _TOKEN.findall(phrase)
        if words and list(self.tokens[self.at : self.at + len(words)]) == words:
            self.at += len(words)
            return True
        return False

    def _stands(self, words: Collection[str]) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] in words


def _longest(phrases: Mapping[str, Any]) -> list[str]:
    return sorted(phrases, key=len, reverse=True)


def _fits(wanted: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the words are the first of a name's parts, give or take an ending ("temperature", temp)."""
    if len(wanted) > len(parts):
        return False
    return all(
        word == part or (min(len(word), len(part)) >= 3 and (word.startswith(part) or part.startswith(word)))
        for word, part in zip(wanted, parts, strict=False)
    )


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"
