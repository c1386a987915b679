"""Two processes train one run through the real command, and write it once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import polysense
from polysense.training.logs import read_metrics


def test_two_processes_share_a_run(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (32, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", images=pictures)
    command = [sys.executable, "-m", "polysense.cli", "pretrain", str(tmp_path / "pictures.npz")]
    options = "--out run --size 16 --batch-size 8 --steps 10 --judge false --devices 2 --accelerator cpu"
    finished = subprocess.run(
        [*command, *options.split(), "--method", "byol"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    folder = tmp_path / "run"
    assert [record["step"] for record in read_metrics(folder) if "loss" in record] == [10]
    assert torch.load(folder / "checkpoint.ckpt", weights_only=True)["global_step"] == 10
    assert polysense.load(folder).embed(pictures[0]).isfinite().all()
