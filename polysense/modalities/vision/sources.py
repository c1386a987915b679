"""Where pictures come from: every kind of source becomes a :class:`~.store.Listing`, then pixels."""

from __future__ import annotations

import glob
import os
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from polysense.errors import PolysenseError, unknown
from polysense.modalities.builtin import PREFIX
from polysense.modalities.files import files_in, folder_table, no_such_path, unique
from polysense.modalities.tables import (
    TABLE_SUFFIXES,
    Loaded,
    is_hugging_face,
    named_dataset,
    usual_label,
)
from polysense.modalities.vision import tables
from polysense.modalities.vision.decode import (
    SUFFIXES,
    Array,
    UnreadableError,
    decode,
    named_as_picture,
    reason,
    to_numpy,
)
from polysense.modalities.vision.store import Listing, Pictures, canvas_side, decode_all

ACCEPTED = (
    "a folder, a list of files, a glob, a CSV, TSV, Parquet or JSONL file, a DataFrame, an .npz or .npy "
    "file, an array or tensor, Pillow images, a Hugging Face or torch data set, builtin:emoji or "
    "builtin:scenes"
)


def read_pictures(
    source: Any,
    *,
    size: int,
    label: str | None = None,
    column: str | None = None,
    max_bad: float = 0.01,
    cache: Path | None = None,
    memory: int | None = None,
) -> Pictures:
    """Find pictures, decode each once, and keep them as one array of unsigned bytes or 16-bit words.

    Each is shrunk (never enlarged) so that its longer side fits a square canvas of ``2 * size`` pixels up
    to size 64, of ``1.25 * size`` beyond, but of no more than the largest picture has. All become RGB
    unless all are grey, and 8-bit unless all have 16 bits.

    Args:
        source: a folder (its subfolders, where there are several, become the column ``label``); a list of
            files, folders or Pillow images; a glob; a CSV, TSV, Parquet or JSONL file or a DataFrame with a
            column of paths, bytes or ``{"bytes", "path"}``; a Hugging Face data set, a folder it was
            saved to, or ``hf:owner/name:split``; a torch ``Dataset`` of images or (image, label), fetched
            once; an array or tensor ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]`` (of the second and
            the last axis the smaller is the channels, the last if they are equal) or an ``.npz`` or
            ``.npy`` file of one; ``builtin:emoji`` or ``builtin:scenes``. What exists as a path is read as
            one.
        size: side of the views that will be cut, in pixels.
        label: the column that holds the class, where it is not the usual one.
        column: the column, or the array of an ``.npz``, that holds the pictures, where it is not plain.
        max_bad: the share of pictures that may be unreadable; they are named in a warning and skipped.
        cache: where pixels are kept that do not fit ``memory``; ``~/.cache/polysense/pictures`` if None.
        memory: bytes of pixels to hold in memory; a quarter of what is available if None.

    Raises:
        PolysenseError: if the source is none of these, holds no pictures, or too many are unreadable.

    >>> pictures = read_pictures(np.zeros((5, 20, 30, 3), np.uint8), size=32)
    >>> batch = pictures.__getitems__([4, 0])
    >>> batch["pixels"].shape, batch["size"].tolist()
    (torch.Size([2, 3, 30, 30]), [[20, 30], [20, 30]])
    """
    if size < 1:
        raise PolysenseError(f"size is {size} pixels; it must be 1 or more")
    with warnings.catch_warnings():
        # Pillow warns of what it can read all the same; what it cannot is told by name and reason.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        listing = _find(source, column, canvas_side(size))
        if label is not None and label not in listing.table.columns:
            raise unknown("column", label, map(str, listing.table.columns))
        listing.label = label or listing.label
        return decode_all(listing, size=size, max_bad=max_bad, cache=cache, memory=memory)


def _find(source: Any, column: str | None, limit: int) -> Listing:
    match source:
        case str() | Path():
            return _from_text(str(source), column)
        case pd.DataFrame():
            return tables.from_frame(source, "the DataFrame", column)
        case np.ndarray() | torch.Tensor():
            return _from_array(to_numpy(source), "the array")
        case list() | tuple():
            return _from_list(source)
        case Image.Image():
            return _from_list([source])
    if is_hugging_face(source):
        return tables.from_hugging_face(Loaded.of(source, "the data set"), column)
    if isinstance(source, Dataset):
        return _from_torch(source, limit)
    raise PolysenseError(f"cannot read pictures from a {type(source).__name__}; give {ACCEPTED}")


def _from_text(text: str, column: str | None) -> Listing:
    """A path if there is one of that name, else what the text looks like."""
    path, loaded = Path(text).expanduser(), named_dataset(text)
    if loaded is not None:
        return tables.from_hugging_face(loaded, column)
    if os.path.isdir(path):
        return _from_folder(path)
    if os.path.exists(path):
        return _from_file(path, column)
    if text.startswith(PREFIX):
        return tables.from_builtin(text, column)
    if glob.has_magic(text):
        return _from_glob(str(path))
    raise no_such_path(path)


def _from_file(path: Path, column: str | None) -> Listing:
    name = path.name.lower()
    if name.endswith(TABLE_SUFFIXES):
        return tables.from_table_file(path, column)
    if name.endswith((".npz", ".npy")):
        return _from_numpy(path, column)
    if named_as_picture(name):
        return _from_list([path])
    raise PolysenseError(f"{path} is no picture and no table of pictures; give {ACCEPTED}")


def _pictures_in(folder: Path) -> list[Path]:
    """Files that look like pictures, at any depth."""
    found = files_in(folder, named_as_picture)
    if not found:
        raise PolysenseError(f"no picture in {folder}; looked for files ending in {', '.join(SUFFIXES)}")
    return found


def _from_folder(folder: Path) -> Listing:
    """Subfolders are classes where there are several."""
    paths = _pictures_in(folder)
    table = folder_table(folder, paths)
    return Listing(paths, table, str(folder.resolve()), usual_label(table))


def _from_glob(pattern: str) -> Listing:
    paths = [
        path
        for path in sorted(glob.glob(pattern, recursive=True))
        if not os.path.isfile(path) or named_as_picture(path)
    ]
    if not paths:
        raise PolysenseError(f"no picture matches {pattern}")
    return _from_list(paths, place=str(Path(pattern).absolute()))


def _from_list(sources: Sequence[Any], place: str | None = None) -> Listing:
    """Files are taken as they are, folders by the pictures in them."""
    items: list[Any] = []
    for source in sources:
        path = Path(source).expanduser() if isinstance(source, str | Path) else None
        if path is None:
            items.append(source)
        elif path.is_dir():
            items += _pictures_in(path)
        else:
            items.append(path)
    if not items:
        raise PolysenseError("the list of pictures is empty")
    names = unique(_name(item, i) for i, item in enumerate(items))
    return Listing(
        items,
        pd.DataFrame({"name": names}),
        place or f"list of {len(items)} from {os.path.abspath(names[0])}",
    )


def _name(item: Any, index: int) -> str:
    path = getattr(item, "filename", None) or item  # Pillow remembers the file an image was opened from
    return str(path) if isinstance(path, str | Path) else f"picture {index}"


def _from_numpy(path: Path, column: str | None) -> Listing:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _from_array(loaded, str(path.resolve()))
        arrays = dict(loaded.items())
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise PolysenseError(f"cannot read {path} as plain numpy arrays: {error}") from error
    usual = [key for key in ("images", "x", "data") if key in arrays]
    key = column or next(iter(usual), None) or _only_pictures(path, arrays)
    if key not in arrays:
        raise unknown(f"array in {path.name}", key, arrays)
    labels = next((arrays[known] for known in ("y", "labels") if known in arrays), None)
    return _from_array(arrays[key], str(path.resolve()), labels)


def _only_pictures(path: Path, arrays: dict[str, Array]) -> str:
    names = [key for key, array in arrays.items() if array.ndim >= 3]
    if len(names) != 1:
        told = ", ".join(f"{key} {list(array.shape)}" for key, array in arrays.items())
        raise PolysenseError(
            f"{path} has {len(names)} arrays that may be pictures ({told}): name one with --column"
        )
    return names[0]


def _from_array(array: Array, place: str, labels: Array | None = None) -> Listing:
    if array.ndim not in (3, 4) or not array.size:
        expected = "[N, H, W], [N, H, W, C] or [N, C, H, W]"
        raise PolysenseError(f"{place} has the shape {list(array.shape)} where {expected} was expected")
    if array.dtype.kind not in "biuf":
        raise PolysenseError(f"{place} holds {array.dtype} values; pictures are numbers")
    if array.ndim == 3 and array.shape[2] in (1, 3, 4) and array.shape[1] > array.shape[2]:
        raise PolysenseError(
            f"{place}, {list(array.shape)}, is one picture: give it as array[None], [N, H, W, C]"
        )
    table = pd.DataFrame({"name": [f"picture {i}" for i in range(len(array))]})
    if labels is not None:
        if labels.size != len(array):
            raise PolysenseError(f"{place} has {len(array)} pictures but {labels.size} labels")
        table["label"] = labels.ravel()
    return Listing(_quantised_rows(array), table, place, None if labels is None else "label")


def _quantised_rows(array: Array) -> Sequence[Any]:
    """One scale for all rows, so that a dark picture stays dark; rows it cannot fit keep their values
    and tell why when they are decoded."""
    if array.dtype.kind not in "fi" and array.itemsize <= 2:
        return list(array)
    flat = array.reshape(len(array), -1)
    low, high = flat.min(axis=1).astype(float), flat.max(axis=1).astype(float)
    floats = array.dtype.kind == "f"
    fits = (low >= 0) & (high <= (255 if floats else 65535))  # False for NaN
    peak = high[fits].max(initial=0)
    scale = 255.0 if floats and peak <= 1 else 1
    dtype = np.uint8 if peak <= 255 else np.uint16

    def quantised(row: Array) -> Array:
        return (np.rint(row * scale) if floats else row).astype(dtype)

    return [quantised(row) if fit else row for row, fit in zip(array, fits, strict=True)]


def _from_torch(dataset: Dataset[Any], limit: int) -> Listing:
    """Samples are fetched once, one after the other, and kept at no more than the canvas's size."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise PolysenseError(f"{type(dataset).__name__} has no length; give a map-style torch Dataset")
    if not len(dataset):
        raise PolysenseError(f"the {type(dataset).__name__} is empty")
    items, labels = zip(*(_sample(dataset, i, limit) for i in range(len(dataset))), strict=True)
    table = pd.DataFrame({"name": [f"picture {i}" for i in range(len(items))]})
    if any(label is not None for label in labels):
        table["label"] = _class_names(labels, getattr(dataset, "classes", None))
    return Listing(
        items, table, f"torch {type(dataset).__name__}", "label" if "label" in table.columns else None
    )


def _sample(dataset: Dataset[Any], index: int, limit: int) -> tuple[Any, Any]:
    try:
        sample = dataset[index]
        picture, label = (sample[0], sample[1]) if isinstance(sample, tuple | list) else (sample, None)
        label = label.item() if isinstance(label, torch.Tensor | np.generic) else label
    except Exception as error:  # the user's own code
        return UnreadableError(reason(error)), None
    try:
        return decode(picture, limit), label
    except UnreadableError as error:
        return error, label


def _class_names(labels: Iterable[Any], classes: Sequence[Any] | None) -> list[Any]:
    if classes is None:
        return list(labels)
    return [classes[label] if isinstance(label, int) and label < len(classes) else label for label in labels]
