"""Whole training steps of SimCLR at 32 px: polysense beside lightly's components in Lightning.

    OMP_WAIT_POLICY=passive .venv-bench/bin/python -m benchmarks.step

Both train the same encoder with projectors of the same sizes on the same decoded pictures, with the
same views, batch, optimiser and threads; the ways take turns. A step is all of it: loader, views,
forward, backward, optimiser, and the Trainer around them. polysense runs as ``pretrain`` does, with its
journal and online probes; each round holds a round of kNN, where ``pretrain`` has one in 50 steps.
lightly runs as its guide wires it, on Pillow images in memory, without progress bar, logger and
checkpoints. The first steps, in which caches and workers warm up, do not count.

Where other jobs share the cores, threads that wait for each other by spinning make steps many times
slower, for all ways; the passive wait policy avoids it.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.common import environment, report
from polysense.encoders import build
from polysense.methods.optimisation import Optimisation
from polysense.methods.table import find
from polysense.modalities.vision.modality import Vision
from polysense.modalities.vision.store import Pictures
from polysense.training.budget import Budget
from polysense.training.fit import Settings, fit

SIZE, TEMPERATURE, HIDDEN, OUT, LAYERS = 32, 0.1, 2048, 128, 3
RATE, DECAY = 1e-3, 1e-4


@dataclass(frozen=True)
class Case:
    """An encoder, its batch, and how many steps of a round are timed after how many that are not."""

    encoder: str
    batch: int
    warmup: int
    steps: int


CASES = (Case("small", 256, warmup=2, steps=12), Case("resnet18", 64, warmup=1, steps=2))


@dataclass
class Stopwatch:
    """The times at which an objective was called: once in every step, whoever runs the step."""

    times: list[float] = field(default_factory=list)

    def watch(self, objective: nn.Module) -> None:
        objective.register_forward_pre_hook(lambda *_: self.times.append(time.perf_counter()))

    def seconds(self, warmup: int) -> list[float]:
        """The length of each step after the first ``warmup``."""
        return [end - start for start, end in pairwise(self.times[warmup:])]


Way = Callable[[Case, Stopwatch], None]


def train_polysense(dataset: Pictures, case: Case, stopwatch: Stopwatch) -> None:
    recipe = find("simclr")
    modality = Vision(size=SIZE).fit(dataset)
    encoder = build(case.encoder, size=SIZE)
    method = recipe.build(
        encoder, modality.name, temperature=TEMPERATURE, hidden=HIDDEN, out=OUT, layers=LAYERS
    )
    objective = method.branches["match"].objective
    assert isinstance(objective, nn.Module)
    stopwatch.watch(objective)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            method,
            modality,
            dataset,
            optimisation=Optimisation("adamw", lr=RATE, per=case.batch, weight_decay=DECAY),
            budget=Budget(steps=case.warmup + case.steps + 1),
            settings=Settings(case.batch, accelerator="cpu", devices=1, probe_every=case.steps),
            folder=Path(folder),
            recipe=recipe,
        )


def train_lightly(pictures: list[Image.Image], workers: int, case: Case, stopwatch: Stopwatch) -> None:
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=SIZE, cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0)
    loader: DataLoader[list[Tensor]] = DataLoader(
        _Transformed(pictures, transform),  # type: ignore[arg-type]
        batch_size=case.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model = LightlySimCLR(case.encoder)
    stopwatch.watch(model.criterion)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=case.warmup + case.steps + 1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning advises more workers
        trainer.fit(model, loader)


class LightlySimCLR(L.LightningModule):
    """SimCLR put together from lightly's parts: each view goes through the encoder by itself."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        self.backbone = build(encoder, size=SIZE)
        self.projection_head = SimCLRProjectionHead(self.backbone.dim, HIDDEN, OUT, num_layers=LAYERS)
        self.criterion = NTXentLoss(temperature=TEMPERATURE)

    def forward(self, pictures: Tensor) -> Tensor:
        projected: Tensor = self.projection_head(self.backbone(pictures).pooled)
        return projected

    def training_step(self, views: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self.criterion(self(views[0]), self(views[1]))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=DECAY)


@dataclass
class _Transformed:
    """Pillow images, transformed one by one as they are asked for."""

    pictures: list[Image.Image]
    transform: Callable[[Image.Image], list[Tensor]]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> list[Tensor]:
        return self.transform(self.pictures[place])


def measure(case: Case, ways: dict[str, Way], rounds: int) -> list[dict[str, Any]]:
    """A row for each way: images per second over whole rounds, and its median step."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    steps: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, train in ways.items():
            torch.manual_seed(turn)
            stopwatch = Stopwatch()
            train(case, stopwatch)
            seconds = stopwatch.seconds(case.warmup)
            rates[name].append(case.batch * len(seconds) / sum(seconds))
            steps[name] += seconds
    medians = {name: statistics.median(each) for name, each in rates.items()}
    ours = medians["polysense"]
    return [
        {
            "encoder": case.encoder,
            "batch": case.batch,
            "steps": f"{rounds} x {case.steps}",
            "way": name,
            "img/s (median)": medians[name],
            "img/s (min)": min(rates[name]),
            "img/s (max)": max(rates[name]),
            "ms a step (median)": 1e3 * statistics.median(steps[name]),
            "polysense is x faster": ours / medians[name],
        }
        for name in ways
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    record = environment(0, peers=["lightly", "lightning", "torchvision", "pillow"])
    record["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY")
    record["load"] = os.getloadavg()[0]

    dataset = Vision(size=SIZE).read("builtin:emoji")
    pictures = [Image.fromarray(each.transpose(1, 2, 0)) for each in dataset.pixels[dataset.rows]]
    ways: dict[str, Way] = {
        "polysense": partial(train_polysense, dataset),
        "lightly": partial(train_lightly, pictures, 0),
        "lightly, 2 workers": partial(train_lightly, pictures, 2),
    }
    rows = [row for case in CASES for row in measure(case, ways, arguments.rounds)]
    report("step", rows, record)


if __name__ == "__main__":
    main()
