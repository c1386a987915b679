"""Crops, resizing, flips and rotation against torchvision."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from polysense.modalities.vision import geometry

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


def canvas(count: int, side: int, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)


def torchvision_boxes(height: int, width: int, count: int) -> Tensor:
    picture = torch.empty(3, height, width)
    boxes = [v2.RandomResizedCrop(8, SCALE, RATIO).make_params([picture]) for _ in range(count)]
    return torch.tensor([[box[name] for name in ("top", "left", "height", "width")] for box in boxes])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 64), (10, 64)])
def test_random_boxes_have_torchvisions_distribution(height: int, width: int) -> None:
    torch.manual_seed(0)
    ours = geometry.random_boxes(torch.tensor([[height, width]]).expand(4000, 2), SCALE, RATIO)
    theirs = torchvision_boxes(height, width, 4000)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    area, other = (boxes[:, 2] * boxes[:, 3] for boxes in (ours, theirs))
    assert stats.ks_2samp(area, other).pvalue > 1e-3


def test_random_boxes_lie_inside_their_own_picture() -> None:
    torch.manual_seed(0)
    size = torch.randint(1, 65, (5000, 2))
    boxes = geometry.random_boxes(size, (0.01, 1.0), RATIO)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= size).all()


def test_a_crop_that_never_fits_is_the_largest_in_the_centre() -> None:
    wide = geometry.random_boxes(torch.tensor([[10, 64]]), (1.0, 1.0), RATIO)
    tall = geometry.random_boxes(torch.tensor([[64, 10]]), (1.0, 1.0), RATIO)
    assert wide.tolist() == [[0, (64 - 13) // 2, 10, 13]]
    assert tall.tolist() == [[(64 - 13) // 2, 0, 13, 10]]


def test_each_picture_is_cropped_by_its_own_numbers() -> None:
    torch.manual_seed(0)
    boxes = geometry.random_boxes(torch.full((64, 2), 64), SCALE, RATIO)
    assert len(boxes.unique(dim=0)) > 60


@pytest.mark.parametrize(
    ("side", "out"), [(64, 32), (32, 32), (24, 40), (2, 3), (90, 16), (128, 96), (200, 32)]
)
def test_resizing_is_torchvisions(side: int, out: int) -> None:
    torch.manual_seed(0)
    pixels = canvas(8, side)
    boxes = geometry.random_boxes(torch.full((8, 2), side), SCALE, RATIO)
    ours = geometry.crop_resize(pixels, boxes, out)
    exact, rounded = (
        torch.stack(
            [
                reference.resized_crop(each, *box, size=[out, out], antialias=True)
                for each, box in zip(of, boxes.tolist(), strict=True)
            ]
        )
        for of in (pixels.float() / 255, pixels)
    )
    if side <= geometry.TOGETHER_SIDE:
        torch.testing.assert_close(ours, exact, atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(ours * 255, rounded.float())
        assert (ours - exact).abs().max() < 1.01 / 255


def test_both_ways_of_resizing_agree_with_flips_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    pixels = canvas(11, 50, channels=2).float() / 255
    boxes = geometry.random_boxes(torch.randint(20, 51, (11, 2)), SCALE, RATIO)
    flip, upend = torch.rand(2, 11) < 0.5
    monkeypatch.setattr(geometry, "TOGETHER_VALUES", 4 * 2 * 50 * 50)
    ours = geometry._resize_together(pixels, boxes, 17, flip, upend)
    theirs = geometry._resize_one_by_one(pixels, boxes, 17, flip, upend)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_flips_mirror_only_the_chosen() -> None:
    pixels = canvas(3, 16)
    whole = torch.tensor([[0, 0, 16, 16]]).expand(3, 4)
    flip, upend = torch.tensor([True, False, True]), torch.tensor([False, True, True])
    plain = geometry.crop_resize(pixels, whole, 16)
    mirrored = geometry.crop_resize(pixels, whole, 16, flip, upend)
    expected = [plain[0].flip(2), plain[1].flip(1), plain[2].flip(1, 2)]
    torch.testing.assert_close(mirrored, torch.stack(expected))


def test_sixteen_bits_keep_their_precision() -> None:
    pixels = torch.full((1, 1, 110, 110), 257 * 100 + 1).to(torch.uint16)
    for side in (110, 20):
        part = pixels[..., :side, :side]
        resized = geometry.crop_resize(part, torch.tensor([[0, 0, side, side]]), 9)
        torch.testing.assert_close(resized, torch.full((1, 1, 9, 9), (257 * 100 + 1) / 65535))


def test_autocast_does_not_coarsen_pictures() -> None:
    pixels, box = canvas(2, 32), torch.tensor([[0, 0, 32, 32]] * 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = geometry.crop_resize(pixels, box, 32)
    torch.testing.assert_close(coarse, pixels / 255)


def test_what_lies_outside_the_box_does_not_leak_in() -> None:
    pixels = torch.full((1, 1, 40, 40), 255, dtype=torch.uint8)
    pixels[..., 10:20, 10:20] = 0
    assert geometry.crop_resize(pixels, torch.tensor([[10, 10, 10, 10]]), 32).max() == 0


def test_rotation_is_torchvisions() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(3, 2, 21, 21)
    degrees = torch.tensor([30.0, -75.0, 180.0])
    ours = geometry.rotate(pictures, degrees)
    for picture, angle, turned in zip(pictures, degrees.tolist(), ours, strict=True):
        theirs = reference.rotate(picture, angle, interpolation=v2.InterpolationMode.BILINEAR)
        inside = slice(4, 17)  # at the rim torchvision blends with its mask of what is filled
        torch.testing.assert_close(turned[:, inside, inside], theirs[:, inside, inside], atol=1e-4, rtol=0)


def test_centre_boxes_are_squares_in_the_middle() -> None:
    boxes = geometry.centre_boxes(torch.tensor([[7, 12], [9, 3]]))
    assert boxes.tolist() == [[0, 2, 7, 7], [3, 0, 3, 3]]


def test_area_is_uniform_and_ratio_log_uniform_where_all_crops_fit() -> None:
    torch.manual_seed(0)
    size = torch.full((4000, 2), 1000)
    boxes = geometry.random_boxes(size, (0.1, 0.4), RATIO).double()
    area, log_ratio = boxes[:, 2] * boxes[:, 3] / 1e6, (boxes[:, 3] / boxes[:, 2]).log()
    assert stats.kstest(area, stats.uniform(0.1, 0.3).cdf).pvalue > 1e-3
    low = math.log(3 / 4)
    assert stats.kstest(log_ratio, stats.uniform(low, -2 * low).cdf).pvalue > 1e-3
