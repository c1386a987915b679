"""What pixels look like: colour jitter, grey, blur, solarisation, channel drop, on whole batches.

Pictures are ``[B, C, H, W]`` floats in [0, 1]; each has its own parameters, ``[B]``. Functions return
new tensors unless their name ends in an underscore. What needs red, green and blue (saturation, hue,
grey) leaves pictures of another number of channels as they are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R BT.601 as torchvision rounds it

BLUR_VALUES = 2**18
"""On a processor about so many numbers are blurred together: they stay in its cache."""


def luminance(pictures: Tensor) -> Tensor:
    """``[B, 1, H, W]``: the grey picture of red, green and blue; of other channels the mean.

    >>> luminance(torch.ones(1, 3, 1, 1)).item()
    0.9999...
    """
    if pictures.shape[1] != 3:
        return pictures.mean(1, keepdim=True)
    red, green, blue = pictures.split(1, 1)
    grey: Tensor = red * GREY_WEIGHTS[0]
    return grey.add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2])


def to_grey(pictures: Tensor) -> Tensor:
    """Red, green and blue replaced by the luminance.

    >>> to_grey(torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)).flatten().tolist()
    [0.298..., 0.298..., 0.298...]
    """
    return luminance(pictures).expand_as(pictures) if pictures.shape[1] == 3 else pictures


def jitter_(pictures: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue in place, each picture in an order of its own.

    The same as torchvision's ``ColorJitter`` with the same factors and order: values are clamped to
    [0, 1] after each step, contrast is about the mean luminance at that step, hue is shifted in HSV.

    Args:
        factors: ``[B, 4]``: brightness, contrast and saturation as factors (1 changes nothing), hue as
            a shift in turns of the colour circle (0 changes nothing).
        order: ``[B, 4]``, a permutation of 0 to 3 in each row: which of the four comes first, second, ….

    >>> half = torch.tensor([[0.5, 1.0, 1.0, 0.0]])
    >>> jitter_(torch.ones(1, 3, 1, 1), half, torch.tensor([[0, 1, 2, 3]])).flatten().tolist()
    [0.5, 0.5, 0.5]
    """
    hues = order == HUE
    place, others = hues.byte().argmax(1), order[~hues].reshape(-1, 3)
    for turn in range(4):
        _turn_hue(pictures, factors, place == turn)
        if turn < 3:
            _blend(pictures, others[:, turn], factors)
    return pictures


def _turn_hue(pictures: Tensor, factors: Tensor, chosen: Tensor) -> None:
    """Shift the hue of the chosen pictures, in place."""
    rows = (chosen & (factors[:, HUE] != 0)).nonzero().squeeze(1)
    if len(rows) and pictures.shape[1] == 3:
        pictures[rows] = shift_hue(pictures.index_select(0, rows), factors[rows, HUE])


def _blend(pictures: Tensor, step: Tensor, factors: Tensor) -> None:
    """Brightness, contrast or saturation, in place: a share of the picture, the rest black, mean or grey."""
    factor = factors.gather(1, step[:, None]).squeeze(1)
    if pictures.shape[1] != 3:
        factor = factor.masked_fill(step == SATURATION, 1)
    grey = luminance(pictures)
    mean = grey.mean((1, 2, 3)) * (step == CONTRAST)
    rest = grey.mul_(_per_picture(step == SATURATION)).add_(_per_picture(mean))
    torch.lerp(rest, pictures, _per_picture(factor), out=pictures).clamp_(0, 1)


def shift_hue(pictures: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of red, green and blue in HSV space; whole turns change nothing.

    >>> shift_hue(torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1), torch.tensor([1 / 3])).flatten().round()
    tensor([0., 1., 0.])
    """
    red, green, blue = pictures.unbind(1)
    value = torch.maximum(red, green).maximum(blue)
    floor = torch.minimum(red, green).minimum(blue)
    chroma = value - floor
    # From red, the hue goes 1 + (g + b - r - floor) / chroma sixths of a turn to the greener or bluer side.
    sixths = (green + blue).sub_(red).sub_(floor).div_(chroma.clamp_min(1e-12)).add_(1)
    hue = sixths.copysign_(green - blue).div_(6).add_(turns.reshape(-1, 1, 1))
    # A channel is full within a sixth of a turn around its own hue, and absent beyond a third of a turn:
    # a clamped triangle of the distance to the hue opposite to it.
    opposite = torch.tensor([1 / 2, 5 / 6, 1 / 6], device=hue.device, dtype=hue.dtype)[:, None, None]
    distance = hue[:, None] - opposite
    distance = distance.sub_(distance.round()).abs_()
    floor, value, chroma = floor[:, None], value[:, None], chroma[:, None]
    return torch.addcmul(floor - chroma, distance, chroma, value=6).clamp_(floor, value)


def blur(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, each picture with its own standard deviation in pixels, edges reflected.

    A kernel reaches four standard deviations (and not beyond the picture): what it leaves out weighs
    less than 1e-4. ``sigma`` is positive.

    >>> blur(torch.ones(1, 1, 4, 4), torch.tensor([1.0])).unique().round(decimals=5)
    tensor([1.])
    """
    # Pictures of like blur are worked on together, so that none pays for a wider kernel than it needs.
    together = max(1, BLUR_VALUES // pictures[0].numel()) if pictures.device.type == "cpu" else len(sigma)
    blurred = torch.empty_like(pictures)
    for rows in sigma.argsort().split(together):
        blurred[rows] = _blur_alike(pictures.index_select(0, rows), sigma[rows])
    return blurred


def _blur_alike(pictures: Tensor, sigma: Tensor) -> Tensor:
    reach = min(math.ceil(4 * float(sigma.max())), min(pictures.shape[2:]) - 1)
    offsets = torch.arange(reach + 1, device=sigma.device)
    half = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    half = half / (2 * half.sum(1, keepdim=True) - 1)
    kernel = half.to(pictures.dtype)[:, :, None, None, None].unbind(1)
    pictures = F.pad(pictures, (reach,) * 4, mode="reflect")
    for axis in (2, 3):
        length = pictures.shape[axis] - 2 * reach
        total = pictures.narrow(axis, reach, length) * kernel[0]
        for offset in range(1, reach + 1):
            before, after = (pictures.narrow(axis, reach + way * offset, length) for way in (-1, 1))
            total.addcmul_(before + after, kernel[offset])
        pictures = total
    return pictures


def _per_picture(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)


def solarise(pictures: Tensor, threshold: float = 0.5) -> Tensor:
    """Invert the values at and above ``threshold``.

    >>> solarise(torch.tensor([0.25, 0.75])).tolist()
    [0.25, 0.25]
    """
    return torch.where(pictures >= threshold, 1 - pictures, pictures)


def drop_channel(pictures: Tensor, channel: Tensor) -> Tensor:
    """Black out one channel of each picture, ``channel`` ``[B]``.

    >>> drop_channel(torch.ones(1, 3, 1, 1), torch.tensor([1])).flatten().tolist()
    [1.0, 0.0, 1.0]
    """
    channels = torch.arange(pictures.shape[1], device=channel.device)
    return pictures * (channels != channel[:, None])[:, :, None, None]
