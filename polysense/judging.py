"""The verdict on a run: its encoder beside the same one untrained, and the raw input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from polysense.deployment.folder import EVALUATION, write_json
from polysense.deployment.run import Run, build_encoder, load, without_download
from polysense.encoders.base import Encoder
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.text_tasks import text_task
from polysense.evaluation.verdict import verdict
from polysense.job import read_dataset, source_of, words
from polysense.modalities.base import Dataset, Modality


def evaluate(
    run: str | Path | Run,
    data: Any = None,
    *,
    label: str | None = None,
    split: str | None = None,
    column: str | None = None,
    parts: str | Sequence[str] | None = None,
    score: str | None = None,
    max_bad: float = 0.01,
    reading: dict[str, Any] | None = None,
    encoder: nn.Module | None = None,
    modality: Modality | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Probe the encoder, the same encoder untrained, and the raw input; write ``RUN/evaluation.json``.

    Args:
        run: the run folder, or a loaded run.
        data: what to evaluate on, by default what the run was trained on.
        label: the column that holds the classes, where it is not plain.
        split: a column that says which samples are train and which are test.
        column: the column that holds the samples, where it is not plain.
        parts: of a run on texts, two columns whose texts belong together, with a comma between: how they
            find each other is judged.
        score: the column of numbers that say how alike these two are: Spearman's correlation is judged.
        max_bad: the share of unreadable samples that is skipped before it is an error.
        reading: other options of the modality's reader, for data that are given.
        encoder: only where the encoder was your own module.
        modality: only where the modality was your own.
        seed: of the held-out split and the bootstrap.

    Returns:
        ``results`` (metrics by "pretrained", "untrained" and the raw input), ``intervals``,
        ``protocol`` and ``notes``.

    Raises:
        PolysenseError: when the folder is not a run or the data cannot be read.
    """
    loaded = run if isinstance(run, Run) else load(run, encoder=encoder, modality=modality)
    given = {"column": column, "max_bad": max_bad, **(reading or {})}
    reading = dict(loaded.config["reading"]) if data is None else given
    if label is not None and not loaded.config["modality"]["own"]:
        reading["label"] = label
    if loaded.config["modality"]["own"]:
        reading = {}
    source = source_of(loaded.config, data)
    if parts or score or (label is None and column is None):
        compared = text_task(loaded.modality, source, words(parts), score)
        if compared is not None:
            return judge_run(loaded, None, compared, Protocol(seed=seed))
    dataset = read_dataset(loaded.modality, source, reading)
    protocol = replace(Protocol.of(dataset, label, split), seed=seed)
    return judge_run(loaded, None, dataset, protocol)


def judge_run(run: Run, untrained: Encoder | None, dataset: Dataset, protocol: Protocol) -> dict[str, Any]:
    """Judge a run beside its untrained self and the raw input, and keep the verdict in its folder.

    An encoder with a name is drawn again from the run's seed; of a module that was handed over only
    the training process has the untrained copy.
    """
    encoders = {"pretrained": run.encoder}
    if not run.config["encoder"]["own"]:
        untrained = build_encoder(without_download(run.config), run.modality)
    if untrained is not None:
        encoders["untrained"] = untrained
    _, content = verdict(encoders, run.modality, dataset, protocol, device=run.device)
    write_json(run.path / EVALUATION, content)
    return content
