"""Where pairs are found: a table, files, shards, a stream, a data set; nothing is decoded yet."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pandas as pd

from polysense.errors import PolysenseError
from polysense.modalities.base import Modality
from polysense.modalities.builtin import PREFIX, builtin, describe
from polysense.modalities.files import files_in, no_such_path
from polysense.modalities.pairs.by_name import FilesByName
from polysense.modalities.pairs.found import Found, from_frame
from polysense.modalities.pairs.shards import shard_files, shard_paths, stream_files
from polysense.modalities.tables import TABLE_SUFFIXES, Loaded, is_hugging_face, named_dataset, read_table

logger = logging.getLogger(__name__)

ACCEPTED = (
    "a CSV, TSV, Parquet or JSONL file, a DataFrame, a folder of name.jpg with name.txt or name.json, tar "
    "shards, - for tar shards that are piped in, a Hugging Face data set, Pairs, builtin:emoji or :speech"
)

STANDARD_INPUT = "-"
"""The name of the stream that is piped in."""


def find_pairs(
    source: Any,
    parts: Mapping[str, Modality],
    *,
    columns: Mapping[str, Any] | None = None,
    language: str | None = None,
    encoding: str = "utf-8",
) -> Found:
    """Find samples and read none of their parts yet; for the arguments see :func:`read_pairs`.

    Raises:
        PolysenseError: if the source is none that holds pairs, or a column cannot be told.
    """
    return _Finder(parts, columns or {}, language, encoding).find(source)


@dataclass(frozen=True)
class _Finder:
    """How pairs are found, wherever they are from."""

    parts: Mapping[str, Modality]
    columns: Mapping[str, Any]
    language: str | None
    encoding: str

    def find(self, source: Any) -> Found:
        if isinstance(source, str | Path):
            return self._from_name(str(source))
        if isinstance(source, pd.DataFrame):
            return self._from_frame(source, "the DataFrame")
        if isinstance(source, list | tuple) and all(isinstance(one, str | Path) for one in source):
            return self._from_shards(map(str, source))
        if is_hugging_face(source):
            return self._from_hugging_face(Loaded.of(source, "the data set"))
        if hasattr(source, "read"):
            return self._from_stream(source)
        raise PolysenseError(f"cannot read pairs from a {type(source).__name__}; give {ACCEPTED}")

    def _from_name(self, name: str) -> Found:
        """A path if there is one of that name, else what the name looks like."""
        path, loaded = Path(name).expanduser(), named_dataset(name)
        if loaded is not None:
            return self._from_hugging_face(loaded)
        if name.endswith(".tar"):
            return self._from_shards([name])
        if path.is_dir():
            shards = files_in(path, lambda file: file.endswith(".tar"))
            return self._from_shards(map(str, shards)) if shards else self._from_folder(path)
        if path.is_file() and path.name.lower().endswith(TABLE_SUFFIXES):
            rows = read_table(path, self.encoding)
            found = self._from_frame(rows.frame, str(path), path.resolve().parent)
            found.bad, found.total = [*rows.bad, *found.bad], found.total + len(rows.bad)
            return found
        if name.startswith(PREFIX):
            return self._from_builtin(name)
        if name == STANDARD_INPUT:
            if sys.stdin.isatty():
                raise PolysenseError("nothing is piped in; write it as in: cat *.tar | polysense pretrain -")
            return self._from_stream(sys.stdin.buffer)
        if name.startswith("pipe:"):
            raise PolysenseError(
                "polysense runs no command that a name of data holds: run it yourself and pipe it in, as in"
                f" {name.removeprefix('pipe:').strip()} | polysense pretrain -"
            )
        if not os.path.exists(path):
            raise no_such_path(path)
        raise PolysenseError(f"{path} holds no pairs; give {ACCEPTED}")

    def _from_frame(self, frame: pd.DataFrame, place: str, folder: Path = Path()) -> Found:
        return from_frame(frame, place, self.parts, self.columns, self.language, folder)

    def _from_builtin(self, name: str) -> Found:
        """A picture has two captions, its name and that with what comes to mind; a sound its transcript."""
        about, frame = describe(name), builtin(name)
        if {"image", "name", "keywords"} <= set(frame.columns):
            both = zip(frame["name"], frame["keywords"], strict=True)
            frame["caption"] = [[name, f"{name}: {', '.join(more)}"] for name, more in both]
            usual = {"image": "image", "text": "caption"}
        elif {"audio", "transcript"} <= set(frame.columns):
            frame = frame.dropna(subset="transcript").reset_index(drop=True)
            about = replace(about, label=None, identity=None, evaluation=None)  # those are of sounds alone
            usual = {"audio": "audio", "text": "transcript"}
        else:
            raise PolysenseError(f"{name} holds no pairs; give builtin:emoji or builtin:speech")
        columns = {**{part: usual[part] for part in usual if part in self.parts}, **self.columns}
        found = replace(self, columns=columns)._from_frame(frame, name)
        found.label, found.identity, found.evaluation = about.label, about.identity, about.evaluation
        return found

    def _from_hugging_face(self, loaded: Loaded) -> Found:
        frame, label = loaded.table()
        for column, kind in loaded.dataset.features.items():
            if type(kind).__name__ in ("Image", "Audio"):
                encoded = loaded.dataset.select_columns(column).cast_column(column, type(kind)(decode=False))
                frame[column] = pd.Series([row[column] for row in encoded], dtype=object)
        found = self._from_frame(frame, loaded.place)
        found.label = label
        return found

    def _from_folder(self, folder: Path) -> Found:
        files = FilesByName(self.parts, self.columns, self.encoding)
        for path in files_in(folder, lambda name: files.wants(name.rpartition(".")[2])):
            files.add(path.relative_to(folder).with_suffix("").as_posix(), path.suffix[1:], path)
        return files.found(f"{folder}", self.language)

    def _from_shards(self, patterns: Iterable[str]) -> Found:
        files = FilesByName(self.parts, self.columns, self.encoding)
        paths = [path for pattern in patterns for path in shard_paths(pattern)]
        for path in paths:
            for name, extension, piece in shard_files(path):
                files.add(f"{path.name}/{name}", extension, piece)
        logger.info("%s samples in %d shards", f"{len(files):,}", len(paths))
        return files.found(", ".join(map(str, paths[:3])), self.language)

    def _from_stream(self, stream: IO[bytes]) -> Found:
        """Tar files that can be read once; their files are held until the parts have read them."""
        files = FilesByName(self.parts, self.columns, self.encoding)
        for name, extension, content in stream_files(stream, files.wants):
            files.add(name, extension, content)
        logger.info("%s samples in the stream", f"{len(files):,}")
        return files.found("the stream", self.language)
