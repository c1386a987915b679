"""Episodes as they are played: one after the other, or by several processes at once."""

from __future__ import annotations

import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError, require
from polysense.rl.environments import camera_of, make_env, mission_of, shrink, state_of
from polysense.rl.policies import Policy, make_policy
from polysense.rl.rendering import Renderer
from polysense.rl.trajectories import Frames

_AHEAD = 2
"""So many episodes for each process are played before the first of them is asked for."""


@dataclass
class Episode:
    """What one episode brings: T actions and T + 1 frames and states."""

    mission: str | None = None
    frames: Frames = field(default_factory=lambda: np.empty(0, np.uint8))
    states: list[NDArray[Any]] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False

    def cut(self, most: int) -> Episode:
        """The same, ended by us after ``most`` steps where it is not over before."""
        if len(self.actions) > most:
            self.terminated = False
            for columns, kept in ((self.actions, most), (self.rewards, most), (self.states, most + 1)):
                del columns[kept:]
            self.frames = self.frames[: most + 1]
        self.truncated |= not self.terminated and len(self.actions) == most
        return self

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


@dataclass(frozen=True)
class Playing:
    """What is played, by whom, and how it is looked at; see :func:`~.collect.collect` for the fields."""

    env: Any
    policy: Any
    size: int
    grey: bool
    action_repeat: int
    renderer: Renderer | None

    @property
    def made(self) -> bool:
        """Whether the environment was given as such, and not as a name or a function that makes one."""
        return hasattr(self.env, "step") and not isinstance(self.env, type)

    def world(self) -> Any:
        """The environment, ready to play."""
        if isinstance(self.env, str):
            return make_env(self.env, drawn=self.renderer is None)
        return self.env if self.made else self.env()


@dataclass
class Player:
    """Plays one episode at a time."""

    playing: Playing
    world: Any
    policy: Policy = field(init=False)
    camera: Callable[[Any], Any] | None = field(init=False)
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.policy = make_policy(self.playing.policy, self.world)
        self.camera = camera_of(self.world) if self.playing.renderer is None else None

    def play(self, number: int, seed: int, most: int) -> Episode:
        """Episode ``number``, of at most so many steps; it depends on nothing that was played before."""
        drawn = np.random.SeedSequence([seed, number]).generate_state(2)
        observation, _ = self.world.reset(seed=int(drawn[0]))
        self.world.action_space.seed(int(drawn[1]))
        episode = Episode(mission_of(observation))
        frames = [self._look(episode, observation)]
        while not (episode.terminated or episode.truncated or len(episode.actions) == most):
            action = self.policy(observation)
            total = 0.0
            for _ in range(self.playing.action_repeat):
                observation, reward, episode.terminated, episode.truncated, _ = self.world.step(action)
                total += float(reward)
                if episode.terminated or episode.truncated:
                    break
            episode.actions.append(action)
            episode.rewards.append(total)
            frames.append(self._look(episode, observation))
        seen = [frame for frame in frames if frame is not None]
        renderer = self.playing.renderer
        episode.frames = renderer(np.stack(episode.states), self.playing.size) if renderer else np.stack(seen)
        return episode.cut(most)

    def _look(self, episode: Episode, observation: Any) -> Frames | None:
        """Keep the state, and give the frame where none is drawn later."""
        episode.states.append(state_of(self.world, observation, len(episode.actions)))
        if self.camera is None:
            return None
        picture = np.asarray(self.camera(observation))
        if self.shape is None:
            self.shape = picture.shape
        if picture.shape != self.shape:
            raise PolysenseError(
                f"the size of the frames changed from {list(self.shape)} to {list(picture.shape)} at step"
                f" {len(episode.actions)}; make an environment with frames of one size"
            )
        return shrink(picture, self.playing.size, self.playing.grey)


def play_alone(player: Player, first: int, seed: int, steps: int) -> Generator[Episode]:
    """Episodes from number ``first`` on, ``steps`` steps in all; the last one is cut short."""
    for number in count(first):
        if steps <= 0:
            return
        episode = player.play(number, seed, steps)
        steps -= len(episode.actions)
        yield episode


def play_together(playing: Playing, envs: int, first: int, seed: int, steps: int) -> Generator[Episode]:
    """The same episodes in the same order, played by so many processes with an environment each.

    Raises:
        PolysenseError: when the environment or policy cannot be sent to a process, or one of them dies.
    """
    if steps <= 0:
        return
    cloudpickle = require("cloudpickle", "rl", "playing in several processes")
    try:
        sent = cloudpickle.dumps(playing)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise PolysenseError(
            f"the environment or the policy cannot be sent to other processes ({error}); give names, or play"
            " with envs=1"
        ) from error
    with ProcessPoolExecutor(envs, initializer=_open, initargs=(sent,)) as pool:
        numbers = count(first)
        waiting = deque(pool.submit(_play, next(numbers), seed, steps) for _ in range(_AHEAD * envs))
        try:
            while steps > 0:
                episode = waiting.popleft().result().cut(steps)
                steps -= len(episode.actions)
                waiting.append(pool.submit(_play, next(numbers), seed, steps))
                yield episode
        except BrokenProcessPool as error:
            raise PolysenseError(
                "a process that played has died, perhaps for want of memory; what was finished is kept: go on"
                " with fewer envs"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_own: list[Player] = []
"""The player of this process, where it is one that :func:`play_together` started."""


def _open(sent: bytes) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interruption ends it at once
    torch.set_num_threads(1)
    playing: Playing = pickle.loads(sent)  # from the process that started this one
    _own.append(Player(playing, playing.world()))


def _play(number: int, seed: int, most: int) -> Episode:
    return _own[0].play(number, seed, most)
