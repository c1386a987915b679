from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from polysense.errors import PolysenseError
from polysense.rl import rendering
from polysense.rl.collect import collect
from polysense.rl.environments import make_env, shrink
from polysense.rl.trajectories import read_trajectories
from tests.rl.toys import Dot


def test_frames_actions_rewards_and_states_of_one_step_stand_in_one_row(tmp_path: Path) -> None:
    found = collect(Dot(), out=tmp_path / "a", steps=30, size=16)
    table = found.table
    assert table["episode"].value_counts(sort=False).tolist() == [13, 13, 7]  # 12 + 12 + 6 steps
    inside = table["action"].notna()
    assert inside.tolist() == [*[True] * 12, False, *[True] * 12, False, *[True] * 6, False]
    moved = table["state_0"].diff().shift(-1)[inside].to_numpy()
    np.testing.assert_allclose(moved, np.where(table["action"][inside] == 1, 0.1, -0.1), atol=1e-6)
    assert table["reward"][inside].eq(1).all()
    assert np.flatnonzero(table["terminated"]).tolist() == [11, 24]
    assert np.flatnonzero(table["truncated"]).tolist() == [31]  # cut short at 30 steps
    dots = found.frames[:, 0].mean(1).argmax(1)  # the brightest column
    expected = np.clip(30 + 20 * table["state_0"], 0, 59) * 16 / 60
    np.testing.assert_allclose(dots + 0.5, expected, atol=1)


def test_an_interrupted_collection_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = collect(Dot(), out=tmp_path / "whole", steps=60, size=16)

    class Interrupted(Dot):
        steps = 0

        def step(self, action: Any) -> Any:
            Interrupted.steps += 1
            if Interrupted.steps == 30:
                raise KeyboardInterrupt
            return super().step(action)

        @property
        def spec(self) -> Any:
            return None

        @property
        def unwrapped(self) -> Any:
            return Dot()

    with pytest.raises(KeyboardInterrupt):
        collect(Interrupted(), out=tmp_path / "parts", steps=60, size=16)
    assert len(read_trajectories(tmp_path / "parts")) == 26
    parts = collect(Dot(), out=tmp_path / "parts", steps=60, size=16)
    assert parts.table.equals(whole.table)
    assert np.array_equal(parts.frames, whole.frames)


class Fragile(Dot):
    """It breaks in its third episode."""

    episodes = 0

    def reset(self, **options: Any) -> Any:
        observation, info = super().reset(**options)
        if abs(self.place - THIRD) < 1e-6:
            raise ValueError("the dot fell off")
        return observation, info


THIRD = 0.16022755180126824
"""Where the third episode of the seed 0 begins."""


def test_several_processes_collect_what_one_would_have(tmp_path: Path) -> None:
    """Also when they go on after an interruption; Dots are made by a function."""
    whole = collect(Dot(), out=tmp_path / "whole", steps=100, size=16)
    assert whole.table["state_0"][26] == pytest.approx(THIRD)
    with pytest.raises(ValueError, match="fell off"):
        collect(Fragile, out=tmp_path / "parts", steps=100, size=16, envs=2)
    assert read_trajectories(tmp_path / "parts").table["episode"].unique().tolist() == [0, 1]
    (tmp_path / "parts" / "about.json").write_text((tmp_path / "whole" / "about.json").read_text())
    parts = collect(lambda: Dot(), out=tmp_path / "parts", steps=100, size=16, envs=2)
    assert parts.table.equals(whole.table)
    assert np.array_equal(parts.frames, whole.frames)
    again = collect(
        lambda: Dot(), out=tmp_path / "parts", steps=20, size=16, envs=2
    )  # more than that is there
    assert len(again) == len(whole)


def test_a_process_that_dies_is_told_and_what_was_finished_is_kept(tmp_path: Path) -> None:
    def dies(observation: Any) -> int:
        if abs(float(observation[0]) - THIRD) < 1e-6:
            os._exit(1)
        return 1

    with pytest.raises(PolysenseError, match="a process that played has died"):
        collect(Dot, out=tmp_path / "a", steps=100, size=16, envs=2, policy=dies)
    assert not list((tmp_path / "a" / "steps").glob(".*"))


def test_a_complete_collection_is_left_alone(tmp_path: Path) -> None:
    collect(Dot(), out=tmp_path / "a", steps=12, size=16)
    assert len(collect(Dot(), out=tmp_path / "a", steps=12, size=16)) == 13


def test_repeated_actions_add_up_their_rewards(tmp_path: Path) -> None:
    table = collect(Dot(), out=tmp_path / "a", steps=3, size=16, action_repeat=5).table
    assert table["reward"].tolist()[:3] == [5, 5, 2]  # the episode ends in the third action
    assert bool(table["terminated"][2])


class Picture(Dot):
    """Its observations are pictures, and it does not render."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(render_mode=None)
        self.observation_space = gym.spaces.Box(0, 255, (40, 60, 3), np.uint8)

    def observe(self) -> Any:
        return self.render()


def test_observations_that_are_pictures_are_taken_in_colour(tmp_path: Path) -> None:
    found = collect(Picture(), out=tmp_path / "a", steps=5, size=16, grey=False)
    assert found.frames.shape == (6, 3, 16, 16)
    assert found.states == []


def test_a_named_environment_and_its_names_for_the_state(tmp_path: Path) -> None:
    found = collect("CartPole-v1", out=tmp_path / "a", steps=12, size=16)
    assert found.states == ["state_x", "state_velocity", "state_angle", "state_angular_velocity"]
    assert found.actions == 2
    assert found.frames.min() < 128 < found.frames.max()


def test_continuous_actions_are_kept_as_numbers(tmp_path: Path) -> None:
    found = collect("Pendulum-v1", out=tmp_path / "a", steps=4, size=16, renderer=rendering.pendulum)
    assert found.about["actions"] == {"kind": "continuous", "size": 1}
    assert found.action.shape == (5, 1)
    assert 0 < np.abs(found.action[:4]).max() <= 2
    assert found.action[4] == 0


def test_a_mission_is_kept_in_words(tmp_path: Path) -> None:
    pytest.importorskip("minigrid")
    found = collect("MiniGrid-Empty-5x5-v0", out=tmp_path / "a", steps=3, size=16, grey=False)
    assert found.table["mission"].tolist() == ["get to the green goal square"] * 4


def test_a_function_and_a_saved_agent_can_play(tmp_path: Path) -> None:
    collect(Dot(), out=tmp_path / "f", steps=12, size=16, policy=lambda observation: int(observation[0] < 0))
    assert set(read_trajectories(tmp_path / "f").table["action"].dropna()) == {0, 1}
    library = pytest.importorskip("stable_baselines3")
    model = library.PPO("MlpPolicy", Dot(), policy_kwargs={"net_arch": [8]}, n_steps=8, batch_size=8)
    model.save(tmp_path / "model.zip")
    found = collect(Dot(), out=tmp_path / "z", steps=8, size=16, policy=tmp_path / "model.zip")
    assert len(found) == 9


def test_a_loaded_agent_acts_as_the_one_that_was_saved(tmp_path: Path) -> None:
    library = pytest.importorskip("stable_baselines3")
    from polysense.rl.policies import load_policy

    model = library.DQN("MlpPolicy", Dot(), policy_kwargs={"net_arch": [8]}, learning_starts=1)
    model.save(tmp_path / "model.zip")
    loaded = load_policy(tmp_path / "model.zip", Dot())
    for place in np.linspace(-1, 1, 9, dtype=np.float32):
        observation = np.array([place])
        assert (
            loaded.predict(observation, deterministic=True)[0]
            == model.predict(observation, deterministic=True)[0]
        )


class Broken(Dot):
    def observe(self) -> Any:
        return np.array([np.nan if self.t == 2 else self.place], np.float32)


class Growing(Dot):
    def render(self) -> Any:
        return np.zeros((40 + self.t, 60, 3), np.uint8)


class Blind(Dot):
    metadata = {"render_modes": []}  # noqa: RUF012


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("ALE/Pong-v5", r"ALE/Pong-v5 needs the package 'ale_py': pip install 'polysense\[atari\]'"),
        ("dm_control/cartpole-swingup-v0", r"needs the package 'shimmy': .* 'polysense\[dm_control\]'"),
        ("Nowhere-v0", "gymnasium cannot make the environment 'Nowhere-v0'"),
        (
            Dot(render_mode=None),
            "Dot was made with render_mode None, .* make it with render_mode='rgb_array'",
        ),
        (Blind(render_mode=None), "Blind has no pixels"),
        (Broken(), "Broken gave an observation with NaN at step 2"),
        (Growing(), r"size of the frames changed from \[40, 60, 3\] to \[41, 60, 3\] at step 1"),
    ],
)
def test_an_environment_that_will_not_do_is_told(tmp_path: Path, env: Any, words: str) -> None:
    with pytest.raises(PolysenseError, match=words):
        collect(env, out=tmp_path / "a", steps=5, size=16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"envs": 0}, "envs is 0; it must be at least 1"),
        ({"envs": 2}, "only an environment's name, or a function .* several times at once"),
        ({"policy": 3}, "a policy is 'random', .* not a int"),
        ({"policy": "nowhere.zip"}, "there is no policy nowhere.zip"),
    ],
)
def test_options_that_will_not_do_are_told(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(PolysenseError, match=words):
        collect(Dot(), out=tmp_path / "a", **{"size": 16, "steps": 2, **options})


def test_what_cannot_be_sent_to_a_process_is_told(tmp_path: Path) -> None:
    lock = threading.Lock()
    with pytest.raises(PolysenseError, match=r"cannot be sent to other processes .*lock"):
        collect(Dot, out=tmp_path / "a", steps=2, size=16, envs=2, policy=lambda seen: int(lock.locked()))


def test_without_a_display_games_are_drawn_off_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else SDL complains on the terminal."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    make_env("CartPole-v1", drawn=True)
    assert os.environ["SDL_VIDEODRIVER"] == "dummy"
    monkeypatch.delenv("SDL_VIDEODRIVER")
    monkeypatch.setenv("DISPLAY", ":0")
    make_env("CartPole-v1", drawn=True)
    assert "SDL_VIDEODRIVER" not in os.environ


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"\x80\x04not a model")
    with pytest.raises(PolysenseError, match="load it yourself and give the model as policy"):
        collect(Dot(), out=tmp_path / "a", steps=2, size=16, policy=tmp_path / "model.zip")


def test_shrinking_averages() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, ::2] = 200
    assert np.unique(shrink(picture, 8, grey=True)).tolist() == [100]
    assert shrink(picture[..., :1], 16, grey=False).shape == (3, 16, 16)
