"""Frames from an environment: play, look, shrink, and keep every finished episode."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from polysense.errors import PolysenseError
from polysense.rl.environments import actions_of, name_of, state_names
from polysense.rl.playing import Player, Playing, play_alone, play_together
from polysense.rl.rendering import Renderer
from polysense.rl.trajectories import Trajectories, Writer, read_trajectories


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
    envs: int = 1,
    seed: int = 0,
    resume: bool = True,
) -> Trajectories:
    """Play an environment and keep its frames, actions, rewards and true states in the folder ``out``.

    Episodes are seeded one by one, so that an interrupted collection, started again, keeps what it has and
    goes on as if nothing had happened, and so that several processes collect what one would have. True
    states are the observations where those are vectors, or else what ``unwrapped.state`` tells. The mission
    of MiniGrid and BabyAI is kept in words.

    Args:
        env: the name of a gymnasium environment, or one made with ``render_mode="rgb_array"`` or with
            pictures as observations, or a function that makes one.
        out: the folder; :func:`~.trajectories.read_trajectories` reads it.
        steps: how many steps in all, with those that are there already; the last episode is cut short.
        policy: "random", a function from observations to actions, or a Stable-Baselines3 model or zip file.
        size: side of the kept frames in pixels; others are squeezed into the square.
        grey: keep one channel, not three.
        action_repeat: how often each action is taken; rewards are added up.
        renderer: draws frames from true states instead, see :mod:`.rendering`.
        envs: play in so many processes at once, with an environment each: as many as there are cores.
        seed: of episodes and random actions.
        resume: continue a folder that holds trajectories.

    Raises:
        PolysenseError: for an unknown environment, one without pixels, observations that are not numbers,
            frames whose size changes, a folder with other trajectories, or one environment for several envs.

    $ polysense collect CartPole-v1 --out frames
    $ polysense pretrain frames --modality state --method state_contrast
    """
    sizes = {"steps": steps, "size": size, "action_repeat": action_repeat, "envs": envs}
    for name, value in sizes.items():
        if value < 1:
            raise PolysenseError(f"{name} is {value}; it must be at least 1")
    playing = Playing(env, policy, size, grey, action_repeat, renderer)
    if playing.made and (envs > 1 or hasattr(env, "num_envs")):
        raise PolysenseError(
            "only an environment's name, or a function that makes one, can be played several times at once;"
            " give that as env, and how many as envs"
        )
    world = playing.world()
    try:
        about: dict[str, Any] = {
            "environment": name_of(world),
            "shape": [1 if grey or renderer else 3, size, size],
            "actions": actions_of(world),
            "action_repeat": action_repeat,
            "policy": str(policy) if isinstance(policy, str | Path) else type(policy).__name__,
            "seed": seed,
        }
        player, names = Player(playing, world), state_names(world)
        with Writer(Path(out), about, resume=resume) as writer:
            first, left = writer.episodes, steps - (writer.frames - writer.episodes)
            episodes = (
                play_together(playing, envs, first, seed, left)
                if envs > 1
                else play_alone(player, first, seed, left)
            )
            with closing(episodes):
                for episode in episodes:
                    writer.append(episode.frames, episode.columns(names, about["actions"]))
    finally:
        if not playing.made:
            world.close()
    return read_trajectories(Path(out))
