"""Large table files, read and written part by part, with the same types in every part."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd

from polysense.errors import PolysenseError
from polysense.tabular.writing import separator


class Parts(Protocol):
    """Frames of consecutive rows of a file; all have the same columns and types."""

    def __iter__(self) -> Iterator[pd.DataFrame]: ...


def parts_of(data: Any, rows: int) -> Parts | None:
    """The parts of a Parquet or CSV file that has more than ``rows`` rows; None for anything else.

    Raises:
        PolysenseError: for a file that cannot be read, here or later while it is.
    """
    path = Path(data) if isinstance(data, str | Path) else Path()
    if rows < 1:
        raise PolysenseError(f"chunk_rows is {rows}, but at least one row is held at a time")
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv", ".tsv") or not path.is_file():
        return None
    parts = ParquetParts(path, rows) if suffix == ".parquet" else TextParts(path, rows)
    return parts if parts.several() else None


class ParquetParts:
    """The rows of a Parquet file, in the types that pandas reads it in when it is read whole.

    An index that pandas kept is a column like others.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.path, self.rows = path, rows

    def several(self) -> bool:
        """Whether there is more than one part."""
        return bool(self._open().metadata.num_rows > self.rows)

    def __iter__(self) -> Iterator[pd.DataFrame]:
        import pyarrow as pa

        pending: list[Any] = []  # batches end where groups of rows do, which may be small
        for batch in self._open().iter_batches(self.rows):
            pending.append(batch)
            if sum(map(len, pending)) >= self.rows:
                table = pa.Table.from_batches(pending)
                yield self._frame(table.slice(0, self.rows))
                pending = table.slice(self.rows).to_batches()
        if pending:
            yield self._frame(pa.Table.from_batches(pending))

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path)
        except (pa.ArrowInvalid, OSError) as error:
            raise PolysenseError(f"cannot read {self.path}: {str(error).splitlines()[0]}") from error

    def _frame(self, table: Any) -> pd.DataFrame:
        frame: pd.DataFrame = table.replace_schema_metadata(self._metadata).to_pandas()
        return frame.astype(self._types)

    @cached_property
    def _metadata(self) -> dict[bytes, bytes]:
        """What pandas noted about the types, without an index."""
        noted = json.loads((self._open().schema_arrow.metadata or {}).get(b"pandas", b"{}"))
        return {b"pandas": json.dumps(noted | {"index_columns": []}).encode()} if noted else {}

    @cached_property
    def _types(self) -> dict[str, Any]:
        """The type of each column: one with gaps is the same in a part that has none."""
        empty = self._open().schema_arrow.with_metadata(self._metadata).empty_table().to_pandas()
        types: dict[str, Any] = {name: empty[name].dtype for name in empty} | self._categories()
        for name, dtype in types.items():
            if isinstance(dtype, np.dtype) and dtype.kind in "iub" and self._has_gaps(name):
                types[name] = "boolean" if dtype.kind == "b" else "float64"
        return types

    def _has_gaps(self, name: str) -> bool:
        """Whether a column's statistics do not rule out missing cells."""
        about = self._open().metadata
        at = self._open().schema_arrow.get_field_index(name)
        groups = [about.row_group(group).column(at).statistics for group in range(about.num_row_groups)]
        return any(statistics is None or statistics.null_count != 0 for statistics in groups)

    def _categories(self) -> dict[str, pd.CategoricalDtype]:
        """The types of the categoricals, with the levels of all parts in their order."""
        import pyarrow as pa

        kinds = {field.name: field.type for field in self._open().schema_arrow}
        names = [name for name, kind in kinds.items() if pa.types.is_dictionary(kind)]
        levels: dict[str, dict[Any, None]] = {name: {} for name in names}
        for batch in self._open().iter_batches(self.rows, columns=names) if names else ():
            for name in names:
                levels[name].update(dict.fromkeys(batch.column(name).dictionary.to_pylist()))
        return {name: pd.CategoricalDtype(list(levels[name]), kinds[name].ordered) for name in names}


class TextParts:
    """The rows of a CSV or TSV file, in the narrowest of Arrow's types that holds all of a column.

    Strings that are all dates of ISO 8601 become dates.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.path, self.rows = path, rows

    def several(self) -> bool:
        """Whether there is more than one part."""
        parts = self._read()
        return next(parts, None) is not None and next(parts, None) is not None

    def __iter__(self) -> Iterator[pd.DataFrame]:
        types, dates = self._types
        for part in self._read(types):
            yield part.assign(**{name: pd.to_datetime(part[name], format="ISO8601") for name in dates})

    @cached_property
    def _types(self) -> tuple[dict[str, pd.ArrowDtype], list[str]]:
        """The type of each column, and the strings that are dates."""
        found: dict[str, Any] = {}
        undated: set[str] = set()
        for part in self._read():
            for name in map(str, part):
                found[name] = _wider(found.get(name), cast(Any, part[name].dtype).pyarrow_dtype)
                if name not in undated and not _are_dates(part[name]):
                    undated.add(name)
        types = {name: pd.ArrowDtype(kind) for name, kind in found.items()}
        return types, [name for name, kind in found.items() if str(kind) == "string" and name not in undated]

    def _read(self, types: dict[str, pd.ArrowDtype] | None = None) -> Iterator[pd.DataFrame]:
        try:
            yield from pd.read_csv(
                self.path, sep=self._separator, dtype=types, dtype_backend="pyarrow", chunksize=self.rows
            )
        except (ValueError, OSError) as error:
            raise PolysenseError(f"cannot read {self.path}: {str(error).splitlines()[0]}; mend it") from error

    @cached_property
    def _separator(self) -> str:
        with self.path.open(encoding="utf-8", errors="replace") as file:
            header = file.readline()
        try:
            return csv.Sniffer().sniff(header, ",;\t|").delimiter
        except csv.Error:  # one column
            return separator(self.path)


def write_parts(parts: Iterable[pd.DataFrame], path: Path) -> None:
    """Write frames of the same columns and types below each other."""
    if path.suffix.lower() != ".parquet":
        for at, part in enumerate(parts):
            part.to_csv(path, index=False, sep=separator(path), mode="a" if at else "w", header=not at)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    try:
        for part in parts:
            schema = writer.schema if writer else None
            table = pa.Table.from_pandas(part, schema=schema, preserve_index=False)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _wider(known: Any, found: Any) -> Any:
    """A type that holds both: whole numbers and decimals are decimals, anything else that differs is text."""
    import pyarrow as pa

    if known is None or known == found or pa.types.is_null(known):
        return found
    numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (known, found))
    return known if pa.types.is_null(found) else pa.float64() if numbers else pa.string()


def _are_dates(column: pd.Series[Any]) -> bool:
    """Whether all strings of a column are dates of one clock; a part without any says nothing."""
    if column.isna().all():
        return True
    try:
        pd.to_datetime(column.dropna(), format="ISO8601")
    except (ValueError, TypeError):
        return False
    return str(column.dtype).startswith("string")
