"""What goes wrong when pairs are matched, told once each and in words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch

from polysense.evaluation.rank import feature_spread
from polysense.methods.engine import Branch, Seen
from polysense.methods.joint import PartPair, chance_loss, logit_scale
from polysense.modalities.base import Batch
from polysense.training.journal import record
from polysense.training.module import Pretraining

log = logging.getLogger("polysense")

LARGEST_SCALE = 100.0
COLLAPSED_SPREAD = 0.02
STILL_CHANCE = 0.98
"""The share of the chance loss ln(batch) below which something is being learned."""


class PairWatch(L.Callback):
    """Every ``every`` steps looks for what the loss alone does not tell, where parts are matched.

    Four signs are warned of, once each, when they are seen in ``patience`` looks in a row: a tower that gets
    no gradient, embeddings of a part that all point one way, a logit scale at its largest, and a loss that
    is still chance, ln of the batch.
    """

    def __init__(self, *, every: int = 25, patience: int = 6) -> None:
        self.every, self.patience = every, patience
        self._in_a_row: dict[str, int] = {}
        self._told: set[str] = set()
        self._still: set[str] = set()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Find the towers without a gradient: only now it is there."""
        assert isinstance(module, Pretraining)
        if (trainer.global_step + 1) % self.every == 0:
            learning = {
                part: [parameter.grad for parameter in tower.parameters() if parameter.requires_grad]
                for part, tower in module.method.towers.items()
            }
            self._still = {
                part
                for part, gradients in learning.items()
                if gradients and not any(g is not None and bool(g.any()) for g in gradients)
            }

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Look when it is time."""
        assert isinstance(module, Pretraining)
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        matches = _matches(module)
        if trainer.global_step % self.every or not whole_step or not matches or module.outcome is None:
            return
        signs = {
            **{f"still {part}": _no_gradient(part) for part in sorted(self._still)},
            **dict(_collapsed(module.outcome.seen)),
            **dict(_at_largest(matches)),
            **dict(_at_chance(matches, module.outcome.parts, len(batch) * trainer.world_size)),
        }
        self._in_a_row = {sign: 1 + self._in_a_row.get(sign, 0) for sign in signs}
        for sign, words in signs.items():
            if self._in_a_row[sign] >= self.patience and sign not in self._told:
                self._told.add(sign)
                warning = f"{words} (for {self.patience * self.every} steps, to step {trainer.global_step})"
                log.warning(warning)
                record(trainer, {"warning": warning})


def _matches(module: Pretraining) -> dict[str, Branch]:
    """The branches that match two parts."""
    branches = {name: branch for name, branch in module.method.branches.items() if isinstance(branch, Branch)}
    return {name: branch for name, branch in branches.items() if isinstance(branch.reads, PartPair)}


def _no_gradient(part: str) -> str:
    return f"the tower {part!r} gets no gradient: its output does not reach the loss, or its weights are 0"


@torch.no_grad()
def _collapsed(seen: Seen) -> Iterator[tuple[str, str]]:
    for view, encoded in zip(seen.views, seen.student, strict=True):
        features = encoded.pooled.detach().float()
        features = features if view.present is None else features[view.present]
        if len(features) > 1 and (spread := feature_spread(features)) < COLLAPSED_SPREAD:
            yield (
                f"collapsed {view.modality}",
                f"the embeddings of {view.modality!r} collapsed (spread {spread:.3f}): to its tower all"
                " samples look alike; look at the data, or lower lr",
            )


def _at_largest(matches: dict[str, Branch]) -> Iterator[tuple[str, str]]:
    if logit_scale(next(iter(matches.values()))) > 0.999 * LARGEST_SCALE:
        yield (
            "scale",
            f"the logit scale is at its largest, {LARGEST_SCALE:.0f}: the pairs are learned by heart, or lr"
            " is too high",
        )


def _at_chance(
    matches: dict[str, Branch], parts: dict[str, torch.Tensor], batch: int
) -> Iterator[tuple[str, str]]:
    for name, branch in matches.items():
        loss, chance = parts[name].item() / branch.weight, chance_loss(branch, batch)
        if loss > STILL_CHANCE * chance:
            yield (
                f"chance {name}",
                f"the loss of {name} is {loss:.2f}, and chance is ln {batch} = {chance:.2f}: check that the"
                " pairs belong together, and try a higher lr",
            )
