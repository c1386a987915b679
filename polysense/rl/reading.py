"""Frames that somebody else recorded: folders of pictures and videos, each an episode, as trajectories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from polysense.errors import PolysenseError, require
from polysense.rl.collect import shrink
from polysense.rl.trajectories import Trajectories, Writer, read_trajectories

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def import_frames(
    source: str | Path, *, out: str | Path, size: int = 64, grey: bool = True, every: int = 1
) -> Trajectories:
    """Keep a folder's recordings as trajectories in the folder ``out``.

    Each subfolder of pictures (in the order of their names, 2 before 10) and each video is one episode.
    Recordings tell neither actions nor states: ``state_contrast``, ``vip``, ``r3m`` and ``curl`` learn from
    them.

    Args:
        source: the folder.
        out: the folder of the trajectories, a new one.
        size: side of the kept frames in pixels; others are squeezed into the square.
        grey: keep one channel, not three.
        every: keep every so many frames.

    Raises:
        PolysenseError: when there is nothing to read, a picture or video cannot be decoded, or an episode
            has less than two frames.
    """
    folder = Path(source)
    recordings = (
        [path for path in _in_order(folder.iterdir()) if _is_recording(path)] if folder.is_dir() else []
    )
    if not recordings:
        raise PolysenseError(
            f"{folder} holds no recordings; give a folder with a subfolder of pictures for each episode, or"
            " with videos"
        )
    if every < 1:
        raise PolysenseError(f"every is {every}; it must be at least 1")
    about = {
        "recordings": str(folder),
        "shape": [1 if grey else 3, size, size],
        "every": every,
        "actions": None,
    }
    with Writer(Path(out), about, resume=False) as writer:
        for path in recordings:
            frames = [
                shrink(frame, size, grey) for place, frame in enumerate(_frames(path)) if place % every == 0
            ]
            if len(frames) < 2:
                raise PolysenseError(f"the recording {path} has {len(frames)} frames; it needs at least 2")
            writer.append(np.stack(frames), {"recording": path.name})
    return read_trajectories(Path(out))


def _is_recording(path: Path) -> bool:
    if path.is_dir():
        return any(inside.suffix.lower() in PICTURES for inside in path.iterdir())
    return path.suffix.lower() in VIDEOS


def _frames(path: Path) -> Iterator[Any]:
    """The frames of a recording as arrays ``[H, W, 3]`` of bytes."""
    return _video(path) if path.is_file() else _pictures(path)


def _pictures(folder: Path) -> Iterator[Any]:
    for path in _in_order(folder.iterdir()):
        if path.suffix.lower() not in PICTURES:
            continue
        try:
            with Image.open(path) as picture:
                yield np.asarray(picture.convert("RGB"))
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise PolysenseError(f"cannot read the frame {path} ({error}); mend or remove it") from error


def _video(path: Path) -> Iterator[Any]:
    av = require("av", "rl", "reading videos")
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, IndexError) as error:
        raise PolysenseError(f"cannot decode the video {path} ({error}); mend or remove it") from error


def _in_order(paths: Iterator[Path]) -> list[Path]:
    """By name, with numbers as numbers."""
    return sorted(paths, key=lambda path: [(len(part), part) for part in re.split(r"(\d+)", path.name)])
