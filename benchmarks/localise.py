"""Where encoders look that no one told where things are: CorLoc and mask IoU on scenes.

Every method trains its default encoder, or ``--encoder``, on the same scenes for ``--minutes``, or for
``--steps``, which a busy machine does not change, and is asked where the objects of other scenes are.
Beside it stand the untrained encoders, the pixels, and two baselines that look at colours or at nothing.
The table goes to ``benchmarks/results/localise.md``, and with the machine to ``localise.json``.

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
from polysense.methods.table import find
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


def encoder_of(method: str, given: argparse.Namespace) -> str:
    """The encoder that the method trains: the one asked for, or its own default."""
    return given.encoder or find(method).default_encoders.get("image", Vision.default_encoder)


def train(method: str, given: argparse.Namespace) -> Run:
    """One encoder, trained by one method on scenes of the first seed."""
    encoder = encoder_of(method, given)
    folder = Path(given.runs or tempfile.mkdtemp()) / f"{method}-{encoder}"
    if (folder / "weights.safetensors").exists():
        return polysense.load(folder)
    run = polysense.pretrain(
        training_scenes(given),
        method=method,
        encoder=encoder,
        size=SIZE,
        out=folder,
        overwrite=True,
        batch_size=given.batch_size,
        steps=given.steps,
        max_time=None if given.steps else given.minutes,
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
        {"features": "–", "found by": name, **localisation(finder, vision, scenes)}
        for name, finder in BASELINES.items()
    ]
    for way, finder in (("token_cut", cut), ("lost", fewest)):
        rows.append(
            {"features": "pixels", "found by": way, **localisation(finder, vision, scenes, size=size)}
        )
    return rows


def markdown(rows: Sequence[dict[str, Any]], given: argparse.Namespace) -> str:
    """The table for the documentation."""
    budget = f"{given.steps:,} steps" if given.steps else f"{given.minutes:g} min"
    about = (
        f"{budget} of {given.batch_size} each on {given.count:,} scenes of {SIZE} × {SIZE} pixels;"
        f" {given.judged:,} other scenes, looked at with {given.look} × {given.look} pixels."
    )
    columns = ["features", "encoder", "found by", "CorLoc", "mask IoU", "steps"]
    lines = [about, "", f"| {' | '.join(columns)} |", "|---|---|---|---:|---:|---:|"]
    for row in rows:
        row = {**row, "CorLoc": f"{row['corloc']:.1f}", "mask IoU": f"{row['mask_iou']:.1f}"}
        lines.append(f"| {' | '.join(str(row.get(column, '–')) for column in columns)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, ask, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=10, help="of training for each method")
    budget.add_argument("--steps", type=int, help="of training for each method, instead of minutes")
    parser.add_argument("--encoder", help="for all methods, by default each method's own")
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
    for encoder in dict.fromkeys(encoder_of(method, given) for method in given.methods):
        torch.manual_seed(SEED)
        found = measure("untrained", vision.encoder(encoder), vision, judged, given.look)
        rows += [{**row, "encoder": encoder} for row in found]
    for method in given.methods:
        run = train(method, given)
        assert isinstance(run.modality, Vision)
        steps = read_checkpoint(run.path)["global_step"]
        found = measure(method, run.encoder, run.modality, judged, given.look)
        rows += [{**row, "encoder": encoder_of(method, given), "steps": steps} for row in found]
        asked = {name: value for name, value in vars(given).items() if name != "runs"}
        report("localise", rows, {**record, **asked})  # so that a long benchmark can be read on the way
    (RESULTS / "localise.md").write_text(markdown(rows, given), encoding="utf-8")


if __name__ == "__main__":
    main()
