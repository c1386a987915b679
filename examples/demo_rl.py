"""From the pixels of a game to an agent: collect frames, pretrain two encoders, probe them, play on them.

    python examples/demo_rl.py [OUT]

CartPole is drawn from its states, many at once, since the game's own renderer would take most of the time.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from torch import Tensor

import polysense
from polysense import rl
from polysense.encoders.base import Encoder
from polysense.evaluation.features import extract, extract_raw
from polysense.rl.extractor import Standardise, observed
from polysense.rl.modality import States
from polysense.rl.rendering import cartpole
from polysense.rl.ridge import principal_projection

GAME, SIZE = "CartPole-v1", 48
FRAMES, PRETRAINING, PLAY, SEEDS = 8000, 300, 20_000, 2
RECIPES = {"state_contrast": {"ahead": 2}, "spr": {"ahead": 2}}

Encode = Callable[[Tensor], Tensor]


def main(out: Path) -> None:
    """All of it, with the seconds each part took."""
    start = time.perf_counter()

    def tell(text: str) -> None:
        print(f"[{time.perf_counter() - start:4.0f} s] {text}", flush=True)

    torch.set_num_threads(2)
    seen = rl.collect(GAME, out=out / "frames", steps=FRAMES, size=SIZE, renderer=cartpole)
    tell(f"{len(seen):,} frames of random play in {out / 'frames'}")

    states = States().fit(seen)
    torch.manual_seed(0)
    encoders = {"untrained": states.encoder("state_conv")}
    for method, views in RECIPES.items():
        encoders[method] = pretrain(out, method, views)
        tell(f"{method} is pretrained: {out / method}")
    ceiling = rl.supervised_encoder(states, seen, steps=PRETRAINING)

    table = rl.probe_states({**encoders, "supervised": ceiling}, states, seen)
    table.to_csv(out / "probe.csv")
    tell(f"How well a linear probe tells the true state, R² on unseen episodes:\n\n{table.round(2)}\n")

    eyes = {name: encoded(encoder, states, seen) for name, encoder in encoders.items()}
    eyes["PCA of pixels"] = principal_components(states, seen)
    curves = {}
    for name, encode in eyes.items():
        curves[name] = play(encode)
        tell(f"PPO on {name}: {curves[name].final()['iqm']:.0f} after {PLAY:,} steps, mean of {SEEDS} seeds")
    picture = rl.draw_curves(curves, out / "curves.svg", title="PPO on frozen features of CartPole's pixels")
    tell(f"learning curves in {picture}")


def pretrain(out: Path, method: str, views: dict[str, int]) -> Encoder:
    """The encoder that a recipe trains on the collected frames."""
    run = polysense.pretrain(
        out / "frames",
        modality="state",
        method=method,
        views=views,
        lr=1e-3,
        batch_size=128,
        steps=PRETRAINING,
        out=out / method,
        overwrite=True,
        judge=False,
        accelerator="cpu",
    )
    if run is None:
        sys.exit("stopped")
    return run.encoder


def encoded(encoder: Encoder, states: States, seen: rl.Trajectories) -> Encode:
    """From observations to standardised embeddings."""
    encoder.eval()
    scale = Standardise.by(extract(lambda view: encoder(view.data).pooled, states, seen))
    return lambda frames: scale(encoder(states.plain(observed(states, frames)).data).pooled)


def principal_components(states: States, seen: rl.Trajectories) -> Encode:
    """From observations to standardised principal components: what costs nothing to learn."""
    pixels = extract_raw(states, seen)
    project = principal_projection(pixels, 64)
    scale = Standardise.by(project(pixels))
    return lambda frames: scale(project(states.raw(observed(states, frames))))


def play(encode: Encode) -> rl.Curve:
    """How much PPO earns on such features."""
    grid = list(range(PLAY // 16, PLAY + 1, PLAY // 16))
    returns = []
    for seed in range(SEEDS):
        games = make_vec_env(GAME, 8, seed=100 * seed)
        env = rl.EmbeddedFrames(rl.DrawnFrames(games, cartpole, size=SIZE), encode)
        log = rl.ReturnLog()
        agent = PPO(
            "MlpPolicy",
            env,
            n_steps=32,
            batch_size=256,
            n_epochs=20,
            gae_lambda=0.8,
            gamma=0.98,
            learning_rate=1e-3,
            seed=seed,
            device="cpu",
        )
        agent.learn(PLAY, callback=log)
        returns.append(rl.learning_curve(log.episodes, grid))
    return rl.Curve(grid, returns)


if __name__ == "__main__":
    logging.getLogger("polysense").setLevel(logging.WARNING)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo-rl"))
