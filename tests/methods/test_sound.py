"""The recipes for sound: what they are made of, what they hide, and that each learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import polysense
from polysense.encoders.audio import build
from polysense.encoders.base import Encoded, Encoder
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.sound import Cosines, Quantiser, SpanMask
from polysense.methods.table import find
from polysense.modalities.audio.modality import Audio
from polysense.modalities.audio.sources import read_sounds
from polysense.modalities.base import View, ViewPlan
from polysense.modalities.builtin import builtin

PUBLISHED = {
    "cola": {"out": 512},
    "byol_a": {"momentum": 0.99, "hidden": 4096, "out": 256},
    "audio_mae": {"mask_ratio": 0.8, "decoder_width": 512, "decoder_depth": 16, "decoder_heads": 16},
    "wav2vec2": {
        "temperature": 0.1, "negatives": 100, "diversity": 0.1, "groups": 2, "words": 320, "out": 256,
        "mask_ratio": 0.65, "span": 10,
    },
    "hubert": {"clusters": 100, "temperature": 0.1, "out": 256, "mask_ratio": 0.8, "span": 10},
    "cpc": {"steps": 12},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_defaults(name: str) -> None:
    recipe = find(name)
    assert {option: recipe.published[option] for option in PUBLISHED[name]} == PUBLISHED[name]
    assert recipe.modalities == ("audio",)


def tower(form: str = "waves", **options: Any) -> Encoder:
    torch.manual_seed(0)
    name = "wav_nano" if form == "waves" else "audio_cnn"
    return build(name, form=form, mels=64, rate=8000, **options)


def waves(clips: int = 4, samples: int = 8000) -> View:
    return View({"waves": torch.randn(clips, samples), "lengths": torch.full((clips,), samples)}, "audio")


def hidden(ratio: float, length: int, clips: int = 400, samples: int = 16000) -> Tensor:
    mask = SpanMask(ratio, length)(waves(clips, samples), tower()).mask
    assert mask is not None
    return mask


def runs(row: list[bool]) -> list[int]:
    """Lengths of the stretches that are hidden."""
    return [len(run) for run in "".join("x" if one else " " for one in row).split()]


def test_spans_are_long_enough_and_hide_about_half() -> None:
    mask = hidden(0.65, 10)
    assert mask.shape == (400, 99)
    assert min(min(runs(row)) for row in mask.tolist()) == 10
    assert float(mask.float().mean()) == pytest.approx(0.49, abs=0.03)  # as the authors state
    assert len(mask.unique(dim=0)) > 390
    assert mask[:, 0].any()
    assert mask[:, -1].any()


def test_there_are_two_spans_at_least_and_their_number_is_rounded_at_random() -> None:
    few = hidden(0.01, 10)
    assert 10 < float(few.sum(1).float().mean()) <= 20
    encoder, view = tower(), waves(1, 16000)
    masks = [SpanMask(0.65, 1)(view, encoder).mask for _ in range(30)]
    sums = {int(mask.sum()) for mask in masks if mask is not None}
    assert sums == {64, 65}


def test_spans_that_do_not_fit() -> None:
    with pytest.raises(
        PolysenseError, match=r"spans of 10 frames and a share of 0\.65 do not fit 9 frames; hide"
    ):
        SpanMask(0.65)(waves(2, 1600), tower())


def test_the_quantiser_draws_words_and_its_gradient_is_the_soft_ones() -> None:
    torch.manual_seed(0)
    quantiser = Quantiser(6, groups=2, words=5, width=8)
    quantised, probabilities = quantiser(x := torch.randn(3, 4, 6))
    halves = quantised.unflatten(-1, (2, 4))
    for group in (0, 1):
        distance = torch.cdist(halves[..., group, :].flatten(0, 1), quantiser.codebooks[group])
        assert distance.amin(1).max() < 1e-6  # each is a word
    torch.testing.assert_close(probabilities, quantiser.logits(x).unflatten(-1, (2, 5)).softmax(-1))
    quantised.sum().backward()
    assert quantiser.logits.weight.grad is not None
    assert quantiser.logits.weight.grad.abs().max() > 0
    quantiser.eval()
    best = quantiser.logits(x).unflatten(-1, (2, 5)).argmax(-1)
    torch.testing.assert_close(quantiser(x)[0][..., :4], quantiser.codebooks[0][best[..., 0]])


def test_the_quantiser_cools_down() -> None:
    quantiser = Quantiser(6, groups=2, words=5, width=8)
    seen = []
    for progress in (0.0, 0.5, 1.0):
        quantiser.at(progress)
        seen.append(quantiser.temperature)
    assert seen == pytest.approx([2.0, 1.0, 0.5])
    with pytest.raises(PolysenseError, match="3 codebooks cannot share a width of 8"):
        Quantiser(6, groups=3, words=5, width=8)


def test_logits_of_words_are_the_authors_cosines() -> None:
    head, x = Cosines(6, 4, words=5), torch.randn(3, 6)
    expected = torch.cosine_similarity(head.project(x)[:, None], head.words[None], dim=-1) / 0.1
    torch.testing.assert_close(head(x), expected)


@pytest.mark.parametrize("name", ["wav2vec2", "hubert"])
def test_every_part_learns_on_waves(name: str) -> None:
    method = find(name).build(tower(depth=1), "audio")
    method([waves()]).loss.backward()
    assert not [part for part, p in method.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", ["wav2vec2", "hubert"])
def test_an_encoder_of_log_mels_has_no_frames_of_waves(name: str) -> None:
    with pytest.raises(PolysenseError, match="SpectrogramCNN has no extractor that makes frames of waves"):
        find(name).build(tower("mel"), "audio")


def test_targets_do_not_see_the_mask() -> None:
    method = find("wav2vec2").build(tower(depth=1), "audio").eval()
    view = waves()
    predict = method.branches["predict"]
    masked = [predict.reads(predict, method.look([view]), None) for _ in range(2)]  # type: ignore[operator]
    (context, target, mask, _), (other, same, another, _) = masked
    assert not torch.equal(mask, another)
    assert not torch.equal(context, other)
    assert torch.equal(target, same)


def test_hubert_clusters_cepstra_until_they_are_frozen() -> None:
    method = find("hubert").build(tower(depth=1), "audio", clusters=8)
    words = method.branches["predict"].reads.tokenise  # type: ignore[union-attr]
    method.at(0.0)
    method([waves()])
    assert words.words.shape == (8, 39)  # type: ignore[union-attr]
    before = words.words.clone()  # type: ignore[union-attr,operator]
    method.at(0.5)
    method([waves()])
    assert torch.equal(words.words, before)  # type: ignore[union-attr]


def test_cola_bounds_its_projection_and_byol_a_has_a_teacher_of_constant_momentum() -> None:
    cola = find("cola").build(tower("mel", dim=32), "audio")
    match = cola.branches["match"]
    assert match.head(Encoded(100 * torch.randn(5, 32))).abs().max() <= 1  # type: ignore[operator]
    byol_a: Method = find("byol_a").build(tower("mel", dim=32), "audio", hidden=16, out=8)
    byol_a.at(0.9)
    assert byol_a.teacher is not None
    assert byol_a.teacher.momentum == 0.99
    assert [type(part).__name__ for part in cola.modules() if isinstance(part, nn.Tanh)] == ["Tanh"]


def test_byol_a_looks_at_one_stretch_and_wav2vec_at_waves() -> None:
    def audio(name: str) -> Audio:
        return Audio(rate=8000, plan=find(name).views)

    assert audio("wav2vec2").form == audio("hubert").form == "waves"
    assert find("byol_a").views.options["audio"]["together"]
    assert not ViewPlan().options


# --- learning

WIDTHS = {"widths": (8, 16, 16, 32), "dim": 64}
LEARNING: dict[str, dict[str, Any]] = {
    "cola": {
        "encoder_options": WIDTHS,
        "views": {"crop": 0.3},
        "options": {"out": 64},
        "lr": 0.003,
        "steps": 45,
    },
    "byol_a": {"encoder_options": WIDTHS, "views": {"crop": 0.3}, "options": {"hidden": 64, "out": 32}},
    "simclr": {"encoder_options": WIDTHS, "views": {"crop": 0.3}},
    "audio_mae": {
        "encoder_options": {"depth": 1, "width": 64},
        "views": {"crop": 0.55},
        "options": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    },
    "hubert": {
        "encoder_options": {"depth": 1, "width": 64, "channels": 32},
        "views": {"crop": 0.6},
        "options": {"clusters": 16, "out": 32, "span": 4},
    },
    "data2vec": {
        "encoder_options": {"depth": 2, "width": 64},
        "views": {"crop": 0.55},
        "options": {"layers": 2},
        "lr": 2e-3,
    },
    "cpc": {
        "encoder_options": {"channels": 24, "width": 32},
        "views": {"crop": 0.5},
        "options": {"steps": 4},
        "lr": 0.01,
        "steps": 40,
    },
}


CHANCE = {"cola": math.log(32)}
"""The loss of embeddings that tell nothing apart, at a batch of 32."""


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    """Recordings of about a second, in five languages."""
    frame = builtin("builtin:speech")
    return frame[frame["seconds"].between(0.7, 2)].iloc[::8][:160]


@pytest.mark.parametrize("name", LEARNING)
def test_each_recipe_learns(name: str, prompts: pd.DataFrame, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run = polysense.pretrain(
        prompts, method=name, modality="audio", out=tmp_path / name, batch_size=32, judge=False,
        **{"steps": 30, **LEARNING[name]},
    )  # fmt: skip
    assert run is not None
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    assert losses[-1] < 0.975 * losses[0]
    assert losses[-1] < CHANCE.get(name, math.inf)
    clips = list(prompts["audio"][:24])
    embedded = run.embed(clips)
    assert float(embedded.std(0).mean()) > 1e-3
    torch.testing.assert_close(polysense.load(run.path).embed(clips), embedded)


def test_wav2vec2_tells_hidden_frames_of_a_few_clips_apart(prompts: pd.DataFrame) -> None:
    torch.set_num_threads(1)
    sounds = read_sounds(prompts.iloc[::20]).__getitems__(range(8))
    view = View({"waves": sounds["waves"][:, :4800], "lengths": torch.full((8,), 4800)}, "audio")
    encoder = tower(depth=1, width=64, channels=16, reach=15)
    method: Method = find("wav2vec2").build(encoder, "audio", words=16, out=32, span=4)
    optimiser = torch.optim.AdamW(method.parameters(), lr=0.005)
    losses = []
    for step in range(100):
        method.at(step / 100)
        loss = method([view]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) / 10 < 4.0  # chance is log 101 = 4.6


def test_data2vec_hides_spans_of_frames_and_predicts_the_teachers_last_layers() -> None:
    encoder = tower(depth=3, width=64, channels=16, reach=15)
    method = find("data2vec").build(encoder, "audio", layers=2)
    view = waves(4, 8000)
    outcome = method([view])
    (seen,), (student,) = outcome.seen.views, outcome.seen.student
    assert seen.mask is not None
    assert 0.4 < seen.mask.float().mean() < 0.8
    assert student.layers is not None
    assert student.layers.shape == (4, 2, 49, 64)
    outcome.loss.backward()
    assert not [part for part, p in method.named_parameters() if p.requires_grad and p.grad is None]
    with pytest.raises(PolysenseError, match="has 3 blocks and cannot keep 6; choose 0 to 3"):
        find("data2vec").build(tower(depth=3, width=64), "audio")
    encoder.settle()
    assert encoder(view.data).layers is None


@pytest.mark.parametrize("name", ["mae", "simmim", "data2vec"])
def test_recipes_that_hide_patches_hide_those_of_spectrograms(name: str) -> None:
    recipe = find(name)
    audio = Audio(rate=8000, plan=recipe.views)
    encoder = audio.encoder(recipe.default_encoders["audio"], depth=2, width=64)
    small = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2} if name == "mae" else {}
    options = {"layers": 2} if name == "data2vec" else small
    method = recipe.build(encoder, "audio", **options)
    batch = audio.batch([0.1 * torch.randn(8000) for _ in range(4)])
    method(audio.views(batch)).loss.backward()
    assert not [part for part, p in method.named_parameters() if p.requires_grad and p.grad is None]
