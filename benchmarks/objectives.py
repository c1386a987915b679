"""NT-Xent beside its dense formula and lightly's: time and peak memory of forward and backward, one thread.

``python -m benchmarks.objectives`` from the repository's root; two to three minutes and 5 GB of memory.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import compare, environment, peak_memory, report
from polysense.objectives import NTXent

TEMPERATURE, DIMENSIONS, SEED = 0.1, 128, 0
BATCHES, MEMORY_BATCH = (256, 1024, 4096), 8192
Loss = Callable[[Tensor], Tensor]


def dense(z: Tensor) -> Tensor:
    """The whole 2N x 2N matrix at once, in the fewest torch calls."""
    n = z.shape[1]
    both = F.normalize(z.flatten(0, 1), dim=-1)
    logits = both @ both.T / TEMPERATURE
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    return 2 * F.cross_entropy(logits, torch.arange(2 * n).roll(n))


def losses() -> dict[str, Loss]:
    """The losses compared, lightly's only where it is installed."""
    found: dict[str, Loss] = {"polysense": NTXent(TEMPERATURE), "dense": dense}
    if importlib.util.find_spec("lightly"):
        lightly = importlib.import_module("lightly.loss").NTXentLoss(temperature=TEMPERATURE)
        found["lightly"] = lambda z: 2 * lightly(z[0], z[1])  # its mean over views, as the authors' sum
    return found


def step(loss: Loss, batch: int) -> Callable[[], Tensor]:
    """One forward and backward pass on a fixed random batch; returns the loss."""
    torch.manual_seed(SEED)
    z = torch.randn(2, batch, DIMENSIONS, requires_grad=True)

    def run() -> Tensor:
        z.grad = None
        value = loss(z)
        value.backward()
        return value.detach()

    return run


def times(batch: int) -> list[dict[str, Any]]:
    cases = {name: step(loss, batch) for name, loss in losses().items()}
    values = torch.stack([case() for case in cases.values()])
    torch.testing.assert_close(values, values[:1].expand_as(values), rtol=1e-5, atol=1e-5)
    timings = compare(cases, repeats=5 if batch > 1024 else 21)
    ours = timings["polysense"].median
    return [
        {
            "loss": name,
            "N": batch,
            "median ms": 1e3 * timing.median,
            "min ms": 1e3 * timing.min,
            "max ms": 1e3 * timing.max,
            "ours is faster by": timing.median / ours,
        }
        for name, timing in timings.items()
    ]


def memory(name: str) -> dict[str, Any]:
    """Peak memory of one step above the imports and the batch, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.objectives", "--memory-of", name]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {"loss": name, "N": MEMORY_BATCH, "peak MB": float(output.splitlines()[-1])}


def print_memory(name: str) -> None:
    loss = losses()[name]
    step(loss, 8)()  # so that what torch loads on first use is not counted
    print(peak_memory(step(loss, MEMORY_BATCH)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory-of", metavar="LOSS", help="print one loss's peak memory in MB and stop")
    name = parser.parse_args().memory_of
    torch.set_num_threads(1)
    if name:
        print_memory(name)
        return
    if "lightly" not in losses():
        print("lightly is not installed here, so its rows are missing: pip install lightly")
    record = environment(SEED, peers=["lightly"])
    rows = [row for batch in BATCHES for row in times(batch)] + [memory(name) for name in losses()]
    report("objectives", rows, record | {"temperature": TEMPERATURE, "dimensions": DIMENSIONS})


if __name__ == "__main__":
    main()
