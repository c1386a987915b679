"""Sounds decoded once: all samples one behind the other, at one rate, in 16 bits."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.modalities.audio.decode import Header, UnreadableError, decode, header, resample
from polysense.modalities.bad import check_bad, tell_bad
from polysense.modalities.vision.cache import available_memory, gigabytes

logger = logging.getLogger(__name__)

HIGHEST_RATE = 16_000
"""The rate of data whose own is not asked for: theirs, and at most this."""

_FULL = 32767


@dataclass
class Listing:
    """Sounds that were found and not yet decoded.

    ``items``: what :func:`~.decode.decode` takes, one for each row of ``table``.
    """

    items: Sequence[Any]
    table: pd.DataFrame
    label: str | None = None
    identity: str | None = None
    evaluation: Mapping[str, Any] | None = None


@dataclass(eq=False)
class Sounds:
    """Decoded sounds; a :class:`~polysense.modalities.base.Dataset`.

    ``table``: one row per clip, with ``name``, ``seconds``, and what else is known of it. ``bad``: name and
    reason of each that was skipped. ``samples``: all of them, int16; clip i is the ``lengths[i]`` from
    ``starts[i]`` on. ``rate``: samples a second.
    """

    table: pd.DataFrame
    label: str | None
    identity: str | None
    evaluation: Mapping[str, Any] | None
    bad: list[tuple[str, str]]
    samples: NDArray[np.int16]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    rate: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """``waves`` ``[B, S]`` in [-1, 1], silence behind shorter ones, ``lengths`` and ``index`` ``[B]``."""
        index = np.asarray(indices, dtype=np.int64)
        clips = [
            self.samples[start : start + length]
            for start, length in zip(self.starts[index], self.lengths[index], strict=True)
        ]
        waves, lengths = padded(clips)
        return {"waves": waves, "lengths": lengths, "index": torch.from_numpy(index)}


def padded(clips: Sequence[NDArray[Any]]) -> tuple[Tensor, Tensor]:
    """Clips as float32 ``[B, S]`` with silence behind, and their lengths ``[B]``; int16 becomes [-1, 1].

    >>> padded([np.ones(2, np.float32), np.ones(1, np.float32)])
    (tensor([[1., 1.],
            [1., 0.]]), tensor([2, 1]))
    """
    lengths = np.array([len(clip) for clip in clips])
    waves = np.zeros((len(clips), int(lengths.max())), np.float32)
    for row, clip in zip(waves, clips, strict=True):
        np.divide(clip, _FULL if clip.dtype == np.int16 else 1, out=row[: len(clip)])
    return torch.from_numpy(waves), torch.from_numpy(lengths)


class _Window(NamedTuple):
    """A part of a sound: which it is of, and its first sample and how many, at the sound's own rate."""

    item: int
    start: int
    samples: int


def decode_all(
    listing: Listing,
    *,
    rate: int | None,
    window: float,
    max_bad: float,
    cache: Path | None,
    memory: int | None = None,
) -> Sounds:
    """Decode every sound of a listing once; see :func:`~.sources.read_sounds` for the arguments."""
    items = listing.items
    looks = _in_parallel(lambda i: _attempt(header, items[i]), len(items))
    headers = {i: look for i, look in enumerate(looks) if isinstance(look, Header)}
    names = listing.table["name"].astype(str)
    bad = [(names.iloc[i], look) for i, look in enumerate(looks) if isinstance(look, str)]
    check_bad(bad, len(items), max_bad, "sounds")
    wanted = rate or _common_rate(headers.values())
    windows = [part for i, look in headers.items() for part in _windows(i, look, window)]
    counts = [math.ceil(part.samples * wanted / headers[part.item].rate) for part in windows]
    starts, samples = np.cumsum([0, *counts])[:-1], _room(sum(counts), cache, memory)

    def lay(number: int) -> int:
        """Decode a window into its place, and tell how many samples it has."""
        part = windows[number]
        wave = resample(decode(items[part.item], part.start, part.samples), headers[part.item].rate, wanted)
        start, wave = starts[number], wave[: counts[number]]
        samples[start : start + len(wave)] = np.rint(wave.clip(-1, 1) * _FULL)
        return len(wave)

    found = _in_parallel(lambda number: _attempt(lay, number), len(windows))
    good = np.array([isinstance(one, int) for one in found])
    lengths = np.array([one for one in found if isinstance(one, int)], dtype=np.int64)
    table = _table(listing.table, windows, headers)
    told = zip(table["name"], found, strict=True)
    bad += [(name, one) for name, one in told if isinstance(one, str)]
    total = len(windows) + len(items) - len(headers)
    check_bad(bad, total, max_bad, "sounds")
    tell_bad(bad, total, "sounds")
    table = table[good].reset_index(drop=True).assign(seconds=lengths / wanted)
    known = listing.label, listing.identity, listing.evaluation
    return Sounds(table, *known, bad, samples, starts[good], lengths, wanted)


def _common_rate(headers: Iterable[Header]) -> int:
    return min(Counter(look.rate for look in headers).most_common(1)[0][0], HIGHEST_RATE)


def _windows(item: int, look: Header, window: float) -> list[_Window]:
    """Equal parts of at most ``window`` seconds: no short rest remains."""
    parts = math.ceil(look.samples / (window * look.rate))
    edges = [round(look.samples * part / parts) for part in range(parts + 1)]
    return [_Window(item, start, end - start) for start, end in pairwise(edges)]


def _table(table: pd.DataFrame, windows: Sequence[_Window], headers: Mapping[int, Header]) -> pd.DataFrame:
    """A row for each window; those of a sound that was cut tell in their names at which second they begin."""
    rows = table.iloc[[part.item for part in windows]].reset_index(drop=True)
    cut = {part.item for part in windows if part.start}
    begins = [part.start / headers[part.item].rate for part in windows]
    rows["name"] = [
        f"{name} at {begin:.1f} s" if part.item in cut else name
        for name, part, begin in zip(rows["name"].astype(str), windows, begins, strict=True)
    ]
    return rows


def _room(count: int, cache: Path | None, memory: int | None) -> NDArray[np.int16]:
    """Room for so many samples: in memory, or in a file without a name that goes when the process ends."""
    allowed = available_memory() // 4 if memory is None else memory
    if 2 * count <= allowed:
        return np.zeros(count, np.int16)
    folder = Path(cache or tempfile.gettempdir()).expanduser()
    told = f"{gigabytes(2 * count)} of sound, more than the {gigabytes(allowed)} of memory allowed"
    logger.warning("%s: kept in a file in %s", told, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if 2 * count > (free := shutil.disk_usage(folder).free):  # a full disk would kill the process
            raise OSError(f"{gigabytes(2 * count)} needed, {gigabytes(free)} free")
        with tempfile.TemporaryFile(dir=folder) as file:  # the map keeps it when its name is gone
            return np.memmap(file, np.int16, "w+", shape=(count,))
    except OSError as error:
        raise PolysenseError(
            f"cannot keep decoded sound in {folder} ({error.strerror or error}); give another folder with"
            " --cache"
        ) from error


def _attempt(function: Callable[[Any], Any], argument: Any) -> Any:
    """The result, or the reason why a sound is unreadable."""
    try:
        return function(argument)
    except UnreadableError as error:
        return str(error)


def _in_parallel(function: Callable[[int], Any], count: int) -> list[Any]:
    """``[function(0), …]`` over threads: libsndfile works outside of the interpreter's lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(function, range(count)))
