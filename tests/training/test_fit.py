"""Training as a whole: it resumes bit-exactly, stops cleanly, and says what went wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import polysense
from polysense.encoders.base import Encoded
from polysense.errors import PolysenseError
from polysense.training.logs import read_metrics
from tests.toys import RowEncoder, Rows, ToyTable, clusters

STEPS = 12


def encoder() -> RowEncoder:
    torch.manual_seed(1)
    return RowEncoder(8)


def pretrain(out: Path, rows: Rows | None = None, **options: Any) -> polysense.Run | None:
    wanted: dict[str, Any] = {
        "encoder": encoder(),
        "batch_size": 32,
        "steps": STEPS,
        "judge": False,
        "accelerator": "cpu",
    }
    return polysense.pretrain(rows or clusters(100), modality=ToyTable(), out=out, **{**wanted, **options})


def weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "weights.safetensors")


class KilledError(Exception):
    pass


class Dying(RowEncoder):
    """Dies at a given forward pass, as a process does that is killed."""

    def __init__(self, after: int) -> None:
        super().__init__(8)
        self.left = after

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        self.left -= 1
        if self.left < 0:
            raise KilledError
        return super().forward(data, mask)


def dying(after: int) -> Dying:
    torch.manual_seed(1)
    return Dying(after)


@pytest.mark.parametrize("method", ["simclr", "byol", "vicreg", "barlow_twins"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, method: str, accumulate: int) -> None:
    common = {"method": method, "accumulate": accumulate, "checkpoint_steps": 5}
    pretrain(tmp_path / "whole", **common)
    with pytest.raises(KilledError):  # in the middle of step 8
        pretrain(tmp_path / "cut", encoder=dying(7 * accumulate), **common)
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    polysense.resume(tmp_path / "cut", data=clusters(100), encoder=encoder(), modality=ToyTable())
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "cut")[name]), name


def test_metrics_are_written_once_for_each_step(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        pretrain(tmp_path, encoder=dying(35), steps=40, checkpoint_steps=15)
    polysense.resume(tmp_path, data=clusters(100), encoder=encoder(), modality=ToyTable())
    steps = [record["step"] for record in read_metrics(tmp_path) if "loss" in record]
    assert steps == [10, 20, 30, 40]


def test_two_runs_with_one_seed_are_equal_and_with_another_are_not(tmp_path: Path) -> None:
    for name, seed in {"a": 3, "b": 3, "c": 4}.items():
        pretrain(tmp_path / name, seed=seed)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_probes_do_not_touch_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clusters(100)
    pretrain(tmp_path / "probed", rows)
    rows.label = None
    monkeypatch.setattr("polysense.training.probes.OnlineProbes.on_train_batch_end", lambda *a, **k: None)
    pretrain(tmp_path / "plain", rows)
    probed, plain = weights(tmp_path / "probed"), weights(tmp_path / "plain")
    assert all(torch.equal(probed[name], plain[name]) for name in probed)


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    class Breaking(RowEncoder):
        passes = 0

        def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
            self.passes += 1
            encoded = super().forward(data, mask)
            return Encoded(encoded.pooled * (float("nan") if self.passes > 8 else 1.0))

    with pytest.raises(PolysenseError, match="the loss became nan at step 8"):
        pretrain(tmp_path, encoder=Breaking(8), checkpoint_steps=4)
    kept = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)
    assert kept["global_step"] == 8
    assert all(torch.isfinite(t).all() for t in kept["state_dict"].values())


def test_collapse_is_noticed_and_its_likely_cause_named(tmp_path: Path) -> None:
    class Flat(RowEncoder):
        def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
            pooled = super().forward(data, mask).pooled
            return Encoded(1.0 + 1e-3 * pooled)

    pretrain(tmp_path, encoder=Flat(8), method="byol", steps=60, lr=1e-6)
    warnings = [record["warning"] for record in read_metrics(tmp_path) if "warning" in record]
    assert len(warnings) == 1
    assert "the embeddings collapsed at step 50" in warnings[0]
    assert "raise momentum" in warnings[0]


def test_a_time_budget_ends_with_the_time_and_the_schedule_with_it(tmp_path: Path) -> None:
    began = time.monotonic()
    pretrain(tmp_path, steps=None, max_time="2s")
    assert time.monotonic() - began < 20
    last = [record for record in read_metrics(tmp_path) if "lr" in record][-1]
    assert last["seconds"] == pytest.approx(2.0, abs=0.3)
    assert last["lr"] < 2e-5


def test_gradients_are_accumulated(tmp_path: Path) -> None:
    pretrain(tmp_path, accumulate=4)
    assert torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)["global_step"] == STEPS


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", "lars", "lamb"])
def test_every_optimiser_moves_the_weights(tmp_path: Path, optimiser: str) -> None:
    before = {name: tensor.clone() for name, tensor in encoder().state_dict().items()}
    pretrain(tmp_path, optimiser=optimiser, lr=0.1)
    after = weights(tmp_path)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_bf16_trains(tmp_path: Path) -> None:
    pretrain(tmp_path, precision="bf16")
    losses = [record["loss"] for record in read_metrics(tmp_path) if "loss" in record]
    assert all(loss == loss for loss in losses)


def test_trackers(tmp_path: Path) -> None:
    pretrain(tmp_path, trackers=["csv"])
    assert "loss" in (tmp_path / "csv" / "metrics.csv").read_text()
    assert list((tmp_path / "tensorboard").glob("events.*"))
    with pytest.raises(PolysenseError, match="unknown tracker 'tensorbord'"):
        pretrain(tmp_path / "b", trackers=["tensorbord"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 101}, r"a batch of 101 is larger than the data \(100 samples\); use batch-size 100"),
        ({"accumulate": 5}, "a batch of 32 cannot be accumulated in 5 equal parts"),
        ({"steps": 0}, "steps is 0; give more than zero"),
        ({"precision": "8"}, "unknown precision '8'"),
        ({"method": "simcler"}, "unknown method 'simcler'; did you mean 'simclr'"),
        ({"options": {"temprature": 1}}, "unknown option of simclr 'temprature'; did you mean 'temperature'"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        pretrain(tmp_path, **options)


def test_one_sample_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match="one sample is not enough"):
        pretrain(tmp_path, clusters(1), batch_size=1)


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.training.test_fit import pretrain, encoder
run = pretrain(Path(sys.argv[1]), steps=int(sys.argv[2]), checkpoint_steps=20)
sys.exit(0 if run is not None else 143)
"""


def start(folder: Path, steps: int) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(steps)], cwd=root, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 90
    while not (folder / "checkpoint.ckpt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_real_kill_leaves_a_run_that_resumes(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path / "cut", 4000)
    os.kill(process.pid, number)
    code = process.wait(60)
    assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    reached = torch.load(tmp_path / "cut" / "checkpoint.ckpt", weights_only=True)["global_step"]
    assert reached < 4000
    config = (tmp_path / "cut" / "config.yaml").read_text()
    (tmp_path / "cut" / "config.yaml").write_text(config.replace("steps: 4000", f"steps: {reached + 5}"))
    polysense.resume(tmp_path / "cut", data=clusters(100), encoder=encoder(), modality=ToyTable())
    assert (tmp_path / "cut" / "weights.safetensors").exists()


def test_the_run_folder_holds_what_it_should(tmp_path: Path) -> None:
    run = pretrain(tmp_path, judge=True, steps=60)
    assert run is not None
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        "config.yaml",
        "weights.safetensors",
        "metrics.jsonl",
        "environment.json",
        "evaluation.json",
        "gallery.npz",
        "report.html",
        "checkpoint.ckpt",
    }
    found = json.loads((tmp_path / "evaluation.json").read_text())["results"]
    assert set(found) >= {"pretrained", "cells", "untrained"}
    assert not [name for name in names if ".part" in name]
