"""Pairs sorted by the rules for noisy texts: those to learn from, and those that fall."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from polysense.modalities.files import is_broken
from polysense.modalities.pairs.found import Found
from polysense.modalities.pairs.noisy import failed_rules
from polysense.modalities.pairs.shards import Slice

PICTURE, TEXT = "image", "text"
"""The parts of which pairs are made, and the columns they lie in."""


class Sorted(NamedTuple):
    """``kept``: a row for each pair, with its sample's columns; ``fallen``: ``name``, ``text``, ``rule``."""

    kept: pd.DataFrame
    fallen: pd.DataFrame


class _Pair(NamedTuple):
    sample: int
    picture: Any
    text: Any
    language: Any


def sort_pairs(found: Found, folder: Path, **rules: Any) -> Sorted:
    """Which pairs describe their picture well enough to learn from, and which rule the others fail first.

    Before the rules, pairs fall that lack a part, whose picture's file is not there, or whose text is none.

    Args:
        found: pictures and texts as they were found.
        folder: what the paths of the kept pictures are to be relative to.
        rules: see :func:`.failed_rules`.
    """
    pairs = list(_pairs_of(found))
    failed = [_missing(pair) for pair in pairs]
    whole = [place for place, rule in enumerate(failed) if rule is None]
    told = failed_rules([pairs[i].text for i in whole], [pairs[i].sample for i in whole], **rules)
    for place, rule in zip(whole, told, strict=True):
        failed[place] = rule
    names = found.table["name"].astype(str).tolist()
    fallen: list[tuple[str, str | None, str]] = [(name, None, rule) for name, rule in found.bad]
    fallen += [
        (names[pair.sample], pair.text if isinstance(pair.text, str) else None, rule)
        for pair, rule in zip(pairs, failed, strict=True)
        if rule is not None
    ]
    kept = [pair for pair, rule in zip(pairs, failed, strict=True) if rule is None]
    return Sorted(_table(kept, found, folder), pd.DataFrame(fallen, columns=["name", "text", "rule"]))


def _pairs_of(found: Found) -> Iterator[_Pair]:
    """Every picture with every text of its sample; None for what is not there."""
    for sample in range(len(found.table)):
        texts = found.cells[TEXT][sample] or [None]
        spoken = found.languages[TEXT][sample] if TEXT in found.languages else []
        for picture in found.cells[PICTURE][sample] or [None]:
            for place, text in enumerate(texts):
                yield _Pair(sample, picture, text, spoken[place] if spoken else None)


def _missing(pair: _Pair) -> str | None:
    """What of a pair is not there."""
    if pair.picture is None or pair.text is None:
        return f"has no {PICTURE if pair.picture is None else TEXT}"
    if isinstance(pair.picture, Path) and not pair.picture.is_file():
        return "no such file"
    if isinstance(pair.text, ValueError):
        return str(pair.text)
    if not isinstance(pair.text, str):
        return f"is no text but a {type(pair.text).__name__}"
    return "is no text of its encoding" if is_broken(pair.text) else None


def _table(pairs: list[_Pair], found: Found, folder: Path) -> pd.DataFrame:
    """The pairs as rows that :func:`~.sources.read_pairs` reads again."""
    others = found.table.drop(columns=["name", PICTURE, TEXT], errors="ignore")
    table = others.iloc[[pair.sample for pair in pairs]].reset_index(drop=True)
    if found.language is not None:
        table[found.language] = [pair.language for pair in pairs]
    table.insert(0, TEXT, [pair.text for pair in pairs])
    names = found.table["name"]
    cells = [_cell(pair.picture, names.iloc[pair.sample], folder) for pair in pairs]
    pictures = pd.Series(cells, dtype=object)
    table.insert(0, PICTURE, pictures)
    return table


def _cell(picture: Any, name: str, folder: Path) -> Any:
    """A picture as a cell of a table: a path, or bytes with a name where it lies in no file of its own."""
    if isinstance(picture, Path):
        return os.path.relpath(picture, folder)
    if isinstance(picture, Slice):
        picture = picture.read_bytes()
    return {"bytes": picture, "path": name} if isinstance(picture, bytes) else picture
