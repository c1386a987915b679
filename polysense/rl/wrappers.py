"""Environments as agents on pixels need them: stacks of frames, frames as features, another reward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from polysense.deployment.run import Run, load
from polysense.errors import PolysenseError
from polysense.rl.environments import camera_of, make_env, shrink
from polysense.rl.modality import States
from polysense.rl.preferences import RewardModel
from polysense.rl.rendering import Renderer
from polysense.rl.trajectories import Frames

Observations = NDArray[Any]


def pixels(
    env: Any,
    run: str | Path | Run | None = None,
    *,
    stack: int = 3,
    size: int = 64,
    grey: bool = True,
    renderer: Renderer | None = None,
) -> Pixels:
    """A gymnasium environment that shows stacks of frames as a run of states expects them.

    Args:
        env: its name, or one made with ``render_mode="rgb_array"`` or with pictures as observations.
        run: whose stack, size and colours are taken; without one, those given here:
        stack: how many frames make an observation,
        size: side of the frames in pixels,
        grey: one channel, not three.
        renderer: draws the frames from the observations instead, see :mod:`.rendering`.

    Raises:
        PolysenseError: for an environment without pixels, or a run that reads no states.

    >>> pixels("CartPole-v1", stack=4, size=32).reset(seed=0)[0].shape
    (4, 32, 32)
    """
    world = make_env(env, drawn=renderer is None) if isinstance(env, str) else env
    if run is not None:
        states = _states_of(run if isinstance(run, Run) else load(run))
        stack, size, grey = states.stack, states.size, states.channels == 1
    return Pixels(world, stack, size, grey=grey, renderer=renderer)


def _states_of(run: Run) -> States:
    if not isinstance(run.modality, States):
        raise PolysenseError(
            f"the run {run.path} reads {run.modality.name!r}, not stacks of frames; pretrain one with"
            " modality='state', or leave run away and give stack, size and grey"
        )
    return run.modality


class Stack:
    """The latest frames of N environments, oldest first: ``[N, depth, C, S, S]``."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.frames: Frames = np.empty(0, np.uint8)

    def restart(self, frames: Frames) -> Observations:
        """An episode's first frames ``[N, C, S, S]``, repeated as if nothing had moved before."""
        self.frames = np.repeat(frames[:, None], self.depth, 1)
        return self.observations()

    def push(self, frames: Frames) -> Observations:
        """Add a frame to each."""
        self.frames = np.concatenate([self.frames[:, 1:], frames[:, None]], 1)
        return self.observations()

    def observations(self) -> Observations:
        """``[N, depth * C, S, S]``."""
        return self.frames.reshape(len(self.frames), -1, *self.frames.shape[3:])


def picture_space(channels: int, size: int) -> gym.spaces.Box:
    """Of stacked bytes ``[channels, size, size]``."""
    return gym.spaces.Box(0, 255, (channels, size, size), np.uint8)


class Pixels(gym.Wrapper[Any, Any, Any, Any]):
    """Observations are stacks of the latest frames, see :func:`pixels`."""

    def __init__(
        self, env: Any, stack: int, size: int, *, grey: bool = True, renderer: Renderer | None = None
    ) -> None:
        super().__init__(env)
        self.size, self.grey, self.renderer = size, grey, renderer
        self.camera = camera_of(env) if renderer is None else None
        self.stack = Stack(stack)
        self.observation_space = picture_space(stack * (1 if grey or renderer else 3), size)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """The first frame, in each place of the stack."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self.stack.restart(self._frame(observation)[None])[0], info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """The stack with the newest frame last."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self.stack.push(self._frame(observation)[None])[0], reward, terminated, truncated, info

    def _frame(self, observation: Any) -> Frames:
        if self.renderer is not None:
            drawn: Frames = self.renderer(np.asarray(observation)[None], self.size)[0]
            return drawn
        assert self.camera is not None
        return shrink(np.asarray(self.camera(observation)), self.size, self.grey)


class DrawnFrames(VecEnvWrapper):
    """Stacks of frames drawn from the states of many environments at once: rendering one by one is slow.

    Args:
        venv: a vector environment of Stable-Baselines3 whose observations are states.
        renderer: draws them, see :mod:`.rendering`.
        stack: how many frames make an observation.
        size: side of the frames in pixels.

    >>> from stable_baselines3.common.env_util import make_vec_env
    >>> from polysense.rl.rendering import cartpole
    >>> DrawnFrames(make_vec_env("CartPole-v1", 2), cartpole, stack=3, size=32).reset().shape
    (2, 3, 32, 32)
    """

    def __init__(self, venv: VecEnv, renderer: Renderer, *, stack: int = 3, size: int = 64) -> None:
        self.renderer, self.size, self.stack = renderer, size, Stack(stack)
        super().__init__(venv, picture_space(stack, size))

    def reset(self) -> Observations:
        """The first frame of each, in each place of its stack."""
        return self.stack.restart(self.renderer(np.asarray(self.venv.reset()), self.size))

    def step_wait(self) -> tuple[Observations, Any, NDArray[np.bool_], list[dict[str, Any]]]:
        """The stacks with the newest frames last; what ended shows its new episode's first frame."""
        states, rewards, done, infos = self.venv.step_wait()
        states = np.asarray(states)
        ended = np.flatnonzero(done)
        reached = states.copy()
        for place in ended:
            reached[place] = infos[place]["terminal_observation"]
        drawn = self.renderer(np.concatenate([reached, states[ended]]), self.size)
        observations = self.stack.push(drawn[: len(states)])
        for place, first in zip(ended, drawn[len(states) :], strict=True):
            infos[place]["terminal_observation"] = observations[place].copy()
            self.stack.frames[place] = first
        return self.stack.observations(), rewards, done, infos


class EmbeddedFrames(VecEnvWrapper):
    """Features in place of frames, computed once a step: PPO would encode each frame in every epoch.

    Args:
        venv: a vector environment of Stable-Baselines3 that shows frames.
        encode: from observations, bytes ``[N, C, S, S]``, to features ``[N, dim]``.
    """

    def __init__(self, venv: VecEnv, encode: Callable[[Tensor], Tensor]) -> None:
        self.encode = encode
        shape = venv.observation_space.shape
        assert shape is not None
        dim = encode(torch.zeros(1, *shape, dtype=torch.uint8)).shape[1]
        super().__init__(venv, gym.spaces.Box(-np.inf, np.inf, (dim,), np.float32))

    def reset(self) -> Observations:
        """The features of the first frames."""
        return self._features(self.venv.reset())

    def step_wait(self) -> tuple[Observations, Any, NDArray[np.bool_], list[dict[str, Any]]]:
        """The features of the newest frames."""
        frames, rewards, done, infos = self.venv.step_wait()
        for place in np.flatnonzero(done):
            last = infos[place]["terminal_observation"]
            infos[place]["terminal_observation"] = self._features(last[None])[0]
        return self._features(frames), rewards, done, infos

    @torch.no_grad()
    def _features(self, frames: Any) -> Observations:
        features: Observations = self.encode(torch.from_numpy(np.asarray(frames))).float().cpu().numpy()
        return features


class PreferenceReward(gym.Wrapper[Any, Any, Any, Any]):
    """The reward that a model has learned from preferences, in place of the environment's own.

    The own one is kept in ``info["true_reward"]``.

    Args:
        env: whose observations are stacks of frames, see :func:`pixels`.
        run: embeds them.
        model: a fitted :class:`~.preferences.RewardModel` on embeddings of that run.
    """

    def __init__(self, env: Any, run: str | Path | Run, model: RewardModel) -> None:
        super().__init__(env)
        self.run = run if isinstance(run, Run) else load(run)
        self.model = model
        states = _states_of(self.run)
        self.shape = (states.stack, states.channels, states.size, states.size)
        found = tuple(env.observation_space.shape or ())
        if found != (states.stack * states.channels, states.size, states.size):
            raise PolysenseError(
                f"the environment shows observations {list(found)} where the run {self.run.path} reads stacks"
                f" {list(self.shape)} (frames, channels, height, width); wrap it with"
                " polysense.rl.pixels(env, run)"
            )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A step, rewarded by the model for the state it leads to."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        embedding = self.run.embed(np.asarray(observation).reshape(self.shape))
        learned = float(self.model.reward(embedding)[0])
        return observation, learned, terminated, truncated, {**info, "true_reward": float(reward)}


class ReturnLog(BaseCallback):
    """Keeps each finished episode's return, and after how many steps of the environment it ended.

    For environments with a ``Monitor``, as ``make_vec_env`` gives them. ``episodes`` is a list of ``(steps,
    return)``, from which :func:`~.curves.learning_curve` makes a curve.
    """

    def __init__(self) -> None:
        super().__init__()
        self.episodes: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.episodes.append((self.num_timesteps, float(info["episode"]["r"])))
        return True
