"""Samples that were found and not yet read: what each has of each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from polysense.errors import PolysenseError
from polysense.modalities.base import Modality
from polysense.modalities.files import unique
from polysense.modalities.pairs.columns import cells_of, choose_columns
from polysense.modalities.tables import usual_label
from polysense.modalities.vision.decode import named_as_picture

_TEXT_SUFFIXES = ("txt", "text", "caption")


@dataclass
class Found:
    """Samples that were found and not yet read.

    ``cells``: what each sample has of each part. ``table``: one row per sample, with ``name``. ``total``:
    how many pairs there were, with those in ``bad``, name and reason of each that is none.
    """

    cells: Mapping[str, list[list[Any]]]
    table: pd.DataFrame
    total: int
    bad: list[tuple[str, str]] = field(default_factory=list)
    label: str | None = None
    identity: str | None = None
    evaluation: Mapping[str, Any] | None = None


def from_frame(
    frame: pd.DataFrame,
    place: str,
    parts: Mapping[str, Modality],
    columns: Mapping[str, Any],
    folder: Path = Path(),
) -> Found:
    """A pair in each row; rows with the same first part are one sample, with the first one's other columns.

    Paths are relative to ``folder``; for ``columns`` see :func:`.choose_columns`.
    """
    if frame.empty:
        raise PolysenseError(f"{place} has no rows")
    chosen = choose_columns(frame, parts, columns, place)
    samples: dict[Any, int] = {}
    cells: dict[str, list[list[Any]]] = {part: [] for part in parts}
    firsts: list[int] = []
    bad = []
    lists = {name: frame[name].tolist() for names in chosen.values() for name in names}
    for row in range(len(frame)):
        own = {
            part: [
                _resolved(cell, modality, folder)
                for name in chosen[part]
                for cell in cells_of(lists[name][row])
            ]
            for part, modality in parts.items()
        }
        key = _key(own, next(iter(parts)), row)
        sample = samples.setdefault(key, len(firsts))
        if sample == len(firsts):
            firsts.append(row)
            for part in parts:
                cells[part].append(own[part])
        elif not _add({part: cells[part][sample] for part in parts}, own):
            bad.append((f"row {row}", f"is the same pair as row {firsts[sample]}"))
    table = frame.drop(columns=[name for names in chosen.values() for name in names]).iloc[firsts]
    table = table.rename(columns={"name": "given_name"}).reset_index(drop=True)
    names = [_name(own, row) for own, row in zip(cells[next(iter(parts))], firsts, strict=True)]
    table.insert(0, "name", unique(names))
    return Found(cells, table, len(frame), bad, usual_label(table))


def _add(known: Mapping[str, list[Any]], own: Mapping[str, list[Any]]) -> bool:
    """Add to a sample what it does not have yet; False if there is nothing."""
    new = {
        part: [cell for cell in cells if _told_by(cell) not in map(_told_by, known[part])]
        for part, cells in own.items()
    }
    for part, cells in new.items():
        known[part] += cells
    return any(new.values())


def _resolved(cell: Any, modality: Modality, folder: Path) -> Any:
    """Paths are relative to the folder; of all parts only texts are strings that are no paths."""
    if modality.name == "text":
        return cell
    if isinstance(cell, Mapping) and cell.get("bytes") is None and cell.get("path") is not None:
        cell = cell["path"]
    return folder / cell if isinstance(cell, str) else cell


def _key(own: Mapping[str, list[Any]], first: str, row: int) -> Any:
    """Rows of one sample have the same: the path or text of the first part, or else all their content."""
    told = [_told_by(cell) for cells in own.values() for cell in cells]
    head = told[0] if own[first] else None
    if isinstance(head, str | Path):
        return head
    return row if None in told else tuple(told)


def _told_by(cell: Any) -> Any:
    """By what content is known again, None where it cannot be."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes")
    return cell if isinstance(cell, str | Path | bytes) else None


def _name(cells: list[Any], row: int) -> str:
    return str(cells[0]) if cells and isinstance(cells[0], str | Path) else f"row {row}"


def by_extension(parts: Mapping[str, Modality], columns: Mapping[str, Any]) -> Callable[[str], str | None]:
    """Which part a file holds, by its extension: pictures, ``.txt``, or what ``columns`` says."""

    def part_of(extension: str) -> str | None:
        extension = extension.lower()
        for part, modality in parts.items():
            if part in columns:
                fits = extension == str(columns[part]).removeprefix(".").lower()
            elif modality.name == "image":
                fits = named_as_picture(f".{extension}")
            else:
                fits = extension in (_TEXT_SUFFIXES if modality.name == "text" else (part,))
            if fits:
                return part
        return None

    return part_of


def from_samples(
    samples: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Modality], place: str
) -> Found:
    if not samples:
        raise PolysenseError(
            f"no file of the parts {', '.join(parts)} in {place}; expected name.jpg with name.txt, or other"
            " extensions as columns={part: extension}"
        )
    cells: dict[str, list[list[Any]]] = {
        part: [[own[part]] if part in own else [] for own in samples.values()] for part in parts
    }
    return Found(cells, pd.DataFrame({"name": unique(samples)}), len(samples))
