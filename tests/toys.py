"""Two tiny modalities that are no pictures, a table row and a sequence: no room may assume pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.modalities.base import Batch, View, ViewPlan


class Rows:
    """Arrays as a dataset; two noisy copies of each thing share an identity."""

    def __init__(self, values: Tensor, labels: Sequence[str]) -> None:
        self.values = values
        self.table = pd.DataFrame({"name": [f"row {i}" for i in range(len(values))], "kind": list(labels)})
        self.label: str | None = "kind"
        self.identity: str | None = None
        self.evaluation: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(list(indices))
        return self.values[chosen], chosen


def clusters(samples: int = 256, columns: int = 8, *, seed: int = 0) -> Rows:
    """Table rows around four centres, most columns noise."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 4, samples)
    centres = rng.normal(size=(4, columns))
    values = centres[kinds] + 0.7 * rng.normal(size=(samples, columns))
    return Rows(torch.from_numpy(values).float(), [f"kind {kind}" for kind in kinds])


class ToyTable:
    """Rows of numbers; a view swaps cells for those of other rows, as SCARF does."""

    name = "table"
    raw_name = "cells"

    def __init__(self, plan: ViewPlan | None = None) -> None:
        self.plan = plan or ViewPlan()

    def read(self, source: Any, **reading: Any) -> Rows:
        assert isinstance(source, Rows)
        return source

    def batch(self, items: Sequence[Any]) -> Batch:
        return Batch(torch.stack([torch.as_tensor(item) for item in items]).float(), torch.arange(len(items)))

    def collate(self, samples: tuple[Tensor, Tensor]) -> Batch:
        return Batch(*samples)

    def views(self, batch: Batch) -> list[View]:
        return [View(self._corrupt(batch.data), self.name) for _ in range(self.plan.globals_)]

    def _corrupt(self, data: Any) -> Tensor:
        other = data[torch.rand_like(data).argsort(0), torch.arange(data.shape[1])]
        return torch.where(torch.rand_like(data) < 0.3, other, data)

    def plain(self, batch: Batch) -> View:
        return View(batch.data, self.name)

    def raw(self, batch: Batch) -> Tensor:
        assert isinstance(batch.data, Tensor)
        return batch.data.flatten(1)

    def show(self, view: View) -> NDArray[Any]:
        assert isinstance(view.data, Tensor)
        return np.array([" ".join(f"{cell:.2f}" for cell in row) for row in view.data.flatten(1).tolist()])

    def encoder(self, spec: str | nn.Module, **options: Any) -> Encoder:
        assert isinstance(spec, Encoder)
        return spec

    def settings(self) -> dict[str, Any]:
        return {}


class ToySequence(ToyTable):
    """Sequences ``[B, T]``; a view is shifted and noisy."""

    name = "sequence"
    raw_name = "samples"

    def _corrupt(self, data: Any) -> Tensor:
        return data.roll(int(torch.randint(0, 2, ())), 1) + 0.1 * torch.randn_like(data)


class CellEncoder(Encoder):
    """A token per number, visible tokens only, mean-pooled: the smallest encoder that can hide tokens."""

    def __init__(self, columns: int, dim: int = 32) -> None:
        super().__init__()
        self.dim = dim
        self.columns = columns
        self.trunk = nn.Sequential(nn.Linear(1, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.place = nn.Parameter(0.5 * torch.randn(columns, dim))

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        tokens = self.trunk(data[..., None]) * self.place
        if mask is not None:
            tokens = tokens[~mask].view(len(data), -1, self.dim)
        return Encoded(tokens.mean(1), tokens, (self.columns,), mask)

    def grid(self, data: Tensor) -> tuple[int, ...]:
        return (self.columns,)

    @property
    def token_dim(self) -> int:
        return self.dim

    @property
    def token_values(self) -> int:
        return 1

    def tokenise(self, data: Tensor) -> Tensor:
        return data[..., None]


class RowEncoder(Encoder):
    """An MLP on a row."""

    def __init__(self, columns: int, dim: int = 32) -> None:
        super().__init__()
        self.dim = dim
        self.trunk = nn.Sequential(nn.Linear(columns, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, dim))

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        if mask is not None:
            raise self.cannot_hide()
        return Encoded(self.trunk(data))
