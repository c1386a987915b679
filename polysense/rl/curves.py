"""Learning curves over seeds: the interquartile mean, its bootstrapped interval, and a picture of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polysense.deployment.folder import write_text
from polysense.errors import PolysenseError
from polysense.report.charts import ticks

Numbers = NDArray[np.float64]

LEVEL, RESAMPLES = 0.95, 2000

COLOURS = ("#2563a8", "#c2571a", "#2e8b57", "#8e44ad", "#b8860b", "#c0392b", "#4a6a7c", "#7f7f7f")


def interquartile_mean(values: ArrayLike, axis: int = 0) -> Numbers:
    """The mean of the middle half: a quarter of the values, rounded down, is left out at either end.

    It scatters less than the median of a few seeds and heeds outliers less than the mean
    (https://arxiv.org/abs/2108.13264).

    >>> float(interquartile_mean([0.0, 2.0, 3.0, 4.0, 100.0]))
    3.0
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=axis)
    count = ordered.shape[axis]
    middle = np.arange(count // 4, count - count // 4)
    mean: Numbers = ordered.take(middle, axis=axis).mean(axis=axis)
    return mean


def learning_curve(
    episodes: Sequence[tuple[int, float]], steps: Sequence[int], *, window: int = 20
) -> Numbers:
    """The mean return of the last ``window`` episodes that had ended at each of these steps.

    NaN where none had.

    >>> learning_curve([(10, 1.0), (20, 3.0)], [5, 10, 30]).tolist()
    [nan, 1.0, 2.0]
    """
    ends = np.array([end for end, _ in episodes])
    returns = np.array([value for _, value in episodes], np.float64)
    counts = np.searchsorted(ends, np.asarray(steps), side="right")
    return np.array([returns[max(0, n - window) : n].mean() if n else np.nan for n in counts])


@dataclass(frozen=True)
class Curve:
    """Returns of several seeds at the same steps: ``steps[P]``, ``returns[S, P]``.

    Raises:
        PolysenseError: where the shapes do not fit.

    >>> curve = Curve([10, 20], [[1.0, 2.0], [1.0, 4.0], [1.0, 6.0]])
    >>> curve.mean.tolist(), curve.interval()[1].tolist()
    ([1.0, 4.0], [1.0, 6.0])
    """

    steps: ArrayLike
    returns: ArrayLike

    def __post_init__(self) -> None:
        steps, returns = np.shape(self.steps), np.shape(self.returns)
        if len(steps) != 1 or len(returns) != 2 or returns[1:] != steps or 0 in returns:
            raise PolysenseError(
                f"a curve has returns [seeds, points] for steps [points], not {list(returns)} for"
                f" {list(steps)}; give each seed's returns at the same steps"
            )

    @property
    def mean(self) -> Numbers:
        """``[P]``: the interquartile mean over seeds."""
        return interquartile_mean(self.returns)

    def interval(self, *, seed: int = 0) -> tuple[Numbers, Numbers]:
        """``[P]`` each: between which the interquartile mean lies in 95 % of bootstrap samples of seeds."""
        returns = np.asarray(self.returns, np.float64)
        drawn = np.random.default_rng(seed).integers(len(returns), size=(RESAMPLES, len(returns)))
        means = interquartile_mean(returns[drawn], axis=1)
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return low, high

    def final(self, *, seed: int = 0) -> dict[str, float]:
        """The last point: ``iqm``, ``low`` and ``high``."""
        low, high = self.interval(seed=seed)
        return {"iqm": float(self.mean[-1]), "low": float(low[-1]), "high": float(high[-1])}


def draw_curves(
    curves: Mapping[str, Curve], path: str | Path, *, title: str = "", ylabel: str = "return"
) -> Path:
    """Draw curves by their names into an SVG file: lines, bands where the intervals are, names at the ends.

    Raises:
        PolysenseError: when there is none, or more than there are colours.
    """
    if not 1 <= len(curves) <= len(COLOURS):
        raise PolysenseError(f"one picture shows 1 to {len(COLOURS)} curves, not {len(curves)}")
    lines = {name: (curve, *curve.interval()) for name, curve in curves.items()}
    right = max(float(np.max(np.asarray(curve.steps))) for curve in curves.values())
    ends = [np.asarray(value) for _, low, high in lines.values() for value in (low, high)]
    bottom, top = min(0.0, *(float(np.nanmin(end)) for end in ends)), max(map(np.nanmax, ends))
    plot = _Plot(right, bottom, float(top) if top > bottom else bottom + 1)
    shapes = [plot.axes(title, ylabel)]
    labels: list[tuple[float, str]] = []
    for colour, (name, (curve, low, high)) in zip(COLOURS, lines.items(), strict=False):
        shapes.append(plot.band(curve, low, high, colour))
        shapes.append(plot.line(curve, colour))
        label = f'fill="{colour}">{escape(name)} {curve.mean[-1]:.0f}</text>'
        labels.append((plot.y(curve.mean[-1:])[0], label))
    shapes.append(_spread(labels))
    header = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12"'
    text = f'{header} font-family="sans-serif">{"".join(shapes)}</svg>\n'
    write_text(Path(path), text)
    return Path(path)


WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 500, 30, 316
LABEL_HEIGHT = 15


@dataclass(frozen=True)
class _Plot:
    """Steps from 0 to ``last`` and returns from ``low`` to ``high`` on the picture."""

    last: float
    low: float
    high: float

    def x(self, steps: Any) -> Numbers:
        places: Numbers = LEFT + np.asarray(steps, np.float64) / (self.last or 1) * (RIGHT - LEFT)
        return places

    def y(self, returns: Any) -> Numbers:
        share = (np.asarray(returns, np.float64) - self.low) / (self.high - self.low)
        places: Numbers = BOTTOM - share * (BOTTOM - TOP)
        return places

    def points(self, steps: Any, returns: Any) -> str:
        pairs = zip(self.x(steps), self.y(returns), strict=True)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs if np.isfinite(y))

    def line(self, curve: Curve, colour: str) -> str:
        points = self.points(curve.steps, curve.mean)
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'

    def band(self, curve: Curve, low: Numbers, high: Numbers, colour: str) -> str:
        steps = np.asarray(curve.steps)
        round_trip = self.points([*steps, *steps[::-1]], [*high, *low[::-1]])
        return f'<polygon points="{round_trip}" fill="{colour}" fill-opacity="0.15"/>'

    def axes(self, title: str, ylabel: str) -> str:
        parts = [
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
            f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>'
            f'<text x="{RIGHT}" y="{HEIGHT - 10}" text-anchor="end" fill="#555">environment steps</text>'
            f'<text x="14" y="{TOP}" transform="rotate(-90 14 {TOP})" text-anchor="end" fill="#555">'
            f"{escape(ylabel)}</text>"
        ]
        for tick in ticks(self.low, self.high):
            height = self.y([tick])[0]
            parts.append(
                f'<path d="M{LEFT} {height:.1f}H{RIGHT}" stroke="#e3e3e3"/>'
                f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end" fill="#555">{tick:g}</text>'
            )
        for tick in ticks(0, self.last):
            place = self.x([tick])[0]
            parts.append(
                f'<text x="{place:.1f}" y="{BOTTOM + 16}" text-anchor="middle" fill="#555">{tick:,.0f}</text>'
            )
        return "".join(parts)


def _spread(labels: list[tuple[float, str]]) -> str:
    """Names beside their curves' ends, moved apart where they would overlap."""
    parts, free = [], float(TOP)
    for height, label in sorted(labels):
        free = max(free, height + 4)
        parts.append(f'<text x="{RIGHT + 8}" y="{free:.1f}" {label}')
        free += LABEL_HEIGHT
    return "".join(parts)
