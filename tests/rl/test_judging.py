from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import polysense
from polysense.evaluation.protocol import Protocol
from polysense.report import write_report
from polysense.rl import collect, rendering
from polysense.rl.judging import goal_correlation, judge_states
from polysense.rl.trajectories import Trajectories, read_trajectories
from tests.rl.toys import counted


def wandering(episodes: int = 20, length: int = 10, *, continuous: bool = False) -> Trajectories:
    """The state is a place that actions move; the reward is how far."""
    rng = np.random.default_rng(0)
    trajectories = counted((length,) * episodes)
    count = episodes * length
    moves = rng.normal(size=count) if continuous else rng.integers(0, 3, count)
    place = np.array(
        [moves[start : start + t].sum() for start in range(0, count, length) for t in range(length)]
    )
    table = trajectories.table.assign(reward=np.float32(moves), state_number=np.float32(place))
    name = "action_0" if continuous else "action"
    table = table.drop(columns=["action", "state_square"]).assign(**{name: moves})
    table.loc[trajectories.table["action"].isna(), [name, "reward"]] = np.nan
    kind = "continuous" if continuous else "discrete"
    return Trajectories(
        trajectories.frames, table, {"actions": {"kind": kind, "size": 1 if continuous else 3}}
    )


def features_of(trajectories: Trajectories) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    place = torch.tensor(trajectories.table["state_number"].to_numpy(np.float32, copy=True))
    noise = torch.randn(len(trajectories), 2)
    return {"telling": torch.stack([place, noise[:, 0]], 1), "mute": noise, "pixels": noise}


def test_what_features_tell_is_found_and_noise_is_not() -> None:
    seen = wandering()
    judged = judge_states(features_of(seen), seen, Protocol())
    telling, mute = judged.results["telling"], judged.results["mute"]
    assert list(telling)[:2] == ["r2_mean", "r2_number"]
    assert telling["r2_number"] > 0.99 > 0.3 > mute["r2_number"]
    assert telling["r2_reward"] > 0.99 > 0.3 > mute["r2_reward"]
    assert telling["linear_action"] == 100.0  # the difference of two places
    assert mute["linear_action"] < 60
    majority = judged.results["majority"]["linear_action"]
    test = seen.table[(seen.table["episode"] % 5 == 4) & seen.table["action"].notna()]
    rest = seen.table[(seen.table["episode"] % 5 != 4)]["action"].dropna()
    assert majority == pytest.approx(100 * (test["action"] == rest.mode()[0]).mean())
    assert judged.intervals["mute"]["linear_action"][0] < mute["linear_action"]
    assert "r2_mean" not in judged.results["pixels"]
    assert "r2_mean" in judged.results["PCA of pixels"]
    assert judged.notes == []


def test_instructions_find_their_clips() -> None:
    """By where a clip ends; an instruction of one clip alone has to be recognised by its words."""
    seen = wandering(30)
    colours = ["red", "green", "blue"]
    missions = [f"go to the {colours[n % 3]} door" for n in range(30)]
    missions[0] = ""
    table = seen.table.assign(mission=[missions[n] for n in seen.table["episode"]])
    seen = read_trajectories(Trajectories(seen.frames, table, seen.about))
    assert seen.sentences is not None
    telling = torch.eye(3)[torch.tensor(seen.table["episode"].to_numpy(np.int64, copy=True) % 3)]
    torch.manual_seed(0)
    noise = torch.randn(len(seen), 3)
    features = {"telling": telling + 0.1 * noise, "mute": noise}
    judged = judge_states(features, seen, Protocol())
    assert judged.results["telling"]["recall_instruction_at_1"] == 100.0
    assert judged.results["mute"]["recall_instruction_at_1"] < 100.0
    assert "recall_instruction_at_1" not in judged.results["majority"]


def test_continuous_actions_are_regressed() -> None:
    seen = wandering(continuous=True)
    judged = judge_states(features_of(seen), seen, Protocol())
    assert judged.results["telling"]["r2_action_0"] > 0.99
    assert judged.results["mute"]["r2_action_0"] < 0.3
    assert "majority" not in judged.results


def test_the_way_to_the_goal_is_judged_by_its_order() -> None:
    episode = torch.arange(3).repeat_interleave(6)
    away = torch.tensor([9.0, 7, 5, 3, 1, 0])
    nearing, leaving, still = away[:, None], away.flip(0)[:, None] - 3, torch.zeros(6, 1)
    assert goal_correlation(nearing, torch.zeros(6)) == pytest.approx(1)
    assert goal_correlation(torch.cat([nearing, nearing, still]), episode) == pytest.approx(2 / 3)
    assert goal_correlation(leaving[[1, 2, 3, 4, 5, 0]], torch.zeros(6)) == pytest.approx(-1)
    assert goal_correlation(nearing[:2], torch.zeros(2)) == 0.0


@pytest.mark.parametrize(
    ("seen", "notes"),
    [
        (counted((8, 8)), ["needs at least 5 episodes"]),
        (
            Trajectories(counted((4,) * 6).frames, counted((4,) * 6).table[["name", "episode", "t"]], {}),
            ["tell no true state", "tell no reward", "tell no action"],
        ),
        (
            Trajectories(
                counted((4,) * 6).frames,
                counted((4,) * 6).table.assign(reward=1.0),
                {"actions": {"kind": "discrete", "size": 3}},
            ),
            ["reward: never changes in the test episodes"],
        ),
    ],
)
def test_what_cannot_be_asked_is_noted(seen: Trajectories, notes: list[str]) -> None:
    judged = judge_states({"random": torch.randn(len(seen), 3)}, seen, Protocol())
    assert len(judged.notes) == len(notes)
    for told, words in zip(judged.notes, notes, strict=True):
        assert words in told
    assert "rankme" in judged.results["random"]


def test_a_run_of_states_is_judged_by_true_states(tmp_path: Path) -> None:
    collect("CartPole-v1", out=tmp_path / "a", steps=200, size=32, renderer=rendering.cartpole)
    run = polysense.pretrain(
        tmp_path / "a",
        modality="state",
        method="vip",
        out=tmp_path / "run",
        batch_size=16,
        steps=2,
        judge=False,
    )
    assert run is not None
    polysense.evaluate(run)
    content = json.loads((run.path / "evaluation.json").read_text())
    for row in ("pretrained", "untrained", "PCA of pixels"):
        assert {"r2_x", "r2_angular_velocity", "r2_mean", "linear_action", "goal_correlation"} <= set(
            content["results"][row]
        )
    report = write_report(run.path).read_text()
    assert "R², angular velocity" in report
    assert "PCA of pixels" in report
