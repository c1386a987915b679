"""The teacher's update of ResNet-50 and ViT-B, beside a loop over the parameters and lightly's function.

Run ``python -m benchmarks.teacher`` from the repository's root. One thread; the cases take turns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.common import compare, environment, report
from polysense.encoders import Teacher, build

MODELS = ("resnet50", "vit_base_patch16_224")
MOMENTUM = 0.996


def main() -> None:
    """Time every way on every model, and write ``benchmarks/results/teacher.json``."""
    torch.set_num_threads(1)
    record = environment(seed=0, peers=("lightly", "timm"))
    rows: list[dict[str, Any]] = []
    for name in MODELS:
        student = build(name, size=224)
        timings = compare(ways(student), repeats=15, warmup=2)
        ours = timings["polysense"].median
        for way, timing in timings.items():
            rows.append(
                {
                    "model": name,
                    "million parameters": sum(p.numel() for p in student.parameters()) / 1e6,
                    "way": way,
                    "ms (median)": timing.median * 1e3,
                    "ms (min)": timing.min * 1e3,
                    "times polysense": timing.median / ours,
                }
            )
    report("teacher", rows, record)


def ways(student: nn.Module) -> dict[str, Callable[[], object]]:
    """Ways to move a teacher of its own towards ``student``."""
    teacher = Teacher(MOMENTUM).follow({"image": student})
    found: dict[str, Callable[[], object]] = {"polysense": teacher.update}
    looped = copy.deepcopy(student)
    found["loop over parameters"] = lambda: loop(student, looped)
    try:
        from lightly.models.utils import update_momentum
    except ImportError:
        return found
    peer = copy.deepcopy(student)
    found["lightly"] = lambda: update_momentum(student, peer, m=MOMENTUM)
    return found


@torch.no_grad()
def loop(student: nn.Module, teacher: nn.Module) -> None:
    """The textbook line, a parameter at a time; it leaves out the buffers that polysense copies."""
    for own, live in zip(teacher.parameters(), student.parameters(), strict=True):
        own.data = own.data * MOMENTUM + live.data * (1 - MOMENTUM)


if __name__ == "__main__":
    main()
