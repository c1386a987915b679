"""A table beside one made from it (augmented, completed or generated): one HTML page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polysense.errors import PolysenseError, unknown
from polysense.report.charts import WIDTH, bars, number
from polysense.report.document import document, write_page

HEIGHT, FLOOR = 120, 100  # of a column's chart, and where its bars stand
BINS = 32  # of a column of more different values; of fewer each is a bar
LEVELS = 12  # the most frequent; the others are one bar
ASKED = 6  # rows made that are shown with their nearest real ones
CELL = 26  # the side of a cell of the heat map
NAMES = 110  # the room for the names of its rows

Trends = Mapping[tuple[str, str], float]


def write_table_report(
    out: str | Path,
    real: pd.DataFrame,
    made: pd.DataFrame,
    *,
    trends: Trends | None = None,
    errors: Mapping[str, float] | None = None,
) -> Path:
    """Write a page that shows a table beside one made from it.

    The distribution of each column in both, and the rows made with the real ones nearest to them: the L1
    distance of numbers as ranks, plus 1 for each other cell that differs.

    Args:
        out: the page; one that is there is replaced.
        real: the table as it was.
        made: the table that was made, with the same columns.
        trends: how alike the dependence of each two columns is, from 0 to 1, drawn as a heat map;
            :func:`polysense.tabular.quality.pair_trends` measures it.
        errors: the error of imputation for each column, drawn as bars.

    Returns:
        The path of the page.

    Raises:
        PolysenseError: for tables with other columns or no rows, trends of an unknown column, no folder.

    >>> import tempfile
    >>> real = pd.DataFrame({"carat": [0.3, 1.2, 0.7], "cut": ["Good", "Fair", "Good"]})
    >>> write_table_report(Path(tempfile.mkdtemp()) / "page.html", real, real.iloc[:2]).name
    'page.html'
    """
    _check(real, made, trends or {})
    if not Path(out).parent.is_dir():
        raise PolysenseError(f"there is no folder {Path(out).parent}: make it, or choose another out")
    title = f"{len(made):,} rows made from {len(real):,}"
    story = (
        f"{len(real.columns)} columns; {_share(real)}\u00a0% of the cells of the real rows are missing,"
        f" {_share(made)}\u00a0% of those made."
    )
    sections = [
        ("columns", "Columns", _key() + f'<div class="panels">{"".join(_columns(real, made))}</div>'),
        ("trends", "Pairs of columns", heat_map(trends) if trends else ""),
        ("errors", "Error of imputation", _errors(errors) if errors else ""),
        ("nearest", "Nearest real rows", nearest_rows(real, made)),
    ]
    header = f'<h1>{escape(title)}</h1><p class="story">{story}</p>'
    return write_page(Path(out), document(title, header, sections))


def distribution(real: pd.Series, made: pd.Series) -> tuple[list[str], np.ndarray]:
    """The groups of a column's values, in words, and the share of either table's cells in each, ``[2, G]``.

    Numbers and dates of many values fall into bins between the first and the last permille of the real
    ones, what lies beyond into the outermost; of levels the most frequent stand alone. Missing cells are
    not counted.

    >>> distribution(pd.Series(["a", "a", "b"]), pd.Series(["b", None, "c"]))[0]
    ['a', 'b', 'others']
    """
    counts: list[np.ndarray]
    if _is_scale(real):
        values, others = (_scale(each)[each.notna()] for each in (real, made))
        if not len(values):
            return [], np.zeros((2, 0))
        centres = np.unique(values)
        if len(centres) > BINS:
            low, high = np.quantile(values, [0.001, 0.999])
            edges = np.linspace(low, high, BINS + 1)
            centres = (edges[:-1] + edges[1:]) / 2
        between = (centres[:-1] + centres[1:]) / 2
        places = [np.searchsorted(between, each, side="right") for each in (values, others)]
        counts = [np.bincount(place, minlength=len(centres)) for place in places]
        words = [_worded(real, centre) for centre in centres]
    else:
        strings = [each.dropna().astype(str) for each in (real, made)]
        levels = list(strings[0].value_counts().index[:LEVELS])
        counts = [each.value_counts().reindex(levels, fill_value=0).to_numpy() for each in strings]
        beyond = [len(each) - count.sum() for each, count in zip(strings, counts, strict=True)]
        words = levels
        if any(beyond):
            words = [*levels, "others"]
            counts = [np.append(*each) for each in zip(counts, beyond, strict=True)]
    shares = np.array(counts, dtype=float)
    return words, shares / np.maximum(shares.sum(1, keepdims=True), 1)


def heat_map(trends: Trends) -> str:
    """A square of cells, the darker the more the dependence of two columns differs."""
    names = list(dict.fromkeys(name for pair in trends for name in pair))
    place = {name: at for at, name in enumerate(names)}
    cells = []
    for (one, other), alike in trends.items():
        for row, column in ((place[one], place[other]), (place[other], place[one])):
            cells.append(
                f'<rect x="{NAMES + column * CELL}" y="{row * CELL}" width="{CELL - 1}" height="{CELL - 1}"'
                f' fill="var(--warn)" fill-opacity="{min(1.0, 2 * (1 - alike)):.2f}" stroke="var(--line)">'
                f"<title>{escape(f'{one}, {other}: {alike:.3f}')}</title></rect>"
            )
    words = "".join(
        f'<text class="name" x="{NAMES - 8}" y="{at * CELL + 17}">{escape(_short(name))}</text>'
        f'<text transform="translate({NAMES + at * CELL + 9} {len(names) * CELL + 8}) rotate(60)">'
        f"{escape(_short(name))}</text>"
        for name, at in place.items()
    )
    mean, worst = float(np.mean(list(trends.values()))), min(trends, key=lambda pair: trends[pair])
    said = f"On average {mean:.3f} alike; least {worst[0]} and {worst[1]}: {trends[worst]:.3f}."
    side = NAMES + len(names) * CELL
    return (
        f'<p class="hint">{escape(said)} White is 1, full colour 0.5 or less.</p><figure>'
        f'<svg viewBox="0 0 {side} {side}" style="max-width:{side}px" role="img"'
        f' aria-label="{escape(said)}">{words}{"".join(cells)}</svg></figure>'
    )


def nearest_rows(real: pd.DataFrame, made: pd.DataFrame) -> str:
    """Some rows that were made, each above its nearest real one; cells that are the same in both are bold."""
    asked = made.iloc[np.unique(np.linspace(0, len(made) - 1, ASKED).round().astype(int))]
    far = _distances(real, asked)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in real.columns)
    body = []
    for at, near in enumerate(far.argmin(1)):
        one, other = asked.iloc[at], real.iloc[near]
        for word, row, rest in ((f"distance {number(far[at, near])}", one, other), ("nearest", other, one)):
            cells = "".join(_cell(row[name], rest[name]) for name in real.columns)
            body.append(f'<tr><th scope="row">{word}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">Row made</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _distances(real: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
    """``[A, N]``: how far rows are from the real ones; a missing cell is near to a missing one alone."""
    total = np.zeros((len(asked), len(real)))
    for name in real.columns:
        gaps = real[name].isna().to_numpy(), asked[name].isna().to_numpy()
        if _is_scale(real[name]):
            known = np.sort(_scale(real[name])[~gaps[0]])
            ranks = [
                np.searchsorted(known, _scale(each[name])) / max(1, len(known)) for each in (real, asked)
            ]
            apart = np.abs(ranks[1][:, None] - ranks[0][None])
        else:
            words = [each[name].astype(str).to_numpy() for each in (real, asked)]
            apart = (words[1][:, None] != words[0][None]).astype(float)
        both, either = gaps[1][:, None] & gaps[0][None], gaps[1][:, None] | gaps[0][None]
        total += np.where(both, 0.0, np.where(either, 1.0, apart))
    return total


def _columns(real: pd.DataFrame, made: pd.DataFrame) -> list[str]:
    return [_column(str(name), real[name], made[name]) for name in real.columns]


def _column(name: str, real: pd.Series, made: pd.Series) -> str:
    """A chart of a column: bars for the real table, a line of steps for the one made."""
    words, shares = distribution(real, made)
    width, top = WIDTH / max(1, len(words)), max(float(shares.max(initial=0.0)), 1e-9)
    heights = shares / top * (FLOOR - 8)
    rects = "".join(
        f'<rect class="bar" x="{at * width:.1f}" y="{FLOOR - heights[0, at]:.1f}" width="{width - 1:.1f}"'
        f' height="{heights[0, at]:.1f}"><title>'
        f"{escape(word)}: {100 * shares[0, at]:.1f} % real, {100 * shares[1, at]:.1f} % made</title></rect>"
        for at, word in enumerate(words)
    )
    steps = " ".join(
        f"{x * width:.1f},{FLOOR - height:.1f}" for at, height in enumerate(heights[1]) for x in (at, at + 1)
    )
    ends = [(0, "start", words[0]), (WIDTH, "end", words[-1])] if words else []
    texts = "".join(
        f'<text x="{x}" y="{FLOOR + 15}" text-anchor="{anchor}">{escape(_short(word))}</text>'
        for x, anchor, word in ends
    )
    gaps = " ".join(
        f"<span>{100 * each.isna().mean():.2g}\u00a0% missing {word}</span>"
        for each, word in ((real, "real"), (made, "made"))
        if real.isna().any() or made.isna().any()
    )
    label = escape(f"{name}: its distribution in both tables")
    return (
        f"<figure><figcaption><b>{escape(name)}</b> {gaps}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{rects}'
        f'<polyline class="line c1" points="{steps}"/>{texts}</svg></figure>'
    )


def _key() -> str:
    return (
        '<p class="hint"><span class="key rest">real, bars</span> <span class="key c1">made, line</span></p>'
    )


def _errors(errors: Mapping[str, float]) -> str:
    rows = [(_short(name), value, None) for name, value in sorted(errors.items(), key=lambda each: -each[1])]
    said = "Numbers and dates in standard deviations (the mean misses by about 1), levels as the share wrong."
    return f'<p class="hint">{said}</p><div class="panels">{bars("By column, the worst first", rows)}</div>'


def _is_scale(values: pd.Series) -> bool:
    """Whether the values lie on a scale: numbers, dates and lengths of time, but no booleans."""
    types = pd.api.types
    timed = types.is_datetime64_any_dtype(values) or types.is_timedelta64_dtype(values)
    return timed or (types.is_numeric_dtype(values) and not types.is_bool_dtype(values))


def _scale(values: pd.Series) -> np.ndarray:
    """As numbers, of dates and lengths of time their microseconds."""
    if pd.api.types.is_datetime64_any_dtype(values):
        values = pd.to_datetime(values, utc=True).dt.tz_localize(None).astype("datetime64[us]")
    elif pd.api.types.is_timedelta64_dtype(values):
        values = values.astype("timedelta64[us]")
    else:
        return values.to_numpy(dtype=float, na_value=np.nan)
    return np.where(values.isna(), np.nan, values.to_numpy().astype(np.int64).astype(float))


def _worded(values: pd.Series, scaled: float) -> str:
    if pd.api.types.is_datetime64_any_dtype(values):
        return f"{pd.Timestamp(int(scaled), unit='us'):%Y-%m-%d}"
    if pd.api.types.is_timedelta64_dtype(values):
        return f"{number(scaled / 1e6)} s"
    return f"{scaled:,.0f}" if scaled == round(scaled) else number(scaled)


def _cell(value: Any, other: Any) -> str:
    text = "–" if pd.isna(value) else f"{value:.6g}" if isinstance(value, float) else str(value)
    same = (pd.isna(value) and pd.isna(other)) or str(value) == str(other)
    return f"<td><b>{escape(text)}</b></td>" if same else f"<td>{escape(text)}</td>"


def _share(frame: pd.DataFrame) -> str:
    return f"{100 * float(frame.isna().to_numpy().mean()):.3g}"


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"


def _check(real: pd.DataFrame, made: pd.DataFrame, trends: Trends) -> None:
    if set(real.columns) != set(made.columns):
        odd = sorted(map(str, set(real.columns) ^ set(made.columns)))
        raise PolysenseError(
            f"the two tables differ in the columns {', '.join(odd)}; give both the same columns"
        )
    for word, frame in (("real", real), ("made", made)):
        if frame.empty:
            raise PolysenseError(f"the table of {word} rows is empty; give at least one row and one column")
    for name in (name for pair in trends for name in pair):
        if name not in real.columns:
            raise unknown("column", name, map(str, real.columns))
