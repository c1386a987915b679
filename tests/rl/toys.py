"""Little worlds: a dot on a line whose place is the true state, as an environment and as trajectories."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.rl.trajectories import Trajectories

SIDE = 32


class Dot(gym.Env[Any, Any]):
    """A dot that is pushed left or right; after ``length`` steps it is over."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = "rgb_array", length: int = 12) -> None:
        self.render_mode, self.length = render_mode, length
        self.observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.t = float(self.np_random.uniform(-0.5, 0.5)), 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.place += 0.1 if action else -0.1
        return self.observe(), 1.0, self.t >= self.length, False, {}

    def observe(self) -> Any:
        return np.array([self.place], np.float32)

    def render(self) -> Any:
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, int(np.clip(30 + 20 * self.place, 0, 59))] = 255
        return picture


def counted(lengths: tuple[int, ...] = (6, 9, 5), side: int = SIDE, channels: int = 1) -> Trajectories:
    """Frame number n is n all over; so is the action, modulo 3; the state is n and its square."""
    count = sum(lengths)
    numbers = np.arange(count)
    frames = np.broadcast_to(
        numbers.astype(np.uint8)[:, None, None, None], (count, channels, side, side)
    ).copy()
    table = pd.DataFrame(
        {
            "name": [f"frame {n}" for n in numbers],
            "episode": np.repeat(np.arange(len(lengths)), lengths),
            "t": np.concatenate([np.arange(length) for length in lengths]),
            "action": pd.array(numbers % 3, dtype="Int64"),
            "state_number": numbers.astype(np.float32),
            "state_square": (numbers**2).astype(np.float32),
        }
    )
    ends = np.cumsum(lengths) - 1
    table.loc[ends, "action"] = pd.NA
    return Trajectories(frames, table, {"actions": {"kind": "discrete", "size": 3}})


def numbers_of(states: Any) -> NDArray[np.int64]:
    """Of views of :func:`counted`, the frame number in each channel: ``[B, stack]``."""
    found: NDArray[np.int64] = np.rint(np.asarray(states)[:, :, 0, 0] * 255).astype(np.int64)
    return found
