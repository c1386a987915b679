"""The commands that work on games."""

from __future__ import annotations

from polysense import rl
from polysense.commands import line


def collect(
    env: str,
    *,
    out: str,
    steps: int = 20_000,
    policy: str = "random",
    size: int = 64,
    grey: bool = True,
    action_repeat: int = 1,
    seed: int = 0,
    resume: bool = True,
) -> None:
    """Play an environment and keep its frames, actions, rewards and true states, to learn states from.

    An interrupted collection keeps what it has; the same command goes on with it.

    Args:
        env: the name of a gymnasium environment, such as CartPole-v1 or MiniGrid-Empty-5x5-v0.
        out: the folder.
        steps: how many steps in all, with those that are there already.
        policy: random, or the zip file of a Stable-Baselines3 model.
        size: the side of the kept frames in pixels.
        grey: keep one channel, not three.
        action_repeat: how often each action is taken; rewards are added up.
        seed: of episodes and random actions.
        resume: continue a folder that holds trajectories.

    $ polysense collect CartPole-v1 --out frames
    $ polysense pretrain frames --modality state --method state_contrast
    """
    kept = rl.collect(
        env,
        out=out,
        steps=steps,
        policy=policy,
        size=size,
        grey=grey,
        action_repeat=action_repeat,
        seed=seed,
        resume=resume,
    )
    line(f"wrote {len(kept):,} steps to {out}")
