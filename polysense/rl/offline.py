"""Episodes that others have played and Minari keeps, as trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polysense.errors import PolysenseError, require
from polysense.rl.environments import actions_of, shrink
from polysense.rl.playing import Episode
from polysense.rl.rendering import Renderer
from polysense.rl.trajectories import Frames, Trajectories, Writer, read_trajectories


def import_minari(
    dataset: Any,
    *,
    out: str | Path,
    size: int = 64,
    grey: bool = True,
    renderer: Renderer | None = None,
) -> Trajectories:
    """Keep the episodes of a Minari data set (which hosts D4RL's) as trajectories in the folder ``out``.

    Args:
        dataset: its name, downloaded where it is not there yet, or one that is loaded.
        out: the folder of the trajectories, a new one.
        size: side of the kept frames in pixels.
        grey: keep one channel, not three.
        renderer: draws frames from the observations where those are states, see :mod:`.rendering`.

    Raises:
        PolysenseError: when there is no such data set, or its observations are neither pictures nor, with a
            renderer, states.
    """
    data = _load(dataset) if isinstance(dataset, str) else dataset
    about: dict[str, Any] = {
        "recordings": dataset if isinstance(dataset, str) else type(dataset).__name__,
        "shape": [1 if grey or renderer else 3, size, size],
        "actions": actions_of(data),
    }
    with Writer(Path(out), about, resume=False) as writer:
        for played in data.iterate_episodes():
            seen = played.observations
            steps = len(played.actions)
            episode = Episode(
                frames=_frames(seen, size, grey, renderer),
                states=[*np.asarray(seen, np.float32)] if renderer else [np.empty(0)] * (steps + 1),
                actions=[*played.actions],
                rewards=[*map(float, played.rewards)],
                terminated=bool(played.terminations[-1]),
                truncated=bool(played.truncations[-1]),
            )
            writer.append(episode.frames, episode.columns(None, about["actions"]))
    return read_trajectories(Path(out))


def _load(name: str) -> Any:
    minari = require("minari", "minari", f"the data set {name}")
    try:
        return minari.load_dataset(name, download=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PolysenseError(
            f"Minari has no data set {name!r} ({reason}); see 'minari list remote'"
        ) from error


def _frames(seen: Any, size: int, grey: bool, renderer: Renderer | None) -> Frames:
    found: NDArray[Any] = np.asarray([] if isinstance(seen, dict) else seen)
    if renderer is not None and found.ndim == 2:
        return renderer(found, size)
    if renderer is None and found.dtype == np.uint8 and found.ndim in (3, 4):
        return np.stack([shrink(picture, size, grey) for picture in found])
    what = "a dict" if isinstance(seen, dict) else f"{found.dtype} {list(found.shape[1:])}"
    raise PolysenseError(
        f"the observations are {what}, neither pictures in bytes nor, with a renderer, vectors of a state;"
        " choose another data set, or give a renderer for states"
    )
