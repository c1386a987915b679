"""Where texts come from: every kind of source becomes :class:`~.store.Texts`."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polysense.errors import PolysenseError, unknown
from polysense.modalities.bad import Bad, check_bad, tell_bad
from polysense.modalities.builtin import PREFIX, builtin, describe, describe_for
from polysense.modalities.files import files_in, folder_table, is_broken, no_such_path, read_text, unique
from polysense.modalities.tables import (
    TABLE_SUFFIXES,
    Loaded,
    is_hugging_face,
    named_dataset,
    read_table,
    usual_label,
)
from polysense.modalities.text.store import Texts

logger = logging.getLogger(__name__)

ACCEPTED = (
    "a list of texts, a text file or a folder of them, a glob, a CSV, TSV, Parquet or JSONL file, a "
    "DataFrame, a Hugging Face data set or builtin:glosses"
)

USUAL_COLUMNS = (
    "text",
    "texts",
    "sentence",
    "caption",
    "definition",
    "content",
    "document",
    "body",
    "review",
)
"""What a column of texts is usually called."""

_SUFFIXES = (".txt", ".md")


@dataclass
class Listing:
    """Texts that were found and not yet looked at, one for each row of ``table``, and what went wrong."""

    texts: Sequence[Any]
    table: pd.DataFrame
    label: str | None = None
    bad: Bad = field(default_factory=list)


def read_texts(
    source: Any,
    *,
    label: str | None = None,
    column: str | None = None,
    max_bad: float = 0.01,
    cache: Path | None = None,
    encoding: str = "utf-8",
    longest: int = 100_000,
) -> Texts:
    """Find texts, and keep them in memory.

    Args:
        source: a list of texts; a ``.txt`` file, each line a text; a folder of such files, each file a text
            (its subfolders, where there are several, become the column ``label``); a glob of them; a CSV,
            TSV, Parquet or JSONL file or a DataFrame with a column of texts; a Hugging Face data set, a
            folder it was saved to, or ``hf:owner/name:split``; ``builtin:glosses``.
        label: the column that holds the class, where it is not the usual one.
        column: the column that holds the texts; where it is not given it is guessed, and the guess told.
        max_bad: the share of texts that may be unreadable or empty; they are named in a warning and skipped.
        cache: not needed, for texts stay in memory.
        encoding: of files without a byte order mark.
        longest: characters; longer texts are taken for something else, and skipped.

    Raises:
        PolysenseError: if the source is none of these, holds no texts, or too many are unreadable.

    >>> texts = read_texts(["a red apple", "a pear", ""], max_bad=0.5)
    >>> list(texts.texts), texts.bad
    (['a red apple', 'a pear'], [('text 2', 'is empty')])
    """
    listing = _find(source, column, encoding)
    if label is not None and label not in listing.table.columns:
        raise unknown("column", label, map(str, listing.table.columns))
    reasons = [_reason(text, encoding, longest) for text in listing.texts]
    rows = np.array([row for row, reason in enumerate(reasons) if reason is None], dtype=np.int64)
    names = listing.table["name"]
    bad = [*listing.bad, *((str(names.iloc[row]), why) for row, why in enumerate(reasons) if why is not None)]
    total = len(reasons) + len(listing.bad)
    check_bad(bad, total, max_bad, "texts")
    tell_bad(bad, total, "texts")
    texts, table = [listing.texts[row] for row in rows], listing.table.iloc[rows].reset_index(drop=True)
    about = describe(source) if isinstance(source, str) and source.startswith(PREFIX) else None
    return Texts(
        texts,
        table,
        label or (about.label if about else listing.label),
        about.identity if about else None,
        about.evaluation if about else None,
        bad,
    )


def _reason(text: Any, encoding: str, longest: int) -> str | None:
    """Why this is no text to learn from."""
    if isinstance(text, ValueError):
        return str(text)
    if not isinstance(text, str):
        missing = pd.api.types.is_scalar(text) and pd.isna(text)
        return "is missing" if missing else f"is no text but a {type(text).__name__}"
    if not text.strip():
        return "is empty"
    if len(text) > longest:
        return f"has {len(text):,} characters, more than longest={longest:,}"
    return f"is not {encoding}" if is_broken(text) else None


def _find(source: Any, column: str | None, encoding: str) -> Listing:
    match source:
        case str() | Path():
            return _from_name(str(source), column, encoding)
        case pd.DataFrame():
            return _from_frame(source, "the DataFrame", column)
        case list() | tuple() | pd.Series() | np.ndarray():
            return _from_list(list(source))
    if is_hugging_face(source):
        return _from_hugging_face(Loaded.of(source, "the data set"), column)
    raise PolysenseError(f"cannot read texts from a {type(source).__name__}; give {ACCEPTED}")


def _from_name(name: str, column: str | None, encoding: str) -> Listing:
    """A path if there is one of that name, else what the name looks like."""
    path, loaded = Path(name).expanduser(), named_dataset(name)
    if loaded is not None:
        return _from_hugging_face(loaded, column)
    if os.path.isdir(path):
        found = files_in(path, _named_as_text)
        if not found:
            raise PolysenseError(f"no text in {path}; looked for files ending in {', '.join(_SUFFIXES)}")
        table = folder_table(path, found)
        return Listing(_contents(found, encoding), table, usual_label(table))
    if os.path.exists(path):
        return _from_file(path, column, encoding)
    if name.startswith(PREFIX):
        return _from_builtin(name, column)
    if glob.has_magic(name):
        found = [Path(one) for one in sorted(glob.glob(str(path), recursive=True)) if _named_as_text(one)]
        if not found:
            raise PolysenseError(f"no text file matches {name}")
        return Listing(_contents(found, encoding), pd.DataFrame({"name": unique(map(str, found))}))
    raise no_such_path(path)


def _named_as_text(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def _contents(paths: Sequence[Path], encoding: str) -> list[str | ValueError]:
    """What each file holds, or why it is no text."""

    def content(path: Path) -> str | ValueError:
        try:
            return read_text(path, encoding)
        except ValueError as error:
            return error

    return [content(path) for path in paths]


def _from_file(path: Path, column: str | None, encoding: str) -> Listing:
    """A table, or a text file of which each line is a text; blank lines only part them."""
    if path.name.lower().endswith(TABLE_SUFFIXES):
        rows = read_table(path, encoding)
        listing = _from_frame(rows.frame, str(path), column)
        listing.bad = rows.bad
        return listing
    try:
        lines = read_text(path, encoding).split("\n")
    except ValueError as error:
        raise PolysenseError(f"{path} {error}; give {ACCEPTED}") from error
    texts = {number: line for number, line in enumerate(lines, start=1) if line.strip()}
    if not texts:
        raise PolysenseError(f"{path} is empty; give a file with a text in each line")
    return Listing(list(texts.values()), pd.DataFrame({"name": [f"line {number}" for number in texts]}))


def _from_builtin(name: str, column: str | None) -> Listing:
    describe_for("text", name, "texts")
    return _from_frame(builtin(name), name, column)


def _from_hugging_face(loaded: Loaded, column: str | None) -> Listing:
    table, label = loaded.table()
    listing = _from_frame(table, loaded.place, column)
    listing.label = label if label in listing.table.columns else None
    return listing


def _from_list(items: Sequence[Any]) -> Listing:
    if not items:
        raise PolysenseError("the list of texts is empty")
    return Listing(items, pd.DataFrame({"name": [f"text {i}" for i in range(len(items))]}))


def _from_frame(frame: pd.DataFrame, place: str, column: str | None) -> Listing:
    """One text per row; the other columns go into the table."""
    if frame.empty:
        raise PolysenseError(f"{place} has no rows")
    column = _guess(frame, place) if column is None else column
    if column not in frame.columns:
        raise unknown("column", column, map(str, frame.columns))
    table = frame.drop(columns=column).reset_index(drop=True)
    if "name" in table.columns:
        table["name"] = unique(table["name"].astype(str))
    else:
        table.insert(0, "name", [f"row {row}" for row in range(len(table))])
    return Listing(frame[column].tolist(), table, usual_label(table))


def _guess(frame: pd.DataFrame, place: str) -> Any:
    """The column of texts: by its name, or because it is the only one, or has by far the longest texts."""
    lengths = dict(_text_lengths(frame))
    named = [name for usual in USUAL_COLUMNS for name in lengths if str(name).lower() == usual]
    longest = sorted(lengths, key=lengths.__getitem__, reverse=True)
    if named:
        column, why = named[0], "that is a usual name"
    elif len(lengths) == 1:
        column, why = longest[0], "no other holds texts"
    elif lengths and lengths[longest[0]] > 2 * lengths[longest[1]]:
        column, why = (
            longest[0],
            f"its texts are the longest, {lengths[longest[0]]:.0f} characters on average",
        )
    else:
        columns = ", ".join(map(str, frame.columns))
        raise PolysenseError(
            f"{place} does not tell which column holds the texts ({columns}): name it with --column"
        )
    logger.info("texts are read from the column %r: %s", column, why)
    return column


def _text_lengths(frame: pd.DataFrame) -> Iterator[tuple[Any, float]]:
    """The columns that hold texts, and how long these are on average, by the first rows."""
    for name in frame.columns:
        cells = frame[name].dropna().head(1000)
        if len(cells) and all(isinstance(cell, str) for cell in cells):
            yield name, float(cells.str.len().mean())
