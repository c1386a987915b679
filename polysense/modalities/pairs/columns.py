"""Which column of a table holds which part of a sample."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from polysense.errors import PolysenseError, unknown
from polysense.modalities.audio.sources import is_sound
from polysense.modalities.base import Modality
from polysense.modalities.text.sources import USUAL_COLUMNS
from polysense.modalities.vision.tables import is_picture

logger = logging.getLogger(__name__)

USUAL = (*USUAL_COLUMNS, "captions", "alt_text", "alt", "title", "description", "name")
"""What a column of captions is usually called, the usual first."""


def choose_columns(
    frame: pd.DataFrame, parts: Mapping[str, Modality], columns: Mapping[str, Any], place: str
) -> dict[str, list[Any]]:
    """The columns of each part, as given in ``columns`` (several are several captions) or guessed and told.

    Raises:
        PolysenseError: for a part or column that there is not, or one that cannot be guessed.
    """
    for part in columns:
        if part not in parts:
            raise unknown("part with a column", part, parts)
    chosen: dict[str, list[Any]] = {}
    for part, names in columns.items():
        chosen[part] = list(names) if isinstance(names, list | tuple) else [names]
        for name in chosen[part]:
            if name not in frame.columns:
                raise unknown(f"column of {place}", str(name), map(str, frame.columns))
    guessed = [part for part in parts if part not in chosen]
    for part in sorted(guessed, key=lambda part: parts[part].name not in _LOOKS):  # what can be told first
        taken = {name for names in chosen.values() for name in names}
        left = [name for name in frame.columns if name not in taken]
        chosen[part] = [_guess(frame[left], part, parts[part].name, place)]
    if guessed:
        told = " and ".join(f"{part!r} from the column {chosen[part][0]!r}" for part in guessed)
        logger.info("reading %s of %s", told, place)
    return {part: chosen[part] for part in parts}


def choose_language(names: Iterable[Any], language: str | None, place: str) -> Any:
    """The column that tells the language of captions: the one given, or one of a usual name, which is told.

    >>> choose_language(["license", "LANGUAGE"], None, "a.csv"), choose_language(["license"], None, "a.csv")
    ('LANGUAGE', None)

    Raises:
        PolysenseError: when there is none of the name given.
    """
    known = list(names)
    if language is not None:
        if language not in known:
            raise unknown(f"column of {place}", language, map(str, known))
        return language
    found = next((name for name in known if str(name).lower() in ("language", "lang")), None)
    if found is not None:
        logger.info("the language of captions is read from the column %r", found)
    return found


def cells_of(value: Any) -> list[Any]:
    """What one cell holds: nothing, one thing, or several captions.

    >>> cells_of(float("nan")), cells_of("a"), cells_of(["a", "b"])
    ([], ['a'], ['a', 'b'])
    """
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1):
        return [one for cell in value for one in cells_of(cell)]
    missing = value is None or (pd.api.types.is_scalar(value) and pd.isna(value))
    return [] if missing else [value]


def _guess(frame: pd.DataFrame, part: str, modality: str, place: str) -> Any:
    named = [name for name in frame.columns if str(name).lower() == part.lower()]
    found = named or (_LOOKS[modality](frame) if modality in _LOOKS else [])
    if len(found) != 1:
        names = ", ".join(map(str, found or frame.columns))
        told = "more than one column" if found else "no column that is plainly"
        raise PolysenseError(
            f"{place} has {told} for {part!r} ({names}): name it, as in --reading.columns"
            f' \'{{"{part}": "COLUMN"}}\''
        )
    return found[0]


def _pictures(frame: pd.DataFrame) -> list[Any]:
    return [name for name in frame.columns if any(map(is_picture, _first(frame[name])))]


def _is_media(cell: Any) -> bool:
    """Whether a cell names or holds a picture or a sound."""
    return is_picture(cell) or is_sound(cell)


def _texts(frame: pd.DataFrame) -> list[Any]:
    """The column of a usual name, or else the one with the longest texts."""
    lengths = {}
    for name in frame.columns:
        texts = [text for cell in _first(frame[name]) for text in cells_of(cell)]
        if texts and all(isinstance(text, str) for text in texts) and not any(map(_is_media, texts)):
            lengths[name] = sum(map(len, texts)) / len(texts)
    usual = [name for word in USUAL for name in lengths if str(name).lower() == word]
    return usual[:1] or sorted(lengths, key=lambda name: -lengths[name])[:1]


def _sounds(frame: pd.DataFrame) -> list[Any]:
    return [name for name in frame.columns if any(map(is_sound, _first(frame[name])))]


_LOOKS: dict[str, Callable[[pd.DataFrame], list[Any]]] = {
    "image": _pictures,
    "audio": _sounds,
    "text": _texts,
}


def _first(column: pd.Series[Any]) -> Iterable[Any]:
    return column.dropna().head(100)
