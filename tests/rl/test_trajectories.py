from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from polysense.errors import PolysenseError
from polysense.rl import trajectories as module
from polysense.rl.trajectories import ABOUT, FRAMES, Writer, read_trajectories
from tests.rl.toys import counted

KIND = {"environment": "toy", "shape": [1, 8, 8], "actions": None}


def episode(length: int, value: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    frames = np.full((length, 1, 8, 8), value, np.uint8)
    return frames, {"reward": np.arange(length, dtype=np.float32)}


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    with Writer(tmp_path / "a", KIND) as writer:
        for value in range(3):
            writer.append(*episode(4 + value, value))
    found = read_trajectories(tmp_path / "a")
    assert found.table["episode"].tolist() == [0] * 4 + [1] * 5 + [2] * 6
    assert found.table["t"].tolist() == [*range(4), *range(5), *range(6)]
    assert np.array_equal(found.frames[:, 0, 0, 0], found.table["episode"])
    assert found.first.tolist() == [0] * 4 + [4] * 5 + [9] * 6
    assert found.last.tolist() == [3] * 4 + [8] * 5 + [14] * 6
    assert np.load(tmp_path / "a" / FRAMES).shape == (15, 1, 8, 8)
    assert found.table["name"][5] == "episode 1 step 1"


def test_a_killed_collection_keeps_what_was_entered_and_continues(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a", KIND)
    writer.append(*episode(4, 1))
    writer.commit()
    writer.append(*episode(5, 2))
    writer._file.flush()  # killed here: frames without steps
    with Writer(tmp_path / "a", KIND) as again:
        assert (again.episodes, again.frames) == (1, 4)
        again.append(*episode(3, 3))
    found = read_trajectories(tmp_path / "a")
    assert found.frames[:, 0, 0, 0].tolist() == [1] * 4 + [3] * 3


def test_an_error_in_the_block_keeps_the_finished_episodes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "a", KIND) as writer:  # noqa: PT012
        writer.append(*episode(4))
        raise KeyboardInterrupt
    assert len(read_trajectories(tmp_path / "a")) == 4


def test_episodes_are_entered_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_FRAMES", 6)
    writer = Writer(tmp_path / "a", KIND)
    for value in range(5):
        writer.append(*episode(4, value))
    assert len(read_trajectories(tmp_path / "a")) == 16  # the fifth is not entered yet


def test_a_mapped_file_travels_by_its_name(tmp_path: Path) -> None:
    with Writer(tmp_path / "a", KIND) as writer:
        writer.append(*episode(40))
    found = read_trajectories(tmp_path / "a")
    sent = pickle.dumps(found)
    assert len(sent) < found.frames.nbytes + 4000
    assert np.array_equal(pickle.loads(sent).frames, found.frames)


def test_stacks_do_not_reach_back_over_an_episodes_start() -> None:
    moments = counted((3, 4)).__getitems__([0, 1, 2, 3, 6])
    numbers = moments.stacks(moments.rows, 3)[:, :, 0, 0, 0]
    assert numbers.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [3, 3, 3], [4, 5, 6]]


def test_actions_are_numbers_and_none_where_none_was_taken() -> None:
    assert counted((2, 3)).action.tolist() == [0, -1, 2, 0, -1]
    assert counted().actions == 3


def refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "a"
    if what == "missing":
        read_trajectories(folder)
    if what == "foreign":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
        read_trajectories(folder)
    if what == "occupied":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
        Writer(folder, KIND)
    with Writer(folder, KIND) as writer:
        if what == "empty":
            read_trajectories(folder)
        if what == "short":
            writer.append(*episode(1))
        if what == "shape":
            writer.append(np.zeros((3, 3, 8, 8), np.uint8), episode(3)[1])
        writer.append(*episode(3))
    if what == "other":
        Writer(folder, {**KIND, "environment": "other"})
    if what == "again":
        Writer(folder, KIND, resume=False)
    if what == "label":
        read_trajectories(folder, label="kind")
    if what == "cut":
        (folder / FRAMES).write_bytes((folder / FRAMES).read_bytes()[:200])
        read_trajectories(folder)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "does not exist: make one with polysense.rl.collect"),
        ("foreign", "is not a folder of trajectories"),
        ("occupied", "exists and holds no trajectories; choose another out"),
        ("empty", "holds no finished episode; collect more"),
        ("short", "episode 0 has 1 frames; one needs at least 2"),
        ("shape", r"shape \[3, 8, 8\] where \[1, 8, 8\] was expected"),
        ("other", "was made with environment 'toy', not 'other'"),
        ("again", "holds trajectories; choose another out"),
        ("label", "no column 'kind'; choose from"),
        ("cut", "cannot read .*frames.npy"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, what: str, words: str) -> None:
    with pytest.raises(PolysenseError, match=words):
        refused(tmp_path, what)


def test_nothing_half_done_is_left(tmp_path: Path) -> None:
    with Writer(tmp_path / "a", KIND) as writer:
        writer.append(*episode(3))
    assert sorted(path.name for path in (tmp_path / "a").rglob("*") if path.is_file()) == sorted(
        [ABOUT, FRAMES, f"{3:012d}.parquet"]
    )
