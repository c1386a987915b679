"""Environments looked at from outside: by name, as pictures, and what they tell of their true state."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polysense.errors import PolysenseError, require
from polysense.rl.trajectories import Frames

_REGISTERED_BY = {
    "MiniGrid": ("minigrid", "rl"),
    "BabyAI": ("minigrid", "rl"),
    "ALE": ("ale_py", "atari"),
    "dm_control": ("shimmy", "dm_control"),
}
"""By how their names begin: the library whose import makes environments known, and the extra that has it."""

_STATE_NAMES = {
    "CartPole": ("x", "velocity", "angle", "angular_velocity"),
    "Pendulum": ("cosine", "sine", "angular_velocity"),
    "Acrobot": ("cosine_1", "sine_1", "cosine_2", "sine_2", "angular_velocity_1", "angular_velocity_2"),
    "MountainCar": ("position", "velocity"),
}

_PICTURE_SIDE = 24
"""Byte observations of at least this side are pictures; MiniGrid's 7 x 7 cells are codes."""


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
    for prefix, (library, extra) in _REGISTERED_BY.items():
        if name.startswith(prefix):
            require(library, extra, f"the environment {name}")
    _draw_off_screen()
    try:
        return gym.make(name, render_mode="rgb_array" if drawn else None)
    except gym.error.Error as error:
        told = str(error).splitlines()[0].rstrip(".")
        raise PolysenseError(f"gymnasium cannot make the environment {name!r}: {told}") from error
    except TypeError as error:
        raise PolysenseError(
            f"the environment {name!r} takes no render_mode, so it shows no pixels; choose one that does"
        ) from error


def _draw_off_screen() -> None:
    """Where there is no display, SDL draws without one; it would complain that it finds none."""
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if sys.platform.startswith("linux") and not shown:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


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


def actions_of(env: Any) -> dict[str, Any]:
    space = env.action_space
    if hasattr(space, "n") and not space.shape:
        return {"kind": "discrete", "size": int(space.n)}
    return {"kind": "continuous", "size": int(np.prod(space.shape))}


def state_names(env: Any) -> tuple[str, ...] | None:
    return next((names for prefix, names in _STATE_NAMES.items() if name_of(env).startswith(prefix)), None)


def mission_of(observation: Any) -> str | None:
    return str(observation["mission"]) if isinstance(observation, dict) and "mission" in observation else None


def state_of(env: Any, observation: Any, step: int) -> NDArray[Any]:
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
