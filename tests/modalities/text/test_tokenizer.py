"""Tokenizers: any language there and back, cut texts counted, other libraries' tokens taken over exactly."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers

from polysense.errors import PolysenseError
from polysense.modalities.text.tokenizer import Tokenizer

TEXTS = [
    "ein café in köln",
    "שלום עולם",
    "مرحبا بالعالم",
    "👩‍🚀 und 🚀",
    "猫在垫子上",
    "привет, мир!",
    "x",
    "the quick brown fox jumps over the lazy dog",
]


@pytest.fixture(scope="module", params=["bpe", "wordpiece"])
def trained(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, vocabulary=1000, kind=request.param)


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, vocabulary=1000)


def test_texts_of_any_language_come_back(bpe: Tokenizer) -> None:
    ids, attended, cut = bpe.encode(TEXTS, length=64)
    assert bpe.decode(ids) == TEXTS
    assert cut == 0
    assert ids.dtype == torch.int64
    assert attended.dtype == torch.bool


def test_what_was_never_seen_comes_back_too(bpe: Tokenizer) -> None:
    unseen = ["Ωμέγα", "ខ្មែរ", "🦤", "[MASK] and [PAD] are words here"]
    assert bpe.decode(bpe.encode(unseen, length=64)[0]) == [text.lower() for text in unseen]
    assert bpe.unknown_share(unseen) == 0
    ids, attended, _ = bpe.encode(["[MASK][PAD]"], length=64)
    assert not (torch.isin(ids, torch.tensor([bpe.mask, bpe.pad])) & attended).any()


def test_wordpiece_splits_chinese_and_tells_what_it_does_not_know() -> None:
    tokenizer = Tokenizer.train(["猫在垫子上 cat cat", "a cat"], vocabulary=600, kind="wordpiece")
    assert tokenizer.decode(tokenizer.encode(["猫 cat"], 16)[0]) == ["猫 cat"]
    assert tokenizer.encode(["猫在"], 16)[1].sum() == 4  # start, a token each, end
    assert tokenizer.unknown_share(["cat Ω"]) == 0.5
    assert tokenizer.unknown_share([]) == 0


def test_accents_stay_and_compatible_forms_become_one(trained: Tokenizer) -> None:
    same = trained.encode(["ﬁne café Ａ", "fine café a"], length=32)[0]
    assert torch.equal(*same)
    different = trained.encode(["café", "cafe"], length=32)[0]
    assert not torch.equal(*different)


def test_capitals_are_kept_on_request() -> None:
    tokenizer = Tokenizer.train(["A Red House"] * 2, vocabulary=512, lower=False)
    assert tokenizer.decode(tokenizer.encode(["A Red House"], 32)[0]) == ["A Red House"]


def test_padding_is_on_the_right_and_every_text_has_its_ends(trained: Tokenizer) -> None:
    ids, attended, _ = trained.encode(["x", "the quick brown fox"], length=32)
    assert attended[0].tolist() == sorted(attended[0].tolist(), reverse=True)
    assert attended[1].all()
    assert (ids[~attended] == trained.pad).all()
    assert trained.pad == 0
    for row, count in zip(ids, attended.sum(1), strict=True):
        assert row[0] == trained.start
        assert row[count - 1] == trained.end


def test_long_texts_are_cut_and_counted_and_keep_their_end(trained: Tokenizer) -> None:
    texts = ["x", "fox " * 10, "dog " * 1000]
    ids, attended, cut = trained.encode(texts, length=8)
    assert cut == 2
    assert ids.shape == (3, 8)
    assert ids[1, -1] == ids[2, -1] == trained.end
    whole = trained.encode(texts, length=5000)
    assert whole[2] == 0
    assert torch.equal(whole[0][1, :7], ids[1, :7])
    assert attended.sum(1).tolist()[1:] == [8, 8]


def test_tokens_of_chosen_texts_are_those_of_each(trained: Tokenizer) -> None:
    tokens = trained.tokens(TEXTS, length=12)
    ids, attended = tokens.batch(np.array([6, 1, 6]), trained.pad)
    for row, text in enumerate([TEXTS[6], TEXTS[1], TEXTS[6]]):
        alone, _, _ = trained.encode([text], length=12)
        assert ids[row][attended[row]].tolist() == alone[0].tolist()
    assert tokens.ids.dtype == np.int32


def test_special_tokens_stand_for_no_part_of_a_text(trained: Tokenizer) -> None:
    ids, attended, _ = trained.encode(["x", "the fox"], length=16)
    inner = trained.inner(ids, attended)
    assert (inner.sum(1) == attended.sum(1) - 2).all()
    assert trained.special.tolist() == [0, 2, 3, 4]


def test_the_same_texts_give_the_same_vocabulary(trained: Tokenizer) -> None:
    """So that every process of several may train its own."""
    kind = "wordpiece" if "##" in trained.to_json() else "bpe"
    for _ in range(3):
        assert Tokenizer.train(TEXTS * 3, vocabulary=1000, kind=kind).to_json() == trained.to_json()


def test_json_pickle_and_copies_are_the_same_tokenizer(trained: Tokenizer) -> None:
    expected = trained.encode([*TEXTS, "[MASK]"], 32)[0]
    for twin in (
        Tokenizer.from_json(trained.to_json(), trained.roles),
        Tokenizer.from_json(trained.to_json()),
        pickle.loads(pickle.dumps(trained)),
        copy.deepcopy(trained),
    ):
        assert torch.equal(twin.encode([*TEXTS, "[MASK]"], 32)[0], expected)
        assert twin.roles == trained.roles
        assert twin.size == trained.size


# --- other libraries'


def test_open_clips_own_tokens() -> None:
    texts = [*TEXTS, "It's 2024, don't  stop!!\n", "a <b> & c's", "fox " * 100]
    tokenizer = Tokenizer.of("open_clip:ViT-B-32")
    ids, attended, cut = tokenizer.encode(texts, length=77)
    theirs = open_clip.get_tokenizer("ViT-B-32")(texts)
    assert torch.equal(ids * attended, theirs)  # theirs pads with 0
    assert cut == 1
    assert tokenizer.decode(ids)[1] == TEXTS[1]
    with pytest.raises(PolysenseError, match="the tokenizer has no token for mask; choose another"):
        _ = tokenizer.mask


def fast(tmp_path: Path, bpe: Tokenizer, **tokens: str) -> str:
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=copy.deepcopy(bpe).backend, **tokens)
    theirs.save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_tokenizer_of_transformers(tmp_path: Path, bpe: Tokenizer) -> None:
    given = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    tokenizer = Tokenizer.of(f"transformers:{fast(tmp_path, bpe, **given)}")
    assert torch.equal(tokenizer.encode(TEXTS, 32)[0], bpe.encode(TEXTS, 32)[0])
    assert (tokenizer.start, tokenizer.end, tokenizer.mask) == (bpe.start, bpe.end, bpe.mask)
    assert Tokenizer.of(str(tmp_path / "tokenizer.json")).roles == bpe.roles


def test_the_end_pads_where_there_is_nothing_to_pad_with(tmp_path: Path, bpe: Tokenizer) -> None:
    tokenizer = Tokenizer.of(f"transformers:{fast(tmp_path, bpe, eos_token='[SEP]')}")
    assert tokenizer.pad == tokenizer.end == bpe.end
    ids, attended, _ = tokenizer.encode(["x", TEXTS[7]], 64)
    assert (ids[~attended] == bpe.end).all()
    assert tokenizer.start is None


# --- errors


def refusal(make: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(PolysenseError) as error:
        make(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_tokenizer_says_so(tmp_path: Path) -> None:
    assert "unknown kind of tokenizer 'bpee'; did you mean 'bpe'?" in refusal(
        Tokenizer.train, TEXTS, kind="bpee"
    )
    assert "a vocabulary of 100 tokens is too small" in refusal(Tokenizer.train, TEXTS, vocabulary=100)
    assert "this is no tokenizer.json" in refusal(Tokenizer.from_json, "{}")
    assert "there is no tokenizer 'bert'; give 'bpe' or 'wordpiece'" in refusal(Tokenizer.of, "bert")
    missing = f"transformers:{tmp_path}"
    assert f"the tokenizer '{missing}' cannot be had" in refusal(Tokenizer.of, missing)
    assert "unknown model of open_clip 'ViT-B-3'; did you mean 'ViT-B-32'" in refusal(
        Tokenizer.of, "open_clip:ViT-B-3"
    )
    local = f"open_clip:local-dir:{tmp_path}"
    assert f"the tokenizer '{local}' cannot be had" in refusal(Tokenizer.of, local)
    other = Tokenizer.train(TEXTS, vocabulary=512).to_json().replace("[PAD]", "[P]").replace("[SEP]", "[S]")
    assert "no token for padding; add one to it, called [PAD]" in refusal(Tokenizer.from_json, other)
