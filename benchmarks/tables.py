"""Rows a second and memory of every way to augment a table, beside its peers at the same work.

Peers: imbalanced-learn's SMOTE and SMOTENC, the corruption of ts3l (SCARF's, a row at a time, as its
training loop gets it), and pandas as one would write it by hand, column by column.

    python -m benchmarks.tables --rows 100000 1000000 --limit 60
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import environment, peak_memory, report
from polysense.tabular.augmentation import augment
from polysense.tabular.schema import Schema

SEED = 0
LABEL = "cut"
REPEATS = 3
SHARE = 0.15
TIMED = 2_000
"""Rows of what works a row at a time; its rate does not depend on how many there are."""

ROW_BY_ROW = ("pandas, by row", "ts3l")

Case = Callable[[], object]


def diamonds(rows: int) -> pd.DataFrame:
    """Rows of the built-in table, drawn again as often as needed, their numbers a little apart."""
    frame = pd.read_parquet("polysense/data/diamonds.parquet")
    frame = frame.sample(rows, replace=True, random_state=SEED, ignore_index=True)
    rng = np.random.default_rng(SEED)
    for name in frame.select_dtypes("float"):
        frame[name] += rng.normal(0, 0.01, rows)
    return frame


def ours(frame: pd.DataFrame) -> dict[str, Case]:
    """Every way; the schema is inferred anew in each call."""

    def case(how: str, **options: Any) -> Case:
        return lambda: augment(frame, how, label=LABEL, **options)

    return {
        "mixup": case("mixup"),
        "mixup, soft labels": case("mixup", label_as="soft"),
        "cutmix": case("cutmix"),
        "swap": case("swap", share=SHARE),
        "gaussian": case("gaussian"),
        "missing, mcar": case("missing"),
        "missing, mar": case("missing", mechanism="mar"),
        "missing, mnar": case("missing", mechanism="mnar"),
        "corrupt": case("corrupt"),
        "oversample": case("oversample", keep=True),
        "oversample, numbers only": lambda: augment(numbers(frame), "oversample", label=LABEL, keep=True),
    }


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """The label and the columns that SMOTE can read."""
    return frame[[*frame.select_dtypes("number"), LABEL]]


def by_hand(frame: pd.DataFrame) -> dict[str, Case]:
    """What a user of pandas would write: types are not looked after, and integers become floats."""
    rng = np.random.default_rng(SEED)
    features = frame.drop(columns=LABEL)

    def mixup() -> pd.DataFrame:
        other, weight = frame.sample(frac=1).reset_index(drop=True), pd.Series(rng.beta(0.2, 0.2, len(frame)))
        made = {}
        for name in frame:
            if pd.api.types.is_numeric_dtype(frame[name]):
                made[name] = frame[name] * weight + other[name] * (1 - weight)
            else:
                made[name] = frame[name].where(rng.random(len(frame)) < weight, other[name])
        return pd.DataFrame(made)

    def swap() -> pd.DataFrame:
        def swapped(column: pd.Series[Any]) -> pd.Series[Any]:
            shuffled = column.sample(frac=1).reset_index(drop=True)
            return column.where(rng.random(len(column)) >= SHARE, shuffled)

        return features.apply(swapped).assign(cut=frame[LABEL])

    def gaussian() -> pd.DataFrame:
        made = frame.copy()
        for name in frame.select_dtypes("number"):
            spread = (frame[name].quantile(0.75) - frame[name].quantile(0.25)) / 1.349
            made[name] = frame[name] + 0.1 * spread * rng.normal(size=len(frame))
        return made

    def missing() -> pd.DataFrame:
        return features.mask(rng.random(features.shape) < 0.2).assign(cut=frame[LABEL])

    return {"mixup": mixup, "swap": swap, "gaussian": gaussian, "missing, mcar": missing}


def imbalanced(frame: pd.DataFrame) -> dict[str, Case]:
    """imbalanced-learn on the same rows; SMOTE on the columns that it can read."""
    from imblearn.over_sampling import SMOTE, SMOTENC

    X, y = frame.drop(columns=LABEL), frame[LABEL]
    plain = X.select_dtypes("number")
    categories = [name for name in X if name not in plain]
    return {
        "oversample": lambda: SMOTENC(categories, random_state=SEED).fit_resample(X, y),
        "oversample, numbers only": lambda: SMOTE(random_state=SEED).fit_resample(plain, y),
    }


def by_hand_and_row(frame: pd.DataFrame) -> dict[str, Case]:
    """The loop over rows that comes first to mind."""
    rng = np.random.default_rng(SEED)
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]

    def mixup() -> pd.DataFrame:
        made = []
        for at in range(TIMED):
            row, other, weight = frame.iloc[at], frame.iloc[rng.integers(len(frame))], rng.beta(0.2, 0.2)
            cells = zip(row, other, numeric, strict=True)
            made.append([weight * a + (1 - weight) * b if number else a for a, b, number in cells])
        return pd.DataFrame(made, columns=frame.columns)

    return {"mixup": mixup}


def by_row(frame: pd.DataFrame) -> dict[str, Case]:
    """ts3l's corruption of the first rows; categories as the codes that it asks for."""
    from ts3l.utils.scarf_utils import SCARFDataset

    coded = frame.drop(columns=LABEL)
    categories = list(coded.select_dtypes(exclude="number"))
    coded[categories] = coded[categories].apply(lambda column: pd.factorize(column)[0])
    config = SimpleNamespace(corruption_rate=SHARE)  # all that the data set reads of the whole one
    rows = SCARFDataset(
        coded, config=config, category_cols=categories, continuous_cols=list(coded.columns.drop(categories))
    )
    return {"swap": lambda: [rows[at] for at in range(TIMED)]}


def measure(case: Case, limit: float) -> tuple[float, float] | None:
    """Seconds (the median of the calls that fit in) and the peak of memory in MB, in a process of its own.

    The seconds are the processor's, on one thread, so that other jobs do not count; None when a call and
    its measuring take longer than ``limit`` seconds of the clock.
    """
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_measure, args=(case, send))
    process.start()
    found = receive.recv() if receive.poll(limit) else None
    process.kill() if found is None else process.join()
    return found


def _measure(case: Case, send: Connection) -> None:
    start = time.process_time()
    megabytes = peak_memory(case)
    seconds = [time.process_time() - start]
    while len(seconds) < REPEATS and sum(seconds) < 10:
        start = time.process_time()
        case()
        seconds.append(time.process_time() - start)
    send.send((statistics.median(seconds), megabytes))


def main() -> None:
    """Measure every case, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a case is given up")
    given = parser.parse_args()
    record = environment(SEED, peers=["imbalanced-learn", "ts3l", "pandas", "scikit-learn"])
    rows: list[dict[str, Any]] = []
    for count in given.rows:
        frame = diamonds(count)
        Schema.infer(frame)  # what is imported late is imported now
        table = frame.memory_usage(deep=False).sum() / 2**20
        groups = {
            "polysense": ours,
            "pandas, by column": by_hand,
            "pandas, by row": by_hand_and_row,
            "imbalanced-learn": imbalanced,
            "ts3l": by_row,
        }
        rates: dict[str, float] = {}
        for by, cases in groups.items():
            for how, case in cases(frame).items():
                found = measure(case, given.limit)
                worked = TIMED if by in ROW_BY_ROW else count
                rate = worked / found[0] if found else worked / given.limit
                rates.setdefault(how, rate)
                rows.append(
                    {
                        "rows": count,
                        "how": how,
                        "by": by,
                        "rows/s": f"{rate:,.0f}" if found else f"< {rate:,.0f}",
                        "ours is faster": f"{'' if found else '> '}{rates[how] / rate:.3g} ×",
                        "memory, of the table": f"{found[1] / table:.2g} ×"
                        if found and by != "ts3l"
                        else None,
                    }
                )
        report("tables", rows, record | {"limit": given.limit})


if __name__ == "__main__":
    main()
