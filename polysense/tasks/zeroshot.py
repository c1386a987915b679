"""What a joint run is for: classes by their names alone, and pictures (or anything else) by words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from polysense.deployment.folder import write_whole
from polysense.deployment.run import Run, load
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.evaluation.joint import Templates, class_vectors, templates_for, text_part
from polysense.job import read_dataset
from polysense.modalities.base import Dataset
from polysense.modalities.pairs.modality import Paired
from polysense.tabular.writing import write_frame

TILE = 128
"""The side of a picture in a grid of search results, in pixels."""


def classify(
    run: str | Path | Run,
    data: Any,
    classes: Sequence[str],
    *,
    templates: Templates | None = None,
    part: str | None = None,
    by: str | None = None,
    max_bad: float = 0.01,
) -> pd.DataFrame:
    """Classify samples by the names of the classes alone, none of which the run was trained on as such.

    Args:
        run: the folder of a joint run (clip, siglip, …), or a loaded run.
        data: pictures, sounds, whatever the run's ``part`` reads, in any form that ``pretrain`` takes.
        classes: their names.
        templates: texts with one ``{}``, or a function from a class to its prompts; by default those for
            pictures or sounds.
        part: the part of the run that reads the samples, by default the first that is not ``by``.
        by: the part that reads the names, by default the one for texts.
        max_bad: the share of unreadable samples that is skipped before it is an error.

    Returns:
        A row for each sample: ``name``, ``class``, and a column of probabilities for each class.

    Raises:
        PolysenseError: when the run has no such parts, or the data cannot be read.
    """
    loaded = run if isinstance(run, Run) else load(run)
    part, by = _parts(loaded, part, by)
    if templates is None:
        templates = templates_for(loaded.part(part).modality)
    names = class_vectors(loaded.part(by).embed, classes, templates)
    dataset, vectors = _read(loaded, data, part, max_bad)
    assert isinstance(loaded.encoder, Towers)  # or it had no parts
    scale = loaded.encoder.logit_scale.detach().exp().cpu()
    shares = (scale * vectors @ names.T).softmax(-1)
    found = pd.DataFrame(shares.numpy(), columns=list(classes))
    found.insert(0, "class", [classes[place] for place in shares.argmax(-1).tolist()])
    found.insert(0, "name", dataset.table["name"].to_numpy())
    return found


def zeroshot(
    run: str,
    data: str,
    *,
    classes: str,
    templates: str | None = None,
    out: str | None = None,
    max_bad: float = 0.01,
) -> pd.DataFrame:
    """Classify pictures or sounds by the names of the classes alone.

    Args:
        run: the folder of a joint run (clip, clap, …).
        data: what the run's first part reads: a folder, a glob, a table of paths.
        classes: their names with commas between, or a text file with one in each line.
        templates: a JSON file with a list of texts with one {} each, such as "a picture of {}".
        out: a CSV or Parquet file for the probabilities.
        max_bad: the share of unreadable samples that is skipped before it is an error.

    $ polysense zeroshot runs/clip photos --classes cat,dog,bird
    $ polysense zeroshot runs/clip photos --classes names.txt --out classes.csv
    """
    if out is not None and Path(out).suffix not in (".csv", ".parquet"):
        raise PolysenseError(f"cannot write {Path(out).name!r}; end it in .csv or .parquet")
    given = Path(classes)
    named = given.read_text(encoding="utf-8").splitlines() if given.is_file() else classes.split(",")
    listed = [name.strip() for name in named if name.strip()]
    found = classify(run, data, listed, templates=_templates(templates), max_bad=max_bad)
    if out is not None:
        write_frame(found, Path(out))
    return found


def search(
    run: str | Path | Run,
    query: Any,
    data: Any,
    *,
    count: int = 16,
    part: str | None = None,
    by: str | None = None,
    out: str | Path | None = "search.png",
    max_bad: float = 0.01,
) -> pd.DataFrame:
    """Find the samples that fit a query best, and show pictures in a grid.

    Args:
        run: the folder of a joint run (clip, siglip, …), or a loaded run.
        query: words, or another sample that the run's part "by" reads.
        data: what to search: pictures, sounds, whatever part reads, in any form that pretrain takes.
        count: how many to show.
        part: the part of the run that reads the data, by default the first that is not "by".
        by: the part that reads the query, by default the one for texts.
        out: the grid of pictures or spectrograms, a PNG; none is drawn where the samples are no pictures.
        max_bad: the share of unreadable samples that is skipped before it is an error.

    Returns:
        The best ``count`` rows, best first: ``name`` and ``similarity`` (cosine).

    Raises:
        PolysenseError: when the run has no such parts, or the data cannot be read.

    $ polysense search runs/clip "red fruit" photos
    """
    loaded = run if isinstance(run, Run) else load(run)
    part, by = _parts(loaded, part, by)
    asked = functional.normalize(loaded.part(by).embed([query]), dim=-1)[0]
    dataset, vectors = _read(loaded, data, part, max_bad)
    best = (vectors @ asked).topk(min(count, len(vectors)))
    names = dataset.table["name"].astype(str).iloc[best.indices.numpy()].to_numpy()
    if out is not None:
        _draw(loaded.part(part), dataset, best.indices.tolist(), best.values.tolist(), Path(out))
    return pd.DataFrame({"name": names, "similarity": best.values.numpy().round(4)})


def _parts(run: Run, part: str | None, by: str | None) -> tuple[str, str]:
    """The part that reads the samples and the one that reads the query, as given or as is usual."""
    modality = run.modality
    if by is None:
        by = text_part(modality) if isinstance(modality, Paired) else "text"  # the run says that it has none
    if part is None:
        part = next(name for name in modality.parts if name != by) if isinstance(modality, Paired) else by
    return part, by


def _read(run: Run, data: Any, part: str, max_bad: float) -> tuple[Dataset, Tensor]:
    """The samples and their unit vectors."""
    reader = run.part(part)
    dataset = read_dataset(reader.modality, data, {"max_bad": max_bad})
    vectors = torch.cat([vectors for _, vectors in reader.stream(dataset)])
    return dataset, functional.normalize(vectors, dim=-1)


def _draw(run: Run, dataset: Dataset, places: list[int], scores: list[float], out: Path) -> None:
    """The pictures found in a square grid, each over its similarity."""
    modality = run.modality
    shown = modality.show(modality.plain(modality.collate(dataset.__getitems__(places))))
    if shown.ndim != 4:
        return
    columns = max(1, round(len(shown) ** 0.5))
    rows = -(-len(shown) // columns)
    grid = Image.new("RGB", (columns * TILE, rows * (TILE + 16)), "white")
    draw = ImageDraw.Draw(grid)
    for place, (picture, score) in enumerate(zip(shown, scores, strict=True)):
        left, top = place % columns * TILE, place // columns * (TILE + 16)
        grid.paste(Image.fromarray(picture).resize((TILE, TILE)), (left, top))
        draw.text((left + 4, top + TILE + 2), f"{score:.2f}", fill="black")
    write_whole(out, lambda beside: grid.save(beside, format="PNG"))


def _templates(path: str | None) -> Sequence[str] | None:
    if path is None:
        return None
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PolysenseError(
            f"cannot read templates from {path}: {error}; give a JSON list of texts"
        ) from error
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise PolysenseError(f'{path} is no JSON list of texts; write ["a picture of {{}}", ...]')
    return listed
