"""Tables as files, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from polysense.deployment.folder import write_whole
from polysense.errors import PolysenseError

SUFFIXES = (".parquet", ".csv", ".tsv")


def check_out(
    out: str | Path,
    *,
    overwrite: bool = False,
    suffixes: tuple[str, ...] = SUFFIXES,
    what: str = "a table",
) -> Path:
    """The path of a table, or of ``what`` else has these suffixes, that may be written there.

    Raises:
        PolysenseError: for another suffix, or a file that exists, unless ``overwrite`` is set.
    """
    path = Path(out)
    if path.suffix.lower() not in suffixes:
        raise PolysenseError(f"cannot write {what} as {path.name!r}; end it in {', '.join(suffixes)}")
    if path.exists() and not overwrite:
        raise PolysenseError(f"{path} exists; choose another out, or replace it with --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PolysenseError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    return path


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a table; its index too, unless that is plain."""
    index = None if isinstance(frame.index, pd.RangeIndex) else True
    if path.suffix.lower() == ".parquet":
        write_whole(path, lambda beside: frame.to_parquet(beside, index=index))
    elif path.suffix.lower() == ".jsonl":
        write_whole(
            path, lambda beside: frame.to_json(beside, orient="records", lines=True, force_ascii=False)
        )
    else:
        write_whole(path, lambda beside: frame.to_csv(beside, index=bool(index), sep=separator(path)))


def separator(path: Path) -> str:
    """What is between the cells of a text file."""
    return "\t" if path.suffix.lower() == ".tsv" else ","
