"""Frames from an environment: play, look, shrink, and keep every finished episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from polysense.errors import PolysenseError, require
from polysense.rl.policies import Policy, make_policy
from polysense.rl.rendering import Renderer
from polysense.rl.trajectories import Frames, Trajectories, Writer, read_trajectories

_REGISTERED_BY = {"MiniGrid": "minigrid", "BabyAI": "minigrid", "ALE": "ale_py"}

_STATE_NAMES = {
    "CartPole": ("x", "velocity", "angle", "angular_velocity"),
    "Pendulum": ("cosine", "sine", "angular_velocity"),
    "Acrobot": ("cosine_1", "sine_1", "cosine_2", "sine_2", "angular_velocity_1", "angular_velocity_2"),
    "MountainCar": ("position", "velocity"),
}

_PICTURE_SIDE = 24
"""Byte observations of at least this side are pictures; MiniGrid's 7 x 7 cells are codes."""


def collect(
    env: Any,
    *,
    out: str | Path,
    steps: int = 20_000,
    policy: Any = "random",
    size: int = 64,
    grey: bool = True,
    action_repeat: int = 1,
    renderer: Renderer | None = None,
    seed: int = 0,
    resume: bool = True,
) -> Trajectories:
    """Play an environment and keep its frames, actions, rewards and true states in the folder ``out``.

    Episodes are seeded one by one, so that an interrupted collection, started again, keeps what it has and
    goes on as if nothing had happened. True states are the observations where those are vectors, or else
    what ``unwrapped.state`` tells. The mission of MiniGrid and BabyAI is kept in words.

    Args:
        env: the name of a gymnasium environment, or one made with ``render_mode="rgb_array"`` or with
            pictures as observations.
        out: the folder; :func:`~.trajectories.read_trajectories` reads it.
        steps: how many steps in all, with those that are there already; the last episode is cut short.
        policy: "random", a function from observations to actions, or a Stable-Baselines3 model or zip file.
        size: side of the kept frames in pixels; others are squeezed into the square.
        grey: keep one channel, not three.
        action_repeat: how often each action is taken; rewards are added up.
        renderer: draws frames from true states instead, see :mod:`.rendering`.
        seed: of episodes and random actions.
        resume: continue a folder that holds trajectories.

    Raises:
        PolysenseError: for an unknown environment, one without pixels, observations that are not numbers,
            frames whose size changes, or a folder with other trajectories.

    $ polysense collect CartPole-v1 --out frames
    $ polysense pretrain frames --modality state --method state_contrast
    """
    for name, value in {"steps": steps, "size": size, "action_repeat": action_repeat}.items():
        if value < 1:
            raise PolysenseError(f"{name} is {value}; it must be at least 1")
    made = isinstance(env, str)
    world = make_env(env, drawn=renderer is None) if made else env
    try:
        camera = camera_of(world) if renderer is None else None
        about: dict[str, Any] = {
            "environment": name_of(world),
            "shape": [1 if grey or renderer else 3, size, size],
            "actions": _actions(world),
            "action_repeat": action_repeat,
            "policy": str(policy) if isinstance(policy, str | Path) else type(policy).__name__,
            "seed": seed,
        }
        player = _Player(world, make_policy(policy, world), camera, size, grey, action_repeat)
        with Writer(Path(out), about, resume=resume) as writer:
            left = steps - (writer.frames - writer.episodes)
            while left > 0:
                episode = player.play(writer.episodes, seed, left)
                drawn = episode.frames if renderer is None else renderer(np.stack(episode.states), size)
                writer.append(np.asarray(drawn), episode.columns(_state_names(world), about["actions"]))
                left -= len(episode.actions)
    finally:
        if made:
            world.close()
    return read_trajectories(Path(out))


@dataclass
class _Episode:
    """What one episode brings: T actions and T + 1 frames and states."""

    mission: str | None = None
    frames: list[Frames] = field(default_factory=list)
    states: list[NDArray[Any]] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False

    def columns(self, names: tuple[str, ...] | None, actions: dict[str, Any]) -> dict[str, Any]:
        """A value for each frame; what was done at the last one is empty."""
        steps = len(self.actions)
        columns: dict[str, Any] = {}
        if actions["kind"] == "discrete":
            columns["action"] = pd.array([*map(int, self.actions), None], dtype="Int64")
        else:
            done = np.asarray(self.actions, np.float32).reshape(steps, -1)
            columns |= {f"action_{i}": [*column, np.nan] for i, column in enumerate(done.T)}
        columns["reward"] = np.array([*self.rewards, np.nan], np.float32)
        for flag in ("terminated", "truncated"):
            columns[flag] = [*[False] * (steps - 1), getattr(self, flag), False]
        states = np.stack(self.states)
        count = states.shape[1]  # a wrapper may tell more than the environment it wraps
        suffixes = names if names and len(names) == count else tuple(map(str, range(count)))
        columns |= {f"state_{name}": column for name, column in zip(suffixes, states.T, strict=True)}
        if self.mission is not None:
            columns["mission"] = self.mission
        return columns


@dataclass
class _Player:
    """Plays one episode at a time."""

    env: Any
    policy: Policy
    camera: Callable[[Any], Any] | None
    size: int
    grey: bool
    action_repeat: int
    shape: tuple[int, ...] | None = None

    def play(self, number: int, seed: int, most: int) -> _Episode:
        """Episode ``number``, of at most so many steps."""
        drawn = np.random.SeedSequence([seed, number]).generate_state(2)
        observation, _ = self.env.reset(seed=int(drawn[0]))
        self.env.action_space.seed(int(drawn[1]))
        episode = _Episode(_mission(observation))
        self._look(episode, observation)
        while not (episode.terminated or episode.truncated):
            action = self.policy(observation)
            total = 0.0
            for _ in range(self.action_repeat):
                observation, reward, episode.terminated, episode.truncated, _ = self.env.step(action)
                total += float(reward)
                if episode.terminated or episode.truncated:
                    break
            episode.actions.append(action)
            episode.rewards.append(total)
            self._look(episode, observation)
            episode.truncated |= not episode.terminated and len(episode.actions) == most
        return episode

    def _look(self, episode: _Episode, observation: Any) -> None:
        episode.states.append(_state(self.env, observation, len(episode.actions)))
        if self.camera is None:
            return
        picture = np.asarray(self.camera(observation))
        if self.shape is None:
            self.shape = picture.shape
        if picture.shape != self.shape:
            raise PolysenseError(
                f"the size of the frames changed from {list(self.shape)} to {list(picture.shape)} at step"
                f" {len(episode.actions)}; make an environment with frames of one size"
            )
        episode.frames.append(shrink(picture, self.size, self.grey))


def shrink(picture: NDArray[Any], size: int, grey: bool) -> Frames:
    """A picture ``[H, W]`` or ``[H, W, C]`` of bytes as ``[C', size, size]``, each pixel a mean of several.

    >>> shrink(np.full((40, 60, 3), 7, np.uint8), 8, grey=True).shape
    (1, 8, 8)
    """
    image = Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
    image = image.convert("L" if grey else "RGB").resize((size, size), Image.Resampling.BOX)
    small = np.asarray(image)
    return small[None] if grey else small.transpose(2, 0, 1)


def make_env(name: str, *, drawn: bool) -> Any:
    """A gymnasium environment by its name; ``drawn`` if it is to show pixels."""
    gym = require("gymnasium", "rl", "collecting frames from an environment")
    for prefix, library in _REGISTERED_BY.items():
        if name.startswith(prefix):
            require(library, "rl", f"the environment {name}")
    try:
        return gym.make(name, render_mode="rgb_array" if drawn else None)
    except gym.error.Error as error:
        told = str(error).splitlines()[0].rstrip(".")
        raise PolysenseError(f"gymnasium cannot make the environment {name!r}: {told}") from error
    except TypeError as error:
        raise PolysenseError(
            f"the environment {name!r} takes no render_mode, so it shows no pixels; choose one that does"
        ) from error


def camera_of(env: Any) -> Callable[[Any], Any]:
    """How the environment is looked at: its observation, or what it renders."""
    shape, dtype = env.observation_space.shape, env.observation_space.dtype
    if dtype == np.uint8 and shape is not None and len(shape) in (2, 3) and min(shape[:2]) >= _PICTURE_SIDE:
        return lambda observation: observation
    modes = env.metadata.get("render_modes", [])
    if env.render_mode == "rgb_array":
        return lambda observation: env.render()
    if "rgb_array" in modes:
        raise PolysenseError(
            f"the environment {name_of(env)} was made with render_mode {env.render_mode!r}, which gives no"
            " pixels; make it with render_mode='rgb_array'"
        )
    raise PolysenseError(
        f"the environment {name_of(env)} has no pixels: its observations are no pictures and it cannot render"
        " 'rgb_array'; choose one that does, or give a renderer"
    )


def name_of(env: Any) -> str:
    """What the environment is called."""
    return str(env.spec.id) if env.spec is not None else type(env.unwrapped).__name__


def _actions(env: Any) -> dict[str, Any]:
    space = env.action_space
    if hasattr(space, "n") and not space.shape:
        return {"kind": "discrete", "size": int(space.n)}
    return {"kind": "continuous", "size": int(np.prod(space.shape))}


def _state_names(env: Any) -> tuple[str, ...] | None:
    return next((names for prefix, names in _STATE_NAMES.items() if name_of(env).startswith(prefix)), None)


def _mission(observation: Any) -> str | None:
    return str(observation["mission"]) if isinstance(observation, dict) and "mission" in observation else None


def _state(env: Any, observation: Any, step: int) -> NDArray[Any]:
    """The true state as a vector, empty where the environment does not tell it."""
    told = observation if np.ndim(observation) == 1 else getattr(env.unwrapped, "state", None)
    state = np.asarray([] if told is None else told)
    if state.ndim != 1 or not np.issubdtype(state.dtype, np.number):
        state = np.empty(0)
    if np.isnan(state).any() or (isinstance(observation, np.ndarray) and np.isnan(observation).any()):
        raise PolysenseError(
            f"the environment {name_of(env)} gave an observation with NaN at step {step} of an episode;"
            " mend the environment"
        )
    return state.astype(np.float32)
