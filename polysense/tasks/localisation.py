"""Where an encoder sees things: boxes, and pictures of what it finds by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw

from polysense.deployment.folder import write_json, write_whole
from polysense.deployment.run import Run, load
from polysense.encoders.base import eval_mode
from polysense.errors import PolysenseError, unknown
from polysense.evaluation.discovery import heat, outline, pca_colours
from polysense.evaluation.localise import WAYS, dense, whole
from polysense.modalities.vision.decode import Array, conform, decode
from polysense.modalities.vision.modality import Vision

SHOWN = 320
"""The longer side of each panel, in pixels."""

GAP = 4
"""Pixels of white between panels."""

BOX = (255, 40, 40)
"""The colour of the box."""


def localise(
    run: str | Path | Run,
    pictures: Sequence[Any],
    *,
    by: str = "token_cut",
    size: int | None = None,
    out: str | Path = "localised",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Draw what the encoder finds in pictures by itself, and give the box of the clearest object in each.

    Leaves in ``out`` a PNG for each picture (the picture, saliency, box, and the features' main
    directions as colours, side by side), ``boxes.json`` and ``boxes.parquet``.

    Args:
        run: the run folder, or a loaded run.
        pictures: files; from Python also Pillow images, arrays and tensors.
        by: token_cut, lost, or attention (of a ViT with a class token).
        size: the side in pixels at which the encoder looks, by default twice that of its training, and at
            least 128.
        out: the folder.
        overwrite: write into a folder that is there.

    Returns:
        A row for each picture: ``name``, and ``left``, ``top``, ``right``, ``bottom`` in its pixels.

    Raises:
        PolysenseError: when the run is not of pictures, one cannot be read, the encoder has no features
            on a grid, or the folder exists.

    $ polysense localise runs/mine cat.jpg dog.jpg
    $ polysense localise runs/mine photos/*.jpg --by lost --out found
    """
    loaded, folder = run if isinstance(run, Run) else load(run), Path(out)
    if by not in WAYS:
        raise unknown("way to localise", by, WAYS)
    if not isinstance(loaded.modality, Vision):
        raise PolysenseError(f"this run is of {loaded.modality.name!r}; objects are found in pictures only")
    if not len(pictures):
        raise PolysenseError("there is no picture to look at: give at least one")
    if folder.exists() and not overwrite:
        raise PolysenseError(f"{folder} exists; choose another out, or write into it with --overwrite")
    panels, table = _look(loaded, loaded.modality, pictures, by, size or max(2 * loaded.modality.size, 128))
    folder.mkdir(parents=True, exist_ok=True)
    for at, (name, panel) in enumerate(zip(table["name"], panels, strict=True)):
        write_whole(folder / f"{at:04d} {Path(name).stem}.png", panel.save)
    write_json(folder / "boxes.json", table.to_dict("records"))
    write_whole(folder / "boxes.parquet", lambda beside: table.to_parquet(beside, index=False))
    return table


def _look(
    run: Run, vision: Vision, pictures: Sequence[Any], by: str, size: int
) -> tuple[list[Image.Image], pd.DataFrame]:
    """A drawing and a row of the table for each picture."""
    finds, features = [], []
    with eval_mode(run), torch.no_grad():
        for picture in pictures:
            seen = whole(vision, vision.batch([picture]), size).to(run.device)
            finds.append(WAYS[by](run.encoder, seen))
            features.append(dense(run.encoder, seen))
    colours = pca_colours(torch.cat([tokens for tokens, _ in features]), features[0][1]).cpu().numpy()
    panels, rows = [], []
    for at, (picture, found) in enumerate(zip(pictures, finds, strict=True)):
        original = conform(decode(picture), vision.channels, depth=8)
        height, width = original.shape[:2]
        _, boxes = outline(found, (height, width))
        box = boxes[0].tolist()
        saliency = heat(found, (height, width))[0].cpu().numpy()
        panels.append(_side_by_side(original, saliency, box, colours[at]))
        name = Path(picture).name if isinstance(picture, str | Path) else f"picture {at}"
        rows.append({"name": name, **dict(zip(("left", "top", "right", "bottom"), box, strict=True))})
    return panels, pd.DataFrame(rows)


def _side_by_side(original: Array, saliency: Array, box: Sequence[int], colours: Array) -> Image.Image:
    """The picture, its saliency, its box and its features' colours, each up to ``SHOWN`` pixels."""
    if original.shape[2] != 3:
        original = original.mean(2, keepdims=True).astype(np.uint8).repeat(3, 2)
    picture = Image.fromarray(original)
    scale = SHOWN / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    boxed = picture.resize(size)
    left, top, right, bottom = (round(end * scale) for end in box)
    ImageDraw.Draw(boxed).rectangle([left, top, max(left, right - 1), max(top, bottom - 1)], None, BOX, 3)
    grey = Image.fromarray(np.rint(255 * saliency).astype(np.uint8)).convert("RGB")
    features = Image.fromarray(np.rint(255 * colours).astype(np.uint8))
    strip = Image.new("RGB", (4 * size[0] + 3 * GAP, size[1]), "white")
    for place, panel in enumerate((picture, grey, boxed, features)):
        how = Image.Resampling.NEAREST if panel is features else Image.Resampling.BILINEAR
        strip.paste(panel.resize(size, how), (place * (size[0] + GAP), 0))
    return strip
