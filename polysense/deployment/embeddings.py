"""Embeddings as a file: names beside vectors, in formats that others read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from polysense.deployment.folder import write_whole
from polysense.deployment.run import Run
from polysense.errors import PolysenseError
from polysense.modalities.base import Dataset


def write_embeddings(
    run: Run, dataset: Dataset, out: Path, *, overwrite: bool = False, batch_size: int = 256
) -> Path:
    """Embed a dataset into ``out``; the suffix says how: ``.parquet``, ``.npz`` or ``.safetensors``.

    Parquet is written batch by batch: a column ``name``, a column ``embedding`` (a list of fixed
    length), and the dataset's label where it has one. The others hold ``names`` and ``embeddings``.

    Raises:
        PolysenseError: for another suffix, or when the file exists and ``overwrite`` is not set.
    """
    writers: dict[str, Callable[[Run, Dataset, Path, int], None]] = {
        ".parquet": _parquet,
        ".npz": _npz,
        ".safetensors": _safetensors,
    }
    if out.suffix not in writers:
        raise PolysenseError(f"cannot write embeddings as {out.name!r}; end it in {', '.join(writers)}")
    if out.exists() and not overwrite:
        raise PolysenseError(f"{out} exists; choose another out, or replace it with --overwrite")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda beside: writers[out.suffix](run, dataset, beside, batch_size))
    return out


def _parquet(run: Run, dataset: Dataset, path: Path, batch_size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = dataset.table[["name", *([dataset.label] if dataset.label else [])]]
    writer = None
    try:
        for rows, vectors in run.stream(dataset, batch_size=batch_size):
            columns = {
                name: pa.array(table[name].iloc[rows.start : rows.stop].astype(str)) for name in table.columns
            }
            flat = pa.array(vectors.numpy().reshape(-1))
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            part = pa.table(columns)
            writer = writer or pq.ParquetWriter(path, part.schema)
            writer.write_table(part)
    finally:
        if writer is not None:
            writer.close()


def _npz(run: Run, dataset: Dataset, path: Path, batch_size: int) -> None:
    vectors = np.concatenate([part.numpy() for _, part in run.stream(dataset, batch_size=batch_size)])
    with path.open("wb") as file:
        np.savez(file, names=dataset.table["name"].astype(str).to_numpy(dtype=str), embeddings=vectors)


def _safetensors(run: Run, dataset: Dataset, path: Path, batch_size: int) -> None:
    import json

    import torch
    from safetensors.torch import save_file

    vectors = torch.cat([part for _, part in run.stream(dataset, batch_size=batch_size)])
    names = json.dumps(dataset.table["name"].astype(str).tolist(), ensure_ascii=False)
    save_file({"embeddings": vectors}, path, metadata={"names": names})
