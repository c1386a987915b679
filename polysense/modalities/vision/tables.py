"""Rows with a picture in one column: DataFrames, CSV and Parquet files, Hugging Face data sets."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from polysense.errors import PolysenseError, require, unknown
from polysense.modalities.builtin import BUILTINS, PREFIX, builtin, describe
from polysense.modalities.vision.decode import UnreadableError, header, named_as_picture
from polysense.modalities.vision.store import Listing

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


def unique(names: Iterable[str]) -> list[str]:
    """Tell repeated names apart.

    >>> unique(["a", "b", "a"])
    ['a', 'b', 'a (2)']
    """
    seen: Counter[str] = Counter()
    told = []
    for name in names:
        name = name.encode("utf-8", "replace").decode()  # file names need not be Unicode, tables must
        seen[name] += 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told


def from_frame(frame: pd.DataFrame, place: str, column: str | None, folder: Path = Path()) -> Listing:
    """One picture per row; paths are relative to ``folder``; the other columns go into the table.

    ``name`` is the frame's own where that is unique; else the path, followed by the frame's own, which
    moves to ``given_name``; else the row's number.
    """
    if frame.empty:
        raise PolysenseError(f"{place} has no rows")
    column = _picture_column(frame, place) if column is None else column
    if column not in frame.columns:
        raise unknown("column", column, map(str, frame.columns))
    cells = [_cell(value) for value in frame[column]]
    items = [folder / cell if isinstance(cell, str | Path) else _resolved(cell, folder) for cell in cells]
    table = frame.drop(columns=column).reset_index(drop=True)
    return Listing(items, _with_names(table, [_path(cell) for cell in cells]), place, _usual_label(table))


def from_table_file(path: Path, column: str | None) -> Listing:
    """A CSV, TSV or Parquet file, whose paths are relative to the folder it lies in."""
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",")
    except (ValueError, OSError) as error:
        raise PolysenseError(f"cannot read {path} as a table: {str(error).splitlines()[0]}") from error
    return from_frame(frame, str(path.resolve()), column, path.resolve().parent)


def from_builtin(name: str, column: str | None) -> Listing:
    """The pictures that come with the package."""
    about = describe(name)
    if about.modality != "image":
        pictures = ", ".join(PREFIX + known for known, other in BUILTINS.items() if other.modality == "image")
        raise PolysenseError(
            f"{name} holds no pictures but data for {about.modality!r}; pictures: {pictures}"
        )
    listing = from_frame(builtin(name), name, column or "image")
    listing.label, listing.identity, listing.evaluation = about.label, about.identity, about.evaluation
    return listing


def is_hugging_face(source: Any) -> bool:
    """Whether this is a data set of the ``datasets`` library, which is not imported to find out."""
    library = sys.modules.get("datasets")
    kinds = ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict")
    return library is not None and isinstance(source, tuple(getattr(library, kind) for kind in kinds))


def from_hub(name: str, split: str | None, column: str | None) -> Listing:
    """Load ``owner/name`` from the Hugging Face Hub (or its local cache) by the ``datasets`` library."""
    library = require("datasets", "hf", f"reading {name!r} (not a path here) from the Hugging Face Hub")
    try:
        loaded = library.load_dataset(name, split=split)
    except Exception as error:  # the library's errors have no common base
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise PolysenseError(
            f"cannot load {name!r} (not a path here) from the Hugging Face Hub: {told}"
        ) from error
    return from_hugging_face(loaded, f"hf:{name}:{split or ''}", column)


def from_saved(folder: Path, split: str | None, column: str | None) -> Listing:
    """A folder written by ``save_to_disk``."""
    library = require("datasets", "hf", f"reading {folder}, saved by the datasets library,")
    loaded = library.load_from_disk(str(folder))
    if split is not None and isinstance(loaded, dict):
        if split not in loaded:
            raise unknown("split", split, loaded)
        loaded = loaded[split]
    return from_hugging_face(loaded, f"{folder.resolve()}:{split or ''}", column)


def from_hugging_face(dataset: Any, place: str, column: str | None) -> Listing:
    """A data set in memory; ``ClassLabel`` numbers become names, and the only such column the label."""
    library = require("datasets", "hf", "reading Hugging Face data sets")
    if isinstance(dataset, dict):
        if len(dataset) > 1:
            splits = ", ".join(map(repr, dataset))
            raise PolysenseError(
                f"{place} has the splits {splits}: choose one, as in NAME:SPLIT or dataset[SPLIT]"
            )
        dataset = next(iter(dataset.values()))
    if isinstance(dataset, library.IterableDataset):
        raise PolysenseError(
            f"{place} is streamed, and pictures are decoded once: load it with streaming=False"
        )
    dataset = dataset.with_format(None)
    pictures = [name for name, kind in dataset.features.items() if isinstance(kind, library.Image)]
    if column is None and len(pictures) == 1:
        column = pictures[0]
    if column is None or column not in pictures:
        return from_frame(dataset.to_pandas(), place, column)
    media = [n for n, kind in dataset.features.items() if type(kind).__name__ in ("Image", "Audio", "Video")]
    table = dataset.remove_columns(media).to_pandas().reindex(range(len(dataset)))
    classes = [name for name, kind in dataset.features.items() if isinstance(kind, library.ClassLabel)]
    for name in classes:
        known = dict(enumerate(dataset.features[name].names))
        table[name] = table[name].map(known)
    label = classes[0] if len(classes) == 1 else _usual_label(table)
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


def _usual_label(table: pd.DataFrame) -> str | None:
    return "label" if "label" in table.columns else None


def _picture_column(frame: pd.DataFrame, place: str) -> str:
    columns = [str(name) for name in frame.columns if any(map(_is_picture, frame[name].dropna().head(50)))]
    if len(columns) == 1:
        return columns[0]
    names = ", ".join(map(str, columns or frame.columns))
    found = "more than one column with pictures" if columns else "no column with pictures or their paths"
    raise PolysenseError(f"{place} has {found} ({names}): name it with --column")


def _is_picture(value: Any) -> bool:
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


def _path(cell: Any) -> str | None:
    if isinstance(cell, Mapping):
        cell = cell.get("path")
    return str(cell) if isinstance(cell, str | Path) else None


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
