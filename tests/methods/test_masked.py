"""Recipes that replace hidden tokens by a learned vector and read the answer off each token."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polysense.encoders.heads import OnTokens
from polysense.encoders.vision import build
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.table import find
from polysense.modalities.base import View

REPLACING = ["simmim", "beit", "maskfeat"]
OPTIONS = {"beit": {"prototypes": 16}}


def built(name: str) -> Method:
    torch.manual_seed(0)
    encoder = build("vit_nano", size=32, depth=1)
    return find(name).build(encoder, "image", **OPTIONS.get(name, {}))


def views(batch: int = 4) -> list[View]:
    torch.manual_seed(1)
    return [View(torch.randn(batch, 3, 32, 32), "image")]


@pytest.mark.parametrize("name", REPLACING)
def test_every_token_is_encoded_and_everything_learns(name: str) -> None:
    method = built(name)
    outcome = method(views())
    (encoded,) = outcome.seen.student
    assert encoded.tokens is not None
    assert encoded.tokens.shape[1] == 64
    outcome.loss.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    token = method.towers["image"].mask_token
    assert isinstance(token, nn.Parameter)
    assert token.grad is not None
    assert token.grad.abs().max() > 0


@pytest.mark.parametrize("name", REPLACING)
def test_what_lies_under_the_mask_is_not_seen(name: str) -> None:
    method = built(name).eval()
    first = method.look(views())
    (view,), (encoded,) = first.views, first.student
    assert view.mask is not None
    assert isinstance(view.data, torch.Tensor)
    hidden = view.mask.view(-1, 8, 8).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    changed = torch.where(hidden, torch.randn_like(view.data), view.data)
    again = method.towers["image"](changed, view.mask)
    torch.testing.assert_close(again.tokens, encoded.tokens)


def test_simmim_is_a_convolution_and_a_pixel_shuffle() -> None:
    method, (view,) = built("simmim"), views()
    outcome = method([view])
    encoded, mask = outcome.seen.student[0], outcome.seen.views[0].mask
    (linear,) = (one.module for one in method.modules() if isinstance(one, OnTokens))
    assert isinstance(linear, nn.Linear)
    assert encoded.tokens is not None
    assert mask is not None
    assert isinstance(view.data, torch.Tensor)
    # a linear layer's outputs lie [row, column, channel] in a patch, PixelShuffle's [channel, row, column]
    order = torch.arange(48).view(4, 4, 3).permute(2, 0, 1).flatten()
    plane = encoded.tokens.transpose(1, 2).unflatten(2, (8, 8))
    convolved = nn.functional.conv2d(plane, linear.weight[order][:, :, None, None], linear.bias[order])
    made = nn.PixelShuffle(4)(convolved)
    hidden = mask.view(-1, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3).float()
    expected = ((view.data - made).abs() * hidden).sum() / hidden.sum() / 3
    torch.testing.assert_close(outcome.loss, expected)


@pytest.mark.parametrize("name", [*REPLACING, "mae"])
def test_a_conv_net_is_refused_when_the_recipe_is_built(name: str) -> None:
    with pytest.raises(PolysenseError, match="cannot hide tokens; choose a ViT"):
        find(name).build(build("small", size=32), "image")


def test_ijepa_refuses_an_encoder_that_cannot_hide() -> None:
    with pytest.raises(PolysenseError, match="cannot hide tokens; choose a ViT"):
        find("ijepa").build(build("small", size=32), "image")
