"""Pairs as a data set: the parts' modalities read what was found, and what belongs together is joined."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polysense.errors import PolysenseError, unknown
from polysense.modalities.bad import check_bad, tell_bad
from polysense.modalities.base import Dataset, Modality
from polysense.modalities.files import unique
from polysense.modalities.pairs.dataset import LANGUAGE, Members, Pairs
from polysense.modalities.pairs.finding import find_pairs
from polysense.modalities.pairs.found import Found

CONTENT, SAMPLE = "content", "sample"
"""The columns in which the parts' modalities find their cells, and in which they keep whose these are."""


def read_pairs(
    source: Any,
    parts: Mapping[str, Modality],
    *,
    columns: Mapping[str, Any] | None = None,
    label: str | None = None,
    language: str | None = None,
    max_bad: float = 0.01,
    cache: Path | None = None,
    encoding: str = "utf-8",
) -> Pairs:
    """Find samples with several parts, let each part's modality read its own, and join them.

    A sample needs at least two of its parts. Rows with the same first part (one picture, several captions)
    become one sample; so do several columns and lists of captions; one is drawn at each visit.

    Args:
        source: a CSV, TSV, Parquet or JSONL file, whose paths are relative to the folder it lies in; a
            DataFrame; a folder of ``name.jpg`` with ``name.txt`` or ``name.json``; tar shards, as a path, a
            glob, a list or ``shard-{000..003}.tar``; tar shards one behind the other in a binary stream, or
            ``-`` for the standard input; a Hugging Face data set, a folder it was saved to, or
            ``hf:owner/name:split``; ``builtin:emoji``, ``builtin:speech``.
        parts: the modality of each part.
        columns: the column of each part, or several of them; of folders and shards the extension, or the
            field of the JSON files. Where it is not given it is guessed, and the guess told.
        label: the column that holds the class, where it is not the usual one.
        language: the column that holds the language of captions, where it is not ``language`` or ``lang``.
        max_bad: the share of pairs that may be unreadable, incomplete or doubled; they are named and skipped.
        cache: where decoded pictures are kept that do not fit into memory.
        encoding: of files of text without a byte order mark.

    Raises:
        PolysenseError: if the source is none of these, a column cannot be told, or too many pairs are bad.
    """
    found = find_pairs(source, parts, columns=columns, language=language, encoding=encoding)
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
    unread = [one for dataset in datasets.values() for one in getattr(dataset, "bad", ())]
    check_bad([*bad, *unread], found.total, max_bad, "pairs")
    tell_bad(bad, found.total, "pairs")  # of what they cannot read the parts tell
    bad += unread
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
    cells = {
        "name": unique(names.iloc[sample] for sample, _ in rows),
        SAMPLE: [sample for sample, _ in rows],
        CONTENT: content,
    }
    if part in found.languages:
        cells[LANGUAGE] = [one for texts in found.languages[part] for one in texts]
    return pd.DataFrame(cells)
