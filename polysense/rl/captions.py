"""What is told of recordings: a text for each, or for stretches of them, with their times."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError
from polysense.modalities.tables import read_whole_table

_NAMES = {"video": ("video", "path"), "text": ("text", "txt")}
"""What the columns may be called; the second name is that of R3M's manifests."""


@dataclass(frozen=True)
class Caption:
    """A text and the seconds of the recording that it is about."""

    text: str
    start: float = 0.0
    end: float = float("inf")

    def frames(self, times: NDArray[np.float64], duration: float, recording: object) -> NDArray[np.int64]:
        """The places of the frames that lie in it, of a recording with frames at these times.

        Raises:
            PolysenseError: where it lies outside of the recording, or shows less than two frames.
        """
        what = f"the caption {self.text!r} of {recording}"
        until = duration if np.isinf(self.end) else self.end
        if not 0 <= self.start < until or until > duration + 1e-3:
            raise PolysenseError(
                f"{what} is about {self.start:g} to {until:g} s, and the recording lasts {duration:g} s; mend"
                " its times, in seconds from the recording's start"
            )
        found = np.flatnonzero((times >= self.start) & (times < until))
        if len(found) < 2:
            raise PolysenseError(f"{what} shows {len(found)} frames; it needs at least 2: widen its times")
        return found


def read_captions(source: str | Path | pd.DataFrame) -> dict[str, list[Caption]]:
    """Captions by the name of their recording.

    ``source`` is a table, or a CSV, TSV, JSONL, JSON (a list of records) or Parquet file, with the columns
    ``video`` (a file's or folder's name), ``text`` and, where they are about a stretch of it, ``start`` and
    ``end`` in seconds. R3M's ``path`` and ``txt`` are understood, too.

    >>> read_captions(pd.DataFrame({"video": ["a.mp4"], "text": ["open the door"], "start": [1], "end": [3]}))
    {'a.mp4': [Caption(text='open the door', start=1.0, end=3.0)]}

    Raises:
        PolysenseError: for a file that is no table, missing columns, or times that are no numbers.
    """
    table = source if isinstance(source, pd.DataFrame) else _read(Path(source))
    video, text = (_column(table, names) for names in _NAMES.values())
    times = {name: _seconds(table, name, usual) for name, usual in (("start", 0.0), ("end", np.inf))}
    captions: dict[str, list[Caption]] = {}
    for name, told, start, end in zip(table[video], table[text], times["start"], times["end"], strict=True):
        if pd.notna(told) and str(told).strip():
            captions.setdefault(PurePath(str(name)).name, []).append(Caption(str(told).strip(), start, end))
    return captions


def of_recordings(
    captions: Mapping[str, list[Caption]], recordings: Iterable[Path]
) -> dict[Path, list[Caption]]:
    """The captions of each recording, found by its name or its name without suffix.

    Raises:
        PolysenseError: when some are about recordings that are not there.
    """
    found = {path: captions.get(path.name, captions.get(path.stem, [])) for path in recordings}
    known = {name for path in found for name in (path.name, path.stem)}
    if strays := sorted(set(captions) - known):
        there = ", ".join(path.name for path in list(found)[:3])
        raise PolysenseError(
            f"there are captions of {', '.join(strays[:3])}, and no such recordings; those that are there are"
            f" called {there}"
        )
    return found


def _read(path: Path) -> pd.DataFrame:
    if path.suffix.lower() != ".json":
        return read_whole_table(path)
    try:
        records: Any = json.loads(path.read_text(encoding="utf-8"))
        return pd.DataFrame.from_records(records)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise PolysenseError(
            f"cannot read {path} as a list of captions: {str(error).splitlines()[0]}"
        ) from error


def _column(table: pd.DataFrame, names: tuple[str, ...]) -> str:
    for name in names:
        if name in table:
            return name
    raise PolysenseError(
        f"captions need a column {names[0]!r}, and the table has {', '.join(map(str, table))}; rename one"
    )


def _seconds(table: pd.DataFrame, name: str, usual: float) -> list[float]:
    if name not in table:
        return [usual] * len(table)
    try:
        seconds = pd.to_numeric(table[name])
    except (ValueError, TypeError) as error:
        raise PolysenseError(f"{name!r} of the captions must be seconds: {error}") from error
    return [float(second) for second in seconds.fillna(usual)]
