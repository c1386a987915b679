"""The front door, which the command line repeats: pretrain, resume, embed. :mod:`.judging` has evaluate."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from polysense.deployment.embeddings import write_embeddings
from polysense.deployment.folder import (
    ENVIRONMENT,
    check_folder,
    environment,
    open_folder,
    read_config,
    write_attachments,
    write_config,
    write_json,
)
from polysense.deployment.gallery import write_gallery
from polysense.deployment.run import Run, load
from polysense.encoders.adapters import Tuning
from polysense.errors import PolysenseError
from polysense.evaluation.protocol import Protocol
from polysense.job import (
    AUTOMATIC,
    Job,
    Wanted,
    check_modality,
    configure,
    describe_source,
    plan_views,
    read_dataset,
    reopen,
    source_of,
    usual_modality,
    words,
)
from polysense.judging import judge_run
from polysense.methods.table import find
from polysense.modalities import make
from polysense.modalities.base import Modality
from polysense.report import write_report
from polysense.training.checkpoints import read_checkpoint
from polysense.training.fit import Settings
from polysense.training.processes import is_first

log = logging.getLogger("polysense")

_CHOSEN = "POLYSENSE_RUN_FOLDER"


def pretrain(
    data: Any,
    *,
    method: str = "simclr",
    encoder: str | nn.Module | None = None,
    towers: dict[str, Any] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    modality: str | Modality | None = None,
    size: int | None = None,
    modality_options: dict[str, Any] | None = None,
    label: str | None = None,
    column: str | None = None,
    max_bad: float = 0.01,
    cache: str | Path | None = None,
    reading: dict[str, Any] | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    max_time: str | float | None = None,
    optimiser: str | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    warmup: float | None = None,
    clip: float | None = None,
    precision: str = "32",
    accumulate: int = 1,
    chunk: int | None = None,
    workers: int = 0,
    bucket: bool = True,
    devices: int | str = "auto",
    accelerator: str = "auto",
    compile: bool = False,
    pretrained: bool = False,
    options: dict[str, Any] | None = None,
    matryoshka: list[int] | None = None,
    encoder_options: dict[str, Any] | None = None,
    freeze: str | Sequence[str] | None = None,
    lora: int | None = None,
    layer_decay: float | None = None,
    gradient_checkpointing: bool = False,
    views: dict[str, Any] | None = None,
    trackers: str | Sequence[str] | None = None,
    checkpoint_steps: int | None = None,
    judge: bool = True,
    seed: int = 0,
) -> Run | None:
    """Pretrain an encoder on your data without labels; leaves a run folder and returns it loaded.

    Args:
        data: a folder, a list of paths, a glob, a CSV or Parquet file, a DataFrame, a Hugging Face or torch
            dataset, an array, a list of texts, or ``builtin:emoji``; ``polysense data`` lists more.
        method: the recipe; ``polysense methods`` lists them.
        encoder: a name (``polysense encoders`` lists them) or your own ``nn.Module``; by default a small one
            for the modality, or what the method needs.
        towers: for methods that join modalities, an encoder for each, as in
            ``{"image": "small", "text": "text_small"}``.
        out: the run folder, by default ``runs/METHOD-ENCODER-NUMBER``.
        overwrite: replace the run that is there.
        modality: "image", "text", "table", "state", "pair", "text_pair", or your own
            :class:`~polysense.modalities.base.Modality`; by default what the method is for, or else what the
            built-in data are, or else "image".
        size: the side of the pictures that the encoder sees, in pixels; by default 32.
        modality_options: other options of the modality, such as ``{"length": 64}`` for texts.
        label: the column that holds the classes; used by probes only, never by training.
        column: the column that holds the samples, where it is not plain.
        max_bad: the share of unreadable samples that is skipped before it is an error.
        cache: where decoded data that do not fit into memory are kept.
        reading: other options of the modality's reader.
        batch_size: samples per step over all processes, by default 256 or what the data allow.
        steps: train for this many steps,
        epochs: or this many passes over the data,
        max_time: or this long: 90s, 3min, 1.5h. By default, from the data's size.
        optimiser: adamw, sgd, lars or lamb, instead of the recipe's.
        lr: the learning rate at this batch, instead of the recipe's.
        weight_decay: instead of the recipe's.
        warmup: the share of training in which lr rises, instead of the recipe's.
        clip: the largest norm of the gradient, instead of the recipe's.
        precision: 32, bf16 or 16 (mixed).
        accumulate: parts of a batch that are trained on one after the other, where memory is short; each
            compares its own samples only.
        chunk: encode so many views at a time, and again in the backward pass, where memory is short
            (GradCache); the whole batch is compared.
        workers: processes that load data; 0 is fastest for data in memory.
        bucket: put samples of like length into one batch where lengths differ, so that little is padding.
        devices: how many devices to train on.
        accelerator: cpu, gpu, mps or auto.
        compile: compile the encoder with torch.compile.
        pretrained: start from the published weights of a timm or torchvision encoder.
        options: the method's own options; ``polysense methods NAME`` shows them.
        matryoshka: widths at which the embedding is to serve when it is cut short, such as ``[32, 64]``, for
            methods that compare embeddings.
        encoder_options: the encoder's own options.
        freeze: parts of the encoder that stay as they are, by their names in ``run.trunk``, several with
            commas between: a tower such as ``image``, or ``patch_embed,blocks.0``.
        lora: train low-rank changes of this rank beside the linear and attention layers and leave the layers
            as they are; the run keeps plain weights.
        layer_decay: each layer learns at this share of the rate of the one above it, such as 0.75.
        gradient_checkpointing: compute every block again in the backward pass, where memory is short.
        views: settings of the views, such as ``{"scale": [0.2, 1.0], "hue": 0.1}``.
        trackers: more places for the metrics: csv, wandb, mlflow, several with commas between.
        checkpoint_steps: write a checkpoint every so many steps instead of every minute.
        judge: evaluate the encoder at the end and write the report.
        seed: makes the run repeatable.

    Returns:
        The loaded run, or None when a SIGTERM stopped it (``resume`` goes on).

    Raises:
        PolysenseError: for anything the user can mend, in one sentence.

    Example:
        >>> import numpy as np, tempfile
        >>> pictures = np.random.default_rng(0).integers(0, 255, (64, 32, 32, 3), dtype=np.uint8)
        >>> run = pretrain(pictures, out=tempfile.mkdtemp(), batch_size=16, steps=2, judge=False)
        >>> run.embed(pictures[0]).shape
        torch.Size([1, 1024])
    """
    recipe = find(method)
    recipe.options(options or {}, {})  # an unknown option is told before any data are read
    own = modality if modality is not None and not isinstance(modality, str) else None
    name = modality if isinstance(modality, str) else usual_modality(recipe, data)
    parts = towers or (recipe.parts if name in recipe.modalities else ())
    maker = own or make(name, _modality_options(size, parts, modality_options))
    check_modality(recipe, maker)
    chosen = towers if towers is not None else encoder
    wanted = Wanted(
        recipe=recipe,
        encoder=recipe.default_encoders.get(maker.name, maker.default_encoder) if chosen is None else chosen,
        pretrained=pretrained,
        encoder_options=encoder_options or {},
        tuning=Tuning(words(freeze), lora, layer_decay, gradient_checkpointing),
        options=options or {},
        matryoshka=matryoshka or (),
        views=views or {},
        optimisation={
            "name": optimiser,
            "lr": lr,
            "weight_decay": weight_decay,
            "warmup": warmup,
            "clip": clip,
        },
        budget={"steps": steps, "epochs": epochs, "max_time": max_time},
        settings=Settings(
            batch=batch_size if batch_size is not None else AUTOMATIC,
            seed=seed,
            precision=str(precision),
            accumulate=accumulate,
            chunk=chunk,
            workers=workers,
            bucket=bucket,
            devices=devices,
            accelerator=accelerator,
            compile=compile,
            trackers=words(trackers),
            checkpoint_steps=checkpoint_steps,
        ),
    )
    folder = _run_folder(out, f"{recipe.name}-{wanted.label}")
    if is_first():
        check_folder(folder, overwrite=overwrite)
    asked = {"label": label, "column": column, "max_bad": max_bad, "cache": str(cache) if cache else None}
    asked = {} if own is not None else {**asked, **(reading or {})}
    dataset = read_dataset(maker, data, asked)
    if own is None:
        maker = maker.fit(dataset, plan_views(recipe, maker.name, wanted.views))
    config = {
        "modality": {"name": maker.name, "own": own is not None, "settings": maker.settings()},
        "data": {**describe_source(data), "samples": len(dataset)},
        "reading": asked,
        "judge": judge,
    }
    job = configure(folder, wanted, config, dataset, maker)
    if is_first():
        open_folder(folder)
        write_config(folder, job.config)
        write_attachments(folder, maker.attachments() if own is None else {})
        write_json(folder / ENVIRONMENT, environment(seed))
    return _finish(job, resume=False)


def resume(
    run: str | Path,
    *,
    data: Any = None,
    encoder: nn.Module | None = None,
    modality: Modality | None = None,
) -> Run | None:
    """Go on with a run that was stopped or killed, from its last checkpoint.

    Args:
        run: the run folder.
        data: only where the data were an object in memory.
        encoder: only where the encoder was your own module.
        modality: only where the modality was your own.

    Returns:
        The loaded run, or None when a SIGTERM stopped it again.

    Raises:
        PolysenseError: when the folder is not a run, holds no checkpoint, or one of another method.
    """
    folder = Path(run)
    config = read_config(folder)
    read_checkpoint(folder)  # told before the data are read
    return _finish(reopen(folder, config, data, encoder=encoder, modality=modality), resume=True)


def embed(
    run: str | Path | Run,
    data: Any = None,
    *,
    out: str | Path = "embeddings.parquet",
    overwrite: bool = False,
    column: str | None = None,
    max_bad: float = 0.01,
    batch_size: int = 256,
) -> Path:
    """Embed data with a run, and write the vectors with the names of their samples beside them.

    Args:
        run: the run folder, or a loaded run.
        data: what to embed, by default what the run was trained on.
        out: the file; ``.parquet`` is written as it goes, ``.npz`` and ``.safetensors`` at the end.
        overwrite: replace the file that is there.
        column: the column that holds the samples, where it is not plain.
        max_bad: the share of unreadable samples that is skipped before it is an error.
        batch_size: samples per forward pass.

    Returns:
        The file's path.

    Raises:
        PolysenseError: when the folder is not a run, the data cannot be read, or the file exists.
    """
    loaded = run if isinstance(run, Run) else load(run)
    reading = {"column": column, "max_bad": max_bad}
    dataset = read_dataset(loaded.modality, source_of(loaded.config, data), reading)
    return write_embeddings(loaded, dataset, Path(out), overwrite=overwrite, batch_size=batch_size)


def _finish(job: Job, *, resume: bool) -> Run | None:
    """Train, then evaluate and write the report, where the configuration says so."""
    run = job.train(resume=resume)
    if run is None:
        log.warning("stopped at a checkpoint; go on with: polysense resume %s", job.folder)
        return None
    if job.config["judge"] and is_first():
        judge_run(run, job.untrained, job.dataset, Protocol.of(job.dataset))
        write_gallery(run, job.dataset)
        write_report(job.folder)
    return run


def _modality_options(size: int | None, parts: Iterable[str], given: dict[str, Any] | None) -> dict[str, Any]:
    """What the modality is made with: towers or the method say which parts a sample has, or nothing does."""
    named: dict[str, Any] = {part: {} for part in parts}
    options: dict[str, Any] = {"parts": named} if named else {}
    return {**options, **({} if size is None else {"size": size}), **(given or {})}


def _run_folder(out: str | Path | None, name: str) -> Path:
    """The folder that was asked for, or the first free number under ``runs/``, the same in all processes."""
    if out is not None:
        return Path(out)
    if not is_first():
        if _CHOSEN not in os.environ:
            raise PolysenseError("several processes need to agree on one run folder: give it, as out")
        return Path(os.environ[_CHOSEN])
    number = 1
    while (Path("runs") / f"{name}-{number}").exists():
        number += 1
    folder = Path("runs") / f"{name}-{number}"
    os.environ[_CHOSEN] = str(folder)  # the processes that Lightning starts inherit it
    return folder
