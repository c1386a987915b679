"""Where metrics go: always JSON lines and TensorBoard, other trackers by name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from polysense.errors import require, unknown

METRICS = "metrics.jsonl"
TRACKERS = ("csv", "wandb", "mlflow")

MLFLOW_STORE = "sqlite:///mlflow.db"
"""Where ``mlflow ui`` looks; the folder that Lightning would choose is refused by MLflow 3."""


class JsonLines(Logger):
    """Appends one JSON object per record to ``RUN/metrics.jsonl``, flushed at once.

    On resume the records after the checkpoint's step are cut, so that no step stands there twice.
    """

    def __init__(self, folder: Path, *, from_step: int = 0) -> None:
        super().__init__()
        self.path = folder / METRICS
        self._keep_before(from_step)

    @property
    def name(self) -> str:
        """The file's name."""
        return METRICS

    @property
    def version(self) -> int:
        """One file, one version."""
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Options stand in config.yaml."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a record."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def _keep_before(self, step: int) -> None:
        kept = [record for record in read_metrics(self.path.parent) if record["step"] <= step]
        self.path.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run; a last line that a kill cut off is left out."""
    path = folder / METRICS
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def make_loggers(folder: Path, names: Sequence[str], *, from_step: int = 0) -> list[Logger]:
    """The two that are always there, and those asked for: "csv", "wandb", "mlflow".

    Raises:
        PolysenseError: for an unknown name, or one whose package is not installed.
    """
    loggers: list[Logger] = [
        JsonLines(folder, from_step=from_step),
        TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False),
    ]
    for name in names:
        loggers.append(_tracker(name, folder))
    return loggers


def _tracker(name: str, folder: Path) -> Logger:
    if name == "csv":
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(folder, name="", version="csv")
    if name == "wandb":
        require("wandb", "wandb", "logging to Weights & Biases")
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(name=folder.name, save_dir=folder, project="polysense")
    if name == "mlflow":
        require("mlflow", "mlflow", "logging to MLflow")
        from lightning.pytorch.loggers import MLFlowLogger

        store = os.environ.get("MLFLOW_TRACKING_URI", MLFLOW_STORE)
        return MLFlowLogger(run_name=folder.name, experiment_name="polysense", tracking_uri=store)
    raise unknown("tracker", name, TRACKERS)
