"""Image GPT in both forms: the loss of the paper, a palette that all processes share, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polysense.encoders import build
from polysense.encoders.pixels import PixelEncoder
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.pixels import common_colours
from polysense.methods.table import find
from polysense.modalities.base import View
from polysense.objectives.distributed import rank
from tests.processes import run_in_processes


def method(*, causal: bool, **options) -> tuple[Method, PixelEncoder]:
    torch.manual_seed(0)
    encoder = build("pixel_gpt_nano", size=8, side=4, depth=2, colours=6, causal=causal)
    assert isinstance(encoder, PixelEncoder)
    torch.nn.init.normal_(encoder.trunk.predict.weight)
    return find("image_gpt").build(encoder, "image", **options).double(), encoder


@pytest.mark.parametrize("causal", [True, False])
def test_the_loss_is_that_of_the_paper(causal: bool) -> None:
    """Nats per pixel: of every pixel given those before it, or of the hidden ones given the others."""
    built, encoder = method(causal=causal, mask_ratio=0.25)
    pictures = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    outcome = built([View(pictures, "image")])
    mask = outcome.seen.views[0].mask
    assert (mask is None) == causal
    if mask is not None:
        assert mask.sum(1).tolist() == [4, 4, 4]
    colours = encoder.colours(pictures)
    logits = encoder.trunk.predict(encoder.trunk(colours, mask)[0])
    nats = []
    for row in range(3):
        for place in range(16):
            if mask is None or mask[row, place]:
                chances = [math.exp(x) for x in logits[row, place].tolist()]
                nats.append(-math.log(chances[colours[row, place]] / sum(chances)))
    assert outcome.loss.item() == pytest.approx(sum(nats) / len(nats), rel=1e-9)


@pytest.mark.parametrize("causal", [True, False])
def test_all_weights_learn_and_nothing_is_held_twice(causal: bool) -> None:
    built, encoder = method(causal=causal)
    built([View(torch.randn(4, 3, 8, 8, dtype=torch.float64), "image")]).loss.backward()
    assert [name for name, parameter in built.named_parameters() if parameter.grad is None] == []
    assert len(list(built.parameters())) == len(list(encoder.parameters()))


def test_training_starts_from_colours_that_are_equally_likely() -> None:
    encoder = build("pixel_gpt_nano", size=8, side=4, depth=2, colours=6)
    loss = find("image_gpt").build(encoder, "image")([View(torch.randn(4, 3, 8, 8), "image")]).loss
    assert loss.item() == pytest.approx(math.log(6), rel=1e-5)


def test_the_palette_is_the_means_of_the_first_batch() -> None:
    """Pictures of four colours and a little noise: after a step the palette is those."""
    torch.manual_seed(0)
    four = torch.randn(4, 3)
    pictures = four[torch.randint(0, 4, (32, 16))].transpose(1, 2).reshape(32, 3, 4, 4)
    encoder = build("pixel_gpt_nano", size=4, side=4, depth=1, colours=4)
    assert isinstance(encoder, PixelEncoder)
    built = find("image_gpt").build(encoder, "image").train()
    built([View(pictures + 1e-4 * torch.randn_like(pictures), "image")])
    for colour in four:
        assert (encoder.trunk.palette - colour).abs().amax(1).min() < 1e-3
    encoder.settle()
    assert encoder._find is None


def palette_of_a_share() -> Tensor:
    torch.manual_seed(rank())  # each process draws numbers of its own, as in training
    return common_colours(torch.randn(50, 3) + 3 * rank(), 5)


def test_all_processes_share_the_palette() -> None:
    one, two = run_in_processes(palette_of_a_share)
    assert torch.equal(one, two)
    assert one.shape == (5, 3)
    assert one.mean(1).min() < 0.8 < 2.2 < one.mean(1).max()  # and each one's pixels count


def test_other_encoders_are_refused_with_what_fits() -> None:
    for name in ("resnet18", "vit_nano", "small"):
        with pytest.raises(PolysenseError, match=r"predicts the colours.*has none; choose 'pixel_gpt_nano'"):
            find("image_gpt").build(build(name, size=32), "image")
    assert find("image_gpt").default_encoders == {"image": "pixel_gpt_nano"}


def test_other_methods_take_pixels_where_they_can() -> None:
    encoder = build("pixel_gpt_nano", size=8, side=4, depth=2)
    views = [View(torch.randn(4, 3, 8, 8), "image") for _ in range(2)]
    assert find("simclr").build(encoder, "image", hidden=16, out=8)(views).loss.isfinite()
    with pytest.raises(PolysenseError, match="pixel transformer has no patches to leave out"):
        find("mae").build(encoder, "image")
