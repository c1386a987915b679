"""One picture, in whatever form it comes, as an array of unsigned bytes (or 16-bit words).

Rules: rotation by EXIF is applied; alpha is composited on white; palettes and CMYK become RGB; of an
animation the first frame counts; 16-bit grey stays 16-bit (:func:`conform` scales it down where its
neighbours are 8-bit). 16-bit colour is read as 8-bit, since Pillow has no mode for it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Array = NDArray[Any]

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".jp2"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"),
)
"""File names that end like these, in any case, are taken for pictures; see :func:`named_as_picture`."""

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})


class UnreadableError(Exception):
    """One picture that cannot be read; the message is the reason, in a few words."""


def named_as_picture(path: str | Path) -> bool:
    """Whether a file's name ends like a picture's.

    >>> named_as_picture("a.JPG"), named_as_picture("Thumbs.db")
    (True, False)
    """
    return str(path).lower().endswith(SUFFIXES)


@dataclass(frozen=True)
class Header:
    """What is known of a picture before it is decoded: channels, bits (8 or 16), longer side in pixels."""

    channels: int
    depth: int
    side: int


def header(item: Any) -> Header:
    """Look at a picture without decoding it.

    Raises:
        UnreadableError: with the reason.

    >>> header(Image.new("RGBA", (40, 30)))
    Header(channels=3, depth=8, side=40)
    """
    if isinstance(item, Mapping):
        item = _struct(item)
    if isinstance(item, np.ndarray | torch.Tensor):
        picture = _array_picture(item)
        return Header(picture.shape[2], 8 * picture.itemsize, max(picture.shape[:2]))
    if isinstance(item, Image.Image):
        return _image_header(item)
    try:
        with Image.open(_readable(item)) as image:
            return _image_header(image)
    except Exception as error:  # Pillow's plugins raise whatever their parsers stumble over
        raise UnreadableError(reason(error)) from error


def decode(item: Any, side: int | None = None) -> Array:
    """Decode a path, bytes, ``{"bytes", "path"}``, Pillow image, array or tensor.

    Arrays are ``[H, W]``, ``[H, W, C]`` or ``[C, H, W]`` (of the first and the last axis the smaller is
    the channels, the last if they are equal) and hold numbers as :func:`quantise` takes them.

    Args:
        item: the picture.
        side: shrink to this longer side, see :func:`shrink`; None keeps the size.

    Returns:
        ``[H, W, C]``, uint8 or uint16; files have 1 or 3 channels, arrays any number.

    Raises:
        UnreadableError: with the reason.

    >>> decode(Image.new("CMYK", (4, 2))).shape
    (2, 4, 3)
    """
    if isinstance(item, Mapping):
        item = _struct(item)
    if isinstance(item, np.ndarray | torch.Tensor):
        picture = _array_picture(item)
    else:
        try:
            picture = _decode_image(item, side)
        except Exception as error:  # as above
            raise UnreadableError(reason(error)) from error
    return picture if side is None else shrink(picture, side)


def shrink(picture: Array, side: int) -> Array:
    """Make the longer side of ``[H, W, C]`` at most ``side``, antialiased, aspect ratio kept; never enlarge.

    >>> shrink(np.zeros((100, 50, 3), np.uint8), 10).shape
    (10, 5, 3)
    """
    height, width, channels = picture.shape
    if max(height, width) <= side:
        return picture
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))

    def resized(plane: Array) -> Array:
        return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC))

    if picture.dtype == np.uint8 and channels == 3:
        return resized(picture)
    small = np.stack([resized(picture[:, :, c].astype(np.float32)) for c in range(channels)], axis=2)
    rounded: Array = np.rint(small).clip(0, np.iinfo(picture.dtype).max).astype(picture.dtype)
    return rounded


def conform(picture: Array, channels: int, depth: int) -> Array:
    """Give ``[H, W, C]`` the channels and the depth of its neighbours.

    Grey is repeated to three channels; 16 bits are scaled (not clipped) to 8.

    Raises:
        UnreadableError: if the channels cannot be matched.

    >>> conform(np.full((1, 1, 1), 65535, np.uint16), channels=3, depth=8)
    array([[[255, 255, 255]]], dtype=uint8)
    """
    if depth == 8 and picture.dtype == np.uint16:
        picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.shape[2] == channels:
        return picture
    if picture.shape[2] == 1 and channels == 3:
        return picture.repeat(3, axis=2)
    raise UnreadableError(f"{picture.shape[2]} channels where the other pictures have {channels}")


def quantise(values: Array) -> Array:
    """Numbers as uint8 or uint16, by one rule for all pictures of an array.

    uint8 and uint16 stay; booleans become 0 and 255; floats are taken to lie in [0, 1] if none exceeds 1,
    else in [0, 255], and become uint8; other integers become uint8 if none exceeds 255, else uint16.

    Raises:
        UnreadableError: if a number is missing, infinite, negative, or too large.

    >>> quantise(np.array([0.0, 0.5, 1.0]))
    array([  0, 128, 255], dtype=uint8)
    """
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind not in "fiu":
        raise UnreadableError(f"holds {values.dtype} values, not numbers")
    if kind == "u" and values.itemsize <= 2:
        return values.astype(np.uint8 if values.itemsize == 1 else np.uint16, copy=False)  # native byte order
    if values.size == 0:
        return values.astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UnreadableError("NaN or infinite values")
    limit = 255 if kind == "f" else 65535
    if low < 0 or high > limit:
        raise UnreadableError(f"values from {low:g} to {high:g} where 0 to {limit} was expected")
    if kind == "f":
        return np.rint(values * 255.0 if high <= 1 else values).astype(np.uint8)
    return values.astype(np.uint8 if high <= 255 else np.uint16)


def to_numpy(values: Array | torch.Tensor) -> Array:
    """A tensor as an array; half precision, which numpy has only in part, as float32."""
    if isinstance(values, np.ndarray):
        return values
    tensor = values.detach().cpu()
    array: Array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def _array_picture(values: Array | torch.Tensor) -> Array:
    array = to_numpy(values)
    if array.ndim not in (2, 3) or array.size == 0:
        raise UnreadableError(
            f"an array of shape {list(array.shape)} where [H, W], [H, W, C] or [C, H, W] was expected"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.shape[0] < array.shape[2]:
        array = array.transpose(1, 2, 0)
    return quantise(array)


def _struct(item: Mapping[str, Any]) -> Any:
    """The Hugging Face form of a picture: its bytes if they are there, else its path."""
    if "bytes" not in item and "path" not in item:
        raise UnreadableError("a dict without 'bytes' or 'path'")
    return item["bytes"] if item.get("bytes") is not None else item.get("path")


def _readable(item: Any) -> str | Path | io.BytesIO:
    """What ``Image.open`` takes, sure not to be empty."""
    if isinstance(item, bytes | bytearray | memoryview):
        if not len(item):
            raise UnreadableError("zero bytes")
        return io.BytesIO(item)
    if isinstance(item, str | Path):
        if os.stat(item).st_size == 0:
            raise UnreadableError("zero bytes")
        return item
    if isinstance(item, UnreadableError):  # a reader's way to say why it has no picture here
        raise item
    if hasattr(item, "read_bytes"):  # a file inside another one
        return _readable(item.read_bytes())
    raise UnreadableError("missing" if item is None else f"a {type(item).__name__}, not a picture")


def _image_header(image: Image.Image) -> Header:
    sixteen = image.mode.startswith("I")
    grey = image.mode in _GREY_MODES or sixteen
    return Header(1 if grey else 3, 16 if sixteen else 8, max(image.size))


def _decode_image(item: Any, side: int | None) -> Array:
    if isinstance(item, Image.Image):
        return _pixels(ImageOps.exif_transpose(item))
    with Image.open(_readable(item)) as image:
        if side is not None:
            # A JPEG decodes straight to 1/2, 1/4 or 1/8 of its size; twice the target leaves the
            # antialiasing to the resize.
            scale = min(1.0, 2 * side / max(image.size))
            image.draft(None, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        return _pixels(ImageOps.exif_transpose(image))


def _pixels(image: Image.Image) -> Array:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        return quantise(values if image.mode == "F" else _sixteen_bits(values))[:, :, None]
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _sixteen_bits(values: Array) -> Array:
    """Pillow's integer modes; 32-bit ones are 16-bit pictures in a wider box, or cannot be read."""
    if values.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
        raise UnreadableError("32-bit values beyond 65535")
    return values.astype(np.uint16)


def reason(error: Exception) -> str:
    """Why a picture cannot be read, without Pillow's addresses of objects."""
    match error:
        case UnreadableError():
            return str(error)
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels"
        case UnidentifiedImageError():
            return "not a picture, or corrupt"
        case PermissionError():
            return "permission denied"
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "a folder, not a picture"
        case OSError() if "truncated" in str(error):
            return "truncated"
    return f"corrupt ({error or type(error).__name__})"
