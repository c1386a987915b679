"""How well each recipe's embedding tells the true state of three games: R² of a linear probe per variable.

    OMP_NUM_THREADS=1 python -m benchmarks.rl_probe [--envs ENV ...] [--arms ARM ...] [--quick]

Every recipe trains the same small encoder on the same frames of random play for the same number of steps.
Beside them stand the principal components of the pixels, the untrained encoder, and as the ceiling the same
encoder trained for as long to tell the state. Positions are nearly free; velocities are the test.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import environment, report
from benchmarks.rl_arms import ARMS, RENDERERS
from polysense.encoders.base import Encoder
from polysense.rl import collect, probe_states, supervised_encoder
from polysense.rl.modality import States


def main() -> None:
    """Collect, pretrain, probe, for each game."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", nargs="+", choices=RENDERERS, default=list(RENDERERS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--frames", type=int, default=12_000)
    parser.add_argument("--size", type=int, default=64, help="side of the frames in pixels")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/rl_probe"))
    parser.add_argument("--quick", action="store_true", help="few frames and steps: does it run at all?")
    asked = parser.parse_args()
    if asked.quick:
        asked.frames, asked.size, asked.steps = 2500, 48, 10
    record = environment(asked.seed, peers=["gymnasium", "stable_baselines3"])
    rows = [row for env in asked.envs for row in probe(env, asked)]
    budget = {name: getattr(asked, name) for name in ("frames", "size", "steps", "batch")}
    report("rl_probe_quick" if asked.quick else "rl_probe", rows, {**record, **budget})


def probe(env: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each encoder: the game, R² of each variable, their mean, and the seconds of training."""
    folder = asked.out / f"{env}-{asked.frames}-{asked.size}-{asked.steps}-{asked.seed}"
    seen = collect(
        env,
        out=folder / "frames",
        steps=asked.frames,
        size=asked.size,
        renderer=RENDERERS[env],
        seed=asked.seed,
    )
    training = {"steps": asked.steps, "batch_size": asked.batch, "seed": asked.seed}
    seconds: dict[str, float] = {}
    encoders: dict[str, tuple[Encoder, States]] = {}
    for name in asked.arms:
        start = time.perf_counter()
        run = ARMS[name].pretrain(folder / "frames", folder / name, **training)
        seconds[name] = time.perf_counter() - start
        assert isinstance(run.modality, States)
        encoders[name] = (run.encoder, run.modality)
    whole = States().fit(seen)
    torch.manual_seed(asked.seed)
    encoders = {
        "untrained": (whole.encoder("state_conv"), whole),
        **encoders,
        "supervised": (supervised_encoder(whole, seen, **training), whole),
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, (encoder, modality) in encoders.items():
        table = probe_states({name: encoder}, modality, seen)
        if modality is whole:
            rows.setdefault("PCA of pixels", table.loc["PCA of pixels"].to_dict())
        rows[name] = {**table.loc[name].to_dict(), "seconds": seconds.get(name)}
    return [{"game": env.removesuffix("-v1"), "encoder": name, **row} for name, row in rows.items()]


if __name__ == "__main__":
    main()
