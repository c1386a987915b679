"""Maskers: which of a view's tokens the student must do without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError
from polysense.modalities.base import View


@dataclass(frozen=True)
class RandomMask:
    """Hide a random share of the tokens, equally many in every sample (MAE).

    Raises:
        PolysenseError: when the share would hide all tokens or none.
    """

    ratio: float

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask."""
        data = view.data if isinstance(view.data, torch.Tensor) else next(iter(view.data.values()))
        tokens = math.prod(encoder.grid(data))
        hidden = int(tokens * self.ratio)
        if not 0 < hidden < tokens:
            raise PolysenseError(
                f"a mask ratio of {self.ratio} hides {hidden} of {tokens} tokens; choose a ratio that hides"
                " some and leaves some, or a smaller patch"
            )
        order = torch.rand(len(data), tokens, device=data.device).argsort(dim=1)
        return view.hide(order < hidden)
