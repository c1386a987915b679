"""Samples as files of one name, in a folder or a tar file: ``cat.jpg`` with ``cat.txt`` or ``cat.json``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from polysense.errors import PolysenseError, unknown
from polysense.modalities.audio.decode import named_as_sound
from polysense.modalities.base import Modality
from polysense.modalities.files import as_text, unique
from polysense.modalities.pairs.columns import cells_of, choose_language
from polysense.modalities.pairs.found import Found
from polysense.modalities.pairs.shards import Slice
from polysense.modalities.tables import usual_label
from polysense.modalities.vision.decode import named_as_picture

ABOUT = "json"
"""The extension of files that tell about their sample: its captions and whatever else."""

_NAMED: Mapping[str, Callable[[str], bool]] = {
    "image": named_as_picture,
    "audio": named_as_sound,
    "text": lambda name: name.endswith((".txt", ".text", ".caption")),
}
"""Whether a file's name is that of a part, by its modality."""

_CAPTIONS = ("caption", "captions", "text", "txt")
"""Where in such a file captions usually stand."""


class FilesByName:
    """Gathers files of one name into samples.

    Args:
        parts: the modality of each part.
        columns: of a part, its files' extension or its field in the JSON files; where it is not given,
            pictures, sounds, ``.txt``, and the usual names of captions.
        encoding: of texts without a byte order mark.
    """

    def __init__(self, parts: Mapping[str, Modality], columns: Mapping[str, Any], encoding: str) -> None:
        for part in columns:
            if part not in parts:
                raise unknown("part with a column", part, parts)
        self.parts, self.encoding = parts, encoding
        self.columns = {part: str(column).removeprefix(".") for part, column in columns.items()}
        self._samples: dict[str, dict[str, Any]] = defaultdict(dict)
        self._about: dict[str, dict[str, Any] | ValueError] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def wants(self, extension: str) -> bool:
        """Whether files with this extension hold a part or tell about one."""
        return extension.lower() == ABOUT or self._part_of(extension) is not None

    def add(self, name: str, extension: str, content: Path | Slice | bytes) -> None:
        """A file: its sample's name, its extension, and its content or where that lies."""
        part = self._part_of(extension)
        if part is not None:
            is_text = self.parts[part].name == "text"
            self._samples[name][part] = self._text(content) if is_text else content
        elif extension.lower() == ABOUT:
            self._about[name] = self._fields(content)

    def found(self, place: str, language: str | None = None) -> Found:
        """The samples, with what their JSON files tell as columns."""
        self._add_told_texts(place)
        if not self._samples:
            raise PolysenseError(
                f"no file of the parts {', '.join(self.parts)} in {place}; expected name.jpg with name.txt or"
                " name.json, or other extensions or fields as columns={part: extension}"
            )
        cells = {part: [cells_of(own.get(part)) for own in self._samples.values()] for part in self.parts}
        table = pd.DataFrame([self._columns_of(name) for name in self._samples], index=range(len(self)))
        table = table.rename(columns={"name": "given_name"})
        table.insert(0, "name", unique(self._samples))
        told = choose_language(table.columns.drop("name"), language, place) if self._texts else None
        languages = {
            part: [[spoken] * len(texts) for spoken, texts in zip(table[told], cells[part], strict=True)]
            for part in self._texts
            if told is not None
        }
        return Found(cells, table, len(table), label=usual_label(table), language=told, languages=languages)

    @property
    def _texts(self) -> list[str]:
        return [part for part, modality in self.parts.items() if modality.name == "text"]

    def _part_of(self, extension: str) -> str | None:
        """Which part a file holds, by its extension."""
        extension = extension.lower()
        for part, modality in self.parts.items():
            if part in self.columns:
                fits = extension == self.columns[part].lower()
            elif modality.name in _NAMED:
                fits = _NAMED[modality.name](f".{extension}")
            else:
                fits = extension == part
            if fits:
                return part
        return None

    def _text(self, content: Path | Slice | bytes) -> str | ValueError:
        try:
            return as_text(_bytes(content), self.encoding).strip()
        except ValueError as error:
            return error

    def _fields(self, content: Path | Slice | bytes) -> dict[str, Any] | ValueError:
        try:
            fields = json.loads(as_text(_bytes(content)))
        except ValueError:
            fields = None
        return fields if isinstance(fields, dict) else ValueError(f"its .{ABOUT} is no JSON object")

    def _add_told_texts(self, place: str) -> None:
        """Captions from JSON files, for samples that have no file of their own for them."""
        for part in self._texts:
            names = (self.columns[part],) if part in self.columns else _CAPTIONS
            known: set[str] = set()
            for sample, fields in self._about.items():
                if isinstance(fields, ValueError):
                    told: Any = fields if sample in self._samples else None
                else:
                    told = next((fields[name] for name in names if fields.get(name) is not None), None)
                    known.update(fields)
                if told is not None:
                    self._samples[sample].setdefault(part, told)
            if part in self.columns and known and not any(part in own for own in self._samples.values()):
                raise unknown(f"extension or JSON field of {place}", self.columns[part], known)

    def _columns_of(self, name: str) -> dict[str, Any]:
        """What is told of a sample besides its captions, where it is a single value."""
        fields = self._about.get(name, {})
        told = {} if isinstance(fields, ValueError) else fields
        captions = {self.columns.get(part) for part in self._texts} | set(_CAPTIONS)
        plain = str | int | float | bool
        return {key: value for key, value in told.items() if isinstance(value, plain) and key not in captions}


def _bytes(content: Path | Slice | bytes) -> bytes:
    try:
        return content if isinstance(content, bytes) else content.read_bytes()
    except OSError as error:
        raise PolysenseError(f"cannot read {error.filename}: {error.strerror}") from error
