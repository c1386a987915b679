"""Pictures as a modality: read, collate, random views, the plain view, and back to bytes for the eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polysense.errors import PolysenseError
from polysense.modalities.base import Batch, View, ViewPlan
from polysense.modalities.plans import plan_from_settings, plan_settings, view_settings
from polysense.modalities.vision import geometry
from polysense.modalities.vision.augment import RandomView, ViewSettings

if TYPE_CHECKING:
    from polysense.encoders.base import Encoder
    from polysense.modalities.vision.store import Pictures

SMALL = 64
"""Views of up to this side count as small pictures: half the jitter, no blur, no tiny crops (SimCLR, B.9)."""


def weak_settings() -> ViewSettings:
    """Crop and flip, for methods that predict what is hidden (MAE, SimMIM, I-JEPA).

    >>> weak_settings().jitter
    0.0
    """
    return ViewSettings(scale=(0.2, 1.0), flip=0.5)


def strong_settings(size: int) -> ViewSettings:
    """SimCLR's augmentations (https://arxiv.org/abs/2002.05709) for views of ``size`` pixels.

    Up to 64 pixels: colour strength 0.5, no blur, crops from a fifth of the area, as for CIFAR-10; above:
    strength 1, blur with probability 0.5, crops from 8 %, as for ImageNet.

    >>> strong_settings(32).hue, strong_settings(224).hue
    (0.1, 0.2)
    """
    small = size <= SMALL
    strength = 0.5 if small else 1.0
    return ViewSettings(
        scale=(0.2, 1.0) if small else (0.08, 1.0),
        jitter=0.8,
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        grey=0.2,
        blur=0.0 if small else 0.5,
    )


class Vision:
    """Pictures: a :class:`~polysense.modalities.base.Modality`.

    ``plan.options["image"]`` sets fields of :class:`.ViewSettings` for all views. In it ``"views"`` may
    be a list of such settings, which the global views take in turn (BYOL's and DINO's two views
    differ), and ``"local"`` settings for the local views only.

    Args:
        size: side of the global views in pixels.
        plan: which views to make.
        channels: channels of the pictures.
        mean, std: per channel on the scale [0, 1]; None leaves views in [0, 1]. See :meth:`fit`.
        local_size: side of the local views; by default about 3/7 of ``size``, as 96 to 224.

    Raises:
        PolysenseError: for an unknown setting or strength, or a value out of range.

    >>> vision = Vision(size=8, plan=ViewPlan(globals_=1, locals_=1))
    >>> batch = vision.batch([np.zeros((10, 12, 3), np.uint8)])
    >>> [(view.kind, tuple(view.data.shape)) for view in vision.views(batch)]
    [('global', (1, 3, 8, 8)), ('local', (1, 3, 8, 8))]
    """

    name = "image"
    raw_name = "pixels"
    default_encoder = "small"

    def __init__(
        self,
        size: int = 32,
        plan: ViewPlan = ViewPlan(),  # noqa: B008 - frozen
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        local_size: int | None = None,
    ) -> None:
        if size < 1:
            raise PolysenseError(f"size is {size} pixels; it must be 1 or more")
        self.size, self.plan, self.channels = size, plan, channels
        self.mean = [0.0] * channels if mean is None else [float(value) for value in mean]
        self.std = [1.0] * channels if std is None else [float(value) for value in std]
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise PolysenseError(
                f"mean {self.mean} and std {self.std} do not suit pictures of {channels} channels; give one"
                " number per channel, std above 0"
            )
        self.local_size = local_size or max(8, 8 * round(size * 3 / 7 / 8))
        strengths = {"strong": strong_settings(size), "weak": weak_settings()}
        global_settings, local_settings = view_settings(plan, self.name, strengths, _local_settings)
        self._globals = [RandomView(each, size, self.mean, self.std) for each in global_settings]
        self._local = RandomView(local_settings, self.local_size, self.mean, self.std)

    def read(self, source: Any, **reading: Any) -> Pictures:
        """The user's pictures, decoded once; for the options see :func:`.sources.read_pictures`."""
        from polysense.modalities.vision.sources import read_pictures

        return read_pictures(source, size=self.size, **reading)

    def fit(self, dataset: Pictures, plan: ViewPlan | None = None) -> Vision:
        """The same modality with the data's channels, mean and standard deviation, and ``plan`` if given."""
        mean, std = dataset.statistics()
        return Vision(
            size=self.size,
            plan=self.plan if plan is None else plan,
            channels=dataset.channels,
            mean=mean,
            std=[max(value, 1 / 255) for value in std],  # a channel may be constant
            local_size=self.local_size,
        )

    def batch(self, items: Sequence[Any]) -> Batch:
        """A batch of a few pictures: paths, Pillow images, arrays or tensors, see :func:`.decode.decode`.

        Raises:
            PolysenseError: if one cannot be read.
        """
        from polysense.modalities.vision.decode import UnreadableError, conform, decode
        from polysense.modalities.vision.store import canvas_side

        pictures: list[NDArray[Any]] = []
        for place, item in enumerate(items):
            try:
                pictures.append(conform(decode(item, canvas_side(self.size)), self.channels, depth=8))
            except UnreadableError as error:
                raise PolysenseError(f"cannot read picture {place} of the list: {error}; mend it") from error
        sizes = np.array([picture.shape[:2] for picture in pictures])
        canvas = np.zeros((len(pictures), self.channels, sizes.max(), sizes.max()), np.uint8)
        for page, picture, (height, width) in zip(canvas, pictures, sizes, strict=True):
            page[:, :height, :width] = picture.transpose(2, 0, 1)
        data = {"pixels": torch.from_numpy(canvas), "size": torch.from_numpy(sizes)}
        return Batch(data, torch.arange(len(pictures)))

    def collate(self, samples: Mapping[str, Tensor]) -> Batch:
        """``pixels`` ``[B, C, S, S]``, ``size`` ``[B, 2]`` and ``index`` ``[B]`` as a batch."""
        return Batch({"pixels": samples["pixels"], "size": samples["size"]}, samples["index"])

    def views(self, batch: Batch) -> list[View]:
        """The plan's random views, global ones first: normalised float32 ``[B, C, size, size]``."""
        pixels, size = self._content(batch)
        makers = [self._globals[i % len(self._globals)] for i in range(self.plan.globals_)]
        views = [self._view(maker, "global", pixels, size) for maker in makers]
        return views + [self._view(self._local, "local", pixels, size) for _ in range(self.plan.locals_)]

    def plain(self, batch: Batch) -> View:
        """The largest square in the centre, resized with antialiasing, normalised."""
        pictures = self._centre(batch)
        mean, std = self._local.mean.to(pictures), self._local.std.to(pictures)
        return View(pictures.sub_(mean).div_(std), self.name)

    def raw(self, batch: Batch) -> Tensor:
        """``[B, C * size * size]``: the plain view's pixels, normalised as an encoder sees them."""
        pictures = self.plain(batch).data
        assert isinstance(pictures, Tensor)
        return pictures.flatten(1)

    def show(self, view: View) -> NDArray[Any]:
        """A view as bytes ``[B, h, w, 3]``; pictures without three channels as the mean of theirs."""
        pictures = view.data
        assert isinstance(pictures, Tensor)
        pictures = pictures * self._local.std.to(pictures) + self._local.mean.to(pictures)
        if self.channels != 3:
            pictures = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        shown: NDArray[Any] = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return shown

    def encoder(self, spec: str | nn.Module, **options: Any) -> Encoder:
        """The tower for these pictures, see :func:`polysense.encoders.vision.build`."""
        from polysense.encoders.vision import build

        return build(spec, channels=self.channels, size=self.size, **options)

    def settings(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_settings` rebuilds this modality."""
        names = ("size", "channels", "mean", "std", "local_size")
        return {"plan": plan_settings(self.plan, self.name), **{name: getattr(self, name) for name in names}}

    def attachments(self) -> dict[str, str]:
        """None: the settings hold everything."""
        return {}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], attachments: Mapping[str, str]) -> Vision:
        """The modality that gave these :meth:`settings`.

        >>> Vision.from_settings(Vision(size=16).settings(), {}).size
        16
        """
        return cls(**{**settings, "plan": plan_from_settings(settings["plan"], cls.name)})

    def _view(self, maker: RandomView, kind: str, pixels: Tensor, size: Tensor) -> View:
        draw = maker.draw(size, self.channels)
        upright = maker.settings.rotation == 0
        region = draw.region(size) if upright else None
        return View(maker.make(pixels, draw), self.name, kind, region=region)

    def _centre(self, batch: Batch) -> Tensor:
        pixels, size = self._content(batch)
        return geometry.crop_resize(pixels, geometry.centre_boxes(size), self.size)

    def _content(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert isinstance(batch.data, dict)
        pixels, size = batch.data["pixels"], batch.data["size"]
        if pixels.shape[1] != self.channels:
            raise PolysenseError(
                f"the pictures have {pixels.shape[1]} channels where {self.channels} were expected; use data"
                " like those the run was trained on"
            )
        return pixels, size


def _local_settings(settings: ViewSettings) -> ViewSettings:
    """A small part of the picture."""
    return replace(settings, scale=(0.05, 0.4))
