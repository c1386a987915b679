"""Filling holes: the error in each column, beside mean and mode, KNNImputer and IterativeImputer, in one run.

A fifth of the cells of training and test rows is hidden, completely at random, at random given other
columns, and by their own values; each imputer learns from the training rows and fills the test rows.
Numbers are scored by RMSE over the standard deviation, categories by accuracy, over hidden cells only.

    python -m benchmarks.impute --tables weather diamonds --mechanisms mcar mar mnar
    python -m benchmarks.impute --tables weather --mechanisms mcar --seconds 60 --by cells trees mean
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import environment, report
from polysense.tabular.augmentation import hide
from polysense.tabular.schema import Schema
from polysense.tasks.generation import fit_generator
from polysense.tasks.imputation import Imputer

SEED = 0
RATE = 0.2
BANK = 4_000
"""Rows that KNNImputer may look through: memory and time are their number times that of the rows to fill."""

SCORED = 3_000
"""Rows to fill, the same for all imputers."""

Fill = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]


def table(name: str) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """A built-in table and which rows are for training: weather split by day, diamonds by row."""
    frame = pd.read_parquet(f"polysense/data/{name}.parquet")
    rng = np.random.default_rng(SEED)
    if name == "weather":
        days = frame.pop("time").dt.dayofyear.to_numpy()
        return frame, rng.permuted(np.arange(367))[days] % 5 > 0
    frame = frame[(frame[["x", "y", "z"]] > 0).all(axis=1)].reset_index(drop=True)
    return frame, rng.random(len(frame)) < 0.8


def encoded(train: pd.DataFrame, test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What scikit-learn's imputers can read: standardised numbers, and categories as one-hot columns."""
    parts = []
    for frame in (train, test):
        columns = {}
        for name in train:
            if pd.api.types.is_numeric_dtype(train[name]):
                column = frame[name].astype(float)
                columns[name] = (column - train[name].mean()) / train[name].std()
            else:
                for level in sorted(train[name].dropna().unique()):
                    columns[f"{name}={level}"] = (frame[name] == level).astype(float).mask(frame[name].isna())
        parts.append(pd.DataFrame(columns))
    return parts[0], parts[1]


def decoded(filled: NDArray[Any], names: list[str], train: pd.DataFrame) -> pd.DataFrame:
    """The columns again: numbers in their units, the level with the largest of its one-hot columns."""
    wide, columns = pd.DataFrame(filled, columns=names), {}
    for name in train:
        if name in wide:
            columns[name] = wide[name] * train[name].std() + train[name].mean()
        else:
            levels = [column for column in names if column.startswith(f"{name}=")]
            columns[name] = wide[levels].idxmax(axis=1).str.removeprefix(f"{name}=")
    return pd.DataFrame(columns)


def by_sklearn(imputer: Any, *, bank: int | None = None) -> Fill:
    """One of scikit-learn's imputers on numbers and one-hot columns."""

    def fill(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        known, unseen = encoded(train, test)
        imputer.fit(known if bank is None else known.sample(bank, random_state=SEED))
        return decoded(imputer.transform(unseen), list(known), train)

    return fill


def by_cells(**training: Any) -> Fill:
    """The masked-cell network, trained on the rows that the others see."""

    def fill(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        with TemporaryDirectory() as folder:
            model = fit_generator(train, out=folder, gaps=False, seed=SEED, **training)
            return Imputer("cells", model=model).fit(train).transform(test)

    return fill


def imputers(seconds: float) -> dict[str, Fill]:
    """Every way; all of them see the same rows."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    return {
        "polysense cells": by_cells(max_time=f"{seconds:g}s"),
        "cells, untrained": by_cells(steps=1),
        "polysense trees": lambda train, test: Imputer().fit(train).transform(test),
        "mean and mode": by_sklearn(SimpleImputer()),
        "KNNImputer": by_sklearn(KNNImputer(n_neighbors=10), bank=BANK),
        "IterativeImputer": by_sklearn(IterativeImputer(random_state=SEED)),
    }


def scores(
    filled: pd.DataFrame, truth: pd.DataFrame, hidden: pd.DataFrame, train: pd.DataFrame
) -> dict[str, float]:
    """RMSE over the standard deviation, or accuracy, of each column."""
    found = {}
    for name in truth:
        rows = hidden[name].to_numpy()
        if not rows.any():
            continue
        guess, real = filled[name][rows], truth[name][rows]
        if pd.api.types.is_numeric_dtype(truth[name]):
            error = guess.to_numpy(float) - real.to_numpy(float)
            found[name] = float(np.sqrt((error**2).mean()) / train[name].std())
        else:
            found[name] = float((guess.to_numpy() == real.to_numpy()).mean())
    return found


def main() -> None:
    """Hide, fill, score, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=["weather", "diamonds"])
    parser.add_argument("--mechanisms", nargs="+", default=["mcar", "mar", "mnar"])
    parser.add_argument("--seconds", type=float, default=90, help="of training the cells")
    parser.add_argument("--by", nargs="+", help="words of the ways to compare, by default all")
    parser.add_argument("--name", default="impute", help="of the file of results")
    given = parser.parse_args()
    ways = {
        by: fill
        for by, fill in imputers(given.seconds).items()
        if given.by is None or any(word in by for word in given.by)
    }
    record = environment(SEED, peers=["scikit-learn", "pandas"])
    rows: list[dict[str, Any]] = []
    for name in given.tables:
        frame, training = table(name)
        schema = Schema.infer(frame)
        for mechanism in given.mechanisms:
            holes = hide(frame, mechanism=mechanism, rate=RATE, schema=schema, on_int="float", seed=SEED)
            asked = np.flatnonzero(~training)
            asked = np.sort(np.random.default_rng(SEED).choice(asked, min(SCORED, len(asked)), replace=False))
            train, test = holes[training].reset_index(drop=True), holes.iloc[asked].reset_index(drop=True)
            truth = frame.iloc[asked].reset_index(drop=True)
            hidden = test.isna() & truth.notna()
            for by, fill in ways.items():
                start = time.process_time()
                filled = fill(train, test)
                seconds = time.process_time() - start
                found = scores(filled, truth, hidden, train)
                numeric = [at for at in found if pd.api.types.is_numeric_dtype(frame[at])]
                rows.append(
                    {
                        "data": name,
                        "hidden": mechanism,
                        "by": by,
                        "NRMSE": float(np.mean([found[at] for at in numeric])),
                        "accuracy": float(
                            np.mean([found[at] for at in found if at not in numeric] or [np.nan])
                        ),
                        "seconds": seconds,
                        **found,
                    }
                )
            about = {"rate": RATE, "bank of KNNImputer": BANK, "seconds of cells": given.seconds}
            report(given.name, rows, record | about)


if __name__ == "__main__":
    main()
