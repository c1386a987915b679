"""Classic control drawn from its states, many frames at once: the usual renderer is slow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

Renderer = Callable[[NDArray[np.floating], int], NDArray[np.uint8]]
"""From states ``[N, S]`` and a side to frames ``[N, 1, side, side]``."""

_TOGETHER = 64
"""So many frames are drawn at once: they stay in a processor's cache."""


def cartpole(states: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """CartPole's ``x, velocity, angle, angular velocity`` as frames ``[N, 1, size, size]``.

    >>> cartpole(np.zeros((2, 4)), 32).shape
    (2, 1, 32, 32)
    """
    x, angle = states[:, 0] / 2.4, states[:, 2]
    base, zero = np.stack([x, np.full_like(x, -0.4)], 1), np.zeros_like(x)
    half = np.stack([zero + 0.13, zero], 1)
    tip = base + np.stack([np.sin(angle), np.cos(angle)], 1)
    track = np.broadcast_to(np.array([[-1.0, -0.4], [1.0, -0.4]]), (len(x), 2, 2))
    cart, pole = np.stack([base - half, base + half], 1), np.stack([base, tip], 1)
    return draw(np.stack([track, cart, pole], 1), (0.03, 0.16, 0.08), (0.6, 0.0, 0.35), size)


def pendulum(states: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """Pendulum's ``cosine, sine, angular velocity`` as frames ``[N, 1, size, size]``; upright is 0."""
    tip = 0.8 * np.stack([-states[:, 1], states[:, 0]], 1)
    return draw(np.stack([np.zeros_like(tip), tip], 1)[:, None], (0.2,), (0.2,), size)


def acrobot(states: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """Acrobot's ``cosine, sine`` of both angles and two velocities as frames; hanging down is 0."""
    cosine, sine, cosine2, sine2 = states[:, :4].T
    joint = 0.45 * np.stack([sine, -cosine], 1)
    together = np.stack([sine * cosine2 + cosine * sine2, -(cosine * cosine2 - sine * sine2)], 1)
    arms = [np.stack([np.zeros_like(joint), joint], 1), np.stack([joint, joint + 0.45 * together], 1)]
    return draw(np.stack(arms, 1), (0.14, 0.1), (0.0, 0.4), size)


def draw(
    segments: NDArray[np.floating], widths: Sequence[float], shades: Sequence[float], size: int
) -> NDArray[np.uint8]:
    """Thick lines with round ends on white, later ones over earlier ones: ``[N, 1, size, size]``.

    Each pixel is covered as far as its distance from the line says, so that a motion of a tenth of a pixel
    shows.

    Args:
        segments: ``[N, L, 2, 2]``: N pictures of L lines from one point to another, ``(x, y)`` from -1 to 1,
            upwards.
        widths: of the lines; the picture is 2 wide.
        shades: of the lines, 0 is black and 1 white.
        size: side of the picture in pixels.

    >>> line = np.array([[[[-1.0, 0.0], [1.0, 0.0]]]])
    >>> draw(line, (1.0,), (0.0,), 4)[0, 0, :, 1]
    array([255,   0,   0, 255], dtype=uint8)
    """
    ticks = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    drawn = np.empty((len(segments), 1, size, size), np.uint8)
    for start in range(0, len(segments), _TOGETHER):
        part = segments[start : start + _TOGETHER].astype(np.float32)
        canvas = np.ones((len(part), size, size), np.float32)
        for line, width, shade in zip(part.swapaxes(0, 1), widths, shades, strict=True):
            covered = np.clip(0.5 + (width / 2 - _distance(line, ticks)) * (size / 2), 0, 1)
            canvas += covered * (np.float32(shade) - canvas)
        drawn[start : start + _TOGETHER, 0] = np.rint(canvas * 255)
    return drawn


def _distance(lines: Array, ticks: Array) -> Array:
    """``[N, size, size]``: how far each pixel's centre is from its picture's line ``[N, 2, 2]``."""
    begin, along = lines[:, 0], lines[:, 1] - lines[:, 0]
    across = ticks[None, None, :] - begin[:, 0, None, None]
    up = -ticks[None, :, None] - begin[:, 1, None, None]
    ahead, rise = along[:, 0, None, None], along[:, 1, None, None]
    share = np.clip((across * ahead + up * rise) / np.maximum(ahead**2 + rise**2, 1e-12), 0, 1)
    distance: Array = np.sqrt(np.square(across - share * ahead) + np.square(up - share * rise))
    return distance
