"""Frames of raw waves, by strided convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.spectrograms import Sound, valid_frames


class WaveFrames(nn.Module):
    """Convolutions without padding, each with layer norm over its channels and a GELU.

    Waves are first normalised over their valid samples. A frame reads ``field`` samples, ``hop`` from the
    next one; clips that do not fill one have silence behind them.

    >>> frames = WaveFrames([10, 8, 4, 4], [5, 4, 2, 2], channels=16)
    >>> frames({"waves": torch.randn(2, 8000), "lengths": torch.tensor([8000, 900])}).shape
    torch.Size([2, 98, 16])
    """

    def __init__(self, kernels: Sequence[int], strides: Sequence[int], channels: int) -> None:
        super().__init__()
        self.kernels, self.strides = list(kernels), list(strides)
        inputs = [1, *([channels] * (len(self.kernels) - 1))]
        self.layers = nn.ModuleList(
            nn.Conv1d(each, channels, kernel, stride, bias=False)
            for each, kernel, stride in zip(inputs, self.kernels, self.strides, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.layers)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
        self.hop, self.field = math.prod(self.strides), 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            self.field = (self.field - 1) * stride + kernel

    def forward(self, data: Sound) -> Tensor:
        """``[B, T, channels]`` of ``{"waves", "lengths"}``."""
        features = self.filled(_normalised(data["waves"], data["lengths"]))[:, None]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            features = functional.gelu(norm(layer(features).mT)).mT
        return features.mT

    def count(self, lengths: Tensor) -> Tensor:
        """How many frames clips of so many samples have, at least one."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths.clamp_min(1)

    def grid(self, data: Any) -> tuple[int]:
        """How many frames lie behind one another, of a view's data or its waves alone."""
        waves = data if isinstance(data, Tensor) else data["waves"]
        return (int(self.count(torch.tensor(waves.shape[1]))),)

    def filled(self, waves: Tensor) -> Tensor:
        """Silence behind clips that do not fill one frame."""
        return functional.pad(waves, (0, max(0, self.field - waves.shape[1])))


def _normalised(waves: Tensor, lengths: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the valid samples, 0 behind them."""
    valid, count = valid_frames(lengths, waves.shape[1]), lengths[:, None]
    centred = (waves - waves.sum(1, keepdim=True) / count) * valid
    return centred / (centred.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
