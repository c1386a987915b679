"""What is done with captions: a run writes them, and those that describe nothing are left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from polysense.deployment.captions import CaptionWriter
from polysense.deployment.run import Run, load
from polysense.encoders.base import eval_mode
from polysense.errors import PolysenseError
from polysense.job import read_dataset
from polysense.modalities.pairs.filtering import PICTURE, TEXT, Sorted, sort_pairs
from polysense.modalities.pairs.finding import find_pairs
from polysense.modalities.pairs.modality import Paired
from polysense.modalities.tables import TABLE_SUFFIXES
from polysense.tabular.writing import check_out, write_frame


def caption(
    run: str | Path | Run,
    data: Any,
    *,
    beams: int = 1,
    out: str | Path | None = None,
    overwrite: bool = False,
    max_bad: float = 0.01,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Write a caption for each picture, with a run that learned to (coca).

    Args:
        run: the folder of a run, or a loaded run.
        data: pictures in any form that pretrain takes.
        beams: how many beginnings of a caption are followed at a time; 1 takes the likeliest word each time.
        out: a CSV, TSV, Parquet or JSONL file for the captions.
        overwrite: replace the file that is there.
        max_bad: the share of unreadable pictures that is skipped before it is an error.
        batch_size: pictures per forward pass.

    Returns:
        A row for each picture: ``name`` and ``caption``.

    Raises:
        PolysenseError: for a run that did not learn to write, unreadable data, or a file that exists.

    $ polysense caption runs/coca photos
    $ polysense caption runs/coca photos --beams 4 --out captions.csv
    """
    path = None if out is None else check_out(out, overwrite=overwrite, suffixes=TABLE_SUFFIXES)
    loaded = run if isinstance(run, Run) else load(run)
    writer = CaptionWriter.of(loaded.encoder, loaded.modality, loaded.config)
    dataset = read_dataset(writer.sees, data, {"max_bad": max_bad})
    captions = []
    with eval_mode(loaded):
        for start in range(0, len(dataset), batch_size):
            rows = range(start, min(start + batch_size, len(dataset)))
            captions += writer.write(writer.sees.collate(dataset.__getitems__(rows)), beams)
    found = pd.DataFrame({"name": dataset.table["name"].to_numpy(), "caption": captions})
    if path is not None:
        write_frame(found, path)
    return found


def filter_pairs(
    data: Any,
    *,
    out: str | Path | None = None,
    why: str | Path | None = None,
    overwrite: bool = False,
    least: int = 3,
    most: int = 20,
    shared: int = 10,
    frequent: int = 100_000_000,
    alt_rules: bool = True,
    columns: dict[str, Any] | None = None,
    language: str | None = None,
    encoding: str = "utf-8",
) -> Sorted:
    """Leave out pairs whose text does not describe its picture, by the rules of ALIGN.

    Args:
        data: pairs in any form that pretrain takes; pictures are not opened.
        out: a table for the pairs that are kept, which pretrain reads: Parquet, or CSV, TSV or JSONL where
            every picture is a file.
        why: such a table for the pairs that fall, with the rule that each fails first.
        overwrite: replace the files that are there.
        least: the fewest words of a text.
        most: the most words.
        shared: the most pictures with one text.
        frequent: how many of the commonest words and pairs of words a text may be made of.
        alt_rules: leave out addresses and the names of files, too.
        columns: those of the image and the text, where they are not plain; of folders and shards the
            extension, or the field of the JSON files.
        language: the column that holds the language of texts, where it is not language or lang.
        encoding: of files of text.

    Returns:
        ``kept``, a row for each pair, and ``fallen``: ``name``, ``text`` and ``rule``.

    Raises:
        PolysenseError: for data that hold no pairs, limits that no text can keep, or a file that exists, and
            when no pair is left.

    $ polysense filter pairs.csv --out kept.parquet
    $ polysense filter pairs.csv --most 40 --out kept.csv --why fallen.csv
    """
    paths = [
        None if path is None else check_out(path, overwrite=overwrite, suffixes=TABLE_SUFFIXES)
        for path in (out, why)
    ]
    parts = Paired({PICTURE: {}, TEXT: {}}).parts
    folder = Path() if paths[0] is None else paths[0].parent
    rules = {"least": least, "most": most, "shared": shared, "frequent": frequent, "alt_rules": alt_rules}
    pairs = find_pairs(data, parts, columns=columns, language=language, encoding=encoding)
    found = sort_pairs(pairs, folder.resolve(), **rules)
    if paths[1] is not None:
        write_frame(found.fallen, paths[1])
    if found.kept.empty:
        most_often = found.fallen["rule"].mode()[0]
        raise PolysenseError(
            f"none of the {len(found.fallen):,} pairs is left (most often: {most_often}); loosen the rules"
        )
    if paths[0] is not None:
        _check_cells(found.kept[PICTURE], paths[0])
        write_frame(found.kept, paths[0])
    return found


def _check_cells(pictures: pd.Series[Any], path: Path) -> None:
    """Refuse pictures that a table of this kind cannot hold."""
    if not all(isinstance(picture, str | Mapping) for picture in pictures):
        raise PolysenseError(
            "these pictures are no files and cannot be written; pretrain on what is returned"
        )
    if path.suffix.lower() != ".parquet" and any(isinstance(picture, Mapping) for picture in pictures):
        raise PolysenseError(
            f"these pictures are no files of their own, and {path.name} cannot hold them; end it in .parquet"
        )
