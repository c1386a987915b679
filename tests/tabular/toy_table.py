"""A small table of every kind of column, whose rows lie around four centres."""

from __future__ import annotations

import numpy as np
import pandas as pd


def stones(rows: int = 64, *, seed: int = 0) -> pd.DataFrame:
    """Numbers with gaps, an integer, a category, a boolean and a date, and the label ``kind``."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 4, rows)
    numbers = rng.normal(size=(4, 3))[kinds] + 0.4 * rng.normal(size=(rows, 3))
    weight = np.where(rng.random(rows) < 0.1, np.nan, numbers[:, 0])
    levels = np.where(rng.random(rows) < 0.7, kinds, rng.integers(0, 4, rows))
    return pd.DataFrame(
        {
            "weight": weight,
            "depth": numbers[:, 1],
            "price": (100 * numbers[:, 2]).round().astype(int),
            "cut": pd.Series(np.array(["fair", "good", "ideal", "rough"])[levels], dtype="str"),
            "sold": levels > 1,
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 9000, rows), unit="h"),
            "kind": [f"kind {kind}" for kind in kinds],
        }
    )
