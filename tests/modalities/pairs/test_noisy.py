"""The rules by which noisy texts are left out."""

from __future__ import annotations

import pytest

from polysense.errors import PolysenseError
from polysense.modalities.pairs.noisy import filter_texts

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
def test_each_rule_is_counted(text: str, reason: str) -> None:
    kept, reasons = filter_texts([FINE, text])
    assert kept.tolist() == [True, False]
    assert reasons == {reason: 1}


def test_a_text_of_many_pictures_goes_and_one_of_few_rows_of_one_picture_stays() -> None:
    texts = ["a Photo of something"] * 11
    kept, reasons = filter_texts([*texts, FINE])
    assert kept.tolist() == [False] * 11 + [True]
    assert reasons == {"belongs to more than 10 pictures": 11}
    assert filter_texts(texts, pictures=["one"] * 11)[0].all()


def test_texts_with_rare_words_go() -> None:
    kept, reasons = filter_texts([FINE, FINE, f"{FINE} zxqj"], frequent=11)
    assert kept.tolist() == [True, True, False]
    assert reasons == {"holds a rare word or pair of words": 1}


def test_languages_without_spaces_count_their_characters() -> None:
    assert filter_texts(["一只红色的狗", "собака бежит по траве", "犬"])[0].tolist() == [True, True, False]


def test_bad_limits() -> None:
    with pytest.raises(PolysenseError, match="there are 2 texts and 1 pictures"):
        filter_texts(["a", "b"], ["p"])
    with pytest.raises(PolysenseError, match="no text can have from 5 to 4 words"):
        filter_texts(["a"], least=5, most=4)
