"""How much an agent earns on frozen features of CartPole's pixels, after equal steps: five seeds of each.

    OMP_NUM_THREADS=1 python -m benchmarks.rl_return [--arms ARM ...] [--backgrounds clean drifting]

PPO plays on the standardised features of an encoder that was pretrained on frames of random play and is then
frozen; beside it on the true state, on features of the encoder trained to tell the state, on the principal
components of the pixels, on the untrained encoder, and end to end from the pixels. Each seed pretrains its
own encoder. Told are interquartile means with bootstrapped intervals, and the curves as pictures.

The drifting background is a texture that each episode draws anew and that moves: a contrast in time can tell
moments apart by it without looking at the game, which is why it is here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from torch import Tensor

from benchmarks.common import RESULTS, environment, report
from benchmarks.rl_arms import ARMS
from polysense.encoders.base import Encoder
from polysense.evaluation.features import extract, extract_raw
from polysense.rl import (
    Curve,
    DrawnFrames,
    EmbeddedFrames,
    ReturnLog,
    Trajectories,
    collect,
    draw_curves,
    learning_curve,
    supervised_encoder,
)
from polysense.rl.augmented import CentreFeatures
from polysense.rl.extractor import Standardise, observed
from polysense.rl.modality import States
from polysense.rl.rendering import Renderer, cartpole
from polysense.rl.ridge import principal_projection

GAME, STATE = "CartPole-v1", 4
ENVIRONMENTS = 8
PPO_ON_FEATURES = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "learning_rate": 1e-3,
}
PPO_ON_PIXELS = {**PPO_ON_FEATURES, "n_epochs": 10, "learning_rate": 5e-4}
BASELINES = ["true state", "supervised", "PCA of pixels", "untrained", "end to end"]
PRETRAINED = ["state_contrast", "spr", "curl"]

Encode = Callable[[Tensor], Tensor]


class Drifting(gym.ObservationWrapper[Any, Any, Any]):
    """Tells, after the state, which texture lies behind this episode and how far it has moved."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        low, high = env.observation_space.low, env.observation_space.high
        told = np.full(3, np.inf, np.float32)
        self.observation_space = gym.spaces.Box(
            np.append(low, -told), np.append(high, told), dtype=np.float32
        )

    def reset(self, **options: Any) -> Any:
        """Draw a texture and a velocity."""
        observation, info = self.env.reset(**options)
        self.texture = int(self.np_random.integers(2**16))
        self.place, self.velocity = np.zeros(2), self.np_random.uniform(-0.06, 0.06, 2)
        return self.observation(observation), info

    def observation(self, observation: Any) -> Any:
        """The state and the background, one step further."""
        self.place = self.place + self.velocity
        return np.concatenate([observation, [self.texture, *self.place]]).astype(np.float32)


def drifting_cartpole(states: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """CartPole in front of a texture of six waves, as :class:`Drifting` tells it."""
    axis = np.linspace(-1, 1, size)
    grids = zip(np.meshgrid(axis, axis), (5, 6), strict=True)
    x, y = (grid + states[:, place, None, None] for grid, place in grids)
    waves = np.stack([np.random.default_rng(int(t)).uniform(-1, 1, (6, 3)) for t in states[:, 4]])
    brightness = np.zeros((len(states), size, size))
    for along, across, phase in waves.transpose(1, 2, 0)[..., None, None]:
        brightness += np.sin(8 * along * x + 8 * across * y + np.pi * phase) / 12
    drawn = cartpole(states[:, :STATE], size)
    return np.rint(drawn * (0.6 + 0.8 * brightness.clip(-0.5, 0.5))[:, None]).astype(np.uint8)


BACKGROUNDS: dict[str, tuple[list[Any], Renderer]] = {
    "clean": ([], cartpole),
    "drifting": ([Drifting], drifting_cartpole),
}


def main() -> None:
    """Play every arm on every background with every seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=[*BASELINES, *ARMS], default=[*BASELINES, *PRETRAINED])
    parser.add_argument("--backgrounds", nargs="+", choices=BACKGROUNDS, default=list(BACKGROUNDS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=48, help="side of the frames in pixels")
    parser.add_argument("--pretraining", type=int, default=400, help="steps")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=24_000, help="of the agent in the environment")
    parser.add_argument("--out", type=Path, default=Path("runs/rl_return"))
    asked = parser.parse_args()
    record = environment(0, peers=["gymnasium", "stable_baselines3"])
    rows = []
    for background in asked.backgrounds:
        curves, seconds = play_all(background, asked)
        draw_curves(
            curves, RESULTS / f"rl_return_{background}.svg", title=f"CartPole, {background} background"
        )
        rows += [
            {"background": background, "features": name, **curve.final(), "seconds": seconds[name]}
            for name, curve in curves.items()
        ]
    budget = {name: getattr(asked, name) for name in ("seeds", "frames", "size", "pretraining", "steps")}
    report("rl_return", rows, {**record, **budget})


def play_all(background: str, asked: argparse.Namespace) -> tuple[dict[str, Curve], dict[str, float]]:
    """The curve of each arm, and the seconds that a seed of it took, pretraining included."""
    grid = np.linspace(0, asked.steps, 25)[1:].astype(int).tolist()
    curves, seconds = {}, {}
    for name in asked.arms:
        start = time.perf_counter()
        returns = [learning_curve(play(name, background, seed, asked), grid) for seed in range(asked.seeds)]
        curves[name] = Curve(grid, returns)
        seconds[name] = (time.perf_counter() - start) / asked.seeds
        print(background, name, [f"{each[-1]:.0f}" for each in returns], f"{seconds[name]:.0f} s", flush=True)
    return curves, seconds


def play(name: str, background: str, seed: int, asked: argparse.Namespace) -> list[tuple[int, float]]:
    """The episodes of one agent."""
    wrappers, renderer = BACKGROUNDS[background]
    worlds = make_vec_env(
        lambda: _wrapped(gym.make(GAME), wrappers), ENVIRONMENTS, seed=1000 * seed, monitor_dir=None
    )
    torch.manual_seed(seed)
    drawn = DrawnFrames(worlds, renderer, size=asked.size)
    policy: dict[str, Any] = {}
    if name == "end to end":
        env, settings = drawn, PPO_ON_PIXELS
        policy = {
            "features_extractor_class": CentreFeatures,
            "features_extractor_kwargs": {"crop": 1.0, "dim": 64},
        }
    else:
        seen = random_play(background, seed, asked)
        encode = make_encode(name, seen, seed, asked, asked.out / f"{background}-{seed}")
        env, settings = EmbeddedFrames(worlds if name == "true state" else drawn, encode), PPO_ON_FEATURES
    log = ReturnLog()
    agent = PPO("MlpPolicy", env, policy_kwargs=policy, seed=seed, device="cpu", **settings)
    agent.learn(asked.steps, callback=log)
    return log.episodes


def _wrapped(env: Any, wrappers: list[Any]) -> Any:
    for wrapper in wrappers:
        env = wrapper(env)
    return env


def random_play(background: str, seed: int, asked: argparse.Namespace) -> Trajectories:
    """Frames of random play; of what the environment tells, only the game's state counts as true."""
    wrappers, renderer = BACKGROUNDS[background]
    seen = collect(
        _wrapped(gym.make(GAME), wrappers),
        out=asked.out / f"{background}-{seed}" / "frames",
        steps=asked.frames,
        size=asked.size,
        renderer=renderer,
        seed=seed,
    )
    return Trajectories(seen.frames, seen.table.drop(columns=seen.states[STATE:]), seen.about)


def make_encode(name: str, seen: Trajectories, seed: int, asked: argparse.Namespace, out: Path) -> Encode:
    """From observations to features, standardised by those of random play."""
    states = States().fit(seen)
    training = {"steps": asked.pretraining, "batch_size": asked.batch, "seed": seed}
    if name == "true state":
        scale = Standardise.by(torch.tensor(seen.table[seen.states].to_numpy(np.float32)))
        return lambda told: scale(told[:, :STATE])
    if name == "PCA of pixels":
        raw = extract_raw(states, seen)
        project = principal_projection(raw, 64)
        scale = Standardise.by(project(raw))
        return lambda frames: scale(project(states.raw(observed(states, frames))))
    if name == "untrained":
        return of_encoder(states.encoder("state_conv"), states, seen)
    if name == "supervised":
        return of_encoder(supervised_encoder(states, seen, **training), states, seen)
    run = ARMS[name].pretrain(out / "frames", out / name, **training)
    assert isinstance(run.modality, States)
    return of_encoder(run.encoder, run.modality, seen)


def of_encoder(encoder: Encoder, states: States, seen: Trajectories) -> Encode:
    """Standardised embeddings."""
    encoder.eval()
    scale = Standardise.by(extract(lambda view: encoder(view.data).pooled, states, seen))
    return lambda frames: scale(encoder(states.plain(observed(states, frames)).data).pooled)


if __name__ == "__main__":
    main()
