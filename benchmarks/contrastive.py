"""Losses over N x N logits, ours beside open_clip's, lightly's and the plain formula: time and memory.

``python -m benchmarks.contrastive`` from the repository's root; about half an hour and 16 GB of memory, or
``--sizes 1024 4096`` for two minutes. One step is normalisation, loss and backward pass of N embeddings of
512 numbers on each side (NT-Xent: of both views of N / 2 samples). Each measurement is a process of its own
on one thread, taking turns with the others; a case that would not fit into memory is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.common import compare, environment, peak_memory, report
from polysense.objectives import NTXent, PairContrast, PairSigmoid

SIZES, DIMENSIONS, SEED = (256, 1024, 4096, 16384, 32768), 512, 0
TEMPERATURE = 0.1  # NT-Xent's
SCALE, BIAS = nn.Parameter(torch.tensor(math.log(1 / 0.07))), nn.Parameter(torch.tensor(-10.0))
Loss = Callable[[Tensor, Tensor], Tensor]
Case = tuple[str, str]
"""Which loss, by whom."""
Measured = dict[str, float]


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def plain_contrast(a: Tensor, b: Tensor) -> Tensor:
    """CLIP's formula on the whole matrix at once, multiplied out once for both directions."""
    logits, partner = SCALE.exp() * unit(a) @ unit(b).T, torch.arange(len(a))
    return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2


def plain_sigmoid(a: Tensor, b: Tensor) -> Tensor:
    logits = SCALE.exp() * unit(a) @ unit(b).T + BIAS
    return -F.logsigmoid(logits * (2 * torch.eye(len(a)) - 1)).sum() / len(a)


def open_clip_contrast() -> Loss:
    from open_clip.loss import ClipLoss

    loss = ClipLoss()
    return lambda a, b: loss(unit(a), unit(b), SCALE.exp())


def open_clip_sigmoid() -> Loss:
    from open_clip.loss import SigLipLoss

    loss = SigLipLoss()
    return lambda a, b: loss(unit(a), unit(b), SCALE.exp(), BIAS)


def our_ntxent() -> Loss:
    loss = NTXent(TEMPERATURE)
    return lambda a, b: loss(torch.stack([a, b])[:, ::2])


def lightly_ntxent() -> Loss:
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(temperature=TEMPERATURE)
    return lambda a, b: 2 * loss(a[::2], b[::2])  # its mean over views, as the authors' sum


PEERS = ("open_clip", "lightly")
CASES: dict[Case, Callable[[], Loss]] = {
    ("contrast", "polysense"): lambda: PairContrast(SCALE),
    ("contrast", "open_clip"): open_clip_contrast,
    ("contrast", "plain"): lambda: plain_contrast,
    ("sigmoid", "polysense"): lambda: PairSigmoid(SCALE, BIAS),
    ("sigmoid", "open_clip"): open_clip_sigmoid,
    ("sigmoid", "plain"): lambda: plain_sigmoid,
    ("nt_xent", "polysense"): our_ntxent,
    ("nt_xent", "lightly"): lightly_ntxent,
}


def installed() -> list[Case]:
    """The cases whose library is there; the others are told."""
    missing = {by for _, by in CASES if by in PEERS and find_spec(by) is None}
    if missing:
        print(f"not installed here, so left out: {', '.join(sorted(missing))}")
    return [case for case in CASES if case[1] not in missing]


def step(loss: Loss, size: int) -> Callable[[], float]:
    """One forward and backward pass on a fixed random batch; returns the loss."""
    torch.manual_seed(SEED)
    a, b = (torch.randn(size, DIMENSIONS, requires_grad=True) for _ in range(2))

    def run() -> float:
        a.grad = b.grad = SCALE.grad = BIAS.grad = None
        value = loss(a, b)
        value.backward()
        return value.item()

    return run


def measure_here(case: Case, size: int) -> Measured:
    """Peak memory above imports and batch of a first step, and the time of further ones."""
    loss = CASES[case]()
    step(loss, 8)()  # so that what torch loads on first use is not counted
    run, values = step(loss, size), list[float]()
    peak = peak_memory(lambda: values.append(run()))
    repeats = max(1, min(21, 2**14 // size))
    timing = compare({"": run}, repeats, warmup=0, clock=time.process_time)[""]
    return {"ms": 1e3 * timing.median, "MB": peak, "value": values[0]}


def measure(case: Case, size: int) -> Measured:
    """As :func:`measure_here`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.contrastive", "--case", *case, "--sizes", str(size)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    measured: Measured = json.loads(output.splitlines()[-1])
    return measured


def available() -> float:
    """Memory that is free to use, in MB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1024


def take_turns(cases: list[Case], size: int, rounds: int) -> dict[Case, Measured]:
    """The median of several measurements of each case, and the fastest and slowest."""
    turns = [{case: measure(case, size) for case in cases} for _ in range(rounds)]
    medians: dict[Case, Measured] = {}
    for case in cases:
        own = [turn[case] for turn in turns]
        medians[case] = {key: median(measured[key] for measured in own) for key in own[0]}
        times = [measured["ms"] for measured in own]
        medians[case] |= {"min": min(times), "max": max(times)}
    return medians


def row(case: Case, size: int, measured: dict[Case, Measured]) -> dict[str, Any]:
    """A line of the table; losses that should be one and the same must have one value."""
    own, ours = measured[case], measured[case[0], "polysense"]
    torch.testing.assert_close(own["value"], ours["value"], rtol=1e-5, atol=1e-5)
    return {
        "loss": case[0],
        "by": case[1],
        "N": size,
        "median ms": own["ms"],
        "min ms": own["min"],
        "max ms": own["max"],
        "peak MB": own["MB"],
        "ours is faster by": own["ms"] / ours["ms"],
        "ours is smaller by": own["MB"] / ours["MB"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", nargs=2, metavar=("LOSS", "BY"), help="measure one case here, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.case:
        print(json.dumps(measure_here(tuple(options.case), options.sizes[0])))
        return
    record = environment(SEED, peers=["open_clip_torch", "lightly"])
    rows: list[dict[str, Any]] = []
    peaks, before = dict.fromkeys(installed(), 0.0), 1
    for size in sorted(options.sizes):
        peaks = {case: peak * (size / before) ** 2 for case, peak in peaks.items()}  # what to expect
        fitting = [case for case, peak in peaks.items() if peak < 0.9 * available()]
        measured = take_turns(fitting, size, options.rounds)
        peaks, before = peaks | {case: own["MB"] for case, own in measured.items()}, size
        rows += [row(case, size, measured) for case in measured]
    report("contrastive", rows, record | {"dimensions": DIMENSIONS, "rounds": options.rounds})


if __name__ == "__main__":
    main()
