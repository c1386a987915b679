"""The whole kNN call on one thread, against lightly's: similarities, neighbours, vote and decision.

Ours also scales both sides to length 1, which lightly leaves to the caller.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import compare, environment, report
from polysense.evaluation import knn_predict

SEED = 0
QUERIES, NEIGHBOURS, CLASSES, DIM, TEMPERATURE = 256, 200, 1000, 128, 0.1


def clusters(rows: int, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Rows around the centre of their class, of length 1, and their classes."""
    labels = torch.randint(CLASSES, (rows,))
    return F.normalize(centres[labels] + 2 * torch.randn(rows, DIM), dim=1), labels


def row(bank_rows: int, centres: Tensor) -> dict[str, Any]:
    """One size of the bank: both timings, after both gave the same answers."""
    from lightly.utils import benchmarking as lightly_tools  # type: ignore[import-not-found, unused-ignore]

    bank, labels = clusters(bank_rows, centres)
    queries, wanted = clusters(QUERIES, centres)

    def lightly() -> Tensor:
        ranked: Tensor = lightly_tools.knn_predict(queries, bank.T, labels, CLASSES, NEIGHBOURS, TEMPERATURE)
        return ranked[:, 0]

    def ours() -> Tensor:
        return knn_predict(bank, labels, queries, k=NEIGHBOURS, temperature=TEMPERATURE, classes=CLASSES)

    if not torch.equal(lightly(), ours()):
        raise AssertionError("the two predictions differ, so their times do not compare")
    times = compare({"lightly": lightly, "polysense": ours}, repeats=7, warmup=1)
    return {
        "bank": bank_rows,
        "accuracy": (ours() == wanted).double().mean().item(),
        "lightly ms": 1e3 * times["lightly"].median,
        "polysense ms": 1e3 * times["polysense"].median,
        "times faster": times["lightly"].median / times["polysense"].median,
    }


def main() -> None:
    """Compare at 256 queries, k 200, 1000 classes, for banks where the vote and the search dominate."""
    torch.set_num_threads(1)
    record = environment(SEED, peers=["lightly"])
    centres = torch.randn(CLASSES, DIM)
    report("knn", [row(rows, centres) for rows in (10_000, 25_000, 50_000)], record)


if __name__ == "__main__":
    main()
