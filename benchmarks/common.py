"""What every benchmark shares: fair side-by-side timing, a record of the machine, a table and a JSON file.

Run a benchmark from the repository's root, as in ``python -m benchmarks.objectives``.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds one call took: the median, fastest and slowest of the repeats."""

    median: float
    min: float
    max: float


def compare(
    cases: Mapping[str, Callable[[], object]],
    repeats: int = 5,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time several ways of doing one thing, taking turns (A B A B …) so that a busy moment hits all alike.

    ``repeats`` timed calls of each case follow ``warmup`` untimed ones. The garbage collector rests
    meanwhile, and work queued on an accelerator is waited for. ``time.process_time`` as the ``clock``, for
    work on one thread, does not count the time that other jobs took.

    >>> timings = compare({"short": lambda: sum(range(10)), "long": lambda: sum(range(10_000))})
    >>> timings["short"].median < timings["long"].median
    True
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        for _ in range(warmup):
            case()
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repeats):
            for name, case in cases.items():
                seconds[name].append(_time(case, clock))
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(statistics.median(times), min(times), max(times)) for name, times in seconds.items()}


def _time(case: Callable[[], object], clock: Callable[[], float]) -> float:
    _wait_for_device()
    start = clock()
    case()
    _wait_for_device()
    return clock() - start


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(case: Callable[[], object]) -> float:
    """How many MB one call peaks above what was resident before it. Linux; one call in each process.

    Read from ``/proc``, since ``ru_maxrss`` of a child starts at what its parent held.
    """
    before = _resident("VmRSS")
    case()
    return (_resident("VmHWM") - before) / 1024


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def environment(seed: int, peers: Iterable[str] = ()) -> dict[str, Any]:
    """Seed torch, and record what the numbers depend on: versions, processor, threads, seed.

    ``peers`` names the packages compared with; one that is not installed is recorded as None.

    >>> record = environment(0, peers=["numpy", "no-such-package"])
    >>> record["seed"], record["versions"]["no-such-package"]
    (0, None)
    """
    torch.manual_seed(seed)
    names = ["torch", "polysense", *peers]
    return {
        "seed": seed,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
        "processor": _processor(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def report(name: str, rows: list[dict[str, Any]], environment: Mapping[str, Any]) -> Path:
    """Print ``rows`` as a table and write them with the environment to ``benchmarks/results/{name}.json``."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = Table(*columns, title=name)
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    console = Console()
    console.print(table)
    console.print(", ".join(f"{key}: {value}" for key, value in environment.items()), style="dim")

    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": dict(environment), "rows": rows}, indent=2) + "\n")
    return path


def left_by(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What judging and training left in a run folder: the evaluation, and the lines of the log."""
    log = (run / "metrics.jsonl").read_text().splitlines()
    return json.loads((run / "evaluation.json").read_text()), [json.loads(line) for line in log]


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
