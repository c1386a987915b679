"""Where pixels go: random crops, flips, rotations and antialiased resizing of whole batches.

A picture lies in the top left corner of its square canvas. A box is ``(top, left, height, width)`` in
pixels of that canvas, one row per picture.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TRIES = 10
"""How often a random crop that does not fit is drawn anew before the centre is taken, as in torchvision."""

TOGETHER_SIDE = 96
"""On a processor, canvases up to this side are resized together, larger ones picture by picture."""

TOGETHER_VALUES = 2**19
"""On a processor about so many numbers are resized together: they stay in its cache."""


def random_boxes(size: Tensor, scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """One random crop for each picture, distributed as torchvision's ``RandomResizedCrop``.

    The area is uniform in ``scale`` (as a share of the picture), the aspect ratio (width / height)
    log-uniform in ``ratio``. Where ten tries do not fit into the picture, the crop is the largest in
    its centre whose aspect ratio is within ``ratio``.

    Args:
        size: ``[B, 2]``, height and width of each picture.

    Returns:
        ``[B, 4]`` integers: top, left, height, width.

    >>> random_boxes(torch.tensor([[32, 48]]), scale=(1, 1), ratio=(1.5, 1.5)).tolist()
    [[0, 0, 32, 48]]
    """
    height, width = size.to(torch.float32)[:, :, None].unbind(1)
    uniform = torch.rand(len(size), 2, TRIES, device=size.device)
    area = height * width * (scale[0] + uniform[:, 0] * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + uniform[:, 1] * (high - low))
    heights, widths = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = fits.byte().argmax(1, keepdim=True)
    drawn = torch.cat([heights.gather(1, first), widths.gather(1, first)], 1)
    room = torch.cat([height, width], 1) - drawn + 1
    corner = (torch.rand(len(size), 2, device=size.device) * room).floor().minimum(room - 1)
    boxes = torch.cat([corner, drawn], 1).long()
    return torch.where(fits.any(1, keepdim=True), boxes, _largest_boxes(size, ratio))


def _largest_boxes(size: Tensor, ratio: tuple[float, float]) -> Tensor:
    height, width = size.to(torch.float32).unbind(1)
    tall, wide = width / height < ratio[0], width / height > ratio[1]
    rows = torch.where(tall, (width / ratio[0]).round(), height)
    columns = torch.where(wide, (height * ratio[1]).round(), width)
    return _centred(size, torch.stack([rows, columns], 1).long())


def centre_boxes(size: Tensor) -> Tensor:
    """The largest square in the centre of each picture, ``[B, 2]`` sizes to ``[B, 4]`` boxes.

    >>> centre_boxes(torch.tensor([[32, 48]])).tolist()
    [[0, 8, 32, 32]]
    """
    return _centred(size, size.amin(1, keepdim=True).expand(-1, 2))


def _centred(size: Tensor, boxes: Tensor) -> Tensor:
    return torch.cat([(size - boxes) // 2, boxes], 1)


def crop_resize(
    pixels: Tensor, boxes: Tensor, out: int, flip: Tensor | None = None, upend: Tensor | None = None
) -> Tensor:
    """Cut a box out of each picture, make it ``out`` x ``out``, antialiased, and mirror it where asked.

    Bilinear with torchvision's antialiasing: the filter widens with the shrinkage, and does not read
    beyond the box. Large canvases of bytes on a processor are rounded to whole bytes on the way, as
    torchvision does; all others are not rounded.

    Args:
        pixels: ``[B, C, S, S]`` uint8 or uint16, or floats in [0, 1].
        boxes: ``[B, 4]``: top, left, height, width.
        flip: ``[B]``, True where left and right change sides.
        upend: ``[B]``, True where top and bottom do.

    Returns:
        ``[B, C, out, out]`` float32 in [0, 1].

    >>> pixels = torch.tensor([[[[0, 255], [255, 255]]]], dtype=torch.uint8)
    >>> crop_resize(pixels, torch.tensor([[0, 0, 1, 2]]), 2, flip=torch.tensor([True])).tolist()
    [[[[1.0, 0.0], [1.0, 0.0]]]]
    """
    never = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
    flip, upend = never if flip is None else flip, never if upend is None else upend
    small = pixels.device.type != "cpu" or pixels.shape[-1] <= TOGETHER_SIDE
    resize = _resize_together if small else _resize_one_by_one
    with torch.autocast(pixels.device.type, enabled=False):  # half precision would blur 256 levels
        return resize(pixels, boxes, out, flip, upend)


def _resize_together(pixels: Tensor, boxes: Tensor, out: int, flip: Tensor, upend: Tensor) -> Tensor:
    """New rows as weighted sums of a few old ones, then new columns by a matrix for each picture."""
    count, channels, side, _ = pixels.shape
    together = max(1, TOGETHER_VALUES // (channels * side**2)) if pixels.device.type == "cpu" else count
    start, length = boxes.to(torch.float32).split(2, 1)
    old, share = _interpolation(start, length, out, side, reverse=torch.stack([upend, flip], 1))
    share[:, 0] /= white_level(pixels)
    resized = torch.empty(count, channels, out, out, device=pixels.device)
    parts = (part.split(together) for part in (pixels, old, share, resized))
    for some, places, shares, result in zip(*parts, strict=True):
        low = _mix_rows(some.to(torch.float32), places[:, 0], shares[:, 0])
        columns = low.new_zeros(len(some), out, side).scatter_(2, places[:, 1], shares[:, 1])
        torch.bmm(low, columns.mT, out=result.view(len(some), -1, out))
    return resized


def _interpolation(
    start: Tensor, length: Tensor, out: int, side: int, reverse: Tensor
) -> tuple[Tensor, Tensor]:
    """Which old pixels each of ``out`` new ones along spans ``[B, 2]`` is made of, and their shares.

    Both are ``[B, 2, out, N]``, N the most that a new pixel can reach.
    """
    start, length, reverse = start[:, :, None], length[:, :, None], reverse[:, :, None]
    step = length / out
    reach = step.clamp_min(1)
    new = torch.arange(out, device=start.device) + 0.5
    centre = start + torch.where(reverse, length - new * step, new * step)
    most = min(side, math.ceil(2 * max(1, side / out)) + 1)
    first = (centre - reach).floor_().clamp_(0, side - most)
    places = first[..., None] + torch.arange(most, device=start.device)
    middle, start, end = places + 0.5, start[..., None], (start + length)[..., None]
    shares = (middle - centre[..., None]).abs_().div_(reach[..., None]).neg_().add_(1).relu_()
    shares.mul_((middle > start) & (middle < end))
    return places.long(), shares.div_(shares.sum(3, keepdim=True))


def _mix_rows(pictures: Tensor, places: Tensor, shares: Tensor) -> Tensor:
    """Rows ``places`` of ``[B, C, S, S]`` mixed by ``shares``, both ``[B, out, N]``: ``[B, C * out, S]``."""
    count, channels, side, _ = pictures.shape
    first = side * torch.arange(count * channels, device=places.device).reshape(count, channels, 1, 1)
    rows = F.embedding_bag(
        (first + places[:, None]).flatten(0, 2),
        pictures.reshape(-1, side),
        mode="sum",
        per_sample_weights=shares[:, None].expand(-1, channels, -1, -1).flatten(0, 2),
    )
    return rows.reshape(count, -1, side)


def _resize_one_by_one(pixels: Tensor, boxes: Tensor, out: int, flip: Tensor, upend: Tensor) -> Tensor:
    resized = torch.empty(len(pixels), pixels.shape[1], out, out, device=pixels.device)
    chosen = zip(pixels, boxes.tolist(), flip.tolist(), upend.tolist(), resized, strict=True)
    for picture, (top, left, height, width), flipped, upended, result in chosen:
        box = picture[None, :, top : top + height, left : left + width]
        box = box if box.dtype == torch.uint8 else box.to(torch.float32)
        small = F.interpolate(box, (out, out), mode="bilinear", antialias=True)
        axes = [axis for axis, mirrored in ((2, upended), (3, flipped)) if mirrored]
        torch.div(small.flip(axes) if axes else small, white_level(pixels), out=result[None])
    return resized


def white_level(pixels: Tensor) -> float:
    """The value of white: 255, 65535, or 1 for floats.

    >>> white_level(torch.zeros(1, dtype=torch.uint8))
    255.0
    """
    return 1.0 if pixels.is_floating_point() else float(torch.iinfo(pixels.dtype).max)


def rotate(pictures: Tensor, degrees: Tensor) -> Tensor:
    """Turn each square picture counter-clockwise about its centre; what comes from outside is black.

    Args:
        pictures: ``[B, C, S, S]`` floats.
        degrees: ``[B]``.

    >>> rotate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([90.0])).round().tolist()
    [[[[2.0, 4.0], [1.0, 3.0]]]]
    """
    angle = torch.deg2rad(degrees)
    zero = torch.zeros_like(angle)
    rows = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero]
    turn = torch.stack(rows, 1).reshape(-1, 2, 3).to(pictures.dtype)
    grid = F.affine_grid(turn, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)
