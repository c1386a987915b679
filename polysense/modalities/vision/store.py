"""Pictures decoded once into one array, in memory or, where that is too small, in a file mapped into it."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from polysense.modalities.bad import check_bad, tell_bad
from polysense.modalities.vision.cache import Entry, Stored, available_memory, default_folder, gigabytes
from polysense.modalities.vision.decode import Array, Header, UnreadableError, conform, decode, header

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

STATISTICS_SAMPLES = 2000


@dataclass
class Listing:
    """Pictures that were found and not yet decoded.

    ``items``: what :func:`~polysense.modalities.vision.decode.decode` takes, one for each row of
    ``table``. ``place``: where they come from, in words that stay the same from run to run.
    """

    items: Sequence[Any]
    table: pd.DataFrame
    place: str
    label: str | None = None
    identity: str | None = None
    evaluation: Mapping[str, Any] | None = None


@dataclass(eq=False)
class Pictures:
    """Decoded pictures, each in the top left corner of a square canvas; a ``modalities.base.Dataset``.

    The rest of a canvas repeats the picture's last row and column, so that reading between pixels at
    the picture's edge never mixes in black.

    ``table``: one row per picture, with ``name`` and what else is known of it. ``bad``: name and reason
    of each picture that was skipped. ``pixels``: ``[R, C, S, S]`` uint8 or uint16, and ``sizes``
    ``[R, 2]`` (height, width), of which ``rows`` ``[N]`` are in the data set.
    """

    table: pd.DataFrame
    label: str | None
    identity: str | None
    bad: list[tuple[str, str]]
    pixels: Array
    sizes: Array
    rows: Array
    evaluation: Mapping[str, Any] | None = None

    @property
    def channels(self) -> int:
        """1 where all pictures are grey, else 3; of arrays as many as they have."""
        return int(self.pixels.shape[1])

    @property
    def depth(self) -> int:
        """Bits per pixel and channel: 8 or 16."""
        return 8 * self.pixels.itemsize

    @property
    def side(self) -> int:
        """The canvas is ``side`` x ``side`` pixels."""
        return int(self.pixels.shape[2])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """``pixels`` ``[B, C, S, S]``, ``size`` ``[B, 2]`` (height, width) and ``index`` ``[B]``."""
        index = np.asarray(indices, dtype=np.int64)
        rows = self.rows[index]
        return {
            "pixels": torch.from_numpy(np.take(self.pixels, rows, axis=0)),
            "size": torch.from_numpy(self.sizes[rows].astype(np.int64)),
            "index": torch.from_numpy(index),
        }

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel on the scale [0, 1].

        Over all pixels of up to 2,000 evenly spaced pictures; the canvas around them does not count.
        """
        chosen = np.linspace(0, len(self) - 1, min(len(self), STATISTICS_SAMPLES)).round().astype(int)
        total, squares, count = np.zeros(self.channels), np.zeros(self.channels), 0
        for row in self.rows[chosen]:
            height, width = self.sizes[row]
            values = self.pixels[row, :, :height, :width].astype(np.float64) / np.iinfo(self.pixels.dtype).max
            total += values.sum(axis=(1, 2))
            squares += np.square(values).sum(axis=(1, 2))
            count += height * width
        mean = total / count
        return mean.tolist(), np.sqrt(np.maximum(squares / count - mean**2, 0)).tolist()

    def __getstate__(self) -> dict[str, Any]:
        """A mapped file travels to a spawned process by its name, not by its contents."""
        mapped = isinstance(self.pixels, np.memmap)
        return {**self.__dict__, "pixels": self.pixels.filename if mapped else self.pixels}  # type: ignore[attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not isinstance(self.pixels, np.ndarray):
            self.pixels = np.load(self.pixels, mmap_mode="r")


def canvas_side(size: int) -> int:
    """The side of the canvas for views of ``size`` pixels: room for crops that are not enlarged.

    >>> canvas_side(32), canvas_side(224)
    (64, 280)
    """
    return 2 * size if size <= 64 else math.ceil(1.25 * size)


def decode_all(
    listing: Listing, *, size: int, max_bad: float, cache: Path | None, memory: int | None
) -> Pictures:
    """Decode every picture of a listing once; see :func:`~.sources.read_pictures` for the arguments."""
    limit = canvas_side(size)
    entry = Entry(cache or default_folder(), listing.place, limit)
    stored = entry.load(listing.items)
    if stored is None:
        stored = _decode_new(listing, limit, entry, max_bad, memory)
    return _pictures(listing, stored, max_bad)


def _decode_new(listing: Listing, limit: int, entry: Entry, max_bad: float, memory: int | None) -> Stored:
    items = listing.items
    looks = _in_parallel(lambda i: _attempt(header, items[i]), len(items), "looking at pictures")
    bad = {i: look for i, look in enumerate(looks) if isinstance(look, str)}
    check_bad(_named(listing, bad), len(items), max_bad, "pictures")
    channels, depth, side = _layout([look for look in looks if isinstance(look, Header)], limit)
    shape = (len(items), channels, side, side)

    def fill(pixels: Array, sizes: Array) -> dict[int, str]:
        def place(i: int) -> str | None:
            return bad.get(i) or _attempt(_lay, items[i], pixels[i], sizes[i])

        reasons = _in_parallel(place, len(items), "decoding pictures")
        return {i: reason for i, reason in enumerate(reasons) if reason is not None}

    dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)
    needed = math.prod(shape) * dtype.itemsize
    allowed = available_memory() // 4 if memory is None else memory
    if needed > allowed:
        told = f"{gigabytes(needed)} of pixels, more than the {gigabytes(allowed)} of memory allowed"
        logger.warning("%s: kept in %s", told, entry.folder)
        return entry.build(items, shape, dtype, fill)
    pixels, sizes = np.zeros(shape, dtype), np.zeros((len(items), 2), np.int32)
    return Stored(pixels, sizes, fill(pixels, sizes))


def _pictures(listing: Listing, stored: Stored, max_bad: float) -> Pictures:
    bad = _named(listing, stored.bad)
    check_bad(bad, len(listing.items), max_bad, "pictures")
    tell_bad(bad, len(listing.items), "pictures")
    rows = np.array([i for i in range(len(listing.items)) if i not in stored.bad])
    table = listing.table.iloc[rows].reset_index(drop=True)
    return Pictures(
        table, listing.label, listing.identity, bad, stored.pixels, stored.sizes, rows, listing.evaluation
    )


def _layout(headers: Sequence[Header], limit: int) -> tuple[int, int, int]:
    """Channels, depth and side of the canvas; grey only if all are, 16 bits only if all have them."""
    counts = Counter(look.channels for look in headers)
    channels = counts.most_common(1)[0][0]
    if channels == 1 and 3 in counts:
        channels = 3
    depth = min(look.depth for look in headers)
    return channels, depth, min(limit, max(look.side for look in headers))


def _lay(item: Any, canvas: Array, size: Array) -> None:
    """Decode one picture into the top left corner of ``canvas`` ``[C, S, S]`` and note its size."""
    channels, side, _ = canvas.shape
    picture = conform(decode(item, side), channels, 8 * canvas.itemsize)
    height, width, _ = picture.shape
    canvas[:, :height, :width] = picture.transpose(2, 0, 1)
    canvas[:, :height, width:] = canvas[:, :height, width - 1 : width]
    canvas[:, height:] = canvas[:, height - 1 : height]
    size[:] = height, width


def _attempt(function: Callable[..., Result], *arguments: Any) -> Result | str:
    """The result, or the reason why a picture is unreadable."""
    try:
        return function(*arguments)
    except UnreadableError as error:
        return str(error)


def _in_parallel(function: Callable[[int], Result], count: int, title: str) -> list[Result]:
    """``[function(0), …]`` over threads (Pillow lets go of the interpreter's lock while it decodes).

    A progress bar appears on a terminal after two seconds.
    """
    chunk = 32
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    console, start, results = Console(stderr=True), time.monotonic(), list[Result]()
    progress = Progress(console=console, transient=True)
    task = progress.add_task(title, total=count)
    pool = ThreadPoolExecutor(cores)

    def some(first: int) -> list[Result]:
        return [function(i) for i in range(first, min(first + chunk, count))]

    try:
        for part in pool.map(some, range(0, count, chunk)):
            results += part
            progress.update(task, completed=len(results))
            if console.is_terminal and time.monotonic() - start > 2:
                progress.start()
    finally:
        pool.shutdown(cancel_futures=True)
        if progress.live.is_started:  # stopping one that never began prints an empty line
            progress.stop()
    return results


def _named(listing: Listing, bad: dict[int, str]) -> list[tuple[str, str]]:
    names = listing.table["name"]
    return [(str(names.iloc[i]), bad[i]) for i in sorted(bad)]
