"""Changes to batches of normalised log-mels ``[B, 1, F, T]``, on their device, each with its own draw."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mixup(mels: Tensor, most: float) -> Tensor:
    """Another clip of the batch softly behind each: ``log((1 - a) e^x + a e^z)``, a up to ``most``.

    BYOL-A's (https://arxiv.org/abs/2103.06695), with the batch in place of its memory of earlier clips.
    """
    share = most * torch.rand(len(mels), 1, 1, 1, device=mels.device)
    other = mels[torch.randperm(len(mels), device=mels.device)]
    return torch.logaddexp(mels + torch.log1p(-share), other + share.log())


def resize_crop(mels: Tensor, scale: tuple[float, float]) -> Tensor:
    """A random part of the spectrogram drawn larger or smaller, in both directions apart (BYOL-A).

    The part is so many times as high and as wide as the spectrogram, no higher than it and within a canvas
    one and a half times as wide, on which nothing (0, the mean) lies beside it.
    """
    low, high = scale
    size = low + (high - low) * torch.rand(2, len(mels), device=mels.device)
    height, width = size[0].clamp_max(1.0), size[1].clamp_max(1.5)
    down, across = 2 * torch.rand(2, len(mels), device=mels.device) - 1
    zero = torch.zeros_like(width)
    # rows of the map from the view to the spectrogram, both from -1 to 1: extent and centre of the part
    to_time = torch.stack([width, zero, across * (1.5 - width)], 1)
    to_frequency = torch.stack([zero, height, down * (1.0 - height)], 1)
    grid = functional.affine_grid(
        torch.stack([to_time, to_frequency], 1), list(mels.shape), align_corners=False
    )
    return functional.grid_sample(mels, grid, mode="bicubic", align_corners=False)


def hide_stripe(mels: Tensor, most: float, dim: int) -> Tensor:
    """Put the mean (0) in place of a random stripe along ``dim``, up to a share ``most`` of it (SpecAugment).

    https://arxiv.org/abs/1904.08779
    """
    count, side = len(mels), mels.shape[dim]
    width = most * side * torch.rand(count, 1, device=mels.device)
    start = (side - width) * torch.rand(count, 1, device=mels.device)
    place = torch.arange(side, device=mels.device) + 0.5
    hidden = (place >= start) & (place < start + width)
    shape = [count if axis == 0 else side if axis == dim % mels.ndim else 1 for axis in range(mels.ndim)]
    return mels.masked_fill(hidden.view(shape), 0)
