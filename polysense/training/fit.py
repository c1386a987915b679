"""Train a method on a dataset: Lightning's Trainer with our callbacks around the one step."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pandas as pd
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from polysense.errors import PolysenseError, unknown
from polysense.methods.engine import Method
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import Recipe
from polysense.modalities.base import Dataset, Modality, sample_lengths
from polysense.training.budget import Budget
from polysense.training.checkpoints import Checkpoints, read_checkpoint
from polysense.training.journal import Journal
from polysense.training.loader import StepSampler, make_loader, padding_share
from polysense.training.logs import TRACKERS, make_loggers
from polysense.training.module import Pretraining
from polysense.training.pair_watch import PairWatch
from polysense.training.probes import OnlineProbes
from polysense.training.progress import ProgressLine

log = logging.getLogger("polysense")

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}


@dataclass(frozen=True)
class Settings:
    """How the loop runs, beside what is trained.

    ``batch`` counts samples per optimiser step over all processes and accumulated parts.
    ``checkpoint_steps`` overrides the checkpoint each minute. ``devices`` is a number of processes, or
    "auto". ``chunk`` is how many views an encoder takes at a time, each chunk computed again in the
    backward pass (GradCache): the memory is that of a chunk, the loss that of the whole batch. ``bucket``
    puts samples of like length into one batch, where the modality tells lengths and they differ.
    """

    batch: int
    seed: int = 0
    precision: str = "32"
    accumulate: int = 1
    chunk: int | None = None
    workers: int = 0
    bucket: bool = True
    devices: int | str = "auto"
    accelerator: str = "auto"
    compile: bool = False
    trackers: Sequence[str] = ()
    checkpoint_steps: int | None = None
    log_every: int = 10
    probe_every: int = 50

    def __post_init__(self) -> None:
        least = {"batch": 1, "accumulate": 1, "workers": 0, "log_every": 1, "probe_every": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                said = "batch-size" if name == "batch" else name.replace("_", "-")
                raise PolysenseError(f"{said} is {getattr(self, name)}; it must be at least {bound}")
        for name in ("chunk", "checkpoint_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PolysenseError(f"{name.replace('_', '-')} is {value}; it must be at least 1")
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        for tracker in self.trackers:
            if tracker not in TRACKERS:
                raise unknown("tracker", tracker, TRACKERS)


def fit(
    method: Method,
    modality: Modality,
    dataset: Dataset,
    *,
    optimisation: Optimisation,
    budget: Budget,
    settings: Settings,
    folder: Path,
    recipe: Recipe,
    resume: bool = False,
) -> bool:
    """Train ``method`` in place; its checkpoints and metrics go to ``folder``.

    Returns:
        True when training ran to its end, False when a SIGTERM stopped it after a checkpoint.

    Raises:
        PolysenseError: when batch and data do not fit together, when the loss is no longer a number,
            or when there is nothing to resume from.
    """
    check_batch(dataset, settings)
    start = _start(folder, recipe) if resume else 0
    if settings.chunk is not None:
        method.encode_in_chunks(settings.chunk)
    if settings.compile:
        for tower in method.towers.values():
            tower.compile()
    module = Pretraining(
        method,
        modality,
        optimisation,
        budget,
        batch=settings.batch,
        seed=settings.seed,
        name=recipe.name,
        labels=_labels(dataset) if recipe.labels else None,
    )
    checkpoints = Checkpoints(folder, every_steps=settings.checkpoint_steps)
    journal = Journal(len(dataset), every=settings.log_every)
    probes = OnlineProbes(dataset, recipe.collapse, every=settings.probe_every)
    trainer = _trainer(
        settings,
        budget,
        optimisation,
        folder,
        [journal, probes, PairWatch(), ProgressLine(journal, probes), checkpoints],
        start,
    )
    micro = settings.batch // settings.accumulate
    if micro % trainer.world_size:
        raise PolysenseError(
            f"a batch of {micro} cannot be shared by {trainer.world_size} processes; choose a multiple"
        )
    sampler = StepSampler(
        len(dataset),
        micro,
        seed=settings.seed,
        start=start * settings.accumulate,
        rank=trainer.global_rank,
        world=trainer.world_size,
        lengths=_lengths(modality, dataset, micro, settings),
    )
    loader = make_loader(dataset, modality, sampler, workers=settings.workers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and loggers is not the user's concern
        _fit(trainer, module, loader, checkpoints.path if resume else None)
    return not checkpoints.interrupted


def _fit(trainer: L.Trainer, module: Pretraining, loader: Any, checkpoint: Path | None) -> None:
    try:
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except OSError as error:
        raise PolysenseError(
            f"training stopped because a file could not be written ({error}); make room, and resume"
        ) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise PolysenseError(
            f"the checkpoint {checkpoint} does not fit the encoder and method of the run's config; resume"
            " each run in its own folder, with its own encoder"
        ) from error


def _start(folder: Path, recipe: Recipe) -> int:
    """The step of the checkpoint to resume from."""
    checkpoint = read_checkpoint(folder)
    if checkpoint.get("method") != recipe.name:
        raise PolysenseError(
            f"the checkpoint in {folder} is of {checkpoint.get('method')!r}, but its config says"
            f" {recipe.name!r}: resume each run in its own folder"
        )
    return int(checkpoint["global_step"])


def check_batch(dataset: Dataset, settings: Settings) -> None:
    """Refuse a batch that the data or the processes cannot fill."""
    if len(dataset) < 2:
        raise PolysenseError("one sample is not enough to learn from: give at least two")
    if settings.batch > len(dataset):
        raise PolysenseError(
            f"a batch of {settings.batch} is larger than the data ({len(dataset)} samples);"
            f" use batch-size {len(dataset)} or less"
        )
    if settings.batch % settings.accumulate:
        raise PolysenseError(
            f"a batch of {settings.batch} cannot be accumulated in {settings.accumulate} equal parts"
        )


def _lengths(modality: Modality, dataset: Dataset, micro: int, settings: Settings) -> Tensor | None:
    """The lengths by which batches are made, if they are to be; tells what is gained."""
    lengths = sample_lengths(modality, dataset, views=True) if settings.bucket else None
    if lengths is not None:
        orders = [StepSampler(len(dataset), micro, lengths=each).permutation(0) for each in (lengths, None)]
        shares = [100 * padding_share(lengths, order, micro) for order in orders]
        log.info("batches of like length: %.0f %% of them is padding, %.0f %% if drawn by chance", *shares)
    return lengths


def _labels(dataset: Dataset) -> Tensor:
    """``[samples]``: the classes as numbers, -1 where unknown."""
    codes, _ = pd.factorize(dataset.table[dataset.label])
    return torch.from_numpy(codes).long()


def _trainer(
    settings: Settings,
    budget: Budget,
    optimisation: Optimisation,
    folder: Path,
    callbacks: list[Callback],
    start: int,
) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        return L.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            precision=PRECISIONS[settings.precision],
            max_steps=budget.steps if budget.steps is not None else -1,
            max_epochs=-1,
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=optimisation.clip,
            sync_batchnorm=torch.cuda.is_available(),  # has no implementation for processors
            use_distributed_sampler=False,
            logger=make_loggers(folder, settings.trackers, from_step=start),
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            inference_mode=False,
        )
    except (ValueError, MisconfigurationException) as error:
        raise PolysenseError(
            f"cannot train on devices {settings.devices} of accelerator {settings.accelerator!r}:"
            f" {str(error).splitlines()[0]}"
        ) from error
