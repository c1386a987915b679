"""A table with gaps: filled, learned, and drawn from by a sentence. Run by ``make demo-tables``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from polysense.conditions import Condition
from polysense.modalities.builtin import builtin
from polysense.tabular.quality import quality
from polysense.tabular.schema import Schema
from polysense.tasks.generation import fit_generator
from polysense.tasks.imputation import Imputer

PROMPT = "a humid summer night at Newark with almost no wind"


def main() -> None:
    """Fill the gaps, learn the table, draw, and judge what was drawn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--max_time", default="100s", help="of training")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-tables"))
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("lightning").setLevel(logging.WARNING)
    table = builtin("builtin:weather").drop(columns="time")
    train, test = by_day(table)
    print(
        f"\n{len(table):,} hours of weather at three airports, with gaps:\n\n{Schema.infer(table).describe()}"
    )
    fill(train, test)
    print(f"\nLearning {len(train):,} of the rows ({asked.max_time}) …\n")
    generator = fit_generator(train, out=asked.out, overwrite=True, max_time=asked.max_time)
    drawn = generator.sample(asked.rows, prompt=asked.prompt)
    told = drawn.attrs["report"]
    truth = table[Condition(told["query"], list(map(str, table))).mask(table)]
    print(f"\nPrompt: {asked.prompt}\nunderstood as: {told['query']}\n")
    print(f"{drawn.head(5).to_string(index=False)}\n")
    print(
        f"{len(drawn):,} rows, {told['copies']} of them rows of the table; effective sample size"
        f" {told['effective_sample_size']:.0%}. Medians, drawn and of the {len(truth)} real such hours:"
    )
    columns = ["temp", "dewp", "humid", "wind_speed", "pressure", "visib"]
    print(
        pd.DataFrame({"drawn": drawn[columns].median(), "real": truth[columns].median()}).round(1).to_string()
    )
    free = generator.sample(3000)
    scores = quality(train, test, {"drawn": free}, labels=["temp", "origin"])
    print(f"\n{len(free):,} rows without a prompt, beside a floor and a ceiling. Under temp (R²) and origin")
    print("(accuracy): trees trained on these rows, tested on the real days held out.\n")
    print(scores.round(3).to_string())


def by_day(table: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Four fifths of the days, and the others."""
    days = table.month * 100 + table.day
    names = np.random.default_rng(seed).permutation(days.unique())
    held = days.isin(names[: len(names) // 5])
    return table[~held].reset_index(drop=True), table[held].reset_index(drop=True)


def fill(train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Fill the real gaps, and cells that were hidden, of which the truth is known."""
    columns, rng = ["temp", "humid", "wind_speed", "pressure"], np.random.default_rng(0)
    hidden = test.assign(**{name: test[name].mask(rng.random(len(test)) < 0.2) for name in columns})
    errors = {}
    for how in ("trees", "mode"):
        imputer = Imputer(how).fit(train)
        filled = imputer.transform(hidden)
        errors[how] = {
            name: ((filled[name] - test[name])[hidden[name].isna() & test[name].notna()] ** 2).mean() ** 0.5
            / test[name].std()
            for name in columns
        }
        if how == "trees":
            gaps = int(test.isna().sum().sum()), int(imputer.transform(test).isna().sum().sum())
    print(f"\nGaps of the days held out: {gaps[0]:,}; after filling: {gaps[1]}.")
    print("Error on a fifth of the known cells, hidden, in standard deviations:\n")
    print(pd.DataFrame(errors).round(3).to_string())


if __name__ == "__main__":
    main()
