"""A dataset and a modality of plain vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from polysense.modalities.base import Batch, View


class Vectors:
    """A dataset whose samples are the rows of a tensor."""

    def __init__(
        self,
        data: Tensor,
        columns: dict[str, Any] | None = None,
        *,
        label: str | None = None,
        identity: str | None = None,
        evaluation: dict[str, Any] | None = None,
    ) -> None:
        self.data = data
        self.table = pd.DataFrame({"name": [f"row {i}" for i in range(len(data))], **(columns or {})})
        self.label, self.identity = label, identity
        self.evaluation = evaluation

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        index = torch.tensor(list(indices))
        return self.data[index], index


class VectorModality:
    """Views of vectors are the vectors; the raw input is their double."""

    name, raw_name = "vector", "numbers"

    def read(self, source: Any) -> Vectors:
        return Vectors(source)

    def collate(self, samples: tuple[Tensor, Tensor]) -> Batch:
        return Batch(*samples)

    def views(self, batch: Batch) -> list[View]:
        return [self.plain(batch)]

    def plain(self, batch: Batch) -> View:
        assert isinstance(batch.data, Tensor)
        return View(batch.data, self.name)

    def raw(self, batch: Batch) -> Tensor:
        assert isinstance(batch.data, Tensor)
        return 2 * batch.data

    def settings(self) -> dict[str, Any]:
        return {}
