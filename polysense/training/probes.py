"""Online probes: kNN, a linear probe and the effective rank, all from one bank of features.

They read what the step has already computed and never touch the loop, its gradients or its random
numbers.
"""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import pandas as pd
import torch
from torch import Tensor, nn

from polysense.evaluation.knn import knn_predict
from polysense.evaluation.rank import feature_spread, rankme
from polysense.modalities.base import Batch, Dataset
from polysense.training.journal import record
from polysense.training.module import Pretraining

log = logging.getLogger("polysense")

COLLAPSED_SPREAD = 0.1
COLLAPSED_RANK = 2.0


class FeatureBank:
    """A ring of the latest features and the places of their samples in the dataset."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._features: Tensor | None = None
        self._index: Tensor | None = None
        self._next = 0
        self._filled = 0

    def add(self, features: Tensor, index: Tensor) -> None:
        """Store ``[B, D]`` features of the samples ``index``, over the oldest ones."""
        features = features.detach().float()[-self.size :]
        index = index[-self.size :]
        if self._features is None or self._index is None:
            self._features = features.new_zeros(self.size, features.shape[1])
            self._index = index.new_zeros(self.size)
        places = (torch.arange(len(features), device=index.device) + self._next) % self.size
        self._features[places] = features
        self._index[places] = index
        self._next = (self._next + len(features)) % self.size
        self._filled = min(self.size, self._filled + len(features))

    def __len__(self) -> int:
        return self._filled

    def content(self) -> tuple[Tensor, Tensor]:
        """Features ``[N, D]`` and sample places ``[N]``."""
        assert self._features is not None
        assert self._index is not None
        return self._features[: self._filled], self._index[: self._filled]


class OnlineProbes(L.Callback):
    """Every ``every`` steps: leave-one-out kNN, linear probe, RankMe and spread of the features.

    Accuracies are in per cent and appear where the dataset has a label. A neighbour that is the query
    itself, or shares its identity, does not vote. The linear probe is trained on detached features
    with an optimiser of its own and scored on each batch before it learns from it.
    When the features collapse, the recipe's likely cause (``collapse``) is told, once.
    """

    def __init__(self, dataset: Dataset, collapse: str, *, every: int = 50, size: int = 4096) -> None:
        self.every = every
        self.collapse = collapse
        self.bank = FeatureBank(min(size, 4 * len(dataset)))
        self.labels = _codes(dataset.table, dataset.label)
        identity = _codes(dataset.table, dataset.identity)
        self.identity = identity if identity is not None else torch.arange(len(dataset))
        self.linear = LinearWatch(int(self.labels.max()) + 1) if self.labels is not None else None
        self.latest: dict[str, float] = {}
        self._warned = False

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Fill the bank; probe it when it is time."""
        assert isinstance(module, Pretraining)
        if module.outcome is None:
            return
        features = module.outcome.seen.student[0].pooled.detach().float()
        self.bank.add(features, batch.index)
        if self.labels is not None and self.linear is not None:
            self.linear.learn(features, self.labels[batch.index.cpu()].to(features.device))
        due = trainer.global_step % self.every == 0 and len(self.bank) >= 64
        if due and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            with torch.random.fork_rng(devices=[]):
                self._probe(trainer, module)

    @torch.no_grad()
    def _probe(self, trainer: L.Trainer, module: Pretraining) -> None:
        features, index = self.bank.content()
        self.latest = {"rankme": rankme(features), "spread": feature_spread(features)}
        if self.labels is not None and self.linear is not None:
            labels, identity = self.labels[index.cpu()], self.identity[index.cpu()]
            asked = slice(-1024, None)
            predicted = knn_predict(
                features,
                labels.to(features.device),
                features[asked],
                bank_identity=identity.to(features.device),
                query_identity=identity[asked].to(features.device),
            )
            self.latest["knn"] = 100 * (predicted.cpu() == labels[asked]).float().mean().item()
            self.latest["linear"] = self.linear.accuracy
        rounded: dict[str, Any] = {name: round(value, 4) for name, value in self.latest.items()}
        collapsed = self.latest["spread"] < COLLAPSED_SPREAD or self.latest["rankme"] < COLLAPSED_RANK
        if collapsed and module.progress > 0.05 and not self._warned:
            self._warned = True
            rounded["warning"] = (
                f"the embeddings collapsed at step {trainer.global_step} (effective rank"
                f" {self.latest['rankme']:.1f}, spread {self.latest['spread']:.2f});"
                f" likely cause: {self.collapse}"
            )
            log.warning(rounded["warning"])
        record(trainer, rounded)


class LinearWatch:
    """A linear classifier that learns beside training, from detached features only."""

    def __init__(self, classes: int, *, lr: float = 1e-2) -> None:
        self.classes = classes
        self.lr = lr
        self.accuracy = 0.0
        self._net: nn.Sequential | None = None
        self._optimiser: torch.optim.Optimizer | None = None

    def learn(self, features: Tensor, labels: Tensor) -> None:
        """Score the batch, then take a step on it. Samples with label -1 are left out."""
        known = labels >= 0
        features, labels = features[known], labels[known]
        if len(labels) < 2:
            return
        if self._net is None or self._optimiser is None:
            layer = nn.Linear(features.shape[1], self.classes)
            nn.init.zeros_(layer.weight)
            self._net = nn.Sequential(nn.BatchNorm1d(features.shape[1], affine=False), layer).to(
                features.device
            )
            self._optimiser = torch.optim.AdamW(layer.parameters(), lr=self.lr, weight_decay=1e-4)
        with torch.enable_grad():
            logits = self._net(features)
            loss = nn.functional.cross_entropy(logits, labels)
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
        right = 100 * (logits.argmax(1) == labels).float().mean().item()
        self.accuracy = 0.95 * self.accuracy + 0.05 * right if self.accuracy else right


def _codes(table: pd.DataFrame, column: str | None) -> Tensor | None:
    """A column as integer codes, -1 where it is missing."""
    if column is None:
        return None
    return torch.from_numpy(pd.factorize(table[column], sort=True)[0]).long()
