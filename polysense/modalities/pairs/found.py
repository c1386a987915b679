"""Samples that were found and not yet read: what each has of each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from polysense.errors import PolysenseError
from polysense.modalities.base import Modality
from polysense.modalities.files import unique
from polysense.modalities.pairs.columns import cells_of, choose_columns, choose_language
from polysense.modalities.tables import usual_label

Cells = dict[str, list[list[Any]]]
"""What each sample has of each part."""


@dataclass
class Found:
    """Samples that were found and not yet read.

    ``cells``: what each sample has of each part. ``table``: one row per sample, with ``name``. ``total``:
    how many pairs there were, with those in ``bad``, name and reason of each that is none. ``language``:
    the column that tells the language of texts, and ``languages`` that of each, beside ``cells``.
    """

    cells: Cells
    table: pd.DataFrame
    total: int
    bad: list[tuple[str, str]] = field(default_factory=list)
    label: str | None = None
    identity: str | None = None
    evaluation: Mapping[str, Any] | None = None
    language: Any = None
    languages: Cells = field(default_factory=dict)


def from_frame(
    frame: pd.DataFrame,
    place: str,
    parts: Mapping[str, Modality],
    columns: Mapping[str, Any],
    language: str | None = None,
    folder: Path = Path(),
) -> Found:
    """A pair in each row; rows with the same first part are one sample, with the first one's other columns.

    Paths are relative to ``folder``; for ``columns`` and ``language`` see :mod:`.columns`.
    """
    if frame.empty:
        raise PolysenseError(f"{place} has no rows")
    chosen = choose_columns(frame, parts, columns, place)
    taken = [name for names in chosen.values() for name in names]
    table = frame.drop(columns=taken)
    reads = any(modality.name == "text" for modality in parts.values())
    told = choose_language(table.columns, language, place) if reads else None
    gathered = _Gathered(parts)
    for own in _cells_of_rows(frame, chosen, parts, folder):
        gathered.add(own)
    table = table.iloc[gathered.firsts].rename(columns={"name": "given_name"}).reset_index(drop=True)
    first = gathered.cells[next(iter(parts))]
    names = [_name(own, row) for own, row in zip(first, gathered.firsts, strict=True)]
    table.insert(0, "name", unique(names))
    spoken = {} if told is None else gathered.beside_texts(frame[told].tolist())
    found = Found(gathered.cells, table, len(frame), gathered.bad, usual_label(table))
    found.language, found.languages = told, spoken
    return found


class _Gathered:
    """Rows brought together to samples.

    ``origins``: beside ``cells``, the row that each is from. ``firsts``: each sample's first row. ``bad``:
    the rows that hold nothing new.
    """

    def __init__(self, parts: Mapping[str, Modality]) -> None:
        self.parts = parts
        self.cells: Cells = {part: [] for part in parts}
        self.origins: dict[str, list[list[int]]] = {part: [] for part in parts}
        self.firsts: list[int] = []
        self.bad: list[tuple[str, str]] = []
        self._samples: dict[Any, int] = {}
        self._rows = 0

    def add(self, own: Mapping[str, list[Any]]) -> None:
        """The next row: a new sample, or more of one that is known."""
        row, self._rows = self._rows, self._rows + 1
        sample = self._samples.setdefault(_key(own, next(iter(self.parts)), row), len(self.firsts))
        if sample == len(self.firsts):
            self.firsts.append(row)
            for part, cells in own.items():
                self.cells[part].append(cells)
                self.origins[part].append([row] * len(cells))
            return
        added = 0
        for part, cells in own.items():
            known = set(map(_told_by, self.cells[part][sample]))
            new = [cell for cell in cells if _told_by(cell) not in known]
            self.cells[part][sample] += new
            self.origins[part][sample] += [row] * len(new)
            added += len(new)
        if not added:
            self.bad.append((f"row {row}", f"is the same pair as row {self.firsts[sample]}"))

    def beside_texts(self, values: list[Any]) -> Cells:
        """For each text the value of its row."""
        return {
            part: [[values[row] for row in rows] for rows in self.origins[part]]
            for part, modality in self.parts.items()
            if modality.name == "text"
        }


def _cells_of_rows(
    frame: pd.DataFrame, chosen: Mapping[str, list[Any]], parts: Mapping[str, Modality], folder: Path
) -> Iterator[dict[str, list[Any]]]:
    """What each row has of each part."""
    lists = {name: frame[name].tolist() for names in chosen.values() for name in names}
    for row in range(len(frame)):
        yield {
            part: [
                _resolved(cell, modality, folder)
                for name in chosen[part]
                for cell in cells_of(lists[name][row])
            ]
            for part, modality in parts.items()
        }


def _resolved(cell: Any, modality: Modality, folder: Path) -> Any:
    """Paths are relative to the folder; of all parts only texts are strings that are no paths."""
    if modality.name == "text":
        return cell
    if isinstance(cell, Mapping) and cell.get("bytes") is None and cell.get("path") is not None:
        cell = cell["path"]
    return folder / cell if isinstance(cell, str) else cell


def _key(own: Mapping[str, list[Any]], first: str, row: int) -> Any:
    """Rows of one sample have the same: the path or text of the first part, or else all their content."""
    head = own[first][0] if own[first] else None
    if isinstance(head, str | Path):
        return head
    if isinstance(head, Mapping) and head.get("path") is not None:
        return head["path"], head["bytes"]
    told = [_told_by(cell) for cells in own.values() for cell in cells]
    return row if None in told else tuple(told)


def _told_by(cell: Any) -> Any:
    """By what content is known again, None where it cannot be."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes")
    return cell if isinstance(cell, str | Path | bytes) else None


def _name(cells: list[Any], row: int) -> str:
    return str(cells[0]) if cells and isinstance(cells[0], str | Path) else f"row {row}"
