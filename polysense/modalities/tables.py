"""Rows from wherever they are kept: CSV, TSV, Parquet and JSONL files, Hugging Face data sets."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from polysense.errors import PolysenseError, require, unknown
from polysense.modalities.bad import Bad
from polysense.modalities.builtin import PREFIX
from polysense.modalities.files import is_broken, read_text

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")

_ONE_COLUMN = "\x1f"
"""The delimiter of a file without one: no text holds it."""
_DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 50
"""Rows from which the delimiter is told."""


@dataclass(frozen=True)
class Rows:
    """The rows of a table file, and name and reason of each that could not be read."""

    frame: pd.DataFrame
    bad: Bad = field(default_factory=list)


def read_table(path: Path, encoding: str = "utf-8") -> Rows:
    """Read a CSV, TSV, Parquet or JSONL file.

    The delimiter of a CSV file is found in it. Rows with too many or too few fields, or with bytes that
    are not of the encoding, are told and left out.

    Raises:
        PolysenseError: for a file that is no such table.
    """
    limit = csv.field_size_limit(2**31 - 1)  # a cell may hold a book
    try:
        match path.suffix.lower():
            case ".parquet":
                return Rows(pd.read_parquet(path))
            case ".jsonl":
                return _from_json_lines(read_text(path, encoding))
            case suffix:
                text = read_text(path, encoding)
                return _from_csv(text, "\t" if suffix == ".tsv" else _delimiter(text), encoding)
    except (ValueError, OSError, csv.Error) as error:
        raise PolysenseError(f"cannot read {path} as a table: {str(error).splitlines()[0]}") from error
    finally:
        csv.field_size_limit(limit)


def read_whole_table(path: Path) -> pd.DataFrame:
    """As :func:`read_table`, where no row may be left out.

    Raises:
        PolysenseError: for a file that is no such table, or the first row that cannot be read.
    """
    rows = read_table(path)
    if rows.bad:
        row, reason = rows.bad[0]
        raise PolysenseError(f"cannot read {path} as a table: {row} {reason}; mend it")
    return rows.frame


def _from_csv(text: str, delimiter: str, encoding: str) -> Rows:
    records = list(_records(text, delimiter))
    if not records:
        raise ValueError("it is empty")
    header = records[0][1]
    for at, name in enumerate(header):
        if name and name in header[:at]:  # which pandas would rename without a word
            raise ValueError(f"it has the column {name!r} twice; rename one of them")
    width = len(header)
    good, bad, broken = io.StringIO(newline=""), [], is_broken(text)
    writer = csv.writer(good)
    for lines, fields in records:
        if len(fields) != width:
            bad.append((lines, f"has {len(fields)} fields where the header has {width}"))
        elif broken and any(map(is_broken, fields)):
            bad.append((lines, f"is not {encoding}"))
        else:
            writer.writerow(fields)
    good.seek(0)
    return Rows(pd.read_csv(good), bad)


def _records(text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV file that are not blank, and the lines on which each lies."""
    source = text.split("\n")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    first = last = 1
    for fields in reader:
        first, last = last, reader.line_num + 1
        if fields:
            yield f"line {first}" if last - first < 2 else f"lines {first} to {last - 1}", fields
    _check_closed(source[first - 1 :], delimiter, first)


def _check_closed(source: list[str], delimiter: str, first: int) -> None:
    """Refuse a last row whose quote is still open: it has swallowed the rows behind it."""
    try:
        list(csv.reader(io.StringIO("\n".join(source), newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise ValueError(f"a quote that is opened in line {first} is never closed") from error


def _delimiter(text: str) -> str:
    """The one that cuts the header into the most columns and most of the first rows into as many."""
    found, most = _ONE_COLUMN, 1
    head = "\n".join(text.split("\n", _LOOKED_AT)[:_LOOKED_AT])
    for delimiter in _DELIMITERS:
        widths = [len(fields) for fields in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)]
        widths = [width for width in widths if width]
        if widths and widths[0] > most and widths.count(widths[0]) > len(widths) / 2:
            found, most = delimiter, widths[0]
    return found


def _from_json_lines(text: str) -> Rows:
    records, bad = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = None if is_broken(line) else json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            bad.append((f"line {number}", "is no JSON object"))
    if not records:
        raise ValueError("no line of it is a JSON object")
    return Rows(pd.DataFrame(records), bad)


def media_column(
    frame: pd.DataFrame, place: str, column: str | None, fits: Callable[[Any], bool], samples: str
) -> str:
    """The column that holds the samples: the one named, or the only one with cells that fit.

    Raises:
        PolysenseError: when there is no such column, or several fit.
    """
    if column is not None:
        if column not in frame.columns:
            raise unknown("column", column, map(str, frame.columns))
        return column
    columns = [str(name) for name in frame.columns if any(map(fits, frame[name].dropna().head(50)))]
    if len(columns) == 1:
        return columns[0]
    names = ", ".join(map(str, columns or frame.columns))
    found = f"more than one column with {samples}" if columns else f"no column with {samples} or their paths"
    raise PolysenseError(f"{place} has {found} ({names}): name it with --column")


def path_of(cell: Any) -> str | None:
    """The path that a cell is, or tells beside its bytes; None where there is none."""
    if isinstance(cell, Mapping):
        cell = cell.get("path")
    return str(cell) if isinstance(cell, str | Path) else None


# --- Hugging Face


@dataclass(frozen=True)
class Loaded:
    """A Hugging Face data set and, in words that stay the same from run to run, where it is from."""

    dataset: Any
    place: str

    @classmethod
    def of(cls, dataset: Any, place: str) -> Loaded:
        """The only split of what was loaded.

        Raises:
            PolysenseError: when there are several, or the data are streamed.
        """
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
                f"{place} is streamed, and samples are read once: load it with streaming=False"
            )
        return cls(dataset.with_format(None), place)

    def table(self) -> tuple[pd.DataFrame, str | None]:
        """Every column but pictures, sounds and films, numbers of classes as their names; and the label."""
        features = self.dataset.features
        media = [n for n, kind in features.items() if type(kind).__name__ in ("Image", "Audio", "Video")]
        table = self.dataset.remove_columns(media).to_pandas().reindex(range(len(self.dataset)))
        classes = [name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"]
        for name in classes:
            table[name] = table[name].map(dict(enumerate(features[name].names)))
        return table, classes[0] if len(classes) == 1 else usual_label(table)


def is_hugging_face(source: Any) -> bool:
    """Whether this is a data set of the ``datasets`` library, which is not imported to find out."""
    library = sys.modules.get("datasets")
    kinds = ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict")
    return library is not None and isinstance(source, tuple(getattr(library, kind) for kind in kinds))


def named_dataset(text: str) -> Loaded | None:
    """The Hugging Face data set that a text names; None where it means a path or a built-in data set.

    ``owner/name:split`` or ``hf:owner/name:split`` on the Hub, or a folder written by ``save_to_disk``,
    with ``:split`` behind it where it has several. What exists as a path is read as one.
    """
    path = Path(text).expanduser()
    if os.path.isdir(path):
        saved = any((path / name).exists() for name in ("dataset_dict.json", "state.json"))
        return _from_saved(path, None) if saved else None
    if os.path.exists(path) or text.startswith(PREFIX):
        return None
    name, _, split = text.removeprefix("hf:").partition(":")
    if split and os.path.isdir(name):
        return _from_saved(Path(name), split)
    bare = (
        re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not os.path.exists(Path(name).parent) and not path.suffix
    )
    return _from_hub(name, split or None) if bare or text.startswith("hf:") else None


def _from_hub(name: str, split: str | None) -> Loaded:
    library = require("datasets", "hf", f"reading {name!r} (not a path here) from the Hugging Face Hub")
    try:
        loaded = library.load_dataset(name, split=split)
    except Exception as error:  # the library's errors have no common base
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise PolysenseError(
            f"cannot load {name!r} (not a path here) from the Hugging Face Hub: {told}"
        ) from error
    return Loaded.of(loaded, f"hf:{name}:{split or ''}")


def _from_saved(folder: Path, split: str | None) -> Loaded:
    library = require("datasets", "hf", f"reading {folder}, saved by the datasets library,")
    loaded = library.load_from_disk(str(folder))
    if split is not None and isinstance(loaded, dict):
        if split not in loaded:
            raise unknown("split", split, loaded)
        loaded = loaded[split]
    return Loaded.of(loaded, f"{folder.resolve()}:{split or ''}")


def usual_label(table: pd.DataFrame) -> str | None:
    """The column ``label``, if there is one."""
    return "label" if "label" in table.columns else None
