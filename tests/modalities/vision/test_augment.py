"""The random view as a whole: its distributions beside torchvision's, its settings, its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from polysense.errors import PolysenseError
from polysense.modalities.base import View
from polysense.modalities.vision import augment
from polysense.modalities.vision.augment import RandomView, ViewSettings

JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
PLAIN = ViewSettings(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
EVERYTHING = ViewSettings(
    vertical_flip=0.5, rotation=20, jitter=0.8, **JITTER, grey=0.2, blur=0.5, solarise=0.2, channel_drop=0.2
)


def view_of(settings: ViewSettings, size: int = 16, channels: int = 3) -> RandomView:
    return RandomView(settings, size, [0.0] * channels, [1.0] * channels)


def picture(side: int = 32) -> Tensor:
    torch.manual_seed(7)
    coarse = torch.rand(1, 3, 4, 4)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8)


def sizes(pixels: Tensor) -> Tensor:
    return torch.full((len(pixels), 2), pixels.shape[-1])


def test_whole_views_are_distributed_as_torchvisions() -> None:
    settings = ViewSettings(jitter=0.8, **JITTER, grey=0.2, blur=0.5, solarise=0.2)
    theirs_of = v2.Compose(
        [
            v2.RandomResizedCrop(16, (0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(**JITTER)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(17, (0.1, 2.0))], 0.5),
            v2.RandomSolarize(0.5, 0.2),
        ]
    )
    pixels = picture()
    torch.manual_seed(0)
    ours = view_of(settings, 17)(pixels.expand(1500, -1, -1, -1), torch.full((1500, 2), 32))[..., :16, :16]
    theirs = torch.stack([theirs_of(pixels[0].float() / 255) for _ in range(1500)])

    def features(views: Tensor) -> dict[str, Tensor]:
        red, green, blue = views.unbind(1)
        return {
            "lightness": views.mean((1, 2, 3)),
            "contrast": views.std((1, 2, 3)),
            "tint": (red - blue).mean((1, 2)),
            "colourfulness": (red - green).abs().mean((1, 2)),
            "lean": (views[..., :8].mean((1, 2, 3)) - views[..., 8:].mean((1, 2, 3))),
        }

    for name, values in features(ours).items():
        assert stats.ks_2samp(values, features(theirs)[name]).pvalue > 1e-3, name


def test_factors_and_orders_are_torchvisions() -> None:
    torch.manual_seed(0)
    draw = view_of(replace(PLAIN, jitter=1.0, **JITTER)).draw(torch.full((3000, 2), 32), 3)
    jitter = v2.ColorJitter(**JITTER)
    theirs = [jitter.make_params([]) for _ in range(3000)]
    for step, name in enumerate(JITTER):
        expected = [params[f"{name}_factor"] for params in theirs]
        assert stats.ks_2samp(draw.factors[:, step], expected).pvalue > 1e-3, name
    counts = (draw.order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_probabilities_and_ranges_are_as_set() -> None:
    torch.manual_seed(0)
    settings = ViewSettings(
        flip=0.3, vertical_flip=0.1, jitter=0.8, hue=0.1, grey=0.2, blur=0.6, solarise=0.25, channel_drop=0.15
    )
    draw = view_of(replace(settings, blur_sigma=(0.5, 1.5), rotation=30)).draw(torch.full((4000, 2), 32), 3)
    happened = {
        "flip": draw.flip,
        "vertical_flip": draw.vertical_flip,
        "jitter": draw.factors[:, 3] != 0,
        "grey": draw.grey,
        "blur": draw.sigma > 0,
        "solarise": draw.solarise,
        "channel_drop": draw.dropped >= 0,
    }
    for name, events in happened.items():
        wanted = getattr(settings, name)
        assert stats.binomtest(int(events.sum()), 4000, wanted).pvalue > 1e-3, name
    sigma = draw.sigma[draw.sigma > 0]
    assert stats.kstest(sigma, stats.uniform(0.5, 1.0).cdf).pvalue > 1e-3
    assert stats.kstest(draw.degrees, stats.uniform(-30, 60).cdf).pvalue > 1e-3
    assert draw.dropped.unique().tolist() == [-1, 0, 1, 2]


def test_solarise_is_torchvisions_and_comes_after_the_rest() -> None:
    pixels = picture(16)
    view = view_of(replace(PLAIN, solarise=1.0))(pixels, sizes(pixels))
    torch.testing.assert_close(view, v2.functional.solarize(pixels / 255, 0.5), atol=1e-5, rtol=0)


def test_every_picture_has_its_own_random_numbers() -> None:
    torch.manual_seed(0)
    pixels = picture().expand(32, -1, -1, -1)
    views = view_of(EVERYTHING)(pixels, sizes(pixels))
    apart = torch.cdist(views.flatten(1), views.flatten(1)) + torch.eye(32)
    assert apart.min() > 1e-3


def test_the_global_seed_decides_and_parts_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    pixels = torch.randint(0, 256, (13, 3, 32, 32), dtype=torch.uint8)
    view, made = view_of(EVERYTHING), []
    for values in (2**19, 2**19, 4 * 3 * 16 * 16):
        monkeypatch.setattr(augment, "PART_VALUES", values)
        torch.manual_seed(5)
        made.append(view(pixels, sizes(pixels)))
    assert torch.equal(made[0], made[1])
    torch.testing.assert_close(made[0], made[2], atol=2e-4, rtol=0)  # wider kernels where blurs are mixed
    assert not torch.equal(made[0], view(pixels, sizes(pixels)))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("side", [24, 100])
def test_any_channels_and_depth(channels: int, dtype: torch.dtype, side: int) -> None:
    torch.manual_seed(0)
    white = torch.iinfo(dtype).max
    pixels = torch.randint(0, white + 1, (4, channels, side, side)).to(dtype)
    views = view_of(EVERYTHING, channels=channels)(pixels, sizes(pixels))
    assert views.shape == (4, channels, 16, 16)
    assert views.dtype == torch.float32
    assert -1e-6 < views.min() < 0.3
    assert 0.4 < views.max() < 1 + 1e-5


def test_views_are_normalised_at_the_end() -> None:
    pixels = picture(16)
    view = RandomView(PLAIN, 16, [0.4, 0.5, 0.6], [0.1, 0.2, 0.3])(pixels, sizes(pixels))
    expected = v2.functional.normalize(pixels / 255, [0.4, 0.5, 0.6], [0.1, 0.2, 0.3])
    torch.testing.assert_close(view, expected, atol=1e-4, rtol=0)


def test_only_the_content_is_seen() -> None:
    torch.manual_seed(0)
    pixels = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    pixels[:, :, :20, :11] = 255
    views = view_of(ViewSettings(scale=(0.1, 1.0)))(pixels, torch.tensor([[20, 11]]).expand(64, 2))
    torch.testing.assert_close(views, torch.ones_like(views), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"hue": 0.7}, "the view setting 'hue' is 0.7; give a number from 0 to 0.5"),
        ({"flip": 2}, "the view setting 'flip' is 2; give a probability from 0 to 1"),
        ({"scale": (0.5, 0.2)}, "the view setting 'scale' is (0.5, 0.2); give two positive numbers"),
        ({"scale": (0.5, 2.0)}, "at most 1"),
        ({"ratio": ("wide", "tall")}, "the view setting 'ratio' is ('wide', 'tall')"),
        ({"ratio": 1.0}, "the view setting 'ratio' is 1.0"),
        ({"brightness": -1}, "give a number from 0 up"),
        ({"rotation": 200}, "degrees from 0 to 180"),
        ({"grey": "often"}, "the view setting 'grey' is 'often'"),
    ],
)
def test_settings_out_of_range_are_told(setting: dict[str, Any], told: str) -> None:
    with pytest.raises(PolysenseError) as error:
        ViewSettings(**setting)
    assert told in str(error.value)


def coordinates(height: int, width: int) -> Tensor:
    """A picture whose two channels say where in it each pixel lies, as shares of white."""
    down = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    across = ((torch.arange(width) + 0.5) / width).expand(height, width)
    canvas = torch.zeros(2, 48, 48)
    canvas[:, :height, :width] = torch.stack([down, across])
    return canvas


@pytest.mark.parametrize("mirrored", [{"flip": 0.0}, {"flip": 1.0}, {"flip": 0.5, "vertical_flip": 0.5}])
def test_the_region_is_where_the_pixels_came_from(mirrored: dict[str, float]) -> None:
    torch.manual_seed(0)
    size = torch.tensor([[48, 48], [40, 24], [20, 48]]).repeat(8, 1)
    pixels = torch.stack([coordinates(*each) for each in size.tolist()])
    view = view_of(ViewSettings(scale=(0.3, 1.0), **mirrored), 6, 2)
    draw = view.draw(size, 2)
    seen = view.make(pixels, draw).flatten(2).mT
    places = View(pixels, "image", region=draw.region(size)).places((6, 6))
    inner = torch.zeros(6, 6, dtype=torch.bool)
    inner[1:-1, 1:-1] = True  # antialiasing leans at the edges of a crop
    torch.testing.assert_close(seen[:, inner.flatten()], places[:, inner.flatten()], atol=2e-3, rtol=0)
