"""The one training step that every method shares."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.methods.engine import Method, Outcome
from polysense.methods.optimisation import Optimisation
from polysense.modalities.base import Batch, Modality
from polysense.training.budget import Budget
from polysense.training.optimisers import apply_schedule, make_optimiser


class Pretraining(L.LightningModule):
    """Views of a batch, one pass of the method, one scalar: nothing here knows which method it is.

    All randomness of a step (views, masks, dropout) is drawn from a seed that depends on the run's
    seed, the step and the process alone, so that a resumed run draws what the killed one would have.
    ``outcome`` holds what the latest step saw, for callbacks that only look. ``labels`` ``[samples]``
    are the classes of the whole dataset as numbers, -1 where unknown, for methods that learn from them.
    """

    def __init__(
        self,
        method: Method,
        modality: Modality,
        optimisation: Optimisation,
        budget: Budget,
        *,
        batch: int,
        seed: int = 0,
        name: str = "",
        labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.labels = labels
        self.method = method
        self.modality = modality
        self.optimisation = optimisation
        self.budget = budget
        self.batch = batch
        self.seed = seed
        self.outcome: Outcome | None = None
        self.progress = 0.0
        self.rate = 0.0
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self._seconds_before + time.monotonic() - self._started

    def measure_progress(self) -> float:
        """The share of the budget that is behind; the first process's clock holds for all."""
        seconds = self.seconds
        if self.budget.seconds is not None and self.trainer.world_size > 1:
            seconds = self.trainer.strategy.broadcast(seconds)
        return self.budget.progress(self.trainer.global_step, seconds)

    def on_train_start(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Make views, encode, add up the branches."""
        step, micro = self.trainer.global_step, batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(_mix(self.seed, step, micro, self.global_rank))
        self.progress = self.measure_progress()
        self.method.at(self.progress)
        self.rate = apply_schedule(self.trainer.optimizers[0], self.optimisation, self.batch, self.progress)
        with torch.no_grad():
            views = self.modality.views(batch)
        self.outcome = self.method(views, self._known(batch))
        if not torch.isfinite(self.outcome.loss):
            raise PolysenseError(
                f"the loss became {self.outcome.loss.item()} at step {step}; the last good checkpoint is"
                " kept: start again with a lower lr, with clip, or in precision 32"
            )
        return self.outcome.loss

    def _known(self, batch: Batch) -> dict[str, Tensor]:
        """What is known of the batch's samples besides their content."""
        known = {**batch.known, "index": batch.index}
        if self.labels is not None:
            self.labels = self.labels.to(batch.index.device)
            known["label"] = self.labels[batch.index]
        return known

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the teacher follow."""
        super().optimizer_step(*args, **kwargs)
        self.method.after_step()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop when the time is over."""
        if self.budget.seconds is not None and self.measure_progress() >= 1.0:
            self.trainer.should_stop = True

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the batch; views are made on the device."""
        return batch.to(device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's optimiser."""
        return make_optimiser(self.method, self.optimisation, self.batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the clock."""
        checkpoint["seconds"] = self.seconds
        checkpoint["method"] = self.name

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the clock."""
        self._seconds_before = float(checkpoint.get("seconds", 0.0))


def _mix(*numbers: int) -> int:
    """One seed from several numbers, different for each combination."""
    seed = 0x9E3779B97F4A7C15
    for number in numbers:
        seed = ((seed ^ number) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
    return seed
