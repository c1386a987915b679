"""Decoded pictures on disk: one folder per source, complete or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from polysense.errors import PolysenseError
from polysense.modalities.vision.decode import Array, to_numpy

_FORMAT = 1
"""Raise it when decoding changes, so that older caches are rebuilt."""


@dataclass(frozen=True)
class Stored:
    """``pixels`` ``[R, C, S, S]``, ``sizes`` ``[R, 2]`` (height, width), and why rows could not be read."""

    pixels: Array
    sizes: Array
    bad: dict[int, str]


class Entry:
    """The place in a cache of one source at one canvas size.

    The folder appears by renaming when everything in it is written, so a process that is killed leaves
    nothing that looks complete. A source that has changed since (its files' sizes and times, or its
    bytes) takes the same place again. A lock makes the processes of one job build it once.
    """

    def __init__(self, cache: Path, place: str, limit: int) -> None:
        label = re.sub(r"\W+", "-", Path(place).stem)[:40].strip("-")
        key = hashlib.blake2b(
            f"{place}\n{limit}".encode("utf-8", "surrogateescape"), digest_size=6
        ).hexdigest()
        self.folder = cache.expanduser() / f"{label}-{limit}px-{key}"

    def load(self, items: Sequence[Any]) -> Stored | None:
        """What is stored, or None where nothing is, or it is incomplete or stale."""
        return self._load(_fingerprint(items)) if self.folder.exists() else None

    def build(
        self,
        items: Sequence[Any],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        fill: Callable[[Array, Array], dict[int, str]],
    ) -> Stored:
        """Have ``fill(pixels, sizes)`` write the pictures and tell the bad ones, and store that.

        Raises:
            PolysenseError: if the disk has no room or cannot be written.
        """
        fingerprint = _fingerprint(items)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(self.folder.with_name(self.folder.name + ".lock")):
                stored = self._load(fingerprint)  # another process may have built it while this one waited
                if stored is None:
                    self._write(fingerprint, shape, dtype, fill)
                    stored = self._load(fingerprint)
        except OSError as error:
            raise PolysenseError(
                f"cannot keep decoded pictures in {self.folder.parent} ({error.strerror or error}); "
                f"give another folder with --cache, or more --memory"
            ) from error
        if stored is None:
            raise PolysenseError(f"{self.folder} was changed while it was written; read the pictures again")
        return stored

    def _load(self, fingerprint: str) -> Stored | None:
        try:
            meta = json.loads((self.folder / "meta.json").read_text())
            if meta["fingerprint"] != fingerprint:
                return None
            pixels = np.load(self.folder / "pixels.npy", mmap_mode="r")
            sizes = np.load(self.folder / "sizes.npy")
            return Stored(pixels, sizes, {int(row): reason for row, reason in meta["bad"].items()})
        except (OSError, ValueError, KeyError, EOFError):
            return None

    def _write(
        self,
        fingerprint: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        fill: Callable[[Array, Array], dict[int, str]],
    ) -> None:
        part = self.folder.with_name(self.folder.name + ".part")
        for left in (part, self.folder):
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir()
        needed, free = int(np.prod(shape)) * dtype.itemsize, shutil.disk_usage(part).free
        if needed > free:  # writing to a mapped file on a full disk kills the process
            raise OSError(f"{gigabytes(needed)} needed, {gigabytes(free)} free")
        pixels = np.lib.format.open_memmap(part / "pixels.npy", mode="w+", dtype=dtype, shape=shape)
        sizes = np.zeros((shape[0], 2), np.int32)
        bad = fill(pixels, sizes)
        pixels.flush()
        np.save(part / "sizes.npy", sizes)
        (part / "meta.json").write_text(json.dumps({"fingerprint": fingerprint, "bad": bad}))
        part.rename(self.folder)


def default_folder() -> Path:
    """``~/.cache/polysense/pictures``, or where ``XDG_CACHE_HOME`` points."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "polysense" / "pictures"


def gigabytes(count: int) -> str:
    """Bytes for people.

    >>> gigabytes(1_540_000_000)
    '1.54 GB'
    """
    return f"{count / 1e9:.3g} GB"


def available_memory() -> int:
    """Bytes of memory that can still be had, under the limit of a container where there is one."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            available = min(available, int(Path("/sys/fs/cgroup/memory.max").read_text()))
        return available
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if hasattr(os, "sysconf") else 2**32


def _fingerprint(items: Sequence[Any]) -> str:
    """Changes when a picture does: a file's name, size and time, anything else's content."""
    digest = hashlib.blake2b(f"{_FORMAT} {len(items)}".encode(), digest_size=16)
    for i in range(len(items)):
        for part in _traits(items[i]):
            digest.update(part)
    return digest.hexdigest()


def _traits(item: Any) -> Iterator[bytes | memoryview]:
    if isinstance(item, Mapping):
        item = item["bytes"] if item.get("bytes") is not None else item.get("path")
    if isinstance(item, str | Path):
        try:
            found = os.stat(item)
            yield f"{item} {found.st_size} {found.st_mtime_ns}".encode("utf-8", "surrogateescape")
        except OSError:
            yield f"{item} missing".encode("utf-8", "surrogateescape")
    elif isinstance(item, bytes | bytearray | memoryview):
        yield f"{len(item)} ".encode()
        yield item if isinstance(item, bytes) else bytes(item)
    elif isinstance(item, Image.Image):
        yield f"{item.mode} {item.size}".encode()
        with contextlib.suppress(Exception):  # an image that cannot be loaded is reported when it is decoded
            yield item.tobytes()
    elif isinstance(item, np.ndarray | torch.Tensor):
        array = np.ascontiguousarray(to_numpy(item))
        yield f"{array.dtype} {array.shape}".encode()
        yield array.tobytes()
    else:
        yield (repr(item) if hasattr(item, "read_bytes") else repr(type(item))).encode()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that the system lets go of even when the process is killed; none on Windows."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
