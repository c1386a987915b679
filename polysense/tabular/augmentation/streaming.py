"""Augmenting a file that is larger than memory, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polysense.deployment.folder import write_whole
from polysense.errors import PolysenseError
from polysense.tabular.augmentation.by_name import apply, augment, below, check_options
from polysense.tabular.augmentation.draft import check_column
from polysense.tabular.parts import Parts, parts_of, write_parts
from polysense.tabular.schema import Schema
from polysense.tabular.writing import check_out, write_frame

BANK = 50_000
"""How many rows of a streamed file, drawn at random, partners and statistics come from."""


def augment_file(
    data: Any,
    out: str | Path,
    how: str = "mixup",
    *,
    times: int = 1,
    keep: bool = False,
    label: str | None = None,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    chunk_rows: int = 250_000,
    overwrite: bool = False,
) -> Path:
    """Make new rows from a table's, and write them to a file: the same columns, of the same types.

    A Parquet or CSV file of more than ``chunk_rows`` rows is read twice and never held whole: first for a
    random sample of 50,000 rows, which partners and statistics then come from, and then part by part.

    Args:
        data: a CSV, TSV, Parquet or JSONL file, or a built-in table; from Python also a DataFrame.
        out: the file; .parquet, .csv or .tsv.
        how: mixup, cutmix, swap, gaussian, missing, corrupt or oversample.
        times: how many new rows for each; oversample makes as many as a class lacks.
        keep: write the rows of the data too, each part before what is made from it.
        label: the column that is the label: mixed by mixup and cutmix, else copied.
        options: of the augmentation, by name.
        seed: the same seed makes the same rows.
        chunk_rows: how many rows are held at a time.
        overwrite: replace the file that is there.

    Returns:
        The file.

    Raises:
        PolysenseError: for a table that cannot be read, an unknown way or option, a file that exists, or
            when oversampling is asked for of a file that is not held whole.

    $ polysense augment data.csv --how mixup --times 3 --out more.parquet
    $ polysense augment data.csv --how missing --options.mechanism mar --options.rate 0.3 --out holes.csv
    """
    options = dict(options or {})
    check_options(how, options)
    path = check_out(out, overwrite=overwrite)
    parts = parts_of(data, chunk_rows)
    if parts is None:
        write_frame(augment(data, how, times=times, keep=keep, label=label, seed=seed, **options), path)
        return path
    if how == "oversample":
        raise PolysenseError(
            f"oversample needs all rows at once, and {data} has more than {chunk_rows:,}; raise chunk_rows"
        )
    bank = survey(parts, label, seed)
    schema = Schema.infer(bank)

    def made() -> Iterator[pd.DataFrame]:
        for at, part in enumerate(parts):
            shared = {**options, "bank": bank, "schema": schema}
            new = apply(part, how, times=times, label=label, seed=(seed, at), **shared)
            yield below(part, new, label) if keep else new

    write_whole(path, lambda beside: write_parts(made(), beside))
    return path


def survey(parts: Parts, label: str | None, seed: int) -> pd.DataFrame:
    """A random sample of the rows, and below it the first row of each class."""
    rng, sample, keys, firsts = np.random.default_rng(seed), pd.DataFrame(), np.empty(0), pd.DataFrame()
    for part in parts:
        if label is not None:
            firsts = pd.concat([firsts, part.drop_duplicates(check_column(part, label))])
            firsts = firsts.drop_duplicates(label)
        sample, keys = pd.concat([sample, part]), np.append(keys, rng.random(len(part)))
        chosen = np.sort(np.argsort(keys)[:BANK])
        sample, keys = sample.take(chosen), keys[chosen]
    return pd.concat([sample, firsts], ignore_index=True)
