"""Tables from wherever they are kept, as one DataFrame whose columns keep their types."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from polysense.errors import PolysenseError
from polysense.modalities.builtin import PREFIX, builtin, builtins_for, describe
from polysense.modalities.files import no_such_path
from polysense.modalities.tables import (
    TABLE_SUFFIXES,
    Loaded,
    is_hugging_face,
    named_dataset,
    read_whole_table,
)
from polysense.tabular.columns import family

ACCEPTED = (
    "a DataFrame (pandas or polars), an Arrow table, a Hugging Face data set, a CSV, TSV, Parquet or JSONL"
    " file, builtin:weather or builtin:diamonds"
)

_ISO_DATE = r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d.*)?"


def to_frame(source: Any, *, least: int = 2) -> pd.DataFrame:
    """The user's table as a pandas DataFrame, its columns checked and their types kept.

    Polars and Arrow columns keep their types as pandas' Arrow types, so that integers with gaps stay
    integers. Columns of text files that hold ISO 8601 dates and nothing else become dates. A DataFrame
    comes back as it is.

    Args:
        source: a pandas or polars DataFrame, an Arrow table, a Hugging Face data set, the path of a CSV,
            TSV, Parquet or JSONL file, ``builtin:weather`` or ``builtin:diamonds``.
        least: how many rows there must be.

    Raises:
        PolysenseError: for what is none of these, too few rows, column names that repeat or are no strings,
            columns of mixed types, lists or dates of several time zones.

    >>> to_frame("builtin:diamonds").shape
    (53940, 10)
    """
    frame, place = _found(source)
    names = frame.columns
    if names.has_duplicates:
        raise PolysenseError(
            f"{place} has the column {names[names.duplicated()][0]!r} twice; rename one of them"
        )
    if len(frame) < least or not len(names):
        rows = {0: "no rows", 1: "one row only"}.get(len(frame), f"{len(frame)} rows")
        few = rows if len(names) else "no columns"
        raise PolysenseError(
            f"{place} has {few}; a table needs columns and at least {least} rows to learn from"
        )
    for name in names:
        if not isinstance(name, str):
            raise PolysenseError(f"{place} has a column named {name!r}; name columns by strings")
        _check_column(frame[name])
    return frame


def usual_label(source: Any, frame: pd.DataFrame) -> str | None:
    """The column of a table's classes: of a built-in table its own, else ``label`` if there is one."""
    if isinstance(source, str) and source.startswith(PREFIX):
        return describe(source).label
    return "label" if "label" in frame.columns else None


def with_dates(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of strings as dates, where every string is one in ISO 8601."""
    dates: dict[str, Any] = {}
    for name in frame.columns:
        strings = frame[name].dropna()
        if len(strings) and family(strings) == "string" and strings.str.fullmatch(_ISO_DATE).all():
            try:
                dates[name] = pd.to_datetime(frame[name], format="ISO8601")
            except ValueError:  # the 30th of February, or several zones: it stays what it was
                continue
    return frame.assign(**dates)


def _found(source: Any) -> tuple[pd.DataFrame, str]:
    """The table and, in words, where it is from."""
    match source:
        case pd.DataFrame():
            return source, "the DataFrame"
        case str() | Path():
            return _from_text(str(source))
    if _is_of(source, "polars", "LazyFrame"):
        return _found(source.collect())
    if _is_of(source, "polars", "DataFrame"):
        return _from_arrow(source.to_arrow()), "the polars DataFrame"
    if _is_of(source, "pyarrow", "Table"):
        return _from_arrow(source), "the Arrow table"
    if is_hugging_face(source):
        return _from_hugging_face(Loaded.of(source, "the data set"))
    raise PolysenseError(f"cannot read a table from a {type(source).__name__}; give {ACCEPTED}")


def _from_text(text: str) -> tuple[pd.DataFrame, str]:
    loaded = named_dataset(text)
    if loaded is not None:
        return _from_hugging_face(loaded)
    if text.startswith(PREFIX):
        if (other := describe(text).modality) != "table":
            raise PolysenseError(
                f"{text} is no table but data for {other!r}; tables: {builtins_for('table')}"
            )
        return builtin(text), text
    path = Path(text).expanduser()
    if not path.exists():
        raise no_such_path(path)
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise PolysenseError(f"{path} is no table; give {ACCEPTED}")
    frame = read_whole_table(path)
    return (frame if path.suffix.lower() == ".parquet" else with_dates(frame)), str(path)


def _from_hugging_face(loaded: Loaded) -> tuple[pd.DataFrame, str]:
    return loaded.table()[0], loaded.place


def _is_of(source: Any, library: str, kind: str) -> bool:
    """Whether this is an object of a library, which is not imported to find out."""
    loaded = sys.modules.get(library)
    return loaded is not None and isinstance(source, getattr(loaded, kind))


def _from_arrow(table: Any) -> pd.DataFrame:
    """Arrow's types are kept, but for its dictionaries, which become categoricals."""

    def keep(kind: Any) -> Any:
        return None if str(kind).startswith("dictionary") else pd.ArrowDtype(kind)

    frame: pd.DataFrame = table.to_pandas(types_mapper=keep)
    return frame


def _check_column(values: pd.Series[Any]) -> None:
    """Refuse mixed types, and dates that pandas cannot bring to one clock."""
    if family(values) == "date" and values.dtype == object:
        try:
            pd.to_datetime(values)
        except (ValueError, TypeError) as error:
            raise PolysenseError(
                f"the column {values.name!r} holds dates of several time zones, or some without; bring them"
                " to one with pd.to_datetime(column, utc=True)"
            ) from error
