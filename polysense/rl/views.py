"""Which moments of an episode are shown, and how their frames are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.errors import PolysenseError, unknown
from polysense.modalities.vision import geometry
from polysense.rl.trajectories import Trajectories

Rows = NDArray[np.int64]

CLIPS = {"goal": ("global",) * 4, "order": (*("global",) * 3, "start", "end")}
"""The kinds of clips, and of which kind is the view of each of their moments."""

ENDS = 0.2
"""The share of an episode that counts as its start or its end."""


@dataclass(frozen=True)
class StateViews:
    """What the views of a state show.

    ``ahead``: a later moment is so many steps on; ``every``: show each step up to it, not it alone.
    ``clip``: moments of a whole episode instead, drawn for each sample: "goal" (now, next, an earlier first,
    a later goal: VIP) or "order" (now, earlier, later, and one each in the first and the last fifth: R3M).
    ``crop``: side of the cut as a share of the frame's. ``shift``: up to so many pixels each way, beyond the
    edge its pixels repeated (DrQ); by default a 21st of the frame's side, its 4 of 84, without a crop.
    ``scale``: a random resized crop instead, area as a share of the frame. ``intensity``: brightness times
    1 ± so much, normally distributed (SPR). ``together``: one cut for all views of a sample.

    Raises:
        PolysenseError: naming the setting that is out of its range.
    """

    ahead: int = 0
    every: bool = False
    clip: str | None = None
    crop: float = 1.0
    shift: int | None = None
    scale: tuple[float, float] | None = None
    intensity: float = 0.0
    together: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise PolysenseError(f"the view setting 'crop' is {self.crop}; give a share above 0, at most 1")
        for name in ("ahead", "shift", "intensity"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise PolysenseError(f"the view setting {name!r} is {value}; give a number from 0 up")
        if self.clip is not None and self.clip not in CLIPS:
            raise unknown("clip", self.clip, CLIPS)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> StateViews:
        """From plain values by name."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown("view setting", name, known)
        return cls(**options)

    @property
    def count(self) -> int:
        """How many moments a sample has."""
        if self.clip is not None:
            return len(CLIPS[self.clip])
        return 1 + (self.ahead if self.every else min(self.ahead, 1))

    def side(self, size: int) -> int:
        """Of a view of frames of ``size`` pixels."""
        return max(1, round(self.crop * size))

    def reach(self, size: int) -> int:
        """The largest shift in pixels."""
        if self.shift is not None:
            return self.shift
        return round(size / 21) if self.crop == 1 else 0

    def moments(self, trajectories: Trajectories, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
        """The frames' numbers ``[B, M]`` for samples ``rows``, each sample's own first, and which are there.

        None lies beyond an episode's end: there its last frame stands in, and is not present.
        """
        first, last = trajectories.first[rows], trajectories.last[rows]
        if self.clip is not None:
            # drawn from the samples themselves: a resumed run, whatever ran before, draws the same
            uniform = np.random.default_rng(rows.tolist()).random((4, len(rows)))
            draw = _goal_clip if self.clip == "goal" else _order_clip
            wanted = np.stack([rows, *draw(rows, first, last, uniform)], 1)
            return wanted, np.ones_like(wanted, dtype=bool)
        steps = range(1, self.ahead + 1) if self.every else [self.ahead][: self.count - 1]
        wanted = rows[:, None] + np.array([0, *steps])
        return np.minimum(wanted, last[:, None]), wanted <= last[:, None]


def _goal_clip(rows: Rows, first: Rows, last: Rows, uniform: NDArray[np.float64]) -> list[Rows]:
    """The next moment, one not later than now, and one not before the next."""
    after = np.minimum(rows + 1, last)
    return [after, _between(first, rows, uniform[0]), _between(after, last, uniform[1])]


def _order_clip(rows: Rows, first: Rows, last: Rows, uniform: NDArray[np.float64]) -> list[Rows]:
    """An earlier and a later moment, where the episode has any, and one each near its start and its end."""
    earlier, later = np.maximum(rows - 1, first), np.minimum(rows + 1, last)
    reach = (ENDS * (last - first)).astype(np.int64)
    return [
        _between(first, earlier, uniform[0]),
        _between(later, last, uniform[1]),
        _between(first, first + reach, uniform[2]),
        _between(last - reach, last, uniform[3]),
    ]


def _between(low: Rows, high: Rows, uniform: NDArray[np.float64]) -> Rows:
    drawn: Rows = low + np.floor(uniform * (high - low + 1)).astype(np.int64)
    return drawn


@dataclass(frozen=True)
class Cut:
    """Where each sample of a batch is cut: ``boxes`` ``[B, 4]`` (top, left, height, width) and brightness.

    ``resized`` says that the boxes differ in size.
    """

    boxes: Tensor
    brightness: Tensor
    resized: bool

    @staticmethod
    def draw(settings: StateViews, count: int, size: int, device: torch.device) -> Cut:
        """One random cut for each sample, from torch's global random numbers."""
        noise = torch.randn(count, 1, 1, 1, device=device).clamp(-2, 2)
        brightness = 1 + settings.intensity * noise
        if settings.scale is not None:
            sizes = torch.full((count, 2), size, device=device)
            low, high = settings.scale
            return Cut(geometry.random_boxes(sizes, (low, high), (3 / 4, 4 / 3)), brightness, resized=True)
        side, reach = settings.side(size), settings.reach(size)
        corner = torch.randint(size - side + 1, (count, 2), device=device)
        corner = corner + torch.randint(-reach, reach + 1, (count, 2), device=device)
        return Cut(torch.cat([corner, torch.full_like(corner, side)], 1), brightness, resized=False)

    def make(self, pixels: Tensor, side: int) -> Tensor:
        """Cut ``[B, C, S, S]`` bytes to float32 ``[B, C, side, side]``; all channels of a sample alike."""
        if self.resized:
            return geometry.crop_resize(pixels, self.boxes, side) * self.brightness
        return self.take(pixels, side).to(torch.float32) / 255 * self.brightness

    def take(self, pixels: Tensor, side: int) -> Tensor:
        """The pixels themselves, neither resized nor brightened: ``[B, C, side, side]`` as they were."""
        place = torch.arange(side, device=pixels.device)
        channels, width = pixels.shape[1], pixels.shape[-1]
        rows, columns = (self.boxes[:, :2, None] + place).clamp(0, width - 1).unbind(1)
        places = (rows[:, :, None] * width + columns[:, None]).flatten(1)
        cut = pixels.flatten(2).gather(2, places[:, None].expand(-1, channels, -1))
        return cut.reshape(*cut.shape[:2], side, side)
