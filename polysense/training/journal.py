"""What is written down while training runs: the loss and the pace of the loop."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from torch import Tensor

from polysense.modalities.base import Batch
from polysense.training.module import Pretraining


def record(trainer: L.Trainer, metrics: dict[str, Any]) -> None:
    """Send metrics to every logger, from the first process only. Texts go to the JSON lines alone."""
    if not trainer.is_global_zero:
        return
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, str)}
    for logger in trainer.loggers:
        logger.log_metrics(metrics if logger.name == "metrics.jsonl" else numbers, trainer.global_step)


class Journal(L.Callback):
    """Every ``every`` steps: the mean loss since the last record, rate, pace, time and epoch."""

    def __init__(self, samples: int, *, every: int = 10) -> None:
        self.samples = samples
        self.every = every
        self.latest: dict[str, float] = {}
        self._losses: list[dict[str, Tensor]] = []
        self._seen = 0
        self._since = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start measuring the pace."""
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Collect; write when it is time."""
        assert isinstance(module, Pretraining)
        if module.outcome is None:
            return
        parts = {f"loss/{name}": part.detach() for name, part in module.outcome.parts.items()}
        self._losses.append({"loss": module.outcome.loss.detach(), **(parts if len(parts) > 1 else {})})
        self._seen += len(batch) * trainer.world_size
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole_step and (trainer.global_step % self.every == 0 or trainer.should_stop):
            self._write(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write what is left."""
        assert isinstance(module, Pretraining)
        if self._losses:
            self._write(trainer, module)

    def _write(self, trainer: L.Trainer, module: Pretraining) -> None:
        now = time.monotonic()
        means = {
            name: torch.stack([losses[name] for losses in self._losses]).mean().item()
            for name in self._losses[0]
        }
        self.latest = {
            **means,
            "lr": module.rate,
            "samples_per_second": round(self._seen / max(1e-9, now - self._since), 1),
            "seconds": round(module.seconds, 2),
            "epoch": round(trainer.global_step * module.batch / self.samples, 3),
        }
        if module.method.teacher is not None:
            self.latest["momentum"] = module.method.teacher.momentum
        record(trainer, dict(self.latest))
        self._losses, self._seen, self._since = [], 0, now
