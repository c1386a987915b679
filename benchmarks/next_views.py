"""Steps of methods that foresee: the student encodes the moment it looks from, beside encoding all moments.

Run ``python -m benchmarks.next_views`` from the repository's root. One thread, processor time; the ways take
turns on the same views. A step is forward, backward and the teacher's update, without the optimiser.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import compare, environment, report
from polysense.methods.engine import Method
from polysense.methods.states import Foreseen
from polysense.methods.table import find
from polysense.modalities.base import View
from polysense.rl.encoder import StateConv

BATCH, SIZE, CHANNELS, ACTIONS = 64, 64, 3, 4
LATER = {"state_contrast": 1, "spr": 5}


class ForeseenOfAll(Foreseen):
    """The same, but the student is asked for every view."""

    def of_student(self, view: View) -> bool:
        """All of them."""
        return True


@dataclass(frozen=True)
class Step:
    """One step of a method on views of so many later moments."""

    method: Method
    views: list[View]
    known: dict[str, Tensor]

    def __call__(self) -> None:
        self.method(self.views, self.known).loss.backward()
        self.method.after_step()


def step(name: str, reads: type[Foreseen]) -> Step:
    """A step whose branch reads in the given way."""
    torch.manual_seed(0)
    method = find(name).build(StateConv(CHANNELS, SIZE), "state")
    for branch in method.branches.values():
        branch.reads.__class__ = reads
    kinds = ("global",) + LATER[name] * ("next",)
    views = [View(torch.randn(BATCH, CHANNELS, SIZE, SIZE), "state", kind) for kind in kinds]
    return Step(method, views, {"action": torch.randint(ACTIONS, (BATCH, LATER[name]))})


def main() -> None:
    """Time both ways of both methods, and write ``benchmarks/results/next_views.json``."""
    torch.set_num_threads(1)
    record = environment(seed=0)
    rows: list[dict[str, Any]] = []
    for name in LATER:
        ways: dict[str, Callable[[], object]] = {
            "the moment it looks from": step(name, Foreseen),
            "all moments": step(name, ForeseenOfAll),
        }
        timings = compare(ways, repeats=15, warmup=2, clock=time.process_time)
        least = timings["the moment it looks from"].median
        for way, timing in timings.items():
            rows.append(
                {
                    "method": name,
                    "the student encodes": way,
                    "ms (median)": timing.median * 1e3,
                    "ms (min)": timing.min * 1e3,
                    "times": timing.median / least,
                }
            )
    report("next_views", rows, record)


if __name__ == "__main__":
    main()
