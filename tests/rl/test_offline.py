"""Against Minari's documented interface, which a stand-in offers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from polysense.errors import PolysenseError
from polysense.rl import rendering
from polysense.rl.offline import import_minari


@dataclass
class Played:
    """Two episodes, of 3 and 2 steps, with one observation more."""

    action_space: Any
    observe: Any

    def iterate_episodes(self) -> Iterator[Any]:
        rng = np.random.default_rng(0)
        for number, steps in enumerate((3, 2)):
            yield SimpleNamespace(
                observations=self.observe(rng, steps + 1),
                actions=np.stack([self.action_space.sample() for _ in range(steps)]),
                rewards=np.arange(steps) + 10.0 * number,
                terminations=np.array([False] * (steps - 1) + [number == 0]),
                truncations=np.array([False] * (steps - 1) + [number == 1]),
            )


def pictures(rng: np.random.Generator, count: int) -> Any:
    return rng.integers(0, 256, (count, 40, 60, 3), dtype=np.uint8)


def states(rng: np.random.Generator, count: int) -> Any:
    return rng.uniform(-1, 1, (count, 3))


def test_pictures_actions_and_rewards_are_kept(tmp_path: Path) -> None:
    found = import_minari(Played(gym.spaces.Discrete(4), pictures), out=tmp_path / "a", size=16, grey=False)
    assert found.frames.shape == (7, 3, 16, 16)
    assert found.table["episode"].tolist() == [0] * 4 + [1] * 3
    assert found.table["reward"].dropna().tolist() == [0, 1, 2, 10, 11]
    assert np.flatnonzero(found.table["terminated"]).tolist() == [2]
    assert np.flatnonzero(found.table["truncated"]).tolist() == [5]
    assert (found.actions, found.states) == (4, [])


def test_states_are_drawn_and_kept(tmp_path: Path) -> None:
    played = Played(gym.spaces.Box(-1, 1, (2,)), states)
    found = import_minari(played, out=tmp_path / "a", size=16, renderer=rendering.pendulum)
    assert found.states == ["state_0", "state_1", "state_2"]
    assert found.action is not None
    assert found.action.shape == (7, 2)
    expected = rendering.pendulum(found.table[found.states].to_numpy(), 16)
    assert np.abs(found.frames.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("observe", "words"),
    [
        (states, r"are float64 \[3\], neither pictures"),
        (lambda rng, count: {"image": pictures(rng, count)}, "are a dict, neither pictures"),
    ],
)
def test_observations_that_are_no_frames_are_told(tmp_path: Path, observe: Any, words: str) -> None:
    with pytest.raises(PolysenseError, match=words):
        import_minari(Played(gym.spaces.Discrete(2), observe), out=tmp_path / "a", size=16)


def test_a_data_set_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, download: bool) -> Any:
        if name != "game/random-v0" or not download:
            raise ValueError(f"{name} is not there")
        return Played(gym.spaces.Discrete(4), pictures)

    monkeypatch.setitem(sys.modules, "minari", SimpleNamespace(load_dataset=load_dataset))
    assert len(import_minari("game/random-v0", out=tmp_path / "a", size=16)) == 7
    with pytest.raises(PolysenseError, match=r"no data set 'nowhere' \(nowhere is not there\)"):
        import_minari("nowhere", out=tmp_path / "b")
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(
        PolysenseError, match=r"needs the package 'minari': pip install 'polysense\[minari\]'"
    ):
        import_minari("game/random-v0", out=tmp_path / "c")
