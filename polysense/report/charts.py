"""The log of a run as small multiples, and the bars of its evaluation, in inline SVG."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

WIDTH, HEIGHT = 360, 168
LEFT, RIGHT, TOP, BOTTOM = 42, 352, 12, 146
POINTS = 300  # more than this is finer than the pixels of a panel
NOISY = 40  # a series of at least this many values is also smoothed
COLOURS = 7  # the palette of page.css: classes c0 to c6


@dataclass(frozen=True)
class Log:
    """What `metrics.jsonl` holds: a row for each step, a column for each number logged."""

    frame: pd.DataFrame
    warnings: list[tuple[int, str]]
    skipped: int = 0  # lines that could not be read
    not_finite: int = 0  # lines whose loss was NaN or infinite

    def series(self, key: str) -> pd.Series:
        """The values of one key by step, without gaps; empty where it was never logged."""
        if key not in self.frame:
            return pd.Series(dtype=float)
        return self.frame[key].dropna()

    @property
    def steps(self) -> int:
        """The last step logged; 0 before the first."""
        return int(self.frame.index.max()) if len(self.frame) else 0

    @property
    def seconds(self) -> float:
        """How long the training took; where a resumed run's clock began again, its parts are added up."""
        clock = self.series("seconds")
        rise = clock.diff().fillna(clock)
        return float(rise.where(rise >= 0, clock).sum())


@dataclass(frozen=True)
class Panel:
    """One small chart: the logged keys it shows, each with the name the reader sees."""

    title: str
    names: dict[str, str]
    unit: str = ""
    smooth: bool = True


def read_log(path: Path) -> Log:
    """Read `metrics.jsonl`, leaving out lines that a kill cut off. A missing file is an empty log.

    A resumed run writes some steps twice; the later line counts.
    """
    rows: list[dict[str, float]] = []
    warnings: set[tuple[int, str]] = set()
    skipped = 0
    text = path.read_text("utf-8", errors="replace") if path.exists() else ""
    for line in filter(str.strip, text.split("\n")):
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, TypeError, KeyError, OverflowError):
            skipped += 1
            continue
        if row.get("warning"):
            warnings.add((step, str(row["warning"])))
        rows.append({key: value for key, value in row.items() if isinstance(value, (int, float))})
    not_finite = sum(not math.isfinite(row.get("loss", 0.0)) for row in rows)
    frame = pd.DataFrame(rows, columns=None if rows else ["step"], dtype=float)
    frame = frame.replace([np.inf, -np.inf], np.nan).groupby("step").last()
    return Log(frame, sorted(warnings), skipped, not_finite)


def number(value: float) -> str:
    """A figure at the precision a reader can use (page.js writes figures the same way).

    >>> [number(value) for value in (12345.6, 56.12, 3.14159, 0.5, 0.0003, 0)]
    ['12,346', '56.1', '3.14', '0.500', '3.0e-4', '0']
    """
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def amount(count: int, noun: str) -> str:
    """A count with its noun, in the plural where it is one.

    >>> amount(1, "step"), amount(2000, "step")
    ('1 step', '2,000 steps')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def embedded(data: object) -> str:
    """Data for the page's script, safe whatever text it holds.

    >>> embedded(["</script>"])
    '<script type="application/json">["\\\\u003c/script>"]</script>'
    """
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json">{text}</script>'


def curves(log: Log) -> str:
    """The charts of every number logged, warnings marked in each; `""` when nothing was logged."""
    drawn = "".join(draw(panel, log) for panel in panels(log))
    return (f'<div class="panels">{drawn}</div>' if drawn else "") + _events(log)


def panels(log: Log) -> list[Panel]:
    """Which charts a log fills, in reading order; keys nobody foresaw get a chart each, at the end."""
    logged = [str(key) for key in log.frame]
    branches = sorted(key for key in logged if key.startswith("loss/"))
    shown = ["loss", *branches] if len(branches) > 1 or "loss" not in log.frame else ["loss"]
    known = [
        Panel("Loss", {key: key.removeprefix("loss/") if key != "loss" else "total" for key in shown}),
        Panel("Online accuracy", {"knn": "kNN", "linear": "linear"}, "%"),
        Panel("Effective rank", {"rankme": "RankMe"}),
        Panel("Spread (0 is collapse)", {"spread": "spread"}),
        Panel("Learning rate", {"lr": "lr"}, smooth=False),
        Panel("Throughput", {"samples_per_second": "samples/s"}),
        Panel("Teacher momentum", {"momentum": "momentum"}, smooth=False),
    ]
    foreseen = {"seconds", "epoch", *branches, *(key for panel in known for key in panel.names)}
    others = [Panel(key, {key: key}) for key in logged if key not in foreseen]
    return [panel for panel in known + others if any(len(log.series(key)) for key in panel.names)]


def draw(panel: Panel, log: Log) -> str:
    """One chart: faint raw values, a smoothed line, and the data its crosshair reads."""
    first, last = int(log.frame.index.min()), int(log.frame.index.max())
    lines = {name: log.series(key) for key, name in panel.names.items() if len(log.series(key))}
    smooth = {name: _smoothed(line) if panel.smooth else line for name, line in lines.items()}
    low, high = _span(list(lines.values()), list(smooth.values()))

    def points(line: pd.Series) -> str:
        x = _place(line.index.to_numpy(float), first, last, LEFT, RIGHT)
        y = _place(line.to_numpy(float), low, high, BOTTOM, TOP)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, np.clip(y, 2, BOTTOM), strict=True))

    shapes, keys, data = [], [], []
    for index, (name, line) in enumerate(lines.items()):
        colour, fine = f"c{index % COLOURS}", _sampled(smooth[name])
        if fine.size and smooth[name] is not line:
            shapes.append(f'<polyline class="raw {colour}" points="{points(_envelope(line))}"/>')
        shapes.append(f'<polyline class="line {colour}" points="{points(fine)}"/>')
        x, y = points(fine.iloc[-1:]).split(",")
        shapes.append(f'<circle class="end {colour}" cx="{x}" cy="{y}" r="2.5"/>')
        latest = number(float(fine.iloc[-1]))
        keys.append(f'<span class="key {colour}">{escape(name)} <output>{latest}</output>{panel.unit}</span>')
        data.append([fine.index.tolist(), [float(f"{value:.5g}") for value in fine]])
    axes = _axes(first, last, low, high) + _marks(log, first, last)
    cross = f'<g class="cross" hidden><path d="M0 {TOP}V{BOTTOM}"/><text y="{TOP - 3}"></text></g>'
    label = escape(f"{panel.title} by step, {first} to {last}. Arrow keys move the crosshair.")
    return (
        f'<figure class="chart"><figcaption><b>{escape(panel.title)}</b> {"".join(keys)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{label}">'
        f"{axes}{''.join(shapes)}{cross}</svg>"
        f"{embedded({'left': LEFT, 'right': RIGHT, 'first': first, 'last': last, 'series': data})}</figure>"
    )


def bars(title: str, rows: Sequence[tuple[str, float, tuple[float, float] | None]], full: float = 0.0) -> str:
    """Horizontal bars on an axis that reaches at least from 0 to `full`; the first row stands out.

    A row is a name, a value and its interval, where there is one.
    """
    ends = [end for _, value, interval in rows for end in (value, *(interval or ()))]
    low, high = min(0.0, *ends), max(full, *ends)
    left, right, step = 104, 308, 22

    def x(value: float) -> float:
        return float(_place(np.array([np.clip(value, low, high)]), low, high, left, right)[0])

    shapes = []
    for index, (name, value, interval) in enumerate(rows):
        middle = index * step + 11
        start, end = sorted((x(0), x(value)))
        shapes.append(
            f'<text class="name" x="{left - 8}" y="{middle + 4}">{escape(name)}</text>'
            f'<rect class="bar{" ours" if index == 0 else ""}" x="{start:.1f}" y="{middle - 6}" '
            f'width="{max(end - start, 1):.1f}" height="12" rx="1.5"/>'
            f'<text class="value" x="{WIDTH - 4}" y="{middle + 4}">{number(value)}</text>'
        )
        if interval:
            shapes.append(f'<path class="whisker" d="M{x(interval[0]):.1f} {middle}H{x(interval[1]):.1f}"/>')
    label = escape(f"{title}: " + ", ".join(f"{name} {number(value)}" for name, value, _ in rows))
    return (
        f'<figure class="bars"><figcaption><b>{escape(title)}</b></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {len(rows) * step}" role="img" aria-label="{label}">'
        f"{''.join(shapes)}</svg></figure>"
    )


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values between two bounds, about `count` of them.

    >>> ticks(0.2, 3.9)
    [1.0, 2.0, 3.0]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _smoothed(line: pd.Series) -> pd.Series:
    return line.ewm(span=max(len(line) / 25, 2)).mean() if len(line) >= NOISY else line


def _sampled(line: pd.Series) -> pd.Series:
    return line.iloc[np.unique(np.linspace(0, len(line) - 1, POINTS).round().astype(int))]


def _envelope(line: pd.Series) -> pd.Series:
    """The least and greatest value of each stretch of the line, so that thinning hides no spike."""
    if len(line) <= POINTS:
        return line
    stretches = np.array_split(np.arange(len(line)), POINTS // 2)
    values = line.to_numpy()
    kept = {int(s[pick(values[s])]) for s in stretches for pick in (np.argmin, np.argmax)}
    return line.iloc[sorted(kept)]


def _span(raw: list[pd.Series], smooth: list[pd.Series]) -> tuple[float, float]:
    """The range of the vertical axis: all of the smoothed lines, and the raw values but for outliers."""
    values = np.concatenate([*(line.quantile([0.01, 0.99]) for line in raw), *smooth])
    low, high = float(values.min()), float(values.max())
    room = (high - low) * 0.06 if high > low else abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < room else low - room), high + room


def _place(values: np.ndarray, low: float, high: float, start: float, end: float) -> np.ndarray:
    return start + (values - low) / ((high - low) or 1.0) * (end - start)


def _tick_text(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{round(value, 10):g}".replace("e-0", "e-")


def _axes(first: int, last: int, low: float, high: float) -> str:
    parts = []
    for tick in ticks(low, high):
        y = float(_place(np.array([tick]), low, high, BOTTOM, TOP)[0])
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
            f'<text class="tick y" x="{LEFT - 6}" y="{y + 3.5:.1f}">{_tick_text(tick)}</text>'
        )
    for tick in ticks(first, last) if last > first else [float(first)]:
        x = float(_place(np.array([tick]), first, last, LEFT, RIGHT)[0])
        parts.append(f'<text class="tick x" x="{x:.1f}" y="{HEIGHT - 6}">{_tick_text(tick)}</text>')
    return "".join(parts)


def _marks(log: Log, first: int, last: int) -> str:
    parts = []
    for step, text in log.warnings:
        x = float(_place(np.array([step]), first, last, LEFT, RIGHT)[0])
        title = escape(f"Step {step:,}: {text}")
        parts.append(
            f'<g class="mark"><title>{title}</title><path d="M{x:.1f} {TOP}V{BOTTOM}"/>'
            f'<path class="flag" d="M{x - 4:.1f} {TOP - 6}h8l-4 7z"/></g>'
        )
    return "".join(parts)


def _events(log: Log) -> str:
    """Each warning once, with the steps it came at, and what the log lacks."""
    steps: dict[str, list[int]] = {}
    for step, text in log.warnings:
        steps.setdefault(text, []).append(step)
    items = []
    for text, at in steps.items():
        when = f"Step {at[0]:,}" if len(at) == 1 else f"Steps {at[0]:,} to {at[-1]:,}, {len(at)} times"
        items.append(f'<li class="warning"><b>{when}</b> {escape(text)}</li>')
    if log.not_finite:
        items.append(f'<li class="warning">The loss was not a finite number {log.not_finite:,} times.</li>')
    if log.skipped:
        lines = "1 line" if log.skipped == 1 else f"{log.skipped:,} lines"
        items.append(f"<li>{lines} of metrics.jsonl could not be read (cut off?) and was left out.</li>")
    return f'<ul class="events">{"".join(items)}</ul>' if items else ""
