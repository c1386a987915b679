"""The text modality: fitted, collated, rebuilt from what a run keeps, and what it tells."""

from __future__ import annotations

import logging
import math
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import polysense
from polysense.encoders.text_transformer import TextEncoder
from polysense.errors import PolysenseError
from polysense.modalities import make, rebuild
from polysense.modalities.base import Batch, Dataset, ViewPlan
from polysense.modalities.text.modality import BUCKETS, Text
from polysense.modalities.text.store import Texts
from polysense.modalities.text.tokenizer import Tokenizer

TEXTS = [
    "a red apple",
    "ein grüner Apfel",
    "苹果在树上",
    "תפוח ירוק",
    "🍎",
    "the longest of all these texts, by far",
]


def fitted(length: int = 64, plan: ViewPlan | None = None, **options: Any) -> tuple[Text, Texts]:
    text = Text(length, **options)
    dataset = text.read(TEXTS)
    return text.fit(dataset, plan or ViewPlan()), dataset


def test_read_fit_collate_views() -> None:
    text, dataset = fitted()
    assert isinstance(dataset, Dataset)
    batch = text.collate(dataset.__getitems__([4, 0]))
    assert batch.index.tolist() == [4, 0]
    views = text.views(batch)
    assert [(view.modality, view.kind) for view in views] == [("text", "global")] * 2
    for view in (*views, text.plain(batch)):
        assert isinstance(view.data, dict)
        assert text.show(view).tolist() == ["🍎", "a red apple"]
        assert (
            view.data["ids"].shape == view.data["attended"].shape == (2, view.data["attended"].sum(1).max())
        )


def test_a_batch_of_items_is_the_batch_of_the_dataset() -> None:
    text, dataset = fitted()
    ours, theirs = text.batch(TEXTS), text.collate(dataset.__getitems__(range(6)))
    assert isinstance(ours.data, dict)
    assert isinstance(theirs.data, dict)
    assert torch.equal(ours.data["ids"], theirs.data["ids"])
    assert torch.equal(ours.data["attended"], theirs.data["attended"])


def test_texts_are_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text, dataset = fitted()

    def refuse(*_: Any) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(Tokenizer, "tokens", refuse)
    assert len(text.collate(dataset.__getitems__([1, 2]))) == 2
    there = pickle.loads(pickle.dumps((dataset, text)))  # as a spawned worker receives them
    assert len(there[1].collate(there[0].__getitems__([1, 2]))) == 2
    with pytest.raises(AssertionError):
        Text(tokenizer=text.tokenizer, length=9).collate(dataset.__getitems__([1]))


def test_the_plan_reaches_the_views() -> None:
    options = {"text": {"views": [{}, {"mask": 0.99}], "local": {"shuffle": 3}}}
    text, dataset = fitted(plan=ViewPlan(globals_=3, locals_=2, options=options))
    batch = text.collate(dataset.__getitems__([5]))
    torch.manual_seed(0)
    views = text.views(batch)
    assert [view.kind for view in views] == ["global"] * 3 + ["local"] * 2
    shown = [text.show(view)[0] for view in views]
    assert shown[0] == shown[2] == TEXTS[5]
    assert "[MASK]" in shown[1]
    count = int(text.tokenizer.inner(batch.data["ids"], batch.data["attended"]).sum())  # type: ignore[index,call-overload]
    for view in views[3:]:
        assert isinstance(view.data, dict)
        inner = int(text.tokenizer.inner(view.data["ids"], view.data["attended"]).sum())
        assert round(0.2 * count) <= inner <= round(0.5 * count)


def test_the_bag_of_words_against_a_loop() -> None:
    text, dataset = fitted()
    batch = text.collate(dataset.__getitems__([0, 5]))
    bags = text.raw(batch)
    assert bags.shape == (2, BUCKETS)
    assert isinstance(batch.data, dict)
    special = text.tokenizer.special.tolist()
    for bag, ids in zip(bags, batch.data["ids"].tolist(), strict=True):
        counts = Counter((number * 2654435761 % 2**32) >> 22 for number in ids if number not in special)
        norm = math.sqrt(sum(math.log1p(count) ** 2 for count in counts.values()))
        expected = torch.zeros(BUCKETS)
        for place, count in counts.items():
            expected[place] = math.log1p(count) / norm
        torch.testing.assert_close(bag, expected)


def test_hashes_of_a_vocabulary_spread_evenly() -> None:
    places = (torch.arange(8192) * 2654435761 % 2**32) >> 22
    assert places.bincount(minlength=BUCKETS).max() <= 16


# --- what is kept of it


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_run_rebuilds_it_from_settings_and_attachments(tmp_path: Path, kind: str) -> None:
    plan = ViewPlan(1, 1, "weak", {"text": {"crop": (0.5, 1.0), "views": [{"delete": 0.1}]}})
    text, _ = fitted(24, plan, tokenizer=kind, lower=False, vocabulary=600)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(text.settings()), encoding="utf-8")
    attached = {}
    for name, content in text.attachments().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        attached[name] = (tmp_path / name).read_text(encoding="utf-8")
    assert set(attached) == {"tokenizer.json"}
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    twin = rebuild("text", settings, attached)
    assert twin.settings() == settings
    ours, theirs = text.batch(TEXTS), twin.batch(TEXTS)
    assert isinstance(ours.data, dict)
    assert isinstance(theirs.data, dict)
    assert torch.equal(ours.data["ids"], theirs.data["ids"])
    torch.manual_seed(0)
    expected = [text.show(view).tolist() for view in text.views(ours)]
    torch.manual_seed(0)
    assert [twin.show(view).tolist() for view in twin.views(theirs)] == expected


def test_it_is_made_by_name() -> None:
    text = make("text", {"length": 16, "tokenizer": "open_clip:ViT-B-32"})
    assert isinstance(text, Text)
    assert text.fit(text.read(TEXTS)).tokenizer.size == 49_408
    encoder = text.encoder("text_nano")
    assert isinstance(encoder, TextEncoder)
    assert encoder.embeddings.num_embeddings == 49_408
    assert encoder.length == 16


# --- what is told


def test_what_the_tokenizer_makes_of_the_texts_is_told(caplog: pytest.LogCaptureFixture) -> None:
    whole, dataset = fitted()
    data = whole.collate(dataset.__getitems__(range(6))).data
    assert isinstance(data, dict)
    longer = int((data["attended"].sum(1) > 8).sum())
    with caplog.at_level(logging.INFO):
        fitted(length=8)
    assert f"0.0 % of the texts unknown to it; {longer} of 6 texts cut at 8 tokens" in caplog.text
    assert 0 < longer < 6


def test_a_tokenizer_for_another_language_is_named(caplog: pytest.LogCaptureFixture) -> None:
    english = Tokenizer.train(["a red apple"] * 3, vocabulary=512, kind="wordpiece")
    text = Text(tokenizer=english)
    text.fit(text.read(["苹果在树上", "תפוח ירוק", "a"]))
    assert "the tokenizer does not know 88 % of the tokens in these texts: take one for their" in caplog.text


def refusal(make_: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(PolysenseError) as error:
        make_(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_does_not_fit_says_so() -> None:
    assert "length is 2 tokens; give 3 or more" in refusal(Text, 2)
    assert "the texts have no tokenizer yet: call fit" in refusal(Text().batch, ["a"])
    assert "there is no tokenizer 'bpee'" in refusal(Text, tokenizer="bpee")
    plan = ViewPlan(options={"text": {"delte": 0.1}})
    assert "unknown view setting 'delte'; did you mean 'delete'" in refusal(Text, plan=plan)
    assert "unknown view strength 'mild'" in refusal(Text, plan=ViewPlan(strength="mild"))
    text, _ = fitted()
    assert "item 1 of the list is no text but 3; give strings" in refusal(text.batch, ["a", 3])
    assert "item 0 of the list is no text but '\\ud800'" in refusal(text.batch, ["\ud800"])
    clip = Text(tokenizer="open_clip:ViT-B-32")
    masked = ViewPlan(options={"text": {"mask": 0.1}})
    assert "the tokenizer has no token for mask" in refusal(clip.fit, clip.read(TEXTS), masked)


def test_one_word_and_empty_texts_are_batches_too() -> None:
    text, _ = fitted()
    batch: Batch = text.batch(["x", ""])
    assert isinstance(batch.data, dict)
    assert batch.data["attended"].sum(1).tolist() == [4, 2]  # a space and a letter; the ends
    assert np.isfinite(text.raw(batch).numpy()).all()


def test_documents_are_cropped_where_nothing_else_is_asked_for_and_it_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    long = [" ".join(f"w{i}" for i in range(200))] * 3 + ["short"]
    strong, weak = ViewPlan(), ViewPlan(globals_=1, strength="weak")

    def crop(texts: list[str], plan: ViewPlan) -> object:
        text = Text(length=256)
        fitted = text.fit(text.read(texts), plan)
        return fitted.plan.options.get("text", {}).get("crop")

    with caplog.at_level("INFO"):
        assert crop(["short"] * 3 + long[:1], strong) is None
        assert "views are crops" not in caplog.text
        assert crop(long, strong) == (0.3, 0.7)
        assert (
            "half of the texts have 128 tokens or more: views are crops of 30 to 70 % of them" in caplog.text
        )
    assert crop(long, weak) is None
    assert crop(long, ViewPlan(options={"text": {"crop": (1.0, 1.0)}})) == (1.0, 1.0)


def test_adjacent_views_are_neighbours_in_the_text() -> None:
    text, dataset = fitted(plan=ViewPlan(options={"text": {"adjacent": True}}))
    torch.manual_seed(0)
    first, second = text.views(text.collate(dataset.__getitems__([5])))
    whole = text.show(text.plain(text.batch([TEXTS[5]])))[0]
    joined = (text.show(first)[0] + text.show(second)[0]).replace(" ", "")
    assert joined == whole.replace(" ", "")


ODD = [
    "שלום עולם, מה שלומך",
    "مرحبا بالعالم",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇯🇵",
    "word",
    "e\u0301 \u200f\u202e",
    "x" * 90_000,
    "7",
]


@pytest.mark.parametrize("method", ["mlm", "simcse"])
def test_odd_texts_are_learned_from_and_embedded(method: str, tmp_path: Path) -> None:
    run = polysense.pretrain(
        ODD,
        modality="text",
        method=method,
        encoder="text_nano",
        encoder_options={"width": 16, "depth": 1, "heads": 1},
        modality_options={"vocabulary": 512, "length": 32},
        views={"crop": [0.5, 1.0], "delete": 0.3, "shuffle": 2} if method == "simcse" else None,
        batch_size=7,
        steps=2,
        out=tmp_path / "run",
        judge=False,
    )
    assert run is not None
    vectors = run.embed(ODD)
    assert vectors.isfinite().all()
    assert len(vectors.unique(dim=0)) == len(ODD)
    shown = run.modality.show(run.modality.plain(run.modality.batch(ODD[:2])))
    assert shown[1] == ODD[1]
