"""The recipes for texts: what they hide, replace and delete, and that each learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import polysense
from polysense.encoders.text import build_text
from polysense.encoders.text_transformer import TextEncoder
from polysense.errors import PolysenseError
from polysense.methods.denoising import bottleneck
from polysense.methods.engine import Method
from polysense.methods.table import find
from polysense.methods.word_masks import (
    CollapseSpans,
    DeleteWords,
    HideSpans,
    HideWords,
    draw_spans,
    draw_words,
)
from polysense.modalities.base import View
from polysense.modalities.text.modality import Text

PUBLISHED = {
    "mlm": {"mask_ratio": 0.15, "random": 0.1, "kept": 0.1, "whole_words": False},
    "electra": {"mask_ratio": 0.15, "generator_width": 0.25, "detection_weight": 50.0},
    "simcse": {"temperature": 0.05},
    "tsdae": {"delete": 0.6, "decoder_depth": 12},
    "span_denoise": {"mask_ratio": 0.15, "span": 3.0},
    "declutr": {"temperature": 0.05, "mask_ratio": 0.15},
}
VOCABULARY, LENGTH = 50, 32


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_defaults(name: str) -> None:
    recipe = find(name)
    assert {option: recipe.published[option] for option in PUBLISHED[name]} == PUBLISHED[name]
    assert recipe.modalities == ("text",)


def tower(**options: Any) -> TextEncoder:
    torch.manual_seed(0)
    shape = {"width": 32, "depth": 2, "heads": 2, **options}
    encoder = build_text("text_nano", vocabulary=VOCABULARY, length=LENGTH, **shape)
    assert isinstance(encoder, TextEncoder)
    return encoder


def texts(rows: int = 200, most: int = 20) -> View:
    """Texts of 4 to ``most`` tokens between a start (1) and an end (2), words of one or two tokens."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(4, most + 1, (rows, 1), generator=generator)
    places = torch.arange(most + 2)
    ids = torch.randint(5, VOCABULARY, (rows, most + 2), generator=generator)
    ids = torch.where(places > lengths + 1, 0, torch.where(places == lengths + 1, 2, ids))
    ids[:, 0] = 1
    inner = (places > 0) & (places <= lengths)
    words = torch.where(inner, (places - 1) // 2, -1)
    return View({"ids": ids, "attended": places <= lengths + 1, "words": words}, "text")


def data(view: View) -> dict[str, Tensor]:
    assert isinstance(view.data, dict)
    return view.data


def method(name: str, **options: Any) -> Method:
    encoder = tower()
    if "decoder_depth" in find(name).published:
        options = {"decoder_depth": 1, **options}
    return find(name).build(encoder, "text", **options)


# --- what maskers do


def test_mlm_asks_for_a_share_of_the_tokens_and_never_for_those_around_a_text() -> None:
    view, encoder = texts(2000), tower()
    hidden = HideWords()(view, encoder)
    assert hidden.asked is not None
    assert hidden.mask is not None
    asked = hidden.asked[:, 0]
    inner = data(view)["words"] >= 0
    assert not (asked & ~inner).any()
    expected = (0.15 * inner.sum(1)).round().clamp(min=1)
    assert torch.equal(asked.sum(1), expected.long())

    other = (data(hidden)["ids"] != data(view)["ids"]) & asked
    assert torch.equal(data(hidden)["original"], data(view)["ids"])
    assert not ((data(hidden)["ids"] != data(view)["ids"]) & ~asked).any()
    assert not (hidden.mask & (other | ~asked)).any()
    total = int(asked.sum())
    assert float(hidden.mask.sum() / total) == pytest.approx(0.8, abs=0.02)
    assert float(other.sum() / total) == pytest.approx(0.1 * (1 - 1 / VOCABULARY), abs=0.02)
    drawn = data(hidden)["ids"][other]
    assert len(drawn.unique()) > 0.9 * VOCABULARY  # specials among them


def test_every_visit_hides_other_words_and_whole_words_are_hidden_whole() -> None:
    view, encoder = texts(), tower()
    first, second = (HideWords()(view, encoder).asked for _ in range(2))
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)
    asked = HideWords(0.3, whole=True)(view, encoder).asked
    assert asked is not None
    words = data(view)["words"]
    for row, chosen in zip(words, asked[:, 0], strict=True):
        numbers = set(row[chosen].tolist())
        assert chosen.tolist() == [int(number) in numbers for number in row]


def test_words_are_those_of_the_tokenizer() -> None:
    text = Text(length=32, vocabulary=512)
    dataset = text.read(["unbelievably tasty apples", "a red, ripe apple"])
    text = text.fit(dataset)
    batch = text.collate(dataset.__getitems__([0, 1]))
    view = text.views(batch)[0]
    ids, words = data(view)["ids"], data(view)["words"]
    for row, numbers, expected in (
        (ids[0], words[0], ["unbelievably", "tasty", "apples"]),
        (ids[1], words[1], ["a", "red", ",", "ripe", "apple"]),
    ):
        parts = [row[numbers == number] for number in range(int(numbers.max()) + 1)]
        assert [text.tokenizer.decode(part[None])[0] for part in parts] == expected
    assert (words[:, 0] == -1).all()


def test_spans_have_the_wanted_share_and_length_and_stay_inside() -> None:
    torch.manual_seed(0)
    inner = torch.zeros(3000, 42, dtype=torch.bool)
    inner[:, 1:41] = True
    hidden = draw_spans(inner, 0.3, 3.0)
    assert hidden.sum(1).unique().tolist() == [12]
    begins = hidden & ~torch.cat([torch.zeros(3000, 1, dtype=torch.bool), hidden[:, :-1]], 1)
    assert begins.sum(1).unique().tolist() == [4]
    assert not (hidden & ~inner).any()
    often = hidden[:, 1:41].float().mean(0)
    assert float(often.min()) > 0.1  # every place has its chance
    assert float((often[:5].mean() - often[-5:].mean()).abs()) < 0.03


@pytest.mark.parametrize("inner", [[0, 0, 0], [0, 1, 0], [0, 1, 1]])
def test_short_texts_have_a_span_too(inner: list[int]) -> None:
    there = torch.tensor([inner]).bool()
    assert int(draw_spans(there, 0.15, 3.0).sum()) == min(1, sum(inner))
    words = torch.where(there, there.cumsum(1) - 1, -1)
    assert int(draw_words(words, 0.15).sum()) == min(1, sum(inner))


def test_deleting_keeps_order_the_ends_and_a_word() -> None:
    view = texts()
    shorter = data(DeleteWords(0.6)(view, tower()))
    for row in range(200):
        before, kept = (each["ids"][row][each["attended"][row]].tolist() for each in (data(view), shorter))
        assert kept[0] == 1
        assert kept[-1] == 2
        words = set(data(view)["words"][row].tolist()) - {-1}
        left = shorter["words"][row][shorter["words"][row] >= 0].unique()
        assert len(left) == max(1, len(words) - round(0.6 * len(words) + 1e-6)) or len(words) == 5
        remaining = iter(before)
        assert all(token in remaining for token in kept)  # a subsequence
    assert torch.equal(shorter["original"], data(view)["ids"])


def test_spans_collapse_to_one_token_and_are_to_be_written() -> None:
    view = View(
        {
            "ids": torch.tensor([[1, 10, 11, 12, 13, 14, 15, 2, 0]]),
            "attended": torch.tensor([[True] * 8 + [False]]),
            "words": torch.tensor([[-1, 0, 1, 2, 3, 4, 5, -1, -1]]),
        },
        "text",
    )
    for _ in range(20):
        made = CollapseSpans(0.5, 1.5)(view, tower())
        assert made.mask is not None
        shown, hidden = data(made)["ids"][0].tolist(), made.mask[0].tolist()
        written = data(made)["original"][0][data(made)["written"][0]].tolist()
        assert hidden.count(True) == 2
        assert written.count(1) == 3
        assert written[-1] == 1
        spans = " ".join(map(str, written[1:-1])).split(" 1 ")
        whole = [token if not gone else spans.pop(0) for token, gone in zip(shown, hidden, strict=True)]
        assert " ".join(map(str, whole)) == "1 10 11 12 13 14 15 2"


def test_spans_in_data_that_are_no_text() -> None:
    class Frames(TextEncoder):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def grid(self, data: Any) -> tuple[int, ...]:
            return (data.shape[1],)

    mask = HideSpans(0.5, 4.0)(View(torch.zeros(3, 20), "sound"), Frames()).mask
    assert mask is not None
    assert mask.sum(1).tolist() == [10, 10, 10]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HideWords(random=0.7, kept=0.5), "0.7 are random and 0.5 kept; choose shares"),
        (lambda: HideWords(1.5)(texts(), tower()), "a share of 1.5 of the words .* between 0 and 1"),
        (lambda: HideWords()(View({"ids": torch.zeros(1, 2)}, "text"), tower()), "which word; give it texts"),
    ],
)
def test_bad_values_are_told(make: Any, message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        make()


# --- what branches see


def test_mlm_is_the_cross_entropy_of_the_words_asked_for() -> None:
    whole, view = method("mlm").eval(), texts(20)
    torch.manual_seed(3)
    loss = whole([view]).loss
    torch.manual_seed(3)
    hidden = HideWords()(view, whole.towers["text"])  # type: ignore[arg-type]
    tokens = whole.towers["text"](data(hidden), hidden.mask).tokens
    head: Any = whole.branches["predict"].head
    losses = []
    assert hidden.asked is not None
    for row, place in hidden.asked[:, 0].nonzero().tolist():
        changed = head.change(tokens[row, place])
        logits = torch.stack([changed @ word for word in head.words.weight]) + head.bias
        losses.append(-logits.log_softmax(0)[data(view)["ids"][row, place]])
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_electra_shows_guesses_and_calls_right_ones_real() -> None:
    whole, view = method("electra").eval(), texts(100)
    generator: Any = whole.masker
    with torch.no_grad():
        generator.head.bias[7] = 100.0  # it always guesses 7
    outcome = whole([view])
    shown = data(outcome.seen.views[0])
    asked = outcome.seen.views[0].asked
    assert asked is not None
    assert (shown["ids"][asked[:, 0]] == 7).all()
    assert (data(view)["ids"][asked[:, 0]] == 7).any()
    logits, answers, there = whole.branches["detect"].reads(whole.branches["detect"], outcome.seen, None)  # type: ignore[operator]
    real = data(view)["ids"] == shown["ids"]
    assert torch.equal(answers[..., 0].bool(), ~real)
    assert torch.equal(there, data(view)["attended"])
    p = logits[..., 0].sigmoid()[there]
    right = torch.where(real[there], 1 - p, p)
    torch.testing.assert_close(outcome.parts["detect"], -50 * right.log().mean())
    assert generator.words is whole.towers["text"].embeddings
    assert generator.narrow.out_features < 32


def test_tsdae_writes_from_the_embedding_alone() -> None:
    whole, view = method("tsdae").eval(), texts(10)
    torch.manual_seed(0)
    seen = whole.look([view])
    branch: Any = whole.branches["write"]
    logits, words, there = branch.reads(branch, seen, None)
    assert torch.equal(words, data(view)["ids"][:, 1:])
    assert torch.equal(there, data(view)["attended"][:, 1:])
    known, _ = bottleneck(seen.student[0], data(seen.views[0])["attended"])
    assert known.tokens is not None
    assert known.tokens.shape == (10, 1, 32)
    later = data(view)["ids"].clone()
    later[:, 3:] = 9
    torch.testing.assert_close(branch.head(known, later[:, :-1])[:, :3], logits[:, :3])  # no look ahead
    assert branch.head.words is whole.towers["text"].embeddings


def test_padding_changes_nothing_that_is_written() -> None:
    whole, view = method("span_denoise").eval(), texts(1)
    branch: Any = whole.branches["write"]
    seen = whole.look([view])
    logits, _, _ = branch.reads(branch, seen, None)
    shown = data(seen.views[0])
    wider = {name: torch.cat([each, each.new_full((1, 3), -1 if name == "words" else 0)], 1)
             for name, each in shown.items()}  # fmt: skip
    mask = seen.views[0].mask
    assert mask is not None
    encoded = whole.towers["text"](wider, torch.cat([mask, mask.new_zeros(1, 3)], 1))
    again = branch.head(encoded, shown["original"][:, :-1], wider["attended"])
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-5)


def test_simcse_asks_one_way_with_dropout_alone() -> None:
    whole, view = method("simcse"), texts(30)
    outcome = whole([view, view])
    a, b = (whole.branches["match"].head(one) for one in outcome.seen.student)  # type: ignore[operator]
    assert not torch.allclose(a, b)
    unit = [each / each.norm(dim=1, keepdim=True) for each in (a, b)]
    scores = unit[0] @ unit[1].T / 0.05
    expected = (scores.logsumexp(1) - scores.diagonal()).mean()
    torch.testing.assert_close(outcome.loss, expected)


def test_simcse_without_dropout_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    find("simcse").build(tower(dropout=0.0), "text")
    assert "no dropout" in caplog.text


def test_declutr_hides_words_of_the_anchor_and_averages_the_others() -> None:
    whole = method("declutr").eval()
    plan = find("declutr").views
    assert (plan.globals_, plan.locals_) == (1, 2)
    views = [texts(9), *(View(texts(9, 10).data, "text", "local") for _ in range(2))]
    outcome = whole(views)
    assert [view.mask is None for view in outcome.seen.views] == [False, True, True]
    first, *others = (one.pooled for one in outcome.seen.student)
    unit = torch.cat([first, torch.stack(others).mean(0)])
    unit = unit / unit.norm(dim=1, keepdim=True)
    scores = (unit @ unit.T / 0.05).fill_diagonal_(-torch.inf).log_softmax(1)
    expected = -(scores[torch.arange(9), torch.arange(9) + 9] + scores[torch.arange(9) + 9, torch.arange(9)])
    torch.testing.assert_close(outcome.parts["match"], expected.mean())


def test_data2vec_runs_on_texts_and_hides_spans_of_them() -> None:
    encoder, view = tower(), texts(20)
    whole = find("data2vec").build(encoder, "text", layers=2, mask_ratio=0.35)
    outcome = whole([view])
    mask = outcome.seen.views[0].mask
    assert mask is not None
    assert not (mask & (data(view)["words"] < 0)).any()
    assert outcome.loss.isfinite()


# --- that they learn


def sentences() -> list[str]:
    return [
        f"{size} {colour} {thing} {where} {place}"
        for size in ("a big", "a small", "one old")
        for colour in ("red", "green", "blue", "white")
        for thing in ("apple", "boat", "house", "bird")
        for where, place in (("on", "the hill"), ("in", "the water"))
    ]


@pytest.mark.parametrize("name", [*PUBLISHED, "data2vec"])
def test_the_loss_falls_and_the_run_embeds(name: str, tmp_path: Path) -> None:
    small: dict[str, Any] = {"decoder_depth": 1} if "decoder_depth" in find(name).published else {}
    if name == "data2vec":
        small = {"layers": 1, "mask_ratio": 0.35}
    run = polysense.pretrain(
        sentences(),
        modality="text",
        method=name,
        encoder="text_nano",
        encoder_options={"width": 32, "depth": 1, "heads": 2},
        modality_options={"length": 16, "vocabulary": 512},
        options=small,
        lr=5e-3,
        batch_size=32,
        steps=16,
        out=tmp_path / "run",
        judge=False,
    )
    assert run is not None
    assert run.embed(["a red boat", "white"]).shape == (2, 32)
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < losses[0]


def test_other_modalities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match="mlm is for data of the modality 'text'"):
        polysense.pretrain("builtin:emoji", modality="image", method="mlm", out=tmp_path, steps=1)
