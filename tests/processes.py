"""Run a function in several processes that train together (gloo, on the processor)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_in_processes(function: Callable[..., Any], *arguments: Any, processes: int = 2) -> list[Any]:
    """What ``function(*arguments)`` returned in each process, in order of rank.

    The function must be importable (at the top of a test module) and its result something
    ``torch.save`` takes. Starting processes takes seconds: put all the checks of a module in one run.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_work, (processes, folder, function, arguments), nprocs=processes)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(processes)]


def _work(
    rank: int, processes: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=60),
    )
    try:
        torch.save(function(*arguments), Path(folder, f"{rank}.pt"))
    finally:
        dist.destroy_process_group()
