"""What `make demo-sound` does: two and a half minutes on recordings, a table, and a report to listen to.

    .venv/bin/python examples/demo_sound.py

Two stretches of one recording, less than half a second each, must find each other among all others (SimCLR
on sounds): what they share is who speaks, how it was recorded, and little of the words. The table has the
language, which here is the speaker too, for each language has one; the kind of prompt (digits, letters,
sentences, …); and whether a recording finds the same prompt in another language: beside the untrained
encoder, the mean and spread of each band of the log-mel, and the commonest class.
"""

from __future__ import annotations

import argparse
import time

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import polysense
from polysense.deployment.run import build_encoder
from polysense.evaluation.features import embed_all, extract_raw
from polysense.evaluation.judge import MAJORITY, judge
from polysense.evaluation.protocol import Protocol, identity_codes
from polysense.evaluation.retrieval import match_ranks
from polysense.job import read_dataset

DATA = "builtin:speech"
STRETCH = {"crop": 0.4, "gain": 0.0, "polarity": 0.0, "noise": 0.0, "mixup": 0.0}
STRETCH |= {"frequency_mask": 0.0, "time_mask": 0.0}
"""Short stretches, otherwise as they are: loudness and noise tell who speaks, and need not be overlooked."""

console = Console(width=110)


def found_in_other_languages(features: Tensor, table: pd.DataFrame) -> dict[str, float]:
    """How often the nearest recordings in other languages hold the same prompt, in percent."""
    prompts = torch.from_numpy(identity_codes(table, "prompt"))
    ranks = []
    for language in table["language"].unique():
        asked = torch.tensor(table["language"].eq(language).tolist())
        ranks.append(match_ranks(features[asked], prompts[asked], features[~asked], prompts[~asked]))
    found = torch.cat(ranks)
    found = found[found > 0]
    return {f"prompt @{k}": 100 * float((found <= k).float().mean()) for k in (1, 5)}


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-time", default="150s")
    parser.add_argument("--out", default="runs/demo-sound")
    given = parser.parse_args()
    started = time.monotonic()
    run = polysense.pretrain(
        DATA,
        method="simclr",
        encoder_options={"widths": [16, 32, 48, 64], "dim": 256},
        views=STRETCH,
        batch_size=128,
        lr=2e-3,
        max_time=given.max_time,
        out=given.out,
        overwrite=True,
    )
    if run is None:
        return
    dataset = read_dataset(run.modality, DATA, {})
    features = {
        "pretrained": embed_all(run.encoder, run.modality, dataset),
        "untrained": embed_all(build_encoder(run.config, run.modality), run.modality, dataset),
        run.modality.raw_name: extract_raw(run.modality, dataset),
    }
    shown: dict[str, dict[str, float]] = {name: {} for name in (*features, MAJORITY)}
    for label in ("language", "kind"):
        judged = judge(features, dataset, Protocol(labels=(label,), identity="prompt")).results
        for name, row in judged.items():
            shown[name] |= {f"{label} {probe}": row[probe] for probe in ("knn", "linear")}
    for name, rows in features.items():
        shown[name] |= found_in_other_languages(rows, dataset.table)
    table = Table("features", title="percent", title_justify="left")
    columns = list(shown["pretrained"])
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in shown.items():
        table.add_row(name, *(f"{row[column]:.1f}" if column in row else "–" for column in columns))
    console.print(table)
    console.print(
        f"to look at and listen to: {run.path / 'report.html'}   ({time.monotonic() - started:.0f} s)"
    )


if __name__ == "__main__":
    main()
