"""Samples of a run to look at: nearest neighbours, a map of the embeddings, the views of the method."""

from __future__ import annotations

import base64
import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from polysense.errors import PolysenseError
from polysense.report.charts import COLOURS, embedded

SHAPES = 3  # circle, square, triangle: labels beyond the palette stay apart by shape
REST = COLOURS * SHAPES  # the group of everything beyond that, and of samples without a label
MAP_WIDTH = 600


@dataclass(frozen=True)
class Gallery:
    """What `gallery.npz` holds; n samples, q queries with k neighbours, s samples in v views."""

    names: list[str]
    labels: list[str]
    captions: list[str]
    map: np.ndarray | None = None  # [n, 2]
    neighbours: np.ndarray | None = None  # [q, k + 1], the query first
    similarity: np.ndarray | None = None  # [q, k]
    thumbnails: np.ndarray | None = None  # [n, h, w, 3] bytes
    views: np.ndarray | None = None  # [s, v, h, w, 3] bytes, the original first
    view_names: list[str] = field(default_factory=list)
    viewed: list[int] = field(default_factory=list)  # the samples of `views`
    sounds: dict[int, bytes] = field(default_factory=dict)  # files of those samples that can be heard
    method_name: str = "the method"


@dataclass(frozen=True)
class Sheet:
    """Many small pictures laid out in one, so that the page embeds each of them once."""

    uri: str
    columns: int
    rows: int
    aspect: str  # width / height of one picture, in CSS's writing

    def css(self, name: str) -> str:
        """The style that gives elements of class `name` their picture."""
        size = f"{self.columns * 100}% {self.rows * 100}%"
        return (
            f".{name}{{background-image:url({self.uri});background-size:{size};aspect-ratio:{self.aspect}}}"
        )

    def picture(self, name: str, index: int, label: str) -> str:
        """Picture number `index` as an element of class `name`, with its text alternative."""
        x = index % self.columns / max(self.columns - 1, 1) * 100
        y = index // self.columns / max(self.rows - 1, 1) * 100
        text = escape(label)
        return (
            f'<span class="picture {name}" role="img" aria-label="{text}" title="{text}" '
            f'style="background-position:{x:.4g}% {y:.4g}%"></span>'
        )


def read_gallery(path: Path) -> Gallery | None:
    """Read `gallery.npz`; None where there is none.

    Raises:
        PolysenseError: the file cannot be read, or its arrays do not fit each other.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        names = [str(name) for name in arrays["names"]]
        blank = [""] * len(names)
        gallery = Gallery(
            names,
            labels=[str(label) for label in arrays.get("labels", blank)],
            captions=[str(caption) for caption in arrays.get("captions", blank)],
            map=arrays.get("map"),
            neighbours=arrays.get("neighbours"),
            similarity=arrays.get("similarity"),
            thumbnails=arrays.get("thumbnails"),
            views=arrays.get("views"),
            view_names=[str(name) for name in arrays.get("view_names", [])],
            viewed=[int(sample) for sample in arrays.get("viewed", [])],
            sounds=_sounds(arrays),
            method_name=str(arrays.get("method_name", "the method")),
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PolysenseError(
            f"{path} cannot be read as a gallery ({error}); make it again with 'polysense evaluate'"
        ) from error
    _check(gallery, path)
    return gallery


def _sounds(arrays: Mapping[str, np.ndarray]) -> dict[int, bytes]:
    """Files by the number of their sample; they lie one behind the other."""
    if "sounds" not in arrays:
        return {}
    ends = arrays["sound_ends"].tolist()
    files = [arrays["sounds"][start:end].tobytes() for start, end in zip([0, *ends], ends, strict=False)]
    return dict(zip(arrays["sound_rows"].tolist(), files, strict=True))


def _check(gallery: Gallery, path: Path) -> None:
    count, again = len(gallery.names), "make it again with 'polysense evaluate'"
    for key in ("labels", "captions", "map", "thumbnails"):
        rows = getattr(gallery, key)
        if rows is not None and len(rows) != count:
            raise PolysenseError(f"{path}: {key!r} has {len(rows)} rows for {count} names; {again}")
    near = gallery.neighbours
    if near is not None and near.size and not 0 <= near.min() <= near.max() < count:
        raise PolysenseError(
            f"{path}: 'neighbours' must lie between 0 and {count - 1}, "
            f"found {near.min()} to {near.max()}; {again}"
        )


def sheet(pictures: np.ndarray, largest: int, limit: int) -> Sheet:
    """Lay out pictures [n, h, w, 3] (bytes) in one WebP of at most about `limit` bytes.

    Pictures are shrunk until they fit, starting from a longer side of `largest` pixels.

    >>> small = sheet(np.zeros((5, 80, 40, 3), dtype=np.uint8), largest=64, limit=10_000)
    >>> small.columns, small.rows, small.aspect
    (3, 2, '32/64')
    """
    count, height, width = pictures.shape[:3]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    for side in (largest, largest * 3 // 4, largest // 2, largest // 3, largest // 4):
        scale = min(1.0, side / max(height, width))
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        canvas = Image.new("RGB", (columns * w, rows * h))
        for index, picture in enumerate(pictures):
            at = (index % columns * w, index // columns * h)
            canvas.paste(Image.fromarray(picture).resize((w, h), Image.Resampling.LANCZOS), at)
        file = io.BytesIO()
        canvas.save(file, "WEBP", quality=82, method=2)
        if file.tell() <= limit:
            break
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    return Sheet(uri, columns, rows, f"{w}/{h}")


def neighbours(gallery: Gallery, thumbs: Sheet | None) -> str:
    """Queries on the left, their nearest neighbours on the right; `""` where there are none."""
    near, similarity = gallery.neighbours, gallery.similarity
    if near is None or not near.size:
        return ""
    labels = np.array(gallery.labels)
    known = labels[near[:, 0]] != ""
    same = (labels[near[:, 1:]] == labels[near[:, :1]]) & known[:, None]
    rows = []
    for query, (index, *others) in enumerate(near.tolist()):
        kinds = ["same" if equal else "other" for equal in same[query]]
        close = [""] * len(others) if similarity is None else [f"{value:.2f}" for value in similarity[query]]
        cells = list(zip(others, close, kinds, strict=True))
        rows.append(
            _picture_row(gallery, thumbs, index, cells) if thumbs else _text_row(gallery, index, cells)
        )
    caption = "Cosine similarity to the query beside each neighbour." if similarity is not None else ""
    if known.any():
        share = same[known].mean() * 100
        caption += f" Underlined: same label as the query ({share:.0f}\u00a0% of the neighbours shown)."
    kind = "pictures" if thumbs else "texts"
    caption += " Press a spectrogram to hear it." if gallery.sounds else ""
    return f'<p class="hint">{caption}</p><div class="neighbours {kind}">{"".join(rows)}</div>'


def _described(gallery: Gallery, index: int) -> str:
    return ", ".join(filter(None, (gallery.names[index], gallery.labels[index])))


def _heard(gallery: Gallery, index: int, picture: str, described: str) -> str:
    """A sample's picture, as a button that plays it where it is a sound."""
    if index not in gallery.sounds:
        return picture
    return (
        f'<button type="button" class="play" data-sound="{index}" aria-pressed="false" '
        f'aria-label="Play {escape(described)}">{picture}</button>'
    )


def sounds(gallery: Gallery) -> str:
    """The files that the page's buttons play, each embedded once; `""` where there are none."""
    if not gallery.sounds:
        return ""
    files = {index: base64.b64encode(file).decode() for index, file in gallery.sounds.items()}
    return f'<div class="sounds" hidden>{embedded(files)}</div>'


def _picture_row(gallery: Gallery, thumbs: Sheet, query: int, cells: list[tuple[int, str, str]]) -> str:
    def picture(index: int, before: str = "") -> str:
        described = before + _described(gallery, index)
        return _heard(gallery, index, thumbs.picture("thumb", index, described), described)

    shown = "".join(
        f'<li class="{kind}">{picture(near)}<small>{close}</small></li>' for near, close, kind in cells
    )
    name, label = escape(gallery.names[query]), escape(gallery.labels[query])
    return (
        f'<div class="row"><p><b>{name}</b><span>{label}</span></p>'
        f"{picture(query, 'Query: ')}<ol>{shown}</ol></div>"
    )


def _text_row(gallery: Gallery, query: int, cells: list[tuple[int, str, str]]) -> str:
    def text(index: int) -> str:
        label = f" <span>{escape(gallery.labels[index])}</span>" if gallery.labels[index] else ""
        return f"<q>{escape(gallery.captions[index] or gallery.names[index])}</q>{label}"

    shown = "".join(
        f'<li class="{kind}"><small>{close}</small><div>{text(near)}</div></li>'
        for near, close, kind in cells
    )
    return f'<div class="row"><p>{text(query)}</p><ol>{shown}</ol></div>'


def embedding_map(gallery: Gallery, thumbs: Sheet | None) -> str:
    """The two-dimensional map: a point for each sample, a colour and a shape for each label."""
    if gallery.map is None or not len(gallery.map):
        return ""
    x, y, height = _layout(gallery.map.astype(float))
    groups, shown = _groups(gallery.labels)
    layers = []
    for number in shown:
        style, shape = _style(number)
        points = "".join(_marker(shape, x[i], y[i]) for i in np.flatnonzero(groups == number))
        layers.append(f'<g class="{style}" data-group="{number}">{points}</g>')
    names = sorted(set(gallery.labels))
    data = {
        "x": x.round(1).tolist(),
        "y": y.round(1).tolist(),
        "group": groups.tolist(),
        "names": [caption or name for name, caption in zip(gallery.names, gallery.captions, strict=True)],
        "labels": names,
        "label": [names.index(label) for label in gallery.labels],
        "sheet": [thumbs.columns, thumbs.rows] if thumbs else None,
    }
    switch = '<button type="button" class="switch" aria-pressed="false">Pictures</button>' if thumbs else ""
    label = f"Map of {len(x):,} embeddings. Arrow keys move from point to point."
    return (
        f'<div class="map"><div class="plot"><svg viewBox="0 0 {MAP_WIDTH} {height}" tabindex="0" '
        f'role="img" aria-label="{label}">{"".join(layers)}<circle class="ring" r="8" hidden></circle></svg>'
        f'<div class="card" role="status" hidden></div></div>'
        f'<div class="legend">{_legend(shown, groups)}{switch}</div>{embedded(data)}</div>'
    )


def _layout(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Points in the drawing's units, one scale for both axes, and the drawing's height."""
    points = np.nan_to_num(points)
    centre = (points.min(0) + points.max(0)) / 2
    extent = np.maximum(np.ptp(points, axis=0), 1e-9)
    height = round(MAP_WIDTH * float(np.clip(extent[1] / extent[0], 0.5, 0.8)))
    room = 14
    scale = min((MAP_WIDTH - 2 * room) / extent[0], (height - 2 * room) / extent[1])
    x = MAP_WIDTH / 2 + (points[:, 0] - centre[0]) * scale
    y = height / 2 - (points[:, 1] - centre[1]) * scale
    return x, y, height


def _groups(labels: list[str]) -> tuple[np.ndarray, dict[int, str]]:
    """A group number for each sample and the groups' names: the commonest labels, then the rest as one."""
    common = [label for label, _ in Counter(filter(None, labels)).most_common()]
    shown = dict(enumerate(common[:REST]))
    place = {label: number for number, label in shown.items()}
    groups = np.array([place.get(label, REST) for label in labels])
    if REST in groups:
        shown[REST] = f"{len(common) - REST} more labels" if len(common) > REST else "no label"
    return groups, shown


def _style(number: int) -> tuple[str, int]:
    return ("rest", 0) if number == REST else (f"c{number % COLOURS}", number // COLOURS)


def _marker(shape: int, x: float, y: float) -> str:
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
    if shape == 1:
        return f'<path d="M{x - 3.4:.1f} {y - 3.4:.1f}h6.8v6.8h-6.8z"/>'
    return f'<path d="M{x:.1f} {y - 4.6:.1f}l4.4 7.6h-8.8z"/>'


def _legend(shown: dict[int, str], groups: np.ndarray) -> str:
    if len(shown) < 2:
        return ""
    items = []
    for number, name in shown.items():
        style, shape = _style(number)
        items.append(
            f'<button type="button" class="{style}" data-group="{number}" aria-pressed="true">'
            f'<svg viewBox="-6 -6 12 12" aria-hidden="true">{_marker(shape, 0, 0)}</svg>'
            f"<span>{escape(name)}</span><small>{np.count_nonzero(groups == number):,}</small></button>"
        )
    return "".join(items) + '<button type="button" class="switch all">Hide all</button>'


def views(gallery: Gallery) -> tuple[str, str]:
    """What the method saw, a row for each sample: the section and the style it needs, or two `""`."""
    if gallery.views is None or not gallery.views.size:
        return "", ""
    samples, count = gallery.views.shape[:2]
    pictures = sheet(gallery.views.reshape(-1, *gallery.views.shape[2:]), largest=128, limit=700_000)
    names = [*gallery.view_names, *(f"view {index}" for index in range(len(gallery.view_names), count))]
    cells = [f"<span>{escape(name)}</span>" for name in names[:count]]
    for sample in range(samples):
        for view in range(count):
            described = f"Sample {sample + 1}, {names[view]}"
            picture = pictures.picture("view", sample * count + view, described)
            original = view == 0 and sample < len(gallery.viewed)
            cells.append(_heard(gallery, gallery.viewed[sample], picture, described) if original else picture)
    caption = f"The original on the left, then what {escape(gallery.method_name)} was trained on."
    grid = f'<div class="scroll"><div class="views" style="--views:{count}">{"".join(cells)}</div></div>'
    return f'<p class="hint">{caption}</p>{grid}', pictures.css("view")
