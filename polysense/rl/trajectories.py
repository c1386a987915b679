"""Trajectories on disk: frames in one mapped file, what is known of each in Parquet, whole episodes only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.deployment.folder import write_json, write_whole
from polysense.errors import PolysenseError

if TYPE_CHECKING:
    from torch import Tensor

    from polysense.evaluation.judge import Judgement
    from polysense.evaluation.protocol import Protocol
    from polysense.rl.language import Sentences

FRAMES, STEPS, ABOUT = "frames.npy", "steps", "about.json"

PART_FRAMES = 1000
"""Finished episodes of about so many frames are entered in the folder at once."""

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Moments:
    """Moments chosen from trajectories, by their frames' numbers: what a batch is made of."""

    trajectories: Trajectories
    rows: NDArray[np.int64]

    def stacks(self, rows: NDArray[np.int64], depth: int) -> Frames:
        """For frames ``rows`` ``[...]`` the ``depth`` latest each, oldest first: ``[..., depth, C, S, S]``.

        Before an episode's first frame that one is repeated.
        """
        back = rows[..., None] - np.arange(depth)[::-1]
        return np.asarray(
            self.trajectories.frames[np.maximum(back, self.trajectories.first[rows][..., None])]
        )


class Trajectories:
    """Episodes of frames; a :class:`~polysense.modalities.base.Dataset` with one sample for each frame.

    ``frames``: ``[N, C, S, S]`` bytes, episode after episode. ``table``: one row per frame, with ``name``,
    ``episode``, ``t``, and where they are known ``action`` (or ``action_0``, …), ``reward``,
    ``terminated``, ``truncated``: what was done at the frame and what came of it, empty at the last frame
    of an episode; ``state_…``: what the environment tells of its true state; ``mission``: in words.
    ``about``: where they are from. ``first``, ``last`` ``[N]``: the rows at which each frame's episode
    begins and ends. ``sentences``: the missions, embedded, where there are any.

    >>> frames = np.zeros((3, 1, 8, 8), np.uint8)
    >>> table = pd.DataFrame({"name": list("abc"), "episode": [0, 0, 1], "t": [0, 1, 0]})
    >>> Trajectories(frames, table, {}).last
    array([1, 1, 2])
    """

    identity: str | None = None
    evaluation: Mapping[str, Any] | None = None

    def __init__(
        self,
        frames: Frames,
        table: pd.DataFrame,
        about: Mapping[str, Any],
        label: str | None = None,
        sentences: Sentences | None = None,
    ) -> None:
        self.frames, self.table, self.about, self.label = frames, table, about, label
        self.sentences = sentences
        rows, t = np.arange(len(table)), table["t"].to_numpy()
        self.first = rows - t
        starts = np.flatnonzero(t == 0)
        lengths = np.diff([*starts, len(table)])
        self.last = np.repeat(starts + lengths - 1, lengths)

    def __len__(self) -> int:
        return len(self.table)

    def __getitems__(self, indices: Sequence[int]) -> Moments:
        """These moments; the modality looks up their frames, and those around them that it needs."""
        return Moments(self, np.asarray(indices, dtype=np.int64))

    def judge(self, features: Mapping[str, Tensor], protocol: Protocol) -> Judgement:
        """The verdict on features of these frames, see :func:`~.judging.judge_states`."""
        from polysense.rl.judging import judge_states

        return judge_states(features, self, protocol)

    @property
    def channels(self) -> int:
        """Of one frame."""
        return int(self.frames.shape[1])

    @property
    def side(self) -> int:
        """Frames are ``side`` x ``side`` pixels."""
        return int(self.frames.shape[2])

    @property
    def actions(self) -> int:
        """How many actions there are to choose from, or how many numbers make one; 0 where unknown."""
        return int((self.about.get("actions") or {}).get("size", 0))

    @property
    def sentence_dim(self) -> int:
        """The width of the missions' embeddings; 0 where there are none."""
        return 0 if self.sentences is None else self.sentences.embeddings.shape[1]

    @property
    def action(self) -> NDArray[Any] | None:
        """``[N]`` integers, -1 where none, or ``[N, A]`` float32, 0 where none; None where unknown."""
        if not self.actions:
            return None
        if self.about["actions"]["kind"] == "discrete":
            return self.table["action"].fillna(-1).to_numpy(np.int64)
        columns = [f"action_{i}" for i in range(self.actions)]
        return self.table[columns].fillna(0).to_numpy(np.float32)

    @property
    def states(self) -> list[str]:
        """The columns that tell the environment's true state."""
        return [str(name) for name in self.table if str(name).startswith("state_")]

    def __getstate__(self) -> dict[str, Any]:
        """A mapped file travels to a spawned process by its name, not by its contents."""
        mapped = isinstance(self.frames, np.memmap)
        return {**self.__dict__, "frames": self.frames.filename if mapped else self.frames}  # type: ignore[attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not isinstance(self.frames, np.ndarray):
            self.frames = np.load(self.frames, mmap_mode="r")[: len(self)]


def read_trajectories(
    source: str | Path | Trajectories, *, label: str | None = None, text: str | None = None
) -> Trajectories:
    """The trajectories of a folder that :func:`~.collect.collect` or :func:`~.reading.import_frames` made.

    ``text`` embeds their missions, by default a bag of words; see :func:`~.language.sentence_embedder`.

    Raises:
        PolysenseError: when it is no such folder, is damaged or empty, has no column ``label``, or there is
            no such encoder of texts.
    """
    found = source if isinstance(source, Trajectories) else _open(Path(source))
    if label is not None and label not in found.table:
        raise PolysenseError(
            f"trajectories have no column {label!r}; choose from {', '.join(map(str, found.table))}"
        )
    sentences = found.sentences
    if "mission" in found.table and (sentences is None or text is not None):
        from polysense.rl.language import BAG_OF_WORDS, Sentences

        sentences = Sentences.of(found.table["mission"], text or BAG_OF_WORDS)
    return Trajectories(found.frames, found.table, found.about, label, sentences)


def _open(folder: Path) -> Trajectories:
    about = _read_about(folder)
    table = _read_steps(folder)
    if not len(table):
        raise PolysenseError(f"{folder} holds no finished episode; collect more steps")
    try:
        frames = np.load(folder / FRAMES, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise PolysenseError(f"cannot read {folder / FRAMES} ({error}); collect the frames again") from error
    if len(frames) < len(table):
        raise PolysenseError(
            f"{folder / FRAMES} holds {len(frames)} frames where {len(table)} belong; collect them again"
        )
    names = "episode " + table["episode"].astype(str) + " step " + table["t"].astype(str)
    return Trajectories(frames[: len(table)], table.assign(name=names), about)


def _read_about(folder: Path) -> dict[str, Any]:
    if not (folder / ABOUT).is_file():
        told = "is not a folder of trajectories" if folder.exists() else "does not exist"
        raise PolysenseError(
            f"{folder} {told}: make one with polysense.rl.collect from an environment, or with"
            " polysense.rl.import_frames from folders of frames or videos"
        )
    about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return about


def _read_steps(folder: Path) -> pd.DataFrame:
    parts = [pd.read_parquet(path) for path in sorted((folder / STEPS).glob("[0-9]*.parquet"))]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"episode": [], "t": []})


class Writer:
    """Appends finished episodes to a folder of trajectories; what is not finished leaves no trace.

    Frames are appended to one ``.npy`` file, and count from the moment that a Parquet file of their steps
    stands beside them. Leaving the ``with`` block, even by an error, enters all finished episodes.

    Args:
        folder: made where it does not exist. One with trajectories of the same kind is continued.
        about: what the trajectories are, as plain values; ``shape`` is that of a frame, ``[C, S, S]``.
        resume: whether a folder that holds trajectories may be continued.

    Raises:
        PolysenseError: where the folder holds something else, or trajectories of another kind.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, resume: bool = True) -> None:
        self.folder, self.about = folder, dict(about)
        if (folder / ABOUT).exists():
            self._check_kind(resume)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise PolysenseError(f"{folder} exists and holds no trajectories; choose another out")
        (folder / STEPS).mkdir(parents=True, exist_ok=True)
        write_json(folder / ABOUT, self.about)
        steps = _read_steps(folder)
        self.frames = len(steps)
        self.episodes = int(steps["episode"].max()) + 1 if len(steps) else 0
        self._pending: list[pd.DataFrame] = []
        self._pending_frames = 0
        self._file = open(folder / FRAMES, "r+b" if (folder / FRAMES).exists() else "w+b")  # noqa: SIM115
        self._write_header()
        self._file.truncate(self._file.tell() + self.frames * int(np.prod(self.about["shape"])))
        self._file.seek(0, 2)

    def append(self, frames: Frames, columns: Mapping[str, Any]) -> None:
        """Add one episode: ``frames[T, C, S, S]``, and columns of T values or one for all.

        Raises:
            PolysenseError: for an episode of less than two frames, or frames of another shape.
        """
        if len(frames) < 2:
            raise PolysenseError(
                f"episode {self.episodes} has {len(frames)} frames; one needs at least 2 to learn from:"
                " leave it out"
            )
        if list(frames.shape[1:]) != list(self.about["shape"]):
            raise PolysenseError(
                f"a frame has shape {list(frames.shape[1:])} where {list(self.about['shape'])} was expected"
            )
        self._file.write(np.ascontiguousarray(frames, np.uint8).data)
        place = {"episode": self.episodes, "t": np.arange(len(frames))}
        self._pending.append(pd.DataFrame({**place, **columns}))
        self.episodes += 1
        self._pending_frames += len(frames)
        if self._pending_frames >= PART_FRAMES:
            self.commit()

    def commit(self) -> None:
        """Enter the finished episodes: first the frames, then what makes them count."""
        if not self._pending:
            return
        self.frames += self._pending_frames
        self._write_header()
        self._file.seek(0, 2)
        self._file.flush()
        part = pd.concat(self._pending, ignore_index=True)
        path = self.folder / STEPS / f"{self.frames:012d}.parquet"
        write_whole(path, lambda beside: part.to_parquet(beside, index=False))
        self._pending, self._pending_frames = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.commit()
        finally:
            self._file.close()

    def _write_header(self) -> None:
        """In place: numpy leaves room in the header for the first dimension to grow."""
        self._file.seek(0)
        shape = (self.frames, *self.about["shape"])
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _check_kind(self, resume: bool) -> None:
        found = _read_about(self.folder)
        if not resume:
            raise PolysenseError(f"{self.folder} holds trajectories; choose another out, or let it resume")
        for name in {**found, **self.about}:
            if found.get(name) != self.about.get(name):
                raise PolysenseError(
                    f"{self.folder} was made with {name} {found.get(name)!r}, not {self.about.get(name)!r};"
                    " choose another out, or continue with the same settings"
                )
