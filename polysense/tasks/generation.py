"""The front door of generated rows: train a generator on a table, and write rows to a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from polysense.errors import PolysenseError
from polysense.front import pretrain
from polysense.tabular.generate import TABLE, Generator, is_run
from polysense.tabular.reading import to_frame
from polysense.tabular.writing import check_out, write_frame
from polysense.training.processes import is_first

log = logging.getLogger("polysense")


def fit_generator(
    data: Any,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    drop: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    steps: int | None = None,
    max_time: str | float | None = None,
    gaps: bool = True,
    seed: int = 0,
) -> Generator:
    """Train the network that draws rows on all columns of a table; leaves a run folder.

    Every value that is drawn is one of the table's. A table in memory is therefore kept in the run folder.

    Args:
        data: a DataFrame, a CSV, TSV, Parquet or JSONL file, or a built-in table.
        out: the run folder, by default ``runs/masked_cells-cell_transformer-NUMBER``.
        overwrite: replace the run that is there.
        drop: columns to leave out.
        kinds: what columns are, where it would be inferred wrongly, by their names.
        steps: train for so many steps,
        max_time: or so long: 90s, 3min. By default, from the table's size.
        gaps: learn where the table has gaps, so that they are drawn too.
        seed: makes the training repeatable.

    Raises:
        PolysenseError: for a table that cannot be read, or where training was stopped before its end.
    """
    run = pretrain(
        data,
        method="masked_cells",
        encoder="cell_transformer",
        out=out,
        overwrite=overwrite,
        label="",
        reading={"drop": list(drop)},
        modality_options={"kinds": dict(kinds or {})},
        options={"gaps": gaps},
        steps=steps,
        max_time=max_time,
        judge=False,
        seed=seed,
    )
    if run is None:
        raise PolysenseError("training was stopped; go on with polysense resume, then load the generator")
    generator = Generator.load(run, data)
    if run.config["data"]["source"] is None and is_first():
        write_frame(generator.frame.reset_index(drop=True), run.path / TABLE)
    return generator


def generate_file(
    data: Any,
    out: str | Path,
    *,
    rows: int | None = None,
    given: Any = None,
    where: str | None = None,
    prompt: str | None = None,
    constraints: Sequence[str] = (),
    words: dict[str, str] | None = None,
    language_model: str | Path | None = None,
    avoid_copies: bool = False,
    temperature: float = 1.0,
    run: str | Path | None = None,
    max_time: str | float | None = None,
    drop: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Draw rows like those of a table, free or by condition, and write them to a file.

    Args:
        data: a table to learn from (which leaves a run folder), or the run folder of a generator.
        out: the file; .parquet, .csv or .tsv.
        rows: how many, by default 1000; with a table given, how many for each of its rows, by default 1.
        given: a table of rows to go on from: what is known of each is kept, the rest is drawn; from Python
            also a DataFrame, or values by column, see :meth:`.Generator.sample`.
        where: a condition that all rows satisfy, such as "temp > 80 and origin in ['JFK']".
        prompt: a sentence, such as "a humid summer night at Newark"; the condition it means is told.
        constraints: further conditions, between columns, such as "dewp <= temp".
        words: what words of the prompt mean, as conditions.
        language_model: a causal language model of transformers, by folder or name, that reads the prompt
            instead of the rules; none comes with polysense.
        avoid_copies: draw no row of the table itself.
        temperature: below 1 the likely becomes likelier.
        run: where the run folder goes, when a table is learned from.
        max_time: how long to learn: 90s, 3min; by default from the table's size.
        drop: columns to leave out when a table is learned from.
        seed: the same seed draws the same rows.
        overwrite: replace the file that is there.

    Returns:
        The file.

    Raises:
        PolysenseError: for a table that cannot be read, a condition or prompt that is not understood or
            never met, or a file that exists.

    $ polysense generate builtin:weather --out more.parquet --prompt "a humid summer night at Newark"
    $ polysense generate runs/masked_cells-cell_transformer-1 --out hot.csv --where "temp > 80"
    $ polysense generate runs/masked_cells-cell_transformer-1 --given begun.csv --rows 5 --out finished.csv
    """
    path = check_out(out, overwrite=overwrite)
    begun = given if given is None or isinstance(given, dict) else to_frame(given, least=1)
    if rows is None:
        rows = 1 if isinstance(begun, pd.DataFrame) else 1000
    generator = (
        Generator.load(data)
        if is_run(data)
        else fit_generator(data, out=run, drop=drop, max_time=max_time, seed=seed)
    )
    drawn = generator.sample(
        rows,
        given=begun,
        where=where,
        prompt=prompt,
        constraints=constraints,
        words=words,
        language_model=language_model,
        seed=seed,
        temperature=temperature,
        avoid_copies=avoid_copies,
    )
    report = drawn.attrs["report"]
    if report["query"]:
        log.info("all rows satisfy: %s", report["query"])
    log.info(
        "%d rows; %d are rows of the table; %.0f %% were kept; effective sample size %.0f %%",
        *(len(drawn), report["copies"], 100 * report["acceptance"], 100 * report["effective_sample_size"]),
    )
    write_frame(drawn.reset_index(drop=True), path)
    return path
