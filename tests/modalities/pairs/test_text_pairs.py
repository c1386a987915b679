"""Texts that belong together: read, fitted with one tokenizer, seen part by part, and rebuilt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from polysense.errors import PolysenseError
from polysense.modalities.base import Batch, ViewPlan
from polysense.modalities.pairs.dataset import Pairs
from polysense.modalities.pairs.texts import TextPairs

FRAME = pd.DataFrame(
    {
        "question": ["what barks", "what purrs", "what flies over the sea"],
        "answer": ["a dog", "a cat", ["a gull", "a tern"]],
        "wrong": ["a tree", None, "a whale"],
        "kind": ["pet", "pet", "wild"],
    }
)
PARTS = ["question", "answer", "wrong"]


def fitted(parts: list[str] = PARTS, **options: Any) -> tuple[TextPairs, Pairs]:
    pairs = TextPairs(parts, {"length": 32})
    dataset = pairs.read(FRAME, **options)
    return pairs.fit(dataset, ViewPlan(globals_=1, strength="weak")), dataset


def collated(pairs: TextPairs, dataset: Pairs) -> Batch:
    return pairs.collate(dataset.__getitems__([0, 1, 2]))


def test_a_view_of_each_part_in_order_and_what_is_missing_marked() -> None:
    pairs, dataset = fitted()
    views = pairs.views(collated(pairs, dataset))
    assert [(view.modality, view.kind) for view in views] == [("text_pair", part) for part in PARTS]
    assert pairs.show(views[0]).tolist() == FRAME["question"].tolist()
    assert views[1].present is None
    assert views[2].present is not None
    assert views[2].present.tolist() == [True, False, True]


def test_of_several_answers_each_step_draws_one() -> None:
    pairs, dataset = fitted()
    torch.manual_seed(0)
    drawn = {pairs.show(pairs.views(collated(pairs, dataset))[1])[2] for _ in range(20)}
    assert drawn == {"a gull", "a tern"}


def test_all_parts_have_one_tokenizer_which_knows_the_words_of_each() -> None:
    pairs, _ = fitted()
    assert {id(part.tokenizer) for part in pairs.paired.parts.values()} == {id(pairs.tokenizer)}  # type: ignore[attr-defined]


def test_a_text_alone_is_the_first_part_of_a_sample() -> None:
    pairs, dataset = fitted()
    alone = pairs.plain(pairs.batch(FRAME["question"].tolist()))
    ours = pairs.plain(collated(pairs, dataset))
    assert isinstance(alone.data, dict)
    assert isinstance(ours.data, dict)
    assert torch.equal(alone.data["ids"], ours.data["ids"])
    assert torch.equal(
        pairs.raw(collated(pairs, dataset)), pairs.raw(pairs.batch(FRAME["question"].tolist()))
    )


def test_a_samples_length_is_that_of_its_parts_together() -> None:
    pairs, dataset = fitted()
    lengths = pairs.lengths(dataset)
    assert lengths is not None
    texts = (["what barks", "a dog", "a tree"], ["what purrs", "a cat"])
    counted = [int(pairs.tokenizer.encode(one, 32)[1].sum()) for one in texts]
    assert lengths[:2].tolist() == counted
    assert pairs.lengths(object()) is None


def test_it_is_rebuilt_from_settings_and_attachments() -> None:
    pairs, dataset = fitted()
    again = TextPairs.from_settings(pairs.settings(), pairs.attachments())
    assert again.parts == pairs.parts
    ours, theirs = pairs.plain(collated(pairs, dataset)).data, again.plain(collated(again, dataset)).data
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    assert torch.equal(ours["ids"], theirs["ids"])


def test_view_settings_are_those_of_texts() -> None:
    pairs = TextPairs(["question", "answer"], {"length": 32})
    dataset = pairs.read(FRAME)
    plan = ViewPlan(globals_=1, strength="weak", options={"text_pair": {"delete": 0.5}})
    edited = pairs.fit(dataset, plan)
    torch.manual_seed(0)
    views = edited.views(collated(edited, dataset))
    assert isinstance(views[0].data, dict)
    whole = edited.plain(collated(edited, dataset)).data
    assert isinstance(whole, dict)
    assert int(views[0].data["attended"].sum()) < int(whole["attended"].sum())


def test_glosses_give_the_rows_that_have_all_parts() -> None:
    pairs = TextPairs(["definition", "examples"])
    dataset = pairs.read("builtin:glosses?category == 'noun.Tops'")
    assert 5 < len(dataset) < 60
    assert all(np.all(members.counts > 0) for members in dataset.members.values())
    assert dataset.label == "category"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextPairs("question"), "parts is 'question'; give a list of different columns"),
        (lambda: TextPairs(["a", "a"]), "give a list of different columns"),
        (lambda: TextPairs(["a"]), "a pair has two parts or more"),
        (lambda: TextPairs(text={"lenght": 3}), "unknown option of the modality 'text' 'lenght'"),
        (
            lambda: TextPairs(["definition", "word"]).read("builtin:glosses"),
            "unknown column of builtin:glosses 'word'",
        ),
        (lambda: fitted()[0].batch([3]), "item 0 of the list is no text but 3"),
    ],
)
def test_what_does_not_fit_is_told(make: Any, message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        make()
