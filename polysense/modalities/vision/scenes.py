"""Pictures in which it is known where things are: emoji on textures and photographs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from urllib.parse import parse_qsl

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from polysense.errors import PolysenseError, unknown
from polysense.modalities.shipped import shipped
from polysense.modalities.vision.decode import decode

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MOST_OBJECTS = 5
OBJECT_SIDES = (0.2, 0.5)
"""The sides of objects, as shares of the scene's."""

_TRIES = 20
_WHITE = 250
_GRAIN = 6.0
_WITHIN = np.array([np.zeros((3, 3)), [[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.zeros((3, 3))])
"""Neighbours of a pixel in a stack of pictures: four in its own picture, none in the next."""


def scenes(count: int = 2000, size: int = 96, seed: int = 0) -> pd.DataFrame:
    """Draw scenes of one to five emoji on a background. The n-th scene of a seed is always the same.

    Columns: ``image`` ``[size, size, 3]`` bytes; ``mask`` ``[size, size]`` bytes, 0 the background and k
    the k-th object; ``boxes``, a list of ``[left, top, right, bottom]`` in pixels, the ends exclusive;
    ``objects``, the emoji's codes in the same order; ``group``, that of the largest object;
    ``background``, its kind. Objects do not overlap and lie wholly in the picture.

    Raises:
        PolysenseError: for less than one scene, less than 16 pixels, or a negative seed.
    """
    for name, value, least in (("count", count, 1), ("size", size, 16), ("seed", seed, 0)):
        if value < least:
            raise PolysenseError(f"{name} of the scenes is {value}; it must be at least {least}")
    rows = [_scene(np.random.default_rng((seed, number)), size) for number in range(count)]
    frame = pd.DataFrame(rows)
    frame.insert(0, "name", [f"scene {number}" for number in range(count)])
    return frame


def scenes_with(text: str) -> pd.DataFrame:
    """The scenes of options in a text, ``count=500&size=64&seed=1``; each may be left out.

    Raises:
        PolysenseError: for an option that there is not, or a value that is no whole number.
    """
    options: dict[str, int] = {}
    for option, value in parse_qsl(text, keep_blank_values=True):
        if option not in ("count", "size", "seed"):
            raise unknown("option of builtin:scenes", option, ("count", "size", "seed"))
        if not value.isdecimal():
            raise PolysenseError(f"{option} of builtin:scenes is {value!r}; give a whole number")
        options[option] = int(value)
    return scenes(**options)


def _scene(rng: np.random.Generator, size: int) -> dict[str, object]:
    kind = str(rng.choice(list(BACKGROUNDS)))
    picture = BACKGROUNDS[kind](rng, size)
    picture += _GRAIN * rng.standard_normal((size, size, 1), dtype=np.float32)
    mask = np.zeros((size, size), np.uint8)
    stickers, codes, groups = _stickers()
    placed: list[int] = []
    for chosen in rng.integers(0, len(stickers), rng.integers(1, MOST_OBJECTS + 1)):
        if _paste(rng, stickers[chosen], picture, mask, number=len(placed) + 1):
            placed.append(int(chosen))
    largest = placed[int(np.bincount(mask.ravel(), minlength=2)[1:].argmax())]
    return {
        "image": picture.clip(0, 255).astype(np.uint8),
        "mask": mask,
        "boxes": [_box(mask == number) for number in range(1, len(placed) + 1)],
        "objects": [codes[chosen] for chosen in placed],
        "group": groups[largest],
        "background": kind,
    }


def _paste(
    rng: np.random.Generator, sticker: Image.Image, picture: Floats, mask: Bytes, *, number: int
) -> bool:
    """Put a sticker where nothing lies yet; False where no place was found."""
    size = len(mask)
    side = int(size * rng.uniform(*OBJECT_SIDES))
    small = np.asarray(sticker.resize((side, side), Image.Resampling.BOX))
    if rng.random() < 0.5:
        small = small[:, ::-1]
    colour, alpha = small[..., :3], small[..., 3:]
    shape = alpha[..., 0] > 127
    for top, left in rng.integers(0, size - side + 1, (_TRIES, 2)):
        window = (slice(top, top + side), slice(left, left + side))
        if not (mask[window] > 0)[shape].any():
            picture[window] += colour - picture[window] * (alpha / np.float32(255))
            mask[window][shape] = number
            return True
    return False


def _box(shape: NDArray[np.bool_]) -> list[int]:
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@functools.lru_cache(maxsize=1)
def _stickers() -> tuple[list[Image.Image], list[str], list[str]]:
    """The emoji cut out of their white, with their codes and groups.

    Their colours are multiplied by alpha ("RGBa"), so that no white comes in when they are resized.
    """
    frame = shipped("emoji")
    stickers = cut_out(np.stack([decode(picture) for picture in frame["image"]]))
    area = (stickers[..., 3] > 127).mean((1, 2))
    useful = np.flatnonzero((area > 0.15) & (area < 0.95))
    codes, groups = frame["code"].iloc[useful], frame["group"].iloc[useful]
    images = [Image.fromarray(stickers[place]).convert("RGBa") for place in useful]
    return images, codes.tolist(), groups.tolist()


def cut_out(pictures: Bytes) -> Bytes:
    """Drawings ``[N, H, W, 3]`` on white with the white around them made transparent, ``[N, H, W, 4]``.

    White that is connected to the border is outside. At the outline paint is mixed with white: a pixel
    there counts as covered by its distance from white as a share of the largest in its neighbourhood.

    >>> dot = np.full((1, 5, 5, 3), 255, np.uint8)
    >>> dot[0, 2, 2] = 0
    >>> cut_out(dot)[0, 2, :, 3].tolist()
    [0, 0, 255, 0, 0]
    """
    from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

    lowest = np.minimum.reduce([pictures[..., channel] for channel in range(3)])
    framed = np.pad(lowest >= _WHITE, [(0, 0), (1, 1), (1, 1)], constant_values=True)
    regions, _ = ndimage.label(framed, _WITHIN)
    outside = regions == regions[:, :1, :1]
    near_outside = outside.copy()
    for axis in (1, 2):
        near_outside |= np.roll(outside, 1, axis) | np.roll(outside, -1, axis)
    inner = (slice(None), slice(1, -1), slice(1, -1))
    outside, outline = outside[inner], (near_outside & ~outside)[inner]

    paint = 255 - lowest
    fullest = ndimage.maximum_filter1d(ndimage.maximum_filter1d(paint, 3, axis=1), 3, axis=2)
    alpha = np.where(outside, np.uint8(0), np.uint8(255))
    covered = paint[outline] / fullest[outline].clip(min=1)
    alpha[outline] = np.rint(255 * covered)
    cut = np.concatenate([pictures, alpha[..., None]], -1)
    unmixed = 255 - (255 - pictures[outline]) / covered[:, None].clip(min=1 / 255)
    cut[outline, :3] = np.rint(unmixed.clip(0, 255))
    return cut


def _two_colours(field: Callable[[np.random.Generator, int], Floats]) -> Callable[..., Floats]:
    """A background of two random colours, mixed as a field in [0, 1] says."""

    def paint(rng: np.random.Generator, size: int) -> Floats:
        first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
        mixed: Floats = first + (second - first) * field(rng, size)[..., None]
        return mixed

    return paint


def _ramp(rng: np.random.Generator, size: int) -> Floats:
    """The coordinate along a random direction, from 0 to about 1."""
    angle = rng.uniform(0, 2 * np.pi)
    down, across = np.ogrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    along: Floats = ((down - 0.5) * np.sin(angle) + (across - 0.5) * np.cos(angle) + 0.5).astype(np.float32)
    return along.clip(0, 1)


def _stripes(rng: np.random.Generator, size: int) -> Floats:
    waves = np.sin(2 * np.pi * rng.uniform(2, 10) * _ramp(rng, size))
    edged: Floats = (1 / (1 + np.exp(-8 * waves))).astype(np.float32)
    return edged


def _clouds(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Random numbers on a coarse grid, smoothly enlarged."""
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _blobs(rng: np.random.Generator, size: int) -> Floats:
    return (_clouds(rng, size, int(rng.integers(4, 12))) > 0.5).astype(np.float32)


def _noise(rng: np.random.Generator, size: int) -> Floats:
    octaves = [_clouds(rng, size, min(size, 4 * 2**octave)) / 2**octave for octave in range(4)]
    together: Floats = np.sum(octaves, 0) / np.float32(1.875)
    return together.clip(0, 1)


@functools.lru_cache(maxsize=1)
def _photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(picture) for picture in load_sample_images().images]


def _photograph(rng: np.random.Generator, size: int) -> Floats:
    """A random square of one of scikit-learn's two photographs."""
    photographs = _photographs()
    photograph = photographs[rng.integers(len(photographs))]
    side = int(rng.uniform(0.25, 1) * min(photograph.size))
    left, top = (int(rng.integers(0, extent - side + 1)) for extent in photograph.size)
    square = photograph.resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    return np.asarray(square).astype(np.float32)


BACKGROUNDS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "gradient": _two_colours(_ramp),
    "stripes": _two_colours(_stripes),
    "blobs": _two_colours(_blobs),
    "noise": _two_colours(_noise),
    "photograph": _photograph,
}
"""The kinds of background, drawn with equal chances: ``(rng, size) -> [size, size, 3]`` in [0, 255]."""
