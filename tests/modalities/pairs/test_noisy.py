"""The rules by which noisy texts are left out."""

from __future__ import annotations

import pytest

from polysense.errors import PolysenseError
from polysense.modalities.pairs.noisy import failed_rules

FINE = "a dog runs over the grass"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dog", "has less than 3 words"),
        (" ".join(["dog"] * 21), "has more than 20 words"),
        ("see https://example.org for a dog", "is an address or a file name"),
        ("DSC_0012", "is an address or a file name"),
        ("my dog in the grass.JPG", "is an address or a file name"),
    ],
)
def test_each_rule_is_told(text: str, reason: str) -> None:
    assert failed_rules([FINE, text]) == [None, reason]


def test_a_text_of_many_pictures_goes_and_one_of_few_rows_of_one_picture_stays() -> None:
    texts = ["a Photo of something"] * 11
    assert failed_rules([*texts, FINE]) == ["belongs to more than 10 pictures"] * 11 + [None]
    assert failed_rules(texts, pictures=["one"] * 11) == [None] * 11


def test_texts_with_rare_words_go() -> None:
    failed = failed_rules([FINE, FINE, f"{FINE} zxqj"], frequent=11)
    assert failed == [None, None, "holds a rare word or pair of words"]


def test_languages_without_spaces_count_their_characters() -> None:
    failed = failed_rules(["一只红色的狗", "собака бежит по траве", "犬"])
    assert failed == [None, None, "has less than 3 words"]


def test_bad_limits() -> None:
    with pytest.raises(PolysenseError, match="there are 2 texts and 1 pictures"):
        failed_rules(["a", "b"], ["p"])
    with pytest.raises(PolysenseError, match="no text can have from 5 to 4 words"):
        failed_rules(["a"], least=5, most=4)
