"""Tar files of samples (WebDataset's shards): indexed once, then read anywhere."""

from __future__ import annotations

import glob
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polysense.errors import PolysenseError
from polysense.modalities.files import no_such_path


@dataclass(frozen=True)
class Slice:
    """A file inside another one; it is read when it is asked for."""

    path: str
    start: int
    size: int
    modified: int

    def read_bytes(self) -> bytes:
        """What it holds."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def shard_paths(pattern: str) -> list[Path]:
    """The tar files that a name, a glob or a range in braces stands for, in order.

    >>> [path.name for path in shard_paths("shard-{008..010}.tar")]
    Traceback (most recent call last):
    ...
    polysense.errors.PolysenseError: no such file or folder: shard-008.tar
    """
    ranged = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if ranged is not None:
        first, last = ranged.groups()
        numbers = range(int(first), int(last) + 1)
        before, after = pattern[: ranged.start()], pattern[ranged.end() :]
        return [path for n in numbers for path in shard_paths(f"{before}{n:0{len(first)}}{after}")]
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if glob.has_magic(pattern) and (found := sorted(glob.glob(str(path)))):
        return [Path(one) for one in found]
    raise no_such_path(path)


def shard_files(path: Path) -> Iterator[tuple[str, str, Slice]]:
    """Every file in a tar file: its sample (the name up to the first dot), its extension, and where it lies.

    Raises:
        PolysenseError: when it is no tar file, compressed, or cut short.
    """
    modified = os.stat(path).st_mtime_ns
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                folder, _, file = member.name.rpartition("/")
                stem, _, extension = file.partition(".")
                if member.isfile() and stem:
                    piece = Slice(str(path.resolve()), member.offset_data, member.size, modified)
                    yield f"{folder}/{stem}".lstrip("/"), extension.lower(), piece
            if 0 < os.path.getsize(path) - shard.offset < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("unexpected end of data")  # in a header the library says nothing
    except tarfile.ReadError as error:
        raise PolysenseError(
            f"cannot read {path} as a tar file ({error}); unpack it if it is compressed, or fetch it again"
        ) from error
