"""The pixel transformer: what sees what, the palette, the middle features, memory equal to none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from polysense.encoders import build
from polysense.encoders.pixels import SIZES, Memory, PixelEncoder, PixelGPT
from polysense.errors import PolysenseError


def model(**options) -> PixelGPT:
    torch.manual_seed(0)
    trunk = PixelGPT(**{"side": 4, "width": 16, "depth": 3, "heads": 2, "colours": 8, **options})
    torch.nn.init.normal_(trunk.predict.weight)
    return trunk.double().eval()


def by_hand(trunk: PixelGPT, colours: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """GPT-2 with one softmax for each head of each pixel."""
    embedded = [trunk.embed.weight[c] for c in colours]
    if mask is not None:
        embedded = [0 * one if hidden else one for one, hidden in zip(embedded, mask, strict=True)]
    if trunk.start is not None:
        embedded = [trunk.start, *embedded[:-1]]
    x = torch.stack([one + place for one, place in zip(embedded, trunk.places, strict=True)])
    for number, block in enumerate(trunk.blocks):
        normed = block.norm1(x)
        if number == len(trunk.blocks) // 2:
            middle = normed
        query, key, value = block.qkv(normed).chunk(3, dim=-1)
        size, mixed = len(trunk.places[0]) // block.heads, torch.zeros_like(x)
        for head in range(block.heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(len(x)):
                seen = i + 1 if trunk.causal else len(x)
                weight = (key[:seen, part] @ query[i, part] / size**0.5).softmax(0)
                mixed[i, part] = weight @ value[:seen, part]
        x = x + block.project(mixed)
        x = x + block.mlp[2](functional.gelu(block.mlp[0](block.norm2(x))))
    return trunk.norm(x), middle


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_transformer_of_the_paper(causal: bool) -> None:
    trunk = model(causal=causal)
    colours = torch.randint(0, 8, (2, 16))
    mask = None if causal else torch.rand(2, 16) < 0.3
    tokens, middle = trunk(colours, mask)
    for row in range(2):
        expected = by_hand(trunk, colours[row], None if mask is None else mask[row])
        torch.testing.assert_close((tokens[row], middle[row]), expected)


def test_a_causal_pixel_sees_those_before_it_and_no_other() -> None:
    trunk, colours = model(), torch.randint(0, 8, (1, 16))
    changed = colours.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 8
    before, after = trunk(colours)[0], trunk(changed)[0]
    assert torch.equal(before[:, :7], after[:, :7])  # pixel 6 does not see itself
    assert ((before - after)[0, 7:].abs().amax(1) > 1e-6).all()


def test_hidden_pixels_leave_no_trace_and_others_see_both_ways() -> None:
    trunk, colours = model(causal=False), torch.randint(0, 8, (1, 16))
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 6] = True
    changed = colours.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 8
    assert torch.equal(trunk(colours, mask)[0], trunk(changed, mask)[0])
    assert ((trunk(colours)[0] - trunk(changed)[0])[0].abs().amax(1) > 1e-6).all()


@pytest.mark.parametrize("first", [0, 1, 7])
def test_with_memory_the_logits_are_those_without(first: int) -> None:
    trunk, colours = model(), torch.randint(0, 8, (3, 16))
    logits = trunk.predict(trunk(colours)[0])
    memories = [Memory() for _ in trunk.blocks]
    found = [trunk.proceed(colours[:, :first], memories)]
    found += [trunk.proceed(colours[:, [place]], memories) for place in range(first, 15)]
    torch.testing.assert_close(torch.stack(found, 1), logits[:, first:])


def test_the_pooled_features_are_the_middle_ones() -> None:
    encoder = PixelEncoder(model())
    pictures = torch.randn(2, 3, 32, 32)
    tokens, middle = encoder.trunk(encoder.colours(pictures))
    encoded = encoder(pictures)
    torch.testing.assert_close(encoded.pooled, middle.mean(1))
    torch.testing.assert_close(encoded.tokens, tokens)
    assert encoded.grid == (4, 4)


def test_every_pixel_gets_the_nearest_colour() -> None:
    encoder = build("pixel_gpt_nano", size=32, side=8, colours=20)
    pictures = torch.randn(40, 3, 32, 32)  # more than are compared at once
    small = pictures.reshape(40, 3, 8, 4, 8, 4).mean((3, 5))
    distance = (small[:, None] - encoder.trunk.palette[None, :, :, None, None]).square().sum(2)
    expected = distance.argmin(1).flatten(1)
    assert torch.equal(encoder.colours(pictures), expected)
    painted = encoder.paint(expected)
    assert painted.shape == (40, 3, 8, 8)
    assert torch.equal(encoder.colours(painted), expected)


def test_the_palette_comes_from_the_first_batch_in_training_and_stays() -> None:
    encoder = build("pixel_gpt_nano", size=8, side=4, colours=6, depth=1)
    asked = []

    def find(pixels: Tensor, count: int) -> Tensor:
        asked.append(pixels.shape)
        return pixels[:count]

    pictures = torch.randn(2, 3, 8, 8)
    encoder(pictures)
    first = encoder.trunk.palette.clone()
    encoder.learn_palette(find)
    encoder.eval()(pictures)
    assert torch.equal(encoder.trunk.palette, first)
    encoder.train()(pictures)
    learned = encoder.trunk.palette.clone()
    assert torch.equal(encoder.paint(encoder.colours(encoder.paint(torch.arange(6).repeat(1, 3)[:, :16]))),
                       encoder.paint(torch.arange(6).repeat(1, 3)[:, :16]))  # fmt: skip
    encoder(torch.randn(2, 3, 8, 8))
    assert asked == [(32, 3)]
    assert torch.equal(encoder.trunk.palette, learned)
    resumed = build("pixel_gpt_nano", size=8, side=4, colours=6, depth=1)
    resumed.load_state_dict(encoder.state_dict())
    resumed.learn_palette(find)
    resumed.train()(torch.randn(2, 3, 8, 8))
    assert torch.equal(resumed.trunk.palette, learned)
    assert len(asked) == 1


def test_masks_are_for_those_that_look_both_ways() -> None:
    pictures, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 16, dtype=torch.bool)
    causal = build("pixel_gpt_nano", size=8, side=4, depth=1)
    for ask in (lambda: causal(pictures, mask), lambda: causal.grid(pictures), causal.learn_mask_token):
        with pytest.raises(PolysenseError, match="causal one hides nothing; choose a ViT"):
            ask()
    both = build("pixel_gpt_nano", size=8, side=4, depth=1, causal=False)
    both.learn_mask_token()
    assert both.grid(pictures) == (4, 4)
    assert both(pictures, mask).mask is mask


@pytest.mark.parametrize("name", ["pixel_gpt_small", "pixel_gpt_medium", "pixel_gpt_large"])
def test_the_papers_sizes(name: str) -> None:
    shapes = {"small": (512, 24, 8), "medium": (1024, 36, 8), "large": (1536, 48, 16)}
    shape = SIZES[name]
    assert (shape["width"], shape["depth"], shape["heads"]) == shapes[name.rpartition("_")[2]]
    encoder = build(name, size=32, depth=1)
    assert encoder.dim == shape["width"]
    assert len(encoder.trunk.palette) == 512
    assert encoder.trunk.side == 32


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PolysenseError, match="3 heads cannot share a width of 64"):
        build("pixel_gpt_nano", heads=3)
    with pytest.raises(PolysenseError, match="side is 0; use at least 1"):
        build("pixel_gpt_nano", side=0)
    with pytest.raises(PolysenseError, match="did you mean 'pixel_gpt_nano'"):
        build("pixel_gpt_nan")
