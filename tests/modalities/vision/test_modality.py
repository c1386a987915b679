"""The picture modality: plans, plain views, settings, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from polysense.errors import PolysenseError
from polysense.modalities.base import Batch, ViewPlan
from polysense.modalities.vision.modality import Vision, strong_settings

Rng = np.random.default_rng


def photographs(count: int = 6, height: int = 24, width: int = 30, channels: int = 3) -> np.ndarray:
    return Rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def batch_of(vision: Vision, count: int = 6) -> Batch:
    return vision.batch(list(photographs(count, channels=vision.channels)))


def test_read_fit_collate_views() -> None:
    vision = Vision(size=16)
    dataset = vision.read(photographs())
    vision = vision.fit(dataset, ViewPlan(globals_=2))
    np.testing.assert_allclose(vision.mean, photographs().mean((0, 1, 2)) / 255, atol=1e-6)
    batch = vision.collate(dataset.__getitems__([3, 1]))
    assert batch.index.tolist() == [3, 1]
    torch.manual_seed(0)
    views = vision.views(batch)
    assert [(view.kind, view.modality, view.data.shape) for view in views] == [
        ("global", "image", (2, 3, 16, 16))
    ] * 2
    assert not torch.equal(views[0].data, views[1].data)


def test_fit_of_grey_and_constant_pictures() -> None:
    dataset = Vision(size=8).read(np.full((4, 10, 10), 128, np.uint8))
    vision = Vision(size=8).fit(dataset)
    assert vision.channels == 1
    view = vision.plain(vision.collate(dataset.__getitems__([0])))
    assert view.data.abs().max() < 1e-3  # not infinite where nothing varies


def test_multi_crop_has_its_own_size_and_settings() -> None:
    vision = Vision(size=32, plan=ViewPlan(globals_=2, locals_=3))
    views = vision.views(batch_of(vision))
    assert [view.kind for view in views] == ["global"] * 2 + ["local"] * 3
    assert [view.data.shape[-1] for view in views] == [32, 32, 16, 16, 16]
    assert Vision(size=224).local_size == 96


def test_options_reach_the_views() -> None:
    options = {
        "image": {
            "scale": [0.4, 1.0],
            "views": [{"blur": 1.0}, {"blur": 0.1, "solarise": 0.2}],
            "local": {"scale": (0.05, 0.4), "grey": 0.0},
        }
    }
    vision = Vision(size=32, plan=ViewPlan(locals_=1, options=options))
    first, second = (maker.settings for maker in vision._globals)
    assert (first.blur, first.solarise, first.scale) == (1.0, 0.0, (0.4, 1.0))
    assert (second.blur, second.solarise, second.scale) == (0.1, 0.2, (0.4, 1.0))
    local = vision._local.settings
    assert (local.scale, local.grey, local.jitter) == ((0.05, 0.4), 0.0, 0.8)


def test_every_view_says_which_part_of_the_picture_it_shows_unless_it_is_rotated() -> None:
    torch.manual_seed(0)
    vision = Vision(size=16, plan=ViewPlan(locals_=1))
    views = vision.views(vision.batch(list(photographs(4))))
    for view in views:
        assert view.region is not None
        assert view.region.shape == (4, 2, 2)
        ends = view.region.cumsum(1)
        assert ends.min() >= 0
        assert ends.max() <= 1 + 1e-6
    assert not torch.equal(views[0].region, views[1].region)
    turned = Vision(size=16, plan=ViewPlan(options={"image": {"rotation": 10.0}}))
    assert [view.region for view in turned.views(turned.batch(list(photographs(4))))] == [None, None]


def test_weak_views_only_crop_and_flip() -> None:
    vision = Vision(size=32, plan=ViewPlan(globals_=1, strength="weak"))
    dyed = np.full((20, 20, 3), (200, 100, 50), np.uint8)
    view = vision.views(vision.batch([dyed] * 8))[0].data
    expected = (torch.tensor([200, 100, 50]) / 255)[:, None, None].expand_as(view)
    torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


def test_strong_settings_are_the_published_ones() -> None:
    small, large = strong_settings(32), strong_settings(224)
    assert (small.jitter, small.brightness, small.hue, small.grey, small.blur) == (0.8, 0.4, 0.1, 0.2, 0.0)
    assert (large.brightness, large.saturation, large.hue, large.blur) == (0.8, 0.8, 0.2, 0.5)
    assert (small.scale, large.scale, large.blur_sigma) == ((0.2, 1.0), (0.08, 1.0), (0.1, 2.0))


def test_plain_is_the_centre_square_resized() -> None:
    vision = Vision(size=16, mean=[0.2, 0.3, 0.4], std=[0.5, 0.6, 0.7])
    photograph = photographs(1)
    batch = vision.batch(list(photograph))
    square = torch.from_numpy(photograph[0]).permute(2, 0, 1)[:, :, 3:27] / 255
    small = reference.resize(square, [16, 16], antialias=True)
    expected = reference.normalize(small, vision.mean, vision.std)
    torch.testing.assert_close(vision.plain(batch).data[0], expected, atol=1e-5, rtol=0)
    assert torch.equal(vision.raw(batch), vision.plain(batch).data.flatten(1))
    assert torch.equal(vision.plain(batch).data, vision.plain(batch).data)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_show_gives_the_bytes_back(channels: int) -> None:
    vision = Vision(size=30, channels=channels, mean=[0.4] * channels, std=[0.2] * channels)
    square = photographs(2, 30, 30, channels)
    shown = vision.show(vision.plain(vision.batch(list(square))))
    assert shown.dtype == np.uint8
    expected = square if channels == 3 else square.astype(float).mean(3, keepdims=True).repeat(3, 3)
    assert shown.shape == (2, 30, 30, 3)
    assert np.abs(shown - expected).max() <= 0.51


def test_batch_takes_every_form_and_large_pictures(tmp_path: Path) -> None:
    photograph = photographs(1, 20, 24)[0]
    image = Image.fromarray(photograph)
    image.save(tmp_path / "a.png")
    large = np.full((500, 300, 3), 7, np.uint8)
    batch = Vision(size=16).batch(
        [photograph, torch.from_numpy(photograph), image, tmp_path / "a.png", large]
    )
    assert batch.data["size"].tolist() == [[20, 24]] * 4 + [[32, 19]]
    for row in range(4):
        assert torch.equal(
            batch.data["pixels"][row, :, :20, :24].permute(1, 2, 0), torch.from_numpy(photograph)
        )
    assert batch.index.tolist() == [0, 1, 2, 3, 4]


def test_settings_survive_yaml() -> None:
    options = {"image": {"hue": 0.05, "scale": (0.3, 1.0), "views": [{"blur": 1.0}, {"solarise": 0.2}]}}
    vision = Vision(24, ViewPlan(1, 2, "weak", options), 1, [0.4], [0.2], local_size=9)
    rebuilt = Vision.from_settings(yaml.safe_load(yaml.safe_dump(vision.settings())), vision.attachments())
    assert rebuilt.settings() == vision.settings()
    views = []
    for each in (vision, rebuilt):
        torch.manual_seed(0)
        views.append([view.data for view in each.views(batch_of(each))])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*views, strict=True))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"hues": 0.1}, "unknown view setting 'hues'; did you mean 'hue'?"),
        ({"views": [{"blurr": 1}]}, "unknown view setting 'blurr'; did you mean 'blur'"),
        ({"local": {"scal": 1}}, "unknown view setting 'scal'; did you mean 'scale'"),
        ({"views": {"blur": 1}}, "view settings are 'blur'; give names with values"),
        ({"hue": 0.9}, "the view setting 'hue' is 0.9"),
    ],
)
def test_wrong_options_are_told(options: dict[str, object], told: str) -> None:
    with pytest.raises(PolysenseError) as error:
        Vision(plan=ViewPlan(options={"image": options}))
    assert told in str(error.value)


def test_other_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match=r"unknown view strength 'strongg'; did you mean 'strong'\?"):
        Vision(plan=ViewPlan(strength="strongg"))
    with pytest.raises(PolysenseError, match=r"do not suit pictures of 3 channels"):
        Vision(mean=[0.5], std=[0.5])
    with pytest.raises(PolysenseError, match="cannot read picture 1 of the list: no such file"):
        Vision().batch([photographs(1)[0], tmp_path / "gone.png"])
    grey = Vision(channels=1)
    with pytest.raises(PolysenseError, match="the pictures have 3 channels where 1 were expected"):
        grey.plain(Vision().batch([photographs(1)[0]]))


def test_encoder_has_the_modalitys_channels() -> None:
    vision = Vision(size=16, channels=2)
    encoder = vision.encoder("small")
    assert encoder(vision.plain(batch_of(vision)).data).pooled.shape == (6, encoder.dim)
