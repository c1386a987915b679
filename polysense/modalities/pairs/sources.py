"""Where pairs come from: each kind of source becomes cells by part, which the parts' modalities read."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polysense.errors import PolysenseError, unknown
from polysense.modalities.bad import check_bad, tell_bad
from polysense.modalities.base import Dataset, Modality
from polysense.modalities.builtin import PREFIX, builtin, describe
from polysense.modalities.files import files_in, no_such_path, read_text, unique
from polysense.modalities.pairs.dataset import Members, Pairs
from polysense.modalities.pairs.found import Found, by_extension, from_frame, from_samples
from polysense.modalities.pairs.shards import Slice, shard_files, shard_paths
from polysense.modalities.tables import (
    TABLE_SUFFIXES,
    Loaded,
    is_hugging_face,
    named_dataset,
    read_table,
)

logger = logging.getLogger(__name__)

ACCEPTED = (
    "a CSV, TSV, Parquet or JSONL file, a DataFrame, a folder of name.jpg with name.txt, tar shards, a "
    "Hugging Face data set, Pairs, or builtin:emoji"
)

CONTENT, SAMPLE = "content", "sample"
"""The columns in which the parts' modalities find their cells, and in which they keep whose these are."""


def read_pairs(
    source: Any,
    parts: Mapping[str, Modality],
    *,
    columns: Mapping[str, Any] | None = None,
    label: str | None = None,
    max_bad: float = 0.01,
    cache: Path | None = None,
    encoding: str = "utf-8",
) -> Pairs:
    """Find samples with several parts, let each part's modality read its own, and join them.

    A sample needs at least two of its parts. Rows with the same first part (one picture, several captions)
    become one sample; so do several columns and lists of captions; one is drawn at each visit.

    Args:
        source: a CSV, TSV, Parquet or JSONL file, whose paths are relative to the folder it lies in; a
            DataFrame; a folder of ``name.jpg`` with ``name.txt``; tar shards, as a path, a glob, a list or
            ``shard-{000..003}.tar``; a Hugging Face data set, a folder it was saved to, or
            ``hf:owner/name:split``; ``builtin:emoji``.
        parts: the modality of each part.
        columns: the column of each part, or several of them; of folders and shards the extension. Where it
            is not given it is guessed, and the guess told.
        label: the column that holds the class, where it is not the usual one.
        max_bad: the share of pairs that may be unreadable, incomplete or doubled; they are named and skipped.
        cache: where decoded pictures are kept that do not fit into memory.
        encoding: of files of text without a byte order mark.

    Raises:
        PolysenseError: if the source is none of these, a column cannot be told, or too many pairs are bad.
    """
    found = _find(source, parts, columns or {}, encoding)
    if label is not None and label not in found.table.columns:
        raise unknown("column", label, map(str, found.table.columns))
    found.label = label or found.label
    return _join(found, parts, max_bad, cache)


def _join(found: Found, parts: Mapping[str, Modality], max_bad: float, cache: Path | None) -> Pairs:
    count, bad = len(found.table), list(found.bad)
    datasets: dict[str, Dataset] = {}
    owners: dict[str, Any] = {}
    held = np.zeros(count, np.int64)
    for part, modality in parts.items():
        datasets[part] = modality.read(_cells(found, part), column=CONTENT, max_bad=1.0, cache=cache)
        owners[part] = datasets[part].table[SAMPLE].to_numpy(np.int64)
        held += np.bincount(owners[part], minlength=count) > 0
    kept, names = held >= 2, found.table["name"].tolist()
    for part, cells in found.cells.items():
        bad += [(names[i], f"has no {part}") for i in np.flatnonzero(~kept) if not cells[i]]
    tell_bad(bad, found.total, "pairs")  # of what they cannot read the parts tell
    bad += [one for dataset in datasets.values() for one in getattr(dataset, "bad", ())]
    check_bad(bad, found.total, max_bad, "pairs")
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    members = {part: Members.of(number[owners[part]], int(kept.sum())) for part in parts}
    table = found.table[kept].reset_index(drop=True)
    for part in parts:
        first = [
            cells[0] if cells else None for cells, keep in zip(found.cells[part], kept, strict=True) if keep
        ]
        if parts[part].name == "text":
            table[part] = first
            if found.identity is None and table[part].duplicated().any():
                found.identity = part  # equal captions are not held against each other
    return Pairs(datasets, members, table, found.label, found.identity, found.evaluation, bad)


def _cells(found: Found, part: str) -> pd.DataFrame:
    """All cells of one part, each with the sample it belongs to."""
    rows = [(sample, cell) for sample, cells in enumerate(found.cells[part]) for cell in cells]
    if not rows:
        raise PolysenseError(
            f"none of the {len(found.table)} samples has the part {part!r}; give data that do"
        )
    names = found.table["name"]
    content = pd.Series([cell for _, cell in rows], dtype=object)
    return pd.DataFrame(
        {
            "name": unique(names.iloc[sample] for sample, _ in rows),
            SAMPLE: [sample for sample, _ in rows],
            CONTENT: content,
        }
    )


def _find(source: Any, parts: Mapping[str, Modality], columns: Mapping[str, Any], encoding: str) -> Found:
    if isinstance(source, str | Path):
        return _from_name(str(source), parts, columns, encoding)
    if isinstance(source, pd.DataFrame):
        return from_frame(source, "the DataFrame", parts, columns)
    if isinstance(source, list | tuple) and all(isinstance(one, str | Path) for one in source):
        return _from_shards(map(str, source), parts, columns)
    if is_hugging_face(source):
        return _from_hugging_face(Loaded.of(source, "the data set"), parts, columns)
    raise PolysenseError(f"cannot read pairs from a {type(source).__name__}; give {ACCEPTED}")


def _from_name(name: str, parts: Mapping[str, Modality], columns: Mapping[str, Any], encoding: str) -> Found:
    """A path if there is one of that name, else what the name looks like."""
    path, loaded = Path(name).expanduser(), named_dataset(name)
    if loaded is not None:
        return _from_hugging_face(loaded, parts, columns)
    if name.endswith(".tar"):
        return _from_shards([name], parts, columns)
    if path.is_dir():
        shards = files_in(path, lambda file: file.endswith(".tar"))
        if shards:
            return _from_shards(map(str, shards), parts, columns)
        return _from_folder(path, parts, columns, encoding)
    if path.is_file() and path.name.lower().endswith(TABLE_SUFFIXES):
        rows = read_table(path, encoding)
        found = from_frame(rows.frame, str(path), parts, columns, path.resolve().parent)
        found.bad, found.total = [*rows.bad, *found.bad], found.total + len(rows.bad)
        return found
    if name.startswith(PREFIX):
        return _from_builtin(name, parts, columns)
    if not os.path.exists(path):
        raise no_such_path(path)
    raise PolysenseError(f"{path} holds no pairs; give {ACCEPTED}")


def _from_builtin(name: str, parts: Mapping[str, Modality], columns: Mapping[str, Any]) -> Found:
    """A picture has two captions: its name, and its name with what comes to mind."""
    about, frame = describe(name), builtin(name)
    if not {"image", "name", "keywords"} <= set(frame.columns):
        raise PolysenseError(f"{name} holds no pairs; give builtin:emoji")
    described = [
        f"{name}: {', '.join(more)}" for name, more in zip(frame["name"], frame["keywords"], strict=True)
    ]
    frame["caption"] = list(map(list, zip(frame["name"], described, strict=True)))
    columns = {"image": "image", "text": "caption", **columns}
    found = from_frame(frame, name, parts, {part: columns[part] for part in parts if part in columns})
    found.label, found.identity, found.evaluation = about.label, about.identity, about.evaluation
    return found


def _from_hugging_face(loaded: Loaded, parts: Mapping[str, Modality], columns: Mapping[str, Any]) -> Found:
    frame, label = loaded.table()
    for column, kind in loaded.dataset.features.items():
        if type(kind).__name__ in ("Image", "Audio"):
            encoded = loaded.dataset.select_columns(column).cast_column(column, type(kind)(decode=False))
            frame[column] = pd.Series([row[column] for row in encoded], dtype=object)
    found = from_frame(frame, loaded.place, parts, columns)
    found.label = label
    return found


def _from_folder(
    folder: Path, parts: Mapping[str, Modality], columns: Mapping[str, Any], encoding: str
) -> Found:
    part_of = by_extension(parts, columns)
    samples: dict[str, dict[str, Any]] = defaultdict(dict)
    for path in files_in(folder, lambda name: part_of(name.rpartition(".")[2]) is not None):
        part = part_of(path.suffix[1:])
        assert part is not None
        name = path.relative_to(folder).with_suffix("").as_posix()
        samples[name][part] = _text(path, encoding) if parts[part].name == "text" else path
    return from_samples(samples, parts, f"{folder}")


def _text(path: Path, encoding: str) -> str | ValueError:
    try:
        return read_text(path, encoding).strip()
    except ValueError as error:
        return error


def _from_shards(patterns: Iterable[str], parts: Mapping[str, Modality], columns: Mapping[str, Any]) -> Found:
    part_of = by_extension(parts, columns)
    samples: dict[str, dict[str, Any]] = defaultdict(dict)
    paths = [path for pattern in patterns for path in shard_paths(pattern)]
    for path in paths:
        for name, extension, piece in shard_files(path):
            part = part_of(extension)
            if part is not None:
                samples[f"{path.name}/{name}"][part] = _content(piece, parts[part])
    logger.info("%s samples in %d shards", f"{len(samples):,}", len(paths))
    return from_samples(samples, parts, ", ".join(map(str, paths[:3])))


def _content(piece: Slice, modality: Modality) -> Any:
    if modality.name == "text":
        return piece.read_bytes().decode("utf-8", "surrogateescape").strip()
    return piece
