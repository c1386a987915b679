"""Texts in other words: names and numbers stay, each text is rewritten once, and the cache is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.modalities.pairs.texts import TextPairs
from polysense.rewriting import Synonyms, rewritten

TABLE = {"big": ["large", "huge"], "apple": ["pome"], "may": ["might"], "km": ["kilometre"]}


def test_names_and_numbers_are_never_replaced() -> None:
    every = Synonyms({**TABLE, "big": ["large"]}, share=1.0)
    assert every("Big Apple in May: a big apple may fall") == "Large Apple in May: a large pome might fall"
    assert every("it is 5km, not km") == "it is 5km, not kilometre"
    assert every("BIG and biggest, big-hearted") == "BIG and biggest, big-hearted"
    assert every("nothing known: 日本 🍎") == "nothing known: 日本 🍎"


def test_one_word_at_least_and_about_the_share_is_replaced() -> None:
    some = Synonyms({"big": ["large", "huge"]}, share=0.3)
    assert some("a big boat") in ("a large boat", "a huge boat")
    words = some(" ".join(["big"] * 2000)).split()
    assert 0.25 < 1 - words.count("big") / 2000 < 0.35
    assert {"large", "huge"} <= set(words)


def test_the_seed_makes_it_repeatable() -> None:
    texts = ["a big apple may fall"] * 3 + ["big"]
    assert [Synonyms(TABLE, seed=3)(text) for text in texts] == [
        Synonyms(TABLE, seed=3)(text) for text in texts
    ]


def test_each_text_is_rewritten_once_and_kept(tmp_path: Path) -> None:
    asked: list[str] = []

    def louder(text: str) -> str:
        asked.append(text)
        return text.upper()

    cache = tmp_path / "again.json"
    assert rewritten(["a", "b", "a"], louder, cache=cache) == ["A", "B", "A"]
    assert rewritten(["b", "ü"], louder, cache=cache) == ["B", "Ü"]
    assert asked == ["a", "b", "ü"]


def test_what_was_rewritten_before_an_error_is_kept(tmp_path: Path) -> None:
    def failing(text: str) -> str:
        return 1 / 0 if text == "b" else text.upper()  # type: ignore[return-value]

    with pytest.raises(ZeroDivisionError):
        rewritten(["a", "b"], failing, cache=tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == {"a": "A"}


def test_texts_in_other_words_are_partners() -> None:
    frame = pd.DataFrame({"text": ["a big boat", "an apple"]})
    frame["again"] = rewritten(frame["text"], Synonyms(TABLE, share=1.0))
    dataset = TextPairs(["text", "again"]).read(frame)
    assert len(dataset) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: Synonyms(TABLE, share=0.0), "share is 0.0; give the share of words to replace"),
        (lambda path: Synonyms({}), "the table of synonyms is empty"),
        (lambda path: rewritten(["a"], lambda text: None), "rewriting 'a' gave None and no text"),  # type: ignore[arg-type,return-value]
        (lambda path: rewritten(["a"], str, cache=path), "holds no rewritten texts"),
    ],
)
def test_what_does_not_fit_is_told(make: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text("[1, 2]")
    with pytest.raises(PolysenseError, match=message):
        make(tmp_path / "cache.json")


def test_synonyms_of_glosses_are_of_words_with_one_meaning() -> None:
    table = Synonyms.of_glosses().table
    assert table["lawyer"] == ["attorney"]
    assert table["sofa"] == ["couch", "lounge"]
    assert "bank" not in table
    assert all(word.islower() and word not in others for word, others in table.items())
