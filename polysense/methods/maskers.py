"""Maskers: which of a view's tokens the student must do without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError
from polysense.methods.block_masks import blocks_mask, check_share
from polysense.methods.engine import Masker
from polysense.methods.reads import Select
from polysense.modalities.base import View, first_tensor


@dataclass(frozen=True)
class RandomMask:
    """Hide a random share of the tokens, equally many in every sample (MAE).

    They are hidden in units of ``unit`` tokens along each axis of their grid (SimMIM's squares of 32
    pixels are 2 × 2 patches of 16).

    Raises:
        PolysenseError: when the share would hide all tokens or none, or the units do not fit the grid.
    """

    ratio: float
    unit: int = 1

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask."""
        data = first_tensor(view.data)
        grid = encoder.grid(view.data)
        if any(side % self.unit for side in grid):
            raise PolysenseError(
                f"units of {self.unit} tokens do not fit a grid of {'×'.join(map(str, grid))}; choose a mask"
                " unit that divides it"
            )
        coarse = [side // self.unit for side in grid]
        units = math.prod(coarse)
        hidden = math.ceil(units * self.ratio)
        check_share(self.ratio, hidden, units, "units" if self.unit > 1 else "tokens")
        order = torch.rand(len(data), units, device=data.device).argsort(dim=1)
        mask = (order < hidden).unflatten(1, coarse)
        for axis in range(1, 1 + len(grid)):
            mask = mask.repeat_interleave(self.unit, axis)
        return view.hide(mask.flatten(1))


@dataclass(frozen=True)
class SomeBlocks:
    """Hide blocks from a share of the samples, in each another share of its tokens (iBOT, DINOv2).

    A sample is chosen with probability ``chosen``; of its tokens a share uniform between ``least`` and
    ``most`` is hidden, in blocks as :class:`~polysense.methods.block_masks.BlockMask` draws them. The
    encoder must replace hidden tokens, for they differ in number.

    https://arxiv.org/abs/2111.07832

    Raises:
        PolysenseError: when the shares are not in order between 0 and 1.
    """

    least: float
    most: float
    chosen: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most < 1 or not 0 < self.chosen <= 1:
            raise PolysenseError(
                f"no mask hides {self.least} to {self.most} of the tokens in {self.chosen} of the samples;"
                " choose least and most in order from 0 to below 1, and a share of samples up to 1"
            )

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask."""
        data = first_tensor(view.data)
        grid = encoder.grid(view.data)
        chosen, share = torch.rand(2, len(data), device=data.device)
        share = (self.least + (self.most - self.least) * share) * (chosen < self.chosen)
        counts = (share * math.prod(grid)).long()
        return view.hide(blocks_mask((math.prod(grid[:-1]), grid[-1]), counts))


@dataclass(frozen=True)
class Only:
    """Hide tokens of the selected views and leave the others whole (crops that are small already)."""

    select: Select
    masker: Masker

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view, with its mask if it is selected."""
        return self.masker(view, encoder) if self.select(view) else view


@dataclass(frozen=True)
class AsTheyLie:
    """Hide tokens by one masker where they lie in a plane, and by another where they lie along a line."""

    plane: Masker
    line: Masker

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask."""
        masker = self.line if len(encoder.grid(view.data)) == 1 else self.plane
        return masker(view, encoder)
