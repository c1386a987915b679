"""Where encoders look that no one told where things are: CorLoc and mask IoU on scenes.

Every method trains the same encoder on the same scenes for the same time, and is asked where the
objects of other scenes are; beside it stand the untrained encoder and two baselines without any.

    python -m benchmarks.localise --minutes 10 --encoder vit_nano
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import polysense
from benchmarks.common import RESULTS, environment, report
from polysense.deployment.run import Run
from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError
from polysense.evaluation.discovery import Found, lost, token_cut
from polysense.evaluation.localise import WAYS, Finder, centre, colour_contrast, localisation
from polysense.modalities.vision.modality import Vision
from polysense.modalities.vision.sources import read_pictures
from polysense.modalities.vision.store import Pictures
from polysense.training.checkpoints import read_checkpoint

SEED = 0
SIZE = 96
METHODS = ("densecl", "dino", "ibot", "mae", "simclr")
BASELINES: dict[str, Finder] = {"centre": centre, "colour contrast": colour_contrast}


def pixels(pictures: Tensor, patch: int = 8) -> tuple[Tensor, tuple[int, int]]:
    """Patches of the picture itself as tokens: what a method has to add something to."""
    from polysense.encoders.vit import patchify

    side = pictures.shape[-1] // patch
    return patchify(pictures, patch), (side, side)


def training_scenes(given: argparse.Namespace) -> str:
    """The name of the scenes that every method trains on."""
    return f"builtin:scenes?count={given.count}&size={SIZE}&seed={SEED}"


def train(method: str, given: argparse.Namespace) -> Run:
    """One encoder, trained by one method on scenes of the first seed."""
    folder = Path(given.runs or tempfile.mkdtemp()) / f"{method}-{given.encoder}"
    if (folder / "weights.safetensors").exists():
        return polysense.load(folder)
    run = polysense.pretrain(
        training_scenes(given),
        method=method,
        encoder=given.encoder,
        size=SIZE,
        out=folder,
        overwrite=True,
        batch_size=given.batch_size,
        max_time=given.minutes,
        judge=False,
        seed=SEED,
    )
    if run is None:
        raise SystemExit(143)
    return run


def measure(name: str, encoder: Encoder, vision: Vision, scenes: Pictures, size: int) -> list[dict[str, Any]]:
    """A row for each way of asking that the encoder knows."""
    encoder.eval()
    rows = []
    for way, ask in WAYS.items():
        try:
            shares = localisation(partial(ask, encoder), vision, scenes, size=size)
        except PolysenseError:  # no class token
            continue
        rows.append({"features": name, "found by": way, **shares})
    return rows


def baselines(vision: Vision, scenes: Pictures, size: int) -> list[dict[str, Any]]:
    """What needs no encoder."""

    def cut(pictures: Tensor) -> Found:
        return token_cut(*pixels(pictures))

    def fewest(pictures: Tensor) -> Found:
        return lost(*pixels(pictures))

    rows = [
        {"features": "–", "found by": name, **localisation(find, vision, scenes)}
        for name, find in BASELINES.items()
    ]
    for way, find in (("token_cut", cut), ("lost", fewest)):
        rows.append({"features": "pixels", "found by": way, **localisation(find, vision, scenes, size=size)})
    return rows


def markdown(rows: Sequence[dict[str, Any]], given: argparse.Namespace) -> str:
    """The table for the documentation."""
    about = (
        f"`{given.encoder}`, {given.minutes:g} min each on {given.count:,} scenes of {SIZE} × {SIZE} pixels;"
        f" {given.judged:,} other scenes, looked at with {given.look} × {given.look} pixels."
    )
    lines = [about, "", "| features | found by | CorLoc | mask IoU | steps |", "|---|---|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| {row['features']} | {row['found by']} | {row['corloc']:.1f} | {row['mask_iou']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, ask, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of training for each method")
    parser.add_argument("--encoder", default="vit_nano")
    parser.add_argument(
        "--methods", nargs="+", default=[name for name in METHODS if name in polysense.recipes()]
    )
    parser.add_argument("--count", type=int, default=2000, help="scenes to train on")
    parser.add_argument("--judged", type=int, default=500, help="scenes to judge on")
    parser.add_argument("--look", type=int, default=SIZE, help="side at which pictures are looked at")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--runs", help="a folder that keeps the runs; finished ones are not trained again")
    given = parser.parse_args()

    record = environment(SEED)
    judged = read_pictures(f"builtin:scenes?count={given.judged}&size={SIZE}&seed={SEED + 1}", size=SIZE)
    vision = Vision(size=SIZE).fit(read_pictures(training_scenes(given), size=SIZE))
    rows = baselines(vision, judged, given.look)
    torch.manual_seed(SEED)
    rows += measure("untrained", vision.encoder(given.encoder), vision, judged, given.look)
    for method in given.methods:
        run = train(method, given)
        assert isinstance(run.modality, Vision)
        steps = read_checkpoint(run.path)["global_step"]
        found = measure(method, run.encoder, run.modality, judged, given.look)
        rows += [{**row, "steps": steps} for row in found]
        asked = {name: value for name, value in vars(given).items() if name != "runs"}
        report("localise", rows, {**record, **asked})  # so that a long benchmark can be read on the way
    (RESULTS / "localise.md").write_text(markdown(rows, given), encoding="utf-8")


if __name__ == "__main__":
    main()
