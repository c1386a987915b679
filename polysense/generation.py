"""The front door of generated rows: train a generator on a table, and write rows to a file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polysense.errors import PolysenseError
from polysense.front import pretrain
from polysense.tabular.generate import Generator
from polysense.tabular.writing import check_out, write_frame

log = logging.getLogger("polysense")


def fit_generator(
    data: Any,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    drop: Sequence[str] = (),
    steps: int | None = None,
    max_time: str | float | None = None,
    gaps: bool = True,
    seed: int = 0,
) -> Generator:
    """Train the network that draws rows on all columns of a table; leaves a run folder.

    Args:
        data: a DataFrame, a CSV, TSV, Parquet or JSONL file, or a built-in table.
        out: the run folder, by default ``runs/masked_cells-cell_transformer-NUMBER``.
        overwrite: replace the run that is there.
        drop: columns to leave out.
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
        options={"gaps": gaps},
        steps=steps,
        max_time=max_time,
        judge=False,
        seed=seed,
    )
    if run is None:
        raise PolysenseError("training was stopped; go on with polysense resume, then load the generator")
    return Generator.load(run, data)


def generate_file(
    data: Any,
    out: str | Path,
    *,
    rows: int = 1000,
    where: str | None = None,
    prompt: str | None = None,
    constraints: Sequence[str] = (),
    words: dict[str, str] | None = None,
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
        rows: how many.
        where: a condition that all rows satisfy, such as "temp > 80 and origin in ['JFK']".
        prompt: a sentence, such as "a humid summer night at Newark"; the condition it means is told.
        constraints: further conditions, between columns, such as "dewp <= temp".
        words: what words of the prompt mean, as conditions.
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
    """
    path = check_out(out, overwrite=overwrite)
    trained = isinstance(data, str | Path) and (Path(data) / "config.yaml").is_file()
    generator = (
        Generator.load(data)
        if trained
        else fit_generator(data, out=run, drop=drop, max_time=max_time, seed=seed)
    )
    drawn = generator.sample(
        rows,
        where=where,
        prompt=prompt,
        constraints=constraints,
        words=words,
        seed=seed,
        temperature=temperature,
        avoid_copies=avoid_copies,
    )
    report = drawn.attrs["report"]
    if report["query"]:
        log.info("all rows satisfy: %s", report["query"])
    log.info(
        "%d rows; %d are rows of the table; %.0f %% were kept; effective sample size %.0f %%",
        *(rows, report["copies"], 100 * report["acceptance"], 100 * report["effective_sample_size"]),
    )
    write_frame(drawn, path)
    return path
