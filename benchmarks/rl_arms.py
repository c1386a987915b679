"""What the benchmarks of states share: the recipes with their settings, and the renderers of the games."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polysense
from polysense.deployment.run import Run
from polysense.rl import rendering

RENDERERS = {
    "CartPole-v1": rendering.cartpole,
    "Pendulum-v1": rendering.pendulum,
    "Acrobot-v1": rendering.acrobot,
}


@dataclass(frozen=True)
class Arm:
    """A recipe with settings of its views and options of its own."""

    method: str
    views: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def pretrain(self, frames: Path, out: Path, *, steps: int, batch_size: int, seed: int) -> Run:
        """The run that this recipe leaves in ``out``; one that is there already is loaded."""
        if (out / "weights.safetensors").exists():
            return polysense.load(out)
        run = polysense.pretrain(
            frames,
            method=self.method,
            modality="state",
            views=self.views,
            options=self.options,
            lr=1e-3,
            batch_size=batch_size,
            steps=steps,
            out=out,
            overwrite=True,
            accelerator="cpu",
            judge=False,
            seed=seed,
        )
        assert run is not None
        return run


ARMS = {
    "curl": Arm("curl"),
    "state_contrast": Arm("state_contrast", {"ahead": 2}),
    "state_contrast_actions": Arm("state_contrast", {"ahead": 2}, {"with_actions": True}),
    "spr": Arm("spr", {"ahead": 2}),
    "inverse_dynamics": Arm("inverse_dynamics"),
    "byol": Arm("byol"),
    "byol_in_time": Arm("byol", {"ahead": 2}),
    "barlow_twins": Arm("barlow_twins"),
    "barlow_twins_in_time": Arm("barlow_twins", {"ahead": 2}),
    "vip": Arm("vip"),
    "r3m": Arm("r3m"),
}
