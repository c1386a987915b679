"""Where sounds come from: every kind of source becomes a :class:`~.store.Listing`, then samples."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from polysense.errors import PolysenseError, unknown
from polysense.modalities.audio.decode import SUFFIXES, Clip, named_as_sound
from polysense.modalities.audio.store import Listing, Sounds, decode_all
from polysense.modalities.bad import tell_bad
from polysense.modalities.builtin import PREFIX, builtin, describe_for
from polysense.modalities.files import files_in, folder_table, no_such_path, unique
from polysense.modalities.tables import (
    TABLE_SUFFIXES,
    Loaded,
    is_hugging_face,
    media_column,
    named_dataset,
    path_of,
    read_table,
    usual_label,
)

ACCEPTED = (
    "a folder, a list of files, a glob, a CSV or Parquet file, a DataFrame, (samples, rate) or a list of"
    " these, a Hugging Face data set, or builtin:speech"
)


def read_sounds(
    source: Any,
    *,
    rate: int | None = None,
    label: str | None = None,
    column: str | None = None,
    max_bad: float = 0.01,
    cache: str | Path | None = None,
    window: float = 10.0,
) -> Sounds:
    """Find sounds, decode each once, resample and mix them down, and keep them in 16 bits.

    Sounds longer than ``window`` are cut into equal parts of at most that, which are samples of their own.
    Those that are empty, silent, clipped (a tenth of the samples at full scale), not finite, or shorter
    than their header says are skipped and named.

    Args:
        source: a folder (its subfolders, where there are several, become the column ``label``); a list of
            files, folders, or samples with their rate; a glob; a CSV, TSV, JSONL or Parquet file or a
            DataFrame with a column of paths, bytes or ``{"bytes", "path"}``; a Hugging Face data set, a
            folder it was saved to, or ``hf:owner/name:split``; ``(samples, rate)``, of one clip ``[S]`` or
            many ``[N, S]``; ``builtin:speech``. wav, flac, ogg, mp3 and what else libsndfile reads.
        rate: samples a second; if None the commonest of the data, and at most 16,000.
        label: the column that holds the class, where it is not the usual one.
        column: the column that holds the sounds, where it is not plain.
        max_bad: the share of sounds that may be unreadable; they are named in a warning and skipped.
        cache: the folder of a file for sound that does not fit into memory.
        window: seconds.

    Raises:
        PolysenseError: if the source is none of these, holds no sounds, or too many are unreadable.

    >>> tone = np.sin(np.arange(4000) / 5)
    >>> sounds = read_sounds([(tone, 8000), (tone[:800], 8000)])
    >>> sounds.rate, sounds.__getitems__([1, 0])["lengths"].tolist()
    (8000, [800, 4000])
    """
    if window <= 0 or (rate is not None and rate < 1):
        raise PolysenseError(f"a window of {window} s at rate {rate} holds nothing; both must be above 0")
    listing = _find(source, column)
    if label is not None and label not in listing.table.columns:
        raise unknown("column", label, map(str, listing.table.columns))
    listing.label = label or listing.label
    return decode_all(
        listing, rate=rate, window=window, max_bad=max_bad, cache=Path(cache) if cache else None
    )


def _find(source: Any, column: str | None) -> Listing:
    match source:
        case str() | Path():
            return _from_text(str(source), column)
        case pd.DataFrame():
            return _from_frame(source, "the DataFrame", column)
        case (np.ndarray() | torch.Tensor() as samples, int() as rate):
            return _from_list([Clip(one, rate) for one in (samples if samples.ndim > 1 else samples[None])])
        case list() | tuple():
            return _from_list(source)
        case np.ndarray() | torch.Tensor():
            raise PolysenseError("samples alone do not tell their rate; give (samples, rate)")
    if is_hugging_face(source):
        return _from_hugging_face(Loaded.of(source, "the data set"), column)
    raise PolysenseError(f"cannot read sounds from a {type(source).__name__}; give {ACCEPTED}")


def _from_text(text: str, column: str | None) -> Listing:
    """A path if there is one of that name, else what the text looks like."""
    path = Path(text).expanduser()
    if (loaded := named_dataset(text)) is not None:
        return _from_hugging_face(loaded, column)
    if path.is_dir():
        paths = _sounds_in(path)
        table = folder_table(path, paths)
        return Listing(paths, table, usual_label(table))
    if path.is_file():
        return _from_file(path, column)
    if text.startswith(PREFIX):
        return _from_builtin(text, column)
    if glob.has_magic(text):
        found = [Path(one) for one in sorted(glob.glob(str(path), recursive=True)) if named_as_sound(one)]
        if not found:
            raise PolysenseError(f"no sound matches {path}; sounds end in {', '.join(SUFFIXES)}")
        return _from_list(found)
    raise no_such_path(path)


def _from_file(path: Path, column: str | None) -> Listing:
    name = path.name.lower()
    if name.endswith(TABLE_SUFFIXES):
        rows = read_table(path)
        tell_bad(rows.bad, len(rows.bad) + len(rows.frame), "rows")
        return _from_frame(rows.frame, str(path), column, path.resolve().parent)
    if named_as_sound(name):
        return _from_list([path])
    raise PolysenseError(f"{path} is no sound and no table of sounds; give {ACCEPTED}")


def _sounds_in(folder: Path) -> list[Path]:
    found = files_in(folder, named_as_sound)
    if not found:
        raise PolysenseError(f"no sound in {folder}; looked for files ending in {', '.join(SUFFIXES)}")
    return found


def _from_list(sources: Sequence[Any]) -> Listing:
    """Files are taken as they are, folders by the sounds in them."""
    items: list[Any] = []
    for source in sources:
        path = Path(source).expanduser() if isinstance(source, str | Path) else None
        if path is not None and path.is_dir():
            items += _sounds_in(path)
        else:
            items.append(source if path is None else path)
    if not items:
        raise PolysenseError("the list of sounds is empty")
    names = [str(item) if isinstance(item, Path) else f"sound {i}" for i, item in enumerate(items)]
    return Listing(items, pd.DataFrame({"name": unique(names)}))


def _from_frame(frame: pd.DataFrame, place: str, column: str | None, folder: Path = Path()) -> Listing:
    """One sound per row; paths are relative to ``folder``; the other columns go into the table."""
    if frame.empty:
        raise PolysenseError(f"{place} has no rows")
    column = media_column(frame, place, column, is_sound, "sounds")
    cells = list(frame[column])
    table = _with_names(frame.drop(columns=column).reset_index(drop=True), list(map(path_of, cells)))
    return Listing([_resolved(cell, folder) for cell in cells], table, usual_label(table))


def _from_builtin(name: str, column: str | None) -> Listing:
    about = describe_for("audio", name, "sounds")
    frame = builtin(name)
    # the folder of a prompt says what kind it is; most are sentences, and lie in none
    frame["kind"] = frame["prompt"].str.rpartition("/")[0].replace("", "sentence")
    listing = _from_frame(frame, name, column or "audio")
    listing.label, listing.identity, listing.evaluation = about.label, about.identity, about.evaluation
    return listing


def _from_hugging_face(loaded: Loaded, column: str | None) -> Listing:
    """Sounds are fetched as they are kept, bytes or paths, and decoded here."""
    features = loaded.dataset.features
    sounds = [name for name, kind in features.items() if type(kind).__name__ == "Audio"]
    if column is None and len(sounds) == 1:
        column = sounds[0]
    if column is None or column not in sounds:
        return _from_frame(loaded.dataset.to_pandas(), loaded.place, column)
    table, label = loaded.table()
    kept = loaded.dataset.cast_column(column, type(features[column])(decode=False)).select_columns(column)
    return Listing([row[column] for row in kept], _with_names(table, [None] * len(table)), label)


def is_sound(value: Any) -> bool:
    """Whether a table's cell names or holds a sound.

    >>> is_sound("a.ogg"), is_sound("a.png"), is_sound(b"OggS\\x00")
    (True, False, True)
    """
    if isinstance(value, str | Path):
        return named_as_sound(value)
    if isinstance(value, Mapping):
        return "array" in value or named_as_sound(str(value.get("path"))) or is_sound(value.get("bytes"))
    return isinstance(value, bytes) and value[:4] in (b"RIFF", b"OggS", b"fLaC", b"ID3\x03", b"ID3\x04")


def _resolved(cell: Any, folder: Path) -> Any:
    """A cell with its path below ``folder``; a table's ways of saying "nothing" as None."""
    if isinstance(cell, Mapping):
        return cell if cell.get("path") is None else {**cell, "path": folder / cell["path"]}
    if isinstance(cell, str | Path):
        return folder / cell
    return None if pd.api.types.is_scalar(cell) and pd.isna(cell) else cell


def _with_names(table: pd.DataFrame, paths: Sequence[str | None]) -> pd.DataFrame:
    """The table's own ``name`` where no two are equal, else paths, else the rows' numbers."""
    if "name" in table.columns and table["name"].notna().all() and table["name"].astype(str).is_unique:
        return table.assign(name=table["name"].astype(str))
    names = [path if path is not None else f"row {row}" for row, path in enumerate(paths)]
    table = table.rename(columns={"name": "given_name"})
    table.insert(0, "name", unique(names))
    return table
