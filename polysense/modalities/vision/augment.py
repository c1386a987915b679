"""One random view of a whole batch of pictures: the settings, and the pass that makes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from polysense.modalities.plans import check_setting, out_of_range, setting_range
from polysense.modalities.vision import colour, geometry

PART_VALUES = 2**20
"""On a processor a batch is worked through in parts of about this many numbers, to stay in its cache."""


@dataclass(frozen=True)
class ViewSettings:
    """What one random view does to a picture, in this order; each probability is per picture.

    ``scale``, ``ratio``: area of the crop as a share of the picture, and its width / height. ``flip``,
    ``vertical_flip``: probabilities. ``rotation``: up to so many degrees either way. ``jitter``: the
    probability of colour jitter, with ``brightness``, ``contrast``, ``saturation`` (factors within
    1 ± the value) and ``hue`` (turns, at most 0.5). ``grey``, ``blur``, ``solarise``,
    ``channel_drop``: probabilities; ``blur_sigma``: the range of the blur in pixels of the view.

    Raises:
        PolysenseError: naming the setting that is out of its range.

    >>> ViewSettings(blur=1.0).blur_sigma
    (0.1, 2.0)
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    vertical_flip: float = 0.0
    rotation: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0
    channel_drop: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "ratio", "blur_sigma"):
            ends = setting_range(
                name, getattr(self, name), lambda low: low > 0, "two positive numbers, the smaller first"
            )
            object.__setattr__(self, name, ends)
        if self.scale[1] > 1:
            raise out_of_range("scale", self.scale, "two shares of the picture's area, at most 1")
        for name in ("flip", "vertical_flip", "jitter", "grey", "blur", "solarise", "channel_drop"):
            check_setting(name, getattr(self, name), 1, "a probability from 0 to 1")
        for name in ("brightness", "contrast", "saturation"):
            check_setting(name, getattr(self, name), math.inf, "a number from 0 up")
        check_setting("hue", self.hue, 0.5, "a number from 0 to 0.5")
        check_setting("rotation", self.rotation, 180, "degrees from 0 to 180")


@dataclass(frozen=True)
class Draw:
    """The random numbers of one view of a batch; the first dimension of each is the batch.

    ``boxes``, ``factors`` and ``order`` ``[B, 4]`` are as :mod:`.geometry` and :mod:`.colour` take them,
    the factors such that they change nothing where there is no jitter; ``sigma`` is 0 where a picture is
    not blurred, ``dropped`` -1 where it keeps its channels.
    """

    boxes: Tensor
    flip: Tensor
    vertical_flip: Tensor
    degrees: Tensor
    factors: Tensor
    order: Tensor
    grey: Tensor
    sigma: Tensor
    solarise: Tensor
    dropped: Tensor

    def __getitem__(self, rows: slice) -> Draw:
        return Draw(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def region(self, size: Tensor) -> Tensor:
        """``[B, 2, 2]``: start and extent of each crop, down and across, as shares of the picture.

        A mirrored one runs backwards; rotation is not regarded. ``size`` is ``[B, 2]``.
        """
        corner, extent = (self.boxes.reshape(-1, 2, 2) / size[:, None]).unbind(1)
        mirrored = torch.stack([self.vertical_flip, self.flip], 1)
        start = torch.where(mirrored, corner + extent, corner)
        return torch.stack([start, torch.where(mirrored, -extent, extent)], 1)


class RandomView:
    """Makes one random view of a whole batch, on its device, each picture with its own random numbers.

    Distributions and pixels are torchvision's (``RandomResizedCrop``, ``ColorJitter``,
    ``RandomGrayscale``, ``GaussianBlur``, ``RandomSolarize``) with two differences: values are not
    rounded to bytes between the steps, and the blur's kernel is as wide as its sigma needs.

    Args:
        settings: what the view does.
        size: side of the view in pixels.
        mean, std: per channel, on the scale [0, 1], subtracted and divided by at the end.

    >>> view = RandomView(ViewSettings(jitter=0.8, hue=0.1), size=8, mean=[0.5] * 3, std=[0.25] * 3)
    >>> view(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.tensor([[16, 16], [9, 12]])).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self, settings: ViewSettings, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.settings, self.size = settings, size
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, pixels: Tensor, size: Tensor) -> Tensor:
        """Make the view.

        Args:
            pixels: ``[B, C, S, S]`` uint8 or uint16, or floats in [0, 1].
            size: ``[B, 2]``: height and width of each picture on its canvas.

        Returns:
            ``[B, C, size, size]`` float32, normalised.
        """
        return self.make(pixels, self.draw(size, pixels.shape[1]))

    @torch.no_grad()
    def make(self, pixels: Tensor, draw: Draw) -> Tensor:
        """The view that these random numbers make of the pictures."""
        mean, std = self.mean.to(pixels.device), self.std.to(pixels.device)
        views = geometry.crop_resize(pixels, draw.boxes, self.size, draw.flip, draw.vertical_flip)
        for part in self._parts(views):
            self._change(views[part], draw[part])
            views[part].sub_(mean).div_(std)
        return views

    def draw(self, size: Tensor, channels: int) -> Draw:
        """The random numbers for pictures of ``size`` ``[B, 2]`` (height, width)."""
        asked, count, device = self.settings, len(size), size.device

        def happens(probability: float) -> Tensor:
            return torch.rand(count, device=device) < probability

        def uniform(low: float, high: float) -> Tensor:
            return low + torch.rand(count, device=device) * (high - low)

        idle = torch.tensor([1.0, 1.0, 1.0, 0.0], device=device)
        spreads = (asked.brightness, asked.contrast, asked.saturation)
        factors = [uniform(max(0.0, 1 - spread), 1 + spread) for spread in spreads]
        factors.append(uniform(-asked.hue, asked.hue))
        return Draw(
            boxes=geometry.random_boxes(size, asked.scale, asked.ratio),
            flip=happens(asked.flip),
            vertical_flip=happens(asked.vertical_flip),
            degrees=uniform(-asked.rotation, asked.rotation),
            factors=torch.where(happens(asked.jitter)[:, None], torch.stack(factors, 1), idle),
            order=torch.rand(count, 4, device=device).argsort(1),
            grey=happens(asked.grey),
            sigma=uniform(*asked.blur_sigma) * happens(asked.blur),
            solarise=happens(asked.solarise),
            dropped=torch.where(happens(asked.channel_drop), uniform(0, channels).long(), -1),
        )

    def _change(self, views: Tensor, draw: Draw) -> None:
        """All that follows the crop, in place: fresh memory costs more here than arithmetic does."""
        if self.settings.rotation:
            views.copy_(geometry.rotate(views, draw.degrees))
        if self.settings.jitter:
            colour.jitter_(views, draw.factors, draw.order)
        for chosen, change, parameters in (
            (draw.grey, colour.to_grey, ()),
            (draw.sigma > 0, colour.blur, (draw.sigma,)),
            (draw.solarise, colour.solarise, ()),
            (draw.dropped >= 0, colour.drop_channel, (draw.dropped,)),
        ):
            rows = chosen.nonzero().squeeze(1)
            if len(rows):
                views[rows] = change(views.index_select(0, rows), *(each[rows] for each in parameters))

    def _parts(self, views: Tensor) -> list[slice]:
        count = math.ceil(views.numel() / PART_VALUES) if views.device.type == "cpu" else 1
        step = math.ceil(len(views) / count)
        return [slice(start, start + step) for start in range(0, len(views), step)]
