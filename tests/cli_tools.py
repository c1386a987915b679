"""What the command-line tests share: running a command, tiny data, a small disk, a trap."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from polysense.cli import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """What was printed, without the line breaks and frames that a table puts in."""
        return " ".join(self.out.replace("│", " ").split())


def command(*words: object) -> Outcome:
    """Run the command in this process, with the streams and log handlers of a fresh one."""
    handlers, logging.root.handlers = logging.root.handlers, []
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _warn  # pytest would keep them for itself
            try:
                code: Any = main([str(word) for word in words])
            except SystemExit as left:
                code = left.code or 0
    finally:
        logging.root.handlers = handlers
    return Outcome(code, out.getvalue(), err.getvalue())


def _warn(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


def process(*words: object, limit: str = "") -> Outcome:
    """Run the command as a process of its own, ``limit`` being a shell command before it."""
    shell = f'{limit} exec "$0" -m polysense.cli "$@"'
    arguments = ["bash", "-c", shell, sys.executable, *map(str, words)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def assert_refused(outcome: Outcome, *words: str) -> None:
    """Exit code 2, one line on stderr, and these words in it."""
    assert "Traceback" not in outcome.out + outcome.err
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    assert [word for word in words if word not in lines[0]] == [], lines[0]
    assert outcome.code == 2


def assert_done(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err


def paint(folder: Path, count: int = 32) -> Path:
    """Noise in two classes that differ in colour, so that probes have something to find."""
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 200, (12, 12, 3), dtype=np.uint8)
        pixels[..., 2 * (number % 2)] = 255
        path = folder / ("red" if number % 2 == 0 else "blue") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: the operating system refuses, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def on_small_disk(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    def limited(*args: Any, **kwargs: Any) -> Any:
        with small_disk(size):
            return function(*args, **kwargs)

    return limited


def read_embeddings(path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    if path.suffix == ".parquet":
        import pandas as pd

        table = pd.read_parquet(path)
        assert list(table["label"]) == [name.split("/")[0] for name in table["name"]]
        return list(table["name"]), np.stack(table["embedding"].to_list())
    if path.suffix == ".npz":
        arrays = np.load(path, allow_pickle=False)
        return arrays["names"].tolist(), arrays["embeddings"]
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["names"]), file.get_tensor("embeddings")
