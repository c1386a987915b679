"""Values that change over training, as functions of how much of it is done."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable


@runtime_checkable
class Scheduled(Protocol):
    """A module with a schedule: the training loop calls ``at`` before every step."""

    def at(self, progress: float) -> None:
        """Take on the values for ``progress``: steps done over all steps, 0 at the first, 1 at the end."""
        ...


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine wave from ``start`` (progress 0) to ``end`` (progress 1 and after).

    >>> [round(cosine(0.0, 1.0, progress), 3) for progress in (0.0, 0.25, 0.5, 1.0)]
    [0.0, 0.146, 0.5, 1.0]
    """
    return end + (start - end) * (math.cos(math.pi * _within(progress)) + 1) / 2


def linear(start: float, end: float, progress: float) -> float:
    """A straight line from ``start`` (progress 0) to ``end`` (progress 1 and after).

    >>> linear(1.0, 0.5, 0.5)
    0.75
    """
    return start + (end - start) * _within(progress)


def _within(progress: float) -> float:
    return min(max(progress, 0.0), 1.0)
