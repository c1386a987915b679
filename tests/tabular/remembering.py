"""A generator that knows the training rows by heart, so that what it should draw is known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from polysense.deployment.run import Run
from polysense.encoders.cell_transformers import CellTransformer
from polysense.encoders.cells import Cells, Row
from polysense.tabular.generate import Generator
from polysense.tabular.modality import Table


class Remembering(CellTransformer):
    """Answers for a cell by the training rows that agree in all that is known; ``vague``: by all a little."""

    def __init__(self, cells: Cells, vague: float) -> None:
        super().__init__(cells, width=4, depth=1, heads=1)
        self.rows, self.vague = torch.empty(0), vague

    def remember(self, row: Row) -> Remembering:
        self.rows = self.tokenise(row)
        return self

    def forward(self, data: Row, mask: Tensor | None = None) -> Any:
        assert mask is not None
        return ((self.tokenise(data)[:, None] == self.rows) | mask[:, None]).all(-1)

    def answers(self, agree: Tensor) -> Tensor:
        most = max(self.cells.classes)
        hot = torch.nn.functional.one_hot(self.rows, most).float()
        return torch.einsum("br,rtk->btk", agree + self.vague, hot).log()


class _Answers(torch.nn.Module):
    def __init__(self, encoder: Remembering) -> None:
        super().__init__()
        self.answers = encoder.answers

    def forward(self, agree: Tensor) -> Tensor:
        return self.answers(agree)


def remembering(frame: pd.DataFrame, *, gaps: bool = True, vague: float = 0.0) -> Generator:
    table = Table()
    rows = table.read(frame)
    table = table.fit(rows)
    encoder = Remembering(table.cells, vague).remember(table.coder.encode(rows.frame))
    encoder.predict = _Answers(encoder)  # type: ignore[assignment]
    return Generator(Run(encoder, table, Path("run"), {"options": {"gaps": gaps}}), rows.frame)


def readings(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """``high`` and ``low`` depend on each other, ``site`` on both; ``gust`` has gaps; ``total`` is a sum."""
    rng = np.random.default_rng(seed)
    high = rng.integers(0, 10, rows)
    low = np.clip(high + rng.integers(-3, 3, rows), 0, 9)
    site = np.where(rng.random(rows) < high / 9, "north", "south")
    gust = np.where(rng.random(rows) < 0.3, np.nan, rng.integers(1, 9, rows) / 2)
    return pd.DataFrame(
        {
            "high": high,
            "low": low.astype("int16"),
            "total": high + low,
            "site": pd.Categorical(site),
            "gust": gust,
            "code": 5000 + np.arange(rows),
        }
    )
