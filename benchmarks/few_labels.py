"""What pretraining on a whole table is worth when few of its rows have labels: accuracy on rows left out.

    OMP_NUM_THREADS=1 python -m benchmarks.few_labels [--quick] [--tables TABLE ...] [--arms ARM ...]

Weather (which month; whole days left out) and diamonds (which cut; every fifth row left out), with 1 %, 5 %
and 100 % of the labels. Beside the recipes stand the cells as they are under logistic regression, boosted
trees, and the encoder untrained, which is no small thing on tables. A seed draws the labelled rows and the
first weights, and the pretraining; nothing is tuned for anyone. "probe": logistic regression on the frozen
embedding; "fine-tuned": the encoder and a linear layer trained on the labelled rows. All of it takes hours,
``--quick`` minutes.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import environment, report
from polysense import SelfSupervisedEncoder
from polysense.encoders.base import Encoder
from polysense.tabular.modality import Table
from polysense.tabular.reading import to_frame

Row = dict[str, Tensor]
Classes = NDArray[np.int64]

LABELS = {"weather": "month", "diamonds": "cut"}
SHARES = {"1 %": 0.01, "5 %": 0.05, "100 %": 1.0}
QUICK = {"rows": 3000, "seeds": 2, "steps": 80, "tune": 50}
FULL = {"rows": None, "seeds": 5, "steps": 2000, "tune": 500}

ARMS: dict[str, dict[str, Any]] = {
    "scarf": {},
    "scarf, temperature 0.1": {"method": "scarf", "options": {"temperature": 0.1}},
    "vime": {},
    "dae": {"encoder": "table_mlp"},
    "subtab": {},
    "masked_cells": {},
    "saint": {},
}
"""What is said to SelfSupervisedEncoder; the method is the name where no other is said."""
SLOW = ("masked_cells", "saint")
"""Attention over cells: left out of the quick run."""


@dataclass(frozen=True)
class Task:
    """A table with some rows left out for testing."""

    train: pd.DataFrame
    test: pd.DataFrame
    y_train: Classes
    y_test: Classes

    @classmethod
    def of(cls, name: str, rows: int | None) -> Task:
        """The built-in table, or a sample of its rows; the split is the same for all seeds."""
        frame = to_frame(f"builtin:{name}").drop(columns="time", errors="ignore")  # it tells the month
        chosen = np.random.default_rng(0)
        if name == "weather":  # neighbouring hours are alike
            days = frame["month"] * 31 + frame["day"]
            held_out = days.isin(chosen.choice(days.unique(), days.nunique() // 5, replace=False))
        else:
            held_out = pd.Series(chosen.permutation(len(frame)) < len(frame) // 5, index=frame.index)
        if rows is not None:
            kept = chosen.permutation(len(frame))[:rows]
            frame, held_out = frame.iloc[kept], held_out.iloc[kept]
        classes = pd.Series(pd.factorize(frame[LABELS[name]])[0], index=frame.index)
        features = frame.drop(columns=LABELS[name])
        words: list[str] = list(features.select_dtypes("str"))  # trees ask for categories
        features = features.astype(dict.fromkeys(words, "category"))
        parts = [(features[part], classes[part].to_numpy()) for part in (~held_out, held_out)]
        (train, y_train), (test, y_test) = ((x.reset_index(drop=True), y) for x, y in parts)
        return cls(train, test, y_train, y_test)

    def labelled(self, share: float, seed: int) -> Classes:
        """The places of the training rows whose label is known, of each class its share."""
        everything = np.arange(len(self.train))
        if share == 1:
            return everything
        known: Classes
        known, _ = train_test_split(everything, train_size=share, stratify=self.y_train, random_state=seed)
        return known


def main() -> None:
    """Run everything, then print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a sample of the rows, two seeds, short training"
    )
    parser.add_argument("--tables", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, help="by default all, in a quick run the fast ones"
    )
    asked = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # all labels: 300 iterations are near enough
    size = QUICK if asked.quick else FULL
    arms = asked.arms or [arm for arm in ARMS if not (asked.quick and arm in SLOW)]
    record = {**environment(0, peers=["scikit-learn"]), **size}
    rows = [row for table in asked.tables for row in compare(table, arms, size)]
    report("few_labels_quick" if asked.quick else "few_labels", rows, record)


def compare(table: str, arms: list[str], size: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each way of learning: the mean accuracy over the seeds in %, and its deviation."""
    task = Task.of(table, size["rows"])
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(size["seeds"]):
        for way, share, accuracy in measured(task, arms, size, seed):
            found[way][share].append(100 * accuracy)
        print(f"{table}: seed {seed} done", flush=True)
    majority = 100 * float(np.mean(task.y_test == np.bincount(task.y_train).argmax()))
    yield {"table": table, "way": "the commonest class", **dict.fromkeys(SHARES, majority)}
    for way, shares in found.items():
        row: dict[str, Any] = {"table": table, "way": way}
        for share, values in shares.items():
            row |= {share: float(np.mean(values)), f"± {share}": float(np.std(values, ddof=1))}
        yield row


def measured(
    task: Task, arms: list[str], size: Mapping[str, Any], seed: int
) -> Iterator[tuple[str, str, float]]:
    """Ways of learning, shares of labels and accuracies, for one seed."""
    table = Table()
    table = table.fit(table.read(task.train))
    train, test = (table.coder.encode(part) for part in (task.train, task.test))
    torch.manual_seed(seed)
    encoders = {"untrained table_mlp": table.encoder("table_mlp"), **pretrained(task, arms, size, seed)}
    for name, share in SHARES.items():
        at = task.labelled(share, seed)

        def score(predict: Callable[[Any], Any], given: Any) -> float:
            return float(np.mean(np.asarray(predict(given)) == task.y_test))

        trees = boosted_trees(seed).fit(task.train.iloc[at], task.y_train[at])
        yield "boosted trees", name, score(trees.predict, task.test)
        raw = regression().fit(table.cells.flat(train)[at], task.y_train[at])
        yield "cells, logistic regression", name, score(raw.predict, table.cells.flat(test))
        for arm, encoder in encoders.items():
            probe = regression().fit(embedded(encoder, train, at), task.y_train[at])
            yield f"{arm}: probe", name, score(probe.predict, embedded(encoder, test))
            tuned = fine_tuned(encoder, chosen(train, at), task.y_train[at], size["tune"], seed)
            yield f"{arm}: fine-tuned", name, score(tuned, test)


def pretrained(task: Task, arms: list[str], size: Mapping[str, Any], seed: int) -> dict[str, Encoder]:
    """The encoder of each arm, trained on all training rows without their labels."""
    encoders = {}
    for arm in arms:
        began = time.process_time()
        settings = {"method": arm, "steps": size["steps"], "random_state": seed, **ARMS[arm]}
        encoders[arm] = SelfSupervisedEncoder(**settings).fit(task.train).run_.encoder
        print(f"  {arm}: {time.process_time() - began:.0f} s of one thread", flush=True)
    return encoders


def regression() -> Any:
    """Logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))


def boosted_trees(seed: int) -> Any:
    """scikit-learn's, which takes gaps and categories as they are."""
    return HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=seed)


def chosen(row: Mapping[str, Tensor], at: Any) -> Row:
    """Some rows of cells."""
    return {name: cells[at] for name, cells in row.items()}


@torch.no_grad()
def embedded(encoder: nn.Module, row: Mapping[str, Tensor], at: Any = slice(None)) -> NDArray[np.float32]:
    """``[B, D]``: the embeddings of rows, or of some."""
    row = chosen(row, at)
    parts = torch.arange(len(row["codes"])).split(1024)
    return torch.cat([encoder.eval()(chosen(row, part)).pooled for part in parts]).numpy()


def fine_tuned(
    encoder: Encoder, row: Row, labels: Classes, steps: int, seed: int
) -> Callable[[Row], NDArray[np.int64]]:
    """A copy of the encoder trained with a linear layer on labelled rows, as a way to predict."""
    torch.manual_seed(seed)
    encoder, y = copy.deepcopy(encoder).train(), torch.tensor(labels)
    head = nn.Linear(encoder.dim, int(y.max()) + 1)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.01)
    for _ in range(steps):
        at = torch.randint(len(y), (min(256, len(y)),))
        loss = functional.cross_entropy(head(encoder(chosen(row, at)).pooled), y[at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return lambda given: head(torch.from_numpy(embedded(encoder, given))).argmax(1).numpy()


if __name__ == "__main__":
    main()
