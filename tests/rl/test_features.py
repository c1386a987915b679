from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

import polysense
from polysense import rl
from polysense.deployment.run import Run
from polysense.errors import PolysenseError
from polysense.modalities.vision.modality import Vision
from polysense.rl.extractor import RunFeatures, Standardise
from polysense.rl.wrappers import DrawnFrames, EmbeddedFrames, Pixels, ReturnLog
from tests.rl.toys import Dot, counted
from tests.toys import RowEncoder, ToyTable

SIZE = 40
SMALL = {"n_steps": 16, "batch_size": 8, "n_epochs": 1, "device": "cpu", "seed": 0}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("frames") / "dot"
    rl.collect(Dot(), out=out, steps=60, size=SIZE)
    return out


@pytest.fixture(scope="module")
def run(frames: Path) -> Run:
    out = frames.parent / "run"
    made = polysense.pretrain(
        frames, method="curl", modality="state", out=out, steps=2, batch_size=16, judge=False
    )
    assert made is not None
    return made


def ppo(run: Any, env: Any, **options: Any) -> PPO:
    return PPO("MlpPolicy", env, policy_kwargs=rl.features(run, **options), **SMALL)


def test_an_environment_shows_what_the_run_reads(run: Run) -> None:
    env = rl.pixels(Dot(), run)
    first, _ = env.reset(seed=0)
    assert first.shape == env.observation_space.shape == (3, SIZE, SIZE)
    np.testing.assert_array_equal(first[0], first[2])
    then, *_ = env.step(1)
    np.testing.assert_array_equal(then[:2], first[1:])
    assert (then[2] != then[1]).any()


def test_the_extractor_gives_the_runs_standardised_embedding(run: Run, frames: Path) -> None:
    env = rl.pixels(Dot(), run)
    extractor = ppo(run.path, env).policy.features_extractor
    states = np.stack([env.reset(seed=seed)[0] for seed in range(4)])
    found = extractor(torch.from_numpy(states).float())
    embedded = run.embed(list(states[:, :, None]))
    everything = torch.cat([part for _, part in run.stream(rl.read_trajectories(frames))])
    expected = (embedded - everything.mean(0)) / everything.std(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    raw = ppo(run, env, standardise=False).policy.features_extractor(torch.from_numpy(states).float())
    torch.testing.assert_close(raw, embedded, rtol=1e-4, atol=1e-5)


def test_a_frozen_encoder_stays_and_another_learns(run: Run) -> None:
    """PPO draws new weights for what extracts features; ours keeps those of the run."""
    start = run.encoder.state_dict()
    for freeze in (True, False):
        agent = ppo(run, rl.pixels(Dot(), run), freeze=freeze)
        encoder = agent.policy.features_extractor.encoder
        torch.testing.assert_close(dict(encoder.state_dict()), dict(start))
        agent.policy.set_training_mode(True)
        assert encoder.training is not freeze
        agent.learn(16)
        same = [torch.equal(new, start[name]) for name, new in encoder.state_dict().items()]
        assert all(same) is freeze


def test_an_agent_is_saved_with_its_eyes(run: Run, tmp_path: Path) -> None:
    env = rl.pixels(Dot(), run)
    agent = DQN("MlpPolicy", env, policy_kwargs=rl.features(run), buffer_size=50, device="cpu")
    agent.save(tmp_path / "agent.zip")
    loaded = DQN.load(tmp_path / "agent.zip", device="cpu")
    picture = torch.from_numpy(env.reset(seed=0)[0])[None]
    torch.testing.assert_close(loaded.q_net(picture), agent.q_net(picture))


def test_a_run_of_pictures_reads_single_frames() -> None:
    from polysense.encoders import build

    config = {"data": {"source": None, "was": "an array"}}
    run = Run(build("small", size=32), Vision(size=32), Path("runs/pictures"), config)
    space = gym.spaces.Box(0, 255, (3, 40, 48), np.uint8)
    extractor = RunFeatures(space, run=run, freeze=True, scale=Standardise(torch.zeros(1), torch.ones(1)))
    picture = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    extractor.eval()
    found = extractor(torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float())
    torch.testing.assert_close(found, run.embed([picture]), rtol=1e-4, atol=1e-4)


def test_frames_drawn_together_are_those_drawn_one_by_one() -> None:
    def draw(states: Any, size: int) -> Any:
        shade = (100 + 50 * states[:, 0]).astype(np.uint8)
        return np.broadcast_to(shade[:, None, None, None], (len(states), 1, size, size)).copy()

    together = DrawnFrames(DummyVecEnv([lambda: Dot(length=3), lambda: Dot(length=5)]), draw, size=8)
    together.seed(7)
    shown = together.reset()
    singly = [Pixels(Dot(length=length), 3, 8, renderer=draw) for length in (3, 5)]
    expected = [env.reset(seed=7 + place)[0] for place, env in enumerate(singly)]
    np.testing.assert_array_equal(shown, expected)
    for step in range(1, 8):
        shown, _, done, infos = together.step(np.array([step % 2, 1]))
        for place, (env, action) in enumerate(zip(singly, (step % 2, 1), strict=True)):
            expected, _, over, *_ = env.step(action)
            assert over == done[place]
            if over:
                np.testing.assert_array_equal(infos[place]["terminal_observation"], expected)
                expected = env.reset()[0]
            np.testing.assert_array_equal(shown[place], expected)


def test_features_are_computed_once_for_each_step() -> None:
    from polysense.rl.rendering import cartpole

    def encode(frames: torch.Tensor) -> torch.Tensor:
        return frames.float().mean((2, 3))

    drawn = DrawnFrames(make_vec_env("CartPole-v1", 2, seed=0), cartpole, size=16)
    env = EmbeddedFrames(drawn, encode)
    assert env.observation_space.shape == (3,)
    assert env.reset().shape == (2, 3)
    log = ReturnLog()
    PPO("MlpPolicy", env, **SMALL).learn(150, callback=log)
    steps, returns = zip(*log.episodes, strict=True)
    assert steps == tuple(sorted(steps))
    assert all(value >= 1 for value in returns)


def test_bad_input_is_told_in_a_sentence(run: Run) -> None:
    with pytest.raises(
        PolysenseError,
        match=r"stacks of 3 frames of 1 channels, that is \[3, 40, 40\], .* \[4, 32, 32\]; wrap",
    ):
        ppo(run, Pixels(Dot(), 4, 32))
    config = {"data": {"source": None, "was": "a Rows"}}
    rows = Run(RowEncoder(8), ToyTable(), Path("runs/rows"), config)
    with pytest.raises(PolysenseError, match=r"runs/rows reads 'table', which no environment shows"):
        rl.features(rows)
    with pytest.raises(PolysenseError, match=r"runs/rows reads 'table', not stacks of frames"):
        rl.pixels(Dot(), rows)
    memory = Run(run.encoder, run.modality, run.path, config)
    with pytest.raises(PolysenseError, match=r"were in memory, .* give them again, as data="):
        rl.features(memory)
    assert "scale" in rl.features(memory, data=counted(side=SIZE))["features_extractor_kwargs"]
    with pytest.raises(PolysenseError, match="made with render_mode None"):
        rl.pixels(Dot(render_mode=None), run)
    with pytest.raises(AttributeError, match="no attribute 'feature'"):
        rl.feature  # noqa: B018


def test_without_stable_baselines_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(PolysenseError, match=r"polysense.rl.features needs the package 'stable_baselines3'"):
        rl.features  # noqa: B018
