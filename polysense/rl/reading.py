"""Frames that somebody else recorded: folders of pictures and videos, each an episode, as trajectories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from polysense.errors import PolysenseError, require
from polysense.rl.captions import Caption, of_recordings, read_captions
from polysense.rl.environments import shrink
from polysense.rl.trajectories import Trajectories, Writer, read_trajectories

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def import_frames(
    source: str | Path,
    *,
    out: str | Path,
    captions: Any = None,
    size: int = 64,
    grey: bool = True,
    every: int = 1,
    fps: float = 30.0,
) -> Trajectories:
    """Keep a folder's recordings as trajectories in the folder ``out``.

    Each subfolder of pictures (in the order of their names, 2 before 10) and each video is one episode, or
    each stretch of it that has a caption; the caption becomes the episode's mission, from which ``r3m`` and
    ``liv`` learn. Recordings tell neither actions nor states: ``state_contrast``, ``vip``, ``r3m`` and
    ``curl`` learn from them.

    Args:
        source: the folder.
        out: the folder of the trajectories, a new one.
        captions: a table or its file, with the columns video, text and, in seconds, start and end; see
            :func:`~.captions.read_captions`. Recordings without any are kept whole.
        size: side of the kept frames in pixels; others are squeezed into the square.
        grey: keep one channel, not three.
        every: keep every so many frames.
        fps: how many pictures of a folder make a second.

    Raises:
        PolysenseError: when there is nothing to read, a picture or video cannot be decoded or ends early, an
            episode has less than two frames, or a caption lies outside of its recording.
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
    if fps <= 0:
        raise PolysenseError(f"fps is {fps}; it must be above 0")
    told = of_recordings({} if captions is None else read_captions(captions), recordings)
    about = {
        "recordings": str(folder),
        "shape": [1 if grey else 3, size, size],
        "every": every,
        "actions": None,
    }
    with Writer(Path(out), about, resume=False) as writer:
        for path in recordings:
            kept = [
                (time, shrink(frame, size, grey))
                for time, frame in islice(_frames(path, fps), 0, None, every)
            ]
            if len(kept) < 2:
                raise PolysenseError(f"the recording {path} has {len(kept)} frames; it needs at least 2")
            times, frames = (np.stack(each) for each in zip(*kept, strict=True))
            for text, rows in _episodes(path, times, told[path]):
                mission = {} if captions is None else {"mission": text}
                writer.append(frames[rows], {"recording": path.name, **mission})
    return read_trajectories(Path(out))


def _episodes(
    path: Path, times: NDArray[np.float64], captions: list[Caption]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The captions of a recording and the places of the frames of each; without any, all of it."""
    if not captions:
        yield "", np.arange(len(times))
    duration = float(2 * times[-1] - times[-2])  # the last frame is shown for as long as the one before
    for caption in captions:
        yield caption.text, caption.frames(times, duration, path)


def _is_recording(path: Path) -> bool:
    if path.is_dir():
        return any(inside.suffix.lower() in PICTURES for inside in path.iterdir())
    return path.suffix.lower() in VIDEOS


def _frames(path: Path, fps: float) -> Iterator[tuple[float, Any]]:
    """The frames of a recording as arrays ``[H, W, 3]`` of bytes, and their times in seconds."""
    if path.is_file():
        return _video(path, fps)
    return ((place / fps, frame) for place, frame in enumerate(_pictures(path)))


def _pictures(folder: Path) -> Iterator[Any]:
    for path in _in_order(folder.iterdir()):
        if path.suffix.lower() not in PICTURES:
            continue
        try:
            with Image.open(path) as picture:
                yield np.asarray(picture.convert("RGB"))
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise PolysenseError(f"cannot read the frame {path} ({error}); mend or remove it") from error


def _video(path: Path, fps: float) -> Iterator[tuple[float, Any]]:
    av = require("av", "rl", "reading videos")
    try:
        with av.open(str(path)) as container:
            stream, decoded = container.streams.video[0], 0
            rate = float(stream.average_rate or fps)
            for decoded, frame in enumerate(container.decode(video=0), 1):
                time = (decoded - 1) / rate if frame.time is None else frame.time
                yield time, frame.to_ndarray(format="rgb24")
            if decoded < stream.frames - 1:  # 0 where the file does not tell
                raise PolysenseError(
                    f"the video {path} ends after {decoded} of {stream.frames} frames; mend or remove it"
                )
    except (av.error.FFmpegError, IndexError) as error:
        raise PolysenseError(f"cannot decode the video {path} ({error}); mend or remove it") from error


def _in_order(paths: Iterator[Path]) -> list[Path]:
    """By name, with numbers as numbers."""

    def key(path: Path) -> list[str | int]:
        parts = re.split(r"(\d+)", path.name)  # words and numbers in turn
        return [int(part) if place % 2 else part for place, part in enumerate(parts)]

    return sorted(paths, key=key)
