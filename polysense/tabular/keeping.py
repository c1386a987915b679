"""Fitted fillers as a file of plain arrays: no pickle, so that one from elsewhere can be opened safely."""

from __future__ import annotations

import io
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.deployment.folder import write_whole
from polysense.errors import PolysenseError
from polysense.tabular.answers import Domain, Errors
from polysense.tabular.completion import ByColumn
from polysense.tabular.fillers import Classified, Frequent, Middle, Regressed, Scale
from polysense.tabular.forest import Forest
from polysense.tabular.schema import Schema
from polysense.tabular.trees import Features

Arrays = dict[str, NDArray[Any]]

_KEPT = {
    each.__name__: each
    for each in (ByColumn, Features, Frequent, Middle, Classified, Regressed, Scale, Forest, Errors, Domain)
}
"""All that a file may hold objects of."""


def write_fillers(path: Path, how: str, schema: Schema, fillers: ByColumn) -> None:
    """Write what was learned, with the schema of its table.

    Raises:
        PolysenseError: where the disk refuses.
    """
    arrays = {"how": np.array(how), "schema": np.array(schema.to_json()), **_packed(fillers, "fillers")}

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_whole(path, write)


def read_fillers(path: Path) -> tuple[str, Schema, ByColumn]:
    """What :func:`write_fillers` wrote: how, the schema and what was learned.

    Raises:
        PolysenseError: for a file that is none, damaged, or of another version of scikit-learn.
    """
    if not path.is_file():
        raise PolysenseError(f"there is no imputer {path}; give a file written with --save")
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = dict(kept)
        fillers = _unpacked("fillers", arrays)
        return str(arrays["how"]), Schema.from_json(str(arrays["schema"])), fillers
    except (KeyError, ValueError, TypeError, IndexError, EOFError, OSError, BadZipFile) as error:
        raise PolysenseError(f"{path} is no imputer that was written with --save, or damaged") from error


def _packed(value: Any, name: str) -> Arrays:
    """A value as arrays, whose names tell where in it they belong; of None there is none."""
    if value is None:
        return {}
    if is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return {f"{name}.class": np.array(type(value).__name__), **_all_packed(parts.items(), name)}
    if isinstance(value, dict):
        return {
            f"{name}.keys": np.array(list(value), dtype=str),
            **_all_packed(enumerate(value.values()), name),
        }
    if isinstance(value, pd.Index):
        file = io.BytesIO()
        pd.DataFrame({"levels": value}).to_parquet(file)  # keeps any type
        return {f"{name}.levels": np.frombuffer(file.getvalue(), dtype=np.uint8)}
    return {name: np.asarray(value)}


def _all_packed(parts: Any, name: str) -> Arrays:
    return {at: each for key, part in parts for at, each in _packed(part, f"{name}/{key}").items()}


def _unpacked(name: str, arrays: Arrays) -> Any:
    """The value that gave these arrays."""
    if (named := arrays.get(f"{name}.class")) is not None:
        kind = _KEPT[str(named)]
        made = kind(**{field.name: _unpacked(f"{name}/{field.name}", arrays) for field in fields(kind)})
        return made.check() if isinstance(made, Forest) else made
    if (keys := arrays.get(f"{name}.keys")) is not None:
        return {str(key): _unpacked(f"{name}/{at}", arrays) for at, key in enumerate(keys)}
    if (levels := arrays.get(f"{name}.levels")) is not None:
        return pd.Index(pd.read_parquet(io.BytesIO(levels.tobytes()))["levels"])
    found = arrays.get(name)
    return found if found is None or found.ndim else found.item()
