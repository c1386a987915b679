"""Rows with a picture in one column: DataFrames, CSV and Parquet files, Hugging Face data sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from polysense.errors import PolysenseError, require
from polysense.modalities.builtin import builtin, describe_for
from polysense.modalities.files import unique
from polysense.modalities.tables import Loaded, media_column, path_of, read_whole_table, usual_label
from polysense.modalities.vision.decode import UnreadableError, header, named_as_picture
from polysense.modalities.vision.store import Listing


def from_frame(frame: pd.DataFrame, place: str, column: str | None, folder: Path = Path()) -> Listing:
    """One picture per row; paths are relative to ``folder``; the other columns go into the table.

    ``name`` is the frame's own where that is unique; else the path, followed by the frame's own, which
    moves to ``given_name``; else the row's number.
    """
    if frame.empty:
        raise PolysenseError(f"{place} has no rows")
    column = media_column(frame, place, column, is_picture, "pictures")
    cells = [_cell(value) for value in frame[column]]
    items = [folder / cell if isinstance(cell, str | Path) else _resolved(cell, folder) for cell in cells]
    table = frame.drop(columns=column).reset_index(drop=True)
    return Listing(items, _with_names(table, list(map(path_of, cells))), place, usual_label(table))


def from_table_file(path: Path, column: str | None) -> Listing:
    """A CSV, TSV, Parquet or JSONL file, whose paths are relative to the folder it lies in."""
    return from_frame(read_whole_table(path), str(path.resolve()), column, path.resolve().parent)


def from_builtin(name: str, column: str | None) -> Listing:
    """The pictures that come with the package."""
    about = describe_for("image", name, "pictures")
    listing = from_frame(builtin(name), name, column or "image")
    listing.label, listing.identity, listing.evaluation = about.label, about.identity, about.evaluation
    return listing


def from_hugging_face(loaded: Loaded, column: str | None) -> Listing:
    """A data set in memory; ``ClassLabel`` numbers become names, and the only such column the label."""
    library = require("datasets", "hf", "reading Hugging Face data sets")
    dataset, place = loaded.dataset, loaded.place
    pictures = [name for name, kind in dataset.features.items() if isinstance(kind, library.Image)]
    if column is None and len(pictures) == 1:
        column = pictures[0]
    if column is None or column not in pictures:
        return from_frame(dataset.to_pandas(), place, column)
    table, label = loaded.table()
    encoded = dataset.select_columns(column).cast_column(column, library.Image(decode=False))
    return Listing(_Column(encoded, column), _with_names(table, [None] * len(table)), place, label)


class _Column(Sequence[Any]):
    """The pictures of a Hugging Face data set, fetched as bytes when asked for."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset, self.name = dataset, name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[index][self.name]


def is_picture(value: Any) -> bool:
    """Whether a cell holds a picture, or the name of a file that ends like one."""
    if isinstance(value, str | Path):
        return named_as_picture(value)
    if isinstance(value, Mapping) and value.get("bytes") is None:
        return named_as_picture(str(value.get("path")))
    if not isinstance(value, Mapping | bytes | np.ndarray | torch.Tensor | Image.Image):
        return False
    try:
        return header(value) is not None
    except UnreadableError:
        return False


def _cell(value: Any) -> Any:
    """A table's ways of saying "nothing" (NaN, NA) as None."""
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


def _resolved(cell: Any, folder: Path) -> Any:
    if isinstance(cell, Mapping) and cell.get("bytes") is None and cell.get("path") is not None:
        return folder / cell["path"]
    return cell


def _with_names(table: pd.DataFrame, paths: Sequence[str | None]) -> pd.DataFrame:
    names = [path if path is not None else f"row {row}" for row, path in enumerate(paths)]
    if "name" in table.columns:
        own = table["name"].astype(str)
        if own.is_unique and table["name"].notna().all():
            return table.assign(name=own)
        names = [f"{os.path.splitext(name)[0]} {given}" for name, given in zip(names, own, strict=True)]
        table = table.rename(columns={"name": "given_name"})
    table.insert(0, "name", unique(names))
    return table
