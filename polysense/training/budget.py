"""How long to train: a number of steps or a time, and which share of it is behind us."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from polysense.errors import PolysenseError

AUTOMATIC_SAMPLES = 500_000
"""Without a stated budget, training sees about this many samples, in 10 to 200 epochs."""

_UNITS = {"": 60.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_time(text: str | float) -> float:
    """Seconds of "90s", "3min", "1.5h", "2d", "00:03:00", or a plain number of minutes.

    >>> parse_time("3min"), parse_time("00:03:00"), parse_time(1.5)
    (180.0, 180.0, 90.0)

    Raises:
        PolysenseError: when the text is none of these, or not above zero.
    """
    written = str(text).strip().lower()
    if re.fullmatch(r"\d+(:\d+){1,2}", written):
        seconds = 0.0
        for part in written.split(":"):
            seconds = 60 * seconds + int(part)
    elif (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", written)) and match[2] in _UNITS:
        seconds = float(match[1]) * _UNITS[match[2]]
    else:
        raise PolysenseError(f"cannot read the time {text!r}; write 90s, 3min, 1.5h or 00:03:00")
    if seconds <= 0:
        raise PolysenseError(f"the time {text!r} leaves nothing to train in; give more than zero")
    return seconds


@dataclass(frozen=True)
class Budget:
    """Either ``steps`` or ``seconds``; the other is None.

    A budget in steps resumes to bit-equal weights. One in seconds follows the clock: its schedules end
    exactly with the time, however fast the machine is.
    """

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(
        cls,
        *,
        samples: int,
        batch: int,
        steps: int | None = None,
        epochs: float | None = None,
        max_time: str | float | None = None,
    ) -> Budget:
        """The budget that the user stated, or one from the data's size.

        >>> Budget.of(samples=1000, batch=100, epochs=3)
        Budget(steps=30, seconds=None)
        >>> Budget.of(samples=1_000_000, batch=250).steps  # ten epochs at least
        40000

        Raises:
            PolysenseError: when more than one of steps, epochs and max_time is given, or one is not
                above zero.
        """
        given = [
            name for name, value in (("steps", steps), ("epochs", epochs), ("max-time", max_time)) if value
        ]
        if len(given) > 1:
            raise PolysenseError(f"state one budget, not {' and '.join(given)}")
        for name, value in (("steps", steps), ("epochs", epochs)):
            if value is not None and value <= 0:
                raise PolysenseError(f"{name} is {value}; give more than zero")
        if max_time is not None:
            return cls(seconds=parse_time(max_time))
        if steps is None:
            if epochs is None:
                epochs = min(200, max(10, AUTOMATIC_SAMPLES / samples))
            steps = max(1, math.ceil(epochs * max(1, samples // batch)))
        return cls(steps=steps)

    def progress(self, step: int, seconds: float) -> float:
        """The share of training that is behind, in [0, 1]."""
        done = step / self.steps if self.steps is not None else seconds / (self.seconds or 1.0)
        return min(1.0, done)

    def __str__(self) -> str:
        return f"{self.steps:,} steps" if self.steps is not None else f"{(self.seconds or 0) / 60:g} minutes"
