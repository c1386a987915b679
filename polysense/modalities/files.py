"""Samples that are files, in a folder whose subfolders may be their classes."""

from __future__ import annotations

import codecs
import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from polysense.errors import PolysenseError

_SPLITS = frozenset({"train", "val", "valid", "validation", "test"})


def files_in(folder: Path, wanted: Callable[[str], bool]) -> list[Path]:
    """Files with a name that is wanted, at any depth, in the order of their names; none that are hidden.

    Raises:
        PolysenseError: for a folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        raise PolysenseError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    found, visited = [], set()
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)  # links may run in circles
        folders[:] = (
            [] if real in visited else [name for name in folders if not name.startswith((".", "__MACOSX"))]
        )
        if real not in visited:
            found += [Path(here, name) for name in names if wanted(name) and not name.startswith(".")]
        visited.add(real)
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def folder_table(folder: Path, paths: Sequence[Path]) -> pd.DataFrame:
    """The ``name`` of each file below ``folder`` and, where there are several subfolders, its ``label``.

    Below ``train`` and ``val``, which become the column ``split``, the classes lie one level down.
    """
    parts = [path.relative_to(folder).parts for path in paths]
    table = pd.DataFrame({"name": unique("/".join(part) for part in parts)})
    depth, tops = min(map(len, parts)), {part[0] for part in parts}
    if depth > 2 and tops <= _SPLITS:
        table["split"], table["label"] = [part[0] for part in parts], [part[1] for part in parts]
    elif depth > 1 and len(tops) > 1:
        table["label"] = [part[0] for part in parts]
    return table


def unique(names: Iterable[str]) -> list[str]:
    """Tell repeated names apart.

    >>> unique(["a", "b", "a"])
    ['a', 'b', 'a (2)']
    """
    seen: Counter[str] = Counter()
    told = []
    for name in names:
        name = name.encode("utf-8", "replace").decode()  # file names need not be Unicode, tables must
        seen[name] += 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told


def no_such_path(path: Path) -> PolysenseError:
    """The error for a path that is not there, with the nearest one that is."""
    parent = path.parent
    if not parent.is_dir():
        return PolysenseError(f"no such file or folder: {path} (there is no {parent} either)")
    near = difflib.get_close_matches(path.name, os.listdir(parent), n=1)
    return PolysenseError(
        f"no such file or folder: {path}" + (f"; did you mean {parent / near[0]}?" if near else "")
    )


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """A file's text, see :func:`as_text`.

    Raises:
        ValueError: with the reason, for a file that is binary.
        PolysenseError: for a file that may not be read, or an encoding that does not exist.
    """
    try:
        return as_text(path.read_bytes(), encoding)
    except OSError as error:
        raise PolysenseError(f"cannot read {path}: {error.strerror}") from error


def as_text(content: bytes, encoding: str = "utf-8") -> str:
    """The text that bytes are, without a byte order mark, its lines ended by ``\\n``.

    Bytes that the encoding does not know become lone surrogates, which :func:`is_broken` finds.

    Raises:
        ValueError: with the reason, for what is binary.
        PolysenseError: for an encoding that does not exist.
    """
    encoding = _marked(content) or encoding
    if encoding.startswith("utf-8") and b"\0" in content[:8192]:
        raise ValueError("is binary, no text")
    try:
        text = content.decode(encoding, "surrogateescape").removeprefix("\ufeff")
    except LookupError as error:
        raise PolysenseError(f"there is no encoding {encoding!r}; give one such as 'latin-1'") from error
    return text.replace("\r\n", "\n")


def is_broken(text: str) -> bool:
    """Whether a text holds bytes that were of no character, or half of a character.

    >>> is_broken("caf\\u00e9"), is_broken(b"caf\\xe9".decode("utf-8", "surrogateescape"))
    (False, True)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _marked(content: bytes) -> str | None:
    """The encoding that a byte order mark tells."""
    return "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None
