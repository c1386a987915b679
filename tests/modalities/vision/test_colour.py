"""Colour and blur against torchvision, picture by picture."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from polysense.modalities.vision import colour

ORDER = torch.tensor([[0, 1, 2, 3]])
IDLE = [1.0, 1.0, 1.0, 0.0]


def pictures(count: int = 6, channels: int = 3, side: int = 15) -> Tensor:
    torch.manual_seed(0)
    batch = torch.rand(count, channels, side, side)
    batch[0, :, :4] = batch[0, :1, :4]  # grey pixels have no hue
    batch[1, :, :4] = (batch[1, :, :4] > 0.5).float()  # saturated ones lie on the corners of the cube
    return batch


def alone(step: int, values: Tensor) -> Tensor:
    factors = torch.tensor([IDLE]).repeat(len(values), 1)
    factors[:, step] = values
    return factors


def each(function: Callable[..., Tensor], batch: Tensor, *parameters: Tensor) -> Tensor:
    rows = zip(batch, *(p.tolist() for p in parameters), strict=True)
    return torch.stack([function(*row) for row in rows])


@pytest.mark.parametrize(
    ("step", "function", "values"),
    [
        (colour.BRIGHTNESS, reference.adjust_brightness, [0.0, 0.2, 0.9, 1.0, 1.4, 1.8]),
        (colour.CONTRAST, reference.adjust_contrast, [0.0, 0.2, 0.9, 1.0, 1.4, 1.8]),
        (colour.SATURATION, reference.adjust_saturation, [0.0, 0.2, 0.9, 1.0, 1.4, 1.8]),
        (colour.HUE, reference.adjust_hue, [-0.5, -0.2, -0.05, 0.01, 0.1, 0.5]),
    ],
)
def test_one_step_is_torchvisions(step: int, function: Callable[..., Tensor], values: list[float]) -> None:
    batch, parameter = pictures(), torch.tensor(values)
    ours = colour.jitter_(batch.clone(), alone(step, parameter), ORDER.expand(6, 4))
    torch.testing.assert_close(ours, each(function, batch, parameter), atol=1e-5, rtol=0)


def test_the_whole_jitter_is_torchvisions_in_every_order() -> None:
    torch.manual_seed(1)
    batch = torch.rand(64, 3, 9, 9)
    factors = torch.cat([torch.rand(64, 3) * 1.6 + 0.2, torch.rand(64, 1) - 0.5], 1)
    factors[5] = torch.tensor(IDLE)
    order = torch.rand(64, 4).argsort(1)
    steps = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    ours = colour.jitter_(batch.clone(), factors, order)
    for i in range(64):
        theirs = batch[i]
        for step in order[i].tolist():
            theirs = steps[step](theirs, factors[i, step].item())
        torch.testing.assert_close(ours[i], theirs, atol=1e-4, rtol=0)
    assert torch.equal(ours[5], batch[5])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channel_counts_keep_their_colour_but_change_light(channels: int) -> None:
    batch = pictures(channels=channels)
    factors = torch.tensor([[1.0, 1.0, 0.3, 0.4]]).expand(6, 4)
    torch.testing.assert_close(colour.jitter_(batch.clone(), factors, ORDER.expand(6, 4)), batch)
    assert torch.equal(colour.to_grey(batch), batch)
    darker = colour.jitter_(
        batch.clone(), alone(colour.BRIGHTNESS, torch.full((6,), 0.5)), ORDER.expand(6, 4)
    )
    torch.testing.assert_close(darker, batch / 2)
    flat = colour.jitter_(batch.clone(), alone(colour.CONTRAST, torch.zeros(6)), ORDER.expand(6, 4))
    torch.testing.assert_close(flat, batch.mean((1, 2, 3), keepdim=True).expand_as(batch))


def test_grey_and_solarise_are_torchvisions() -> None:
    batch = pictures()
    torch.testing.assert_close(colour.to_grey(batch), reference.rgb_to_grayscale(batch, 3))
    batch[0, 0, 0, 0] = 0.5
    assert torch.equal(colour.solarise(batch), reference.solarize(batch, 0.5))


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_blur_is_torchvisions_with_a_wide_kernel(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour, "BLUR_VALUES", at_once)
    batch, sigma = pictures(side=24), torch.tensor([2.0, 0.1, 0.5, 1.3, 1.0, 0.7])
    theirs = each(lambda one, s: reference.gaussian_blur(one, [21, 21], [s, s]), batch, sigma)
    torch.testing.assert_close(colour.blur(batch, sigma), theirs, atol=2e-4, rtol=0)


def test_blur_of_a_picture_smaller_than_its_kernel() -> None:
    tiny = torch.rand(2, 1, 3, 3)
    blurred = colour.blur(tiny, torch.tensor([2.0, 0.1]))
    assert blurred[0].std() < tiny[0].std() / 2
    torch.testing.assert_close(blurred[1], tiny[1], atol=1e-5, rtol=0)


def test_inputs_are_left_as_they_were() -> None:
    batch = pictures()
    before = batch.clone()
    for change in (colour.to_grey, colour.solarise):
        change(batch)
    colour.blur(batch, torch.ones(6))
    colour.drop_channel(batch, torch.zeros(6, dtype=torch.long))
    assert torch.equal(batch, before)


def test_drop_channel_blacks_out_its_own_channel() -> None:
    dropped = colour.drop_channel(torch.ones(3, 3, 2, 2), torch.tensor([2, 0, 1]))
    assert dropped[:, :, 0, 0].tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
