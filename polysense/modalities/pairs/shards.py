"""Tar files of samples (WebDataset's shards): indexed once, then read anywhere, or piped and read through."""

from __future__ import annotations

import glob
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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
            for sample, extension, member in _members(shard):
                yield sample, extension, Slice(str(path.resolve()), member.offset_data, member.size, modified)
            if 0 < os.path.getsize(path) - shard.offset < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("unexpected end of data")  # in a header the library says nothing
    except tarfile.ReadError as error:
        raise _unreadable(str(path), error) from error


def stream_files(stream: IO[bytes], wants: Callable[[str], bool]) -> Iterator[tuple[str, str, bytes]]:
    """The files with extensions that are wanted in a stream of tar files, one behind the other.

    As :func:`shard_files`, with their content; samples are told apart by the number of their tar file.

    Raises:
        PolysenseError: when it is empty, no tar file, compressed, or cut short.
    """
    peeking: Any = stream if hasattr(stream, "peek") else io.BufferedReader(stream)
    number = 0
    while first := peeking.peek(1)[:1]:
        if first == b"\0":  # what fills up the end of a tar file
            peeking.read(tarfile.BLOCKSIZE)
            continue
        try:
            with tarfile.open(fileobj=peeking, mode="r|", bufsize=tarfile.BLOCKSIZE) as shard:
                for sample, extension, member in _members(shard):
                    if wants(extension):
                        yield f"shard {number}/{sample}", extension, _content(shard, member)
            if peeking.peek(1)[:1] != b"\0":  # a tar file ends in two empty blocks, of which one was read
                raise tarfile.ReadError("unexpected end of data")
        except tarfile.ReadError as error:
            raise _unreadable("the stream", error) from error
        number += 1
    if number == 0:
        raise PolysenseError("the stream is empty; pipe tar files into it")


def _members(shard: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    for member in shard:
        folder, _, file = member.name.rpartition("/")
        stem, _, extension = file.partition(".")
        if member.isfile() and stem:
            yield f"{folder}/{stem}".lstrip("/"), extension.lower(), member


def _content(shard: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = shard.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _unreadable(place: str, error: Exception) -> PolysenseError:
    return PolysenseError(
        f"cannot read {place} as a tar file ({error}); unpack it if it is compressed, or fetch it again"
    )
