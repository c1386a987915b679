"""The commands that work on tables: functions from a table to a file, which ``--out`` names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polysense.commands import line
from polysense.generation import generate_file
from polysense.tabular.augmentation.streaming import augment_file
from polysense.tabular.imputation import impute_file


def _command(function: Callable[..., Path]) -> Callable[..., None]:
    """The function as a command: all but the data are options, and the file that it wrote is told."""

    @functools.wraps(function)
    def told(*args: Any, **kwargs: Any) -> None:
        line(f"wrote {function(*args, **kwargs)}")

    data, *others = inspect.signature(function).parameters.values()
    options = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in others]
    told.__signature__ = inspect.Signature([data, *options])  # type: ignore[attr-defined]
    return told


augment = _command(augment_file)
impute = _command(impute_file)
generate = _command(generate_file)
