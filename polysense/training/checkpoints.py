"""Checkpoints that a killed run resumes from, written atomically."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch

from polysense.errors import PolysenseError

CHECKPOINT = "checkpoint.ckpt"


class Checkpoints(L.Callback):
    """Writes ``RUN/checkpoint.ckpt`` every ``every_steps`` steps or ``every_seconds`` seconds.

    The file is written beside its place and renamed, so that a kill at any moment leaves the last
    good one. On SIGTERM the step is finished, the checkpoint written and training stopped;
    ``interrupted`` then is True.
    """

    def __init__(self, folder: Path, *, every_steps: int | None = None, every_seconds: float = 60.0) -> None:
        self.path = folder / CHECKPOINT
        self.every_steps = every_steps
        self.every_seconds = every_seconds
        self.interrupted = False
        self._saved_at = time.monotonic()
        self._before: Any = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Listen for SIGTERM (only the main thread may)."""
        self._saved_at = time.monotonic()
        try:
            self._before = signal.signal(signal.SIGTERM, self._stop)
        except ValueError:
            self._before = None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after a whole optimiser step, when it is time."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = time.monotonic() - self._saved_at >= self.every_seconds
        if self.every_steps is not None:
            due = trainer.global_step % self.every_steps == 0
        stop = self.interrupted
        if trainer.world_size > 1:
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if due or stop:
            self.save(trainer)
        if stop:
            self.interrupted = True
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save the last step and stop listening."""
        self.save(trainer)
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint beside its place, then rename.

        Raises:
            PolysenseError: when it cannot be written (disk full); the one before is kept.
        """
        beside = self.path.with_suffix(".part")
        try:
            trainer.save_checkpoint(beside)
            if trainer.is_global_zero:
                os.replace(beside, self.path)
        except (OSError, RuntimeError) as error:
            beside.unlink(missing_ok=True)
            raise PolysenseError(
                f"could not write {self.path}: {error}; the one before it is kept: make room and resume"
            ) from error
        self._saved_at = time.monotonic()


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The checkpoint of a run, tensors and plain values only.

    Raises:
        PolysenseError: when there is none, or it is not one of ours.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise PolysenseError(f"{folder} holds no {CHECKPOINT}: nothing to resume from; start it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old pickles, which are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise PolysenseError(
            f"{path} is not a checkpoint of tensors and plain values and is not loaded"
            f" ({type(error).__name__}); resume from the run's own folder"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content or "global_step" not in content:
        raise PolysenseError(f"{path} is not a polysense checkpoint; resume from the run's own folder")
    return content
