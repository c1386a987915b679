"""The run folder: plain files that others can read, each written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from polysense.errors import PolysenseError

CONFIG = "config.yaml"
WEIGHTS = "weights.safetensors"
ENVIRONMENT = "environment.json"
EVALUATION = "evaluation.json"
ATTACHMENTS = "modality"

_PACKAGES = ("polysense", "torch", "torchvision", "timm", "lightning", "numpy", "pandas", "scikit-learn")


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place by one rename.

    Raises:
        PolysenseError: when the disk refuses; what stood at ``path`` before is kept.
    """
    beside = path.with_name(f".{path.name}.part{path.suffix}")
    from safetensors import SafetensorError

    try:
        write(beside)
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise PolysenseError(f"could not write {path}: {error}; make room or choose another out") from error


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""

    def write(beside: Path) -> None:
        beside.write_text(text, encoding="utf-8")

    write_whole(path, write)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text)


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder for a new run that holds something; nothing is touched yet.

    Raises:
        PolysenseError: when it exists and holds something, unless it is a run and ``overwrite`` is set.
    """
    if out.exists() and not out.is_dir():
        raise PolysenseError(f"{out} is a file, not a folder; choose another out")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise PolysenseError(f"{out} exists; choose another out, or replace it with --overwrite")
        if not (out / CONFIG).exists():
            raise PolysenseError(f"{out} is not a run folder and will not be overwritten; choose another out")


def open_folder(out: Path) -> None:
    """Make the folder of a new run, once everything else about it is known to be right.

    Raises:
        PolysenseError: when it cannot be made.
    """
    try:
        if out.is_dir():
            _clear(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PolysenseError(f"cannot make the folder {out}: {error.strerror}; choose another out") from error


def _clear(folder: Path) -> None:
    """Remove what a run writes, and nothing else that lies there."""
    import shutil

    files = ("metrics.jsonl", "gallery.npz", "report.html", "table.parquet")
    for name in (CONFIG, WEIGHTS, ENVIRONMENT, EVALUATION, *files):
        (folder / name).unlink(missing_ok=True)
    (folder / "checkpoint.ckpt").unlink(missing_ok=True)
    for name in ("tensorboard", "csv", ATTACHMENTS):
        shutil.rmtree(folder / name, ignore_errors=True)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.yaml``: enough to rebuild everything."""
    text = yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)
    write_text(folder / CONFIG, text)


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.yaml`` of a run says.

    Raises:
        PolysenseError: when ``folder`` is not a run folder.
    """
    if not folder.exists():
        raise PolysenseError(f"there is no run folder {folder}")
    path = folder / CONFIG
    if not path.is_file():
        raise PolysenseError(f"{folder} is not a run folder: it holds no {CONFIG}")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolysenseError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict) or "method" not in config or "encoder" not in config:
        raise PolysenseError(f"{path} is not the configuration of a run: it names no method and encoder")
    return config


def write_attachments(folder: Path, attachments: Mapping[str, str]) -> None:
    """Write what the modality keeps beside its settings (a tokenizer, a schema), each a file of its own."""
    for name, text in attachments.items():
        (folder / ATTACHMENTS).mkdir(exist_ok=True)
        write_text(folder / ATTACHMENTS / name, text)


def read_attachments(folder: Path) -> dict[str, str]:
    """What :func:`write_attachments` wrote, by file name."""
    found = sorted((folder / ATTACHMENTS).glob("*")) if (folder / ATTACHMENTS).is_dir() else []
    return {path.name: path.read_text(encoding="utf-8") for path in found if not path.name.startswith(".")}


def write_weights(folder: Path, weights: Mapping[str, Tensor], *, about: Mapping[str, str]) -> None:
    """Write ``weights.safetensors`` with a few words about them in its header."""
    from safetensors.torch import save_file

    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_whole(folder / WEIGHTS, lambda beside: save_file(dense, beside, metadata=dict(about)))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a run.

    Raises:
        PolysenseError: when they are missing, or the file is a pickle or otherwise not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.exists():
        raise PolysenseError(
            f"{folder} holds no {WEIGHTS}: training did not finish; run polysense resume {folder}"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        head = path.read_bytes()[:2]
        kind = "a pickle" if head in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05") else "damaged"
        raise PolysenseError(
            f"{path} is {kind}, not safetensors, and is not loaded; write weights with"
            " safetensors.torch.save_file"
        ) from error


def environment(seed: int) -> dict[str, Any]:
    """What a reader needs to reproduce a run: versions, hardware, seed, date, command."""
    import torch

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": seed,
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _plain(value: Any) -> Any:
    """Tuples as lists and paths as text, so that YAML needs no tags."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
