"""Train picture and text towers from nothing on one vendor's emoji; ask them about another's.

Prints three tables: retrieval and zero-shot classification on pictures by another artist, the same for
concepts that were never seen, and a picture tower that first learned from pictures alone beside one that
did not, after equal time. What is shown is what came out: no seed was chosen.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

import polysense
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.verdict import verdict
from polysense.job import read_dataset
from polysense.tasks.zeroshot import search

UNSEEN = ("animal-mammal", "food-fruit", "sky-weather", "clothing", "hotel", "sport", "tool", "plant-flower")
"""Subgroups that training never sees."""

QUERIES = ("red heart", "smiling face", "car", "red fruit")  # no fruit was seen in training
CLIP = "CLIP from nothing"
AFTER = "CLIP after SimCLR"

console = Console(width=110)


def rows(vendor: str, *, seen: bool) -> str:
    """A vendor's emoji of the concepts that training saw, or of the others."""
    word = "not in" if seen else "in"
    return f"builtin:emoji?vendor == '{vendor}' and subgroup {word} {list(UNSEEN)}"


def train(out: Path, seconds: float, image: object = "small") -> polysense.Run:
    """CLIP on noto's pictures with names and keywords."""
    run = polysense.pretrain(
        rows("noto", seen=True),
        method="clip",
        towers={"image": image, "text": "text_nano"},
        modality_options={"parts": {"image": {"size": 32}, "text": {"length": 24}}},
        views={"image": {"scale": [0.5, 1.0]}},
        out=out,
        overwrite=True,
        max_time=f"{seconds:.0f}s",
        lr=2e-3,
        batch_size=128,
        judge=out.name == "clip",
    )
    assert run is not None
    return run


def judged(
    runs: dict[str, polysense.Run], source: str, columns: dict[str, str] | None = None
) -> pd.DataFrame:
    """Each run's retrieval and zero-shot accuracy on some emoji, and chance."""
    first = next(iter(runs.values()))
    dataset = read_dataset(first.modality, source, {})
    encoders = {name: run.encoder for name, run in runs.items()}
    _, content = verdict(encoders, first.modality, dataset, Protocol.of(dataset))
    table = pd.DataFrame(content["results"]).T
    table.insert(0, "samples", len(dataset))
    return table


def show(title: str, table: pd.DataFrame) -> None:
    """A table on the screen, in per cent."""
    shown = Table("", title=title, title_justify="left")
    for column in table.columns:
        shown.add_column(str(column).replace("_", " "), justify="right")
    for name, row in table.iterrows():
        shown.add_row(str(name), *(f"{value:.1f}" if value % 1 else f"{value:.0f}" for value in row))
    console.print(shown)


def main() -> None:
    """Train, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=100, help="of training for each of the two runs")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-pairs"))
    given = parser.parse_args()
    started = time.monotonic()
    clip = train(given.out / "clip", given.seconds)
    alone = polysense.pretrain(
        rows("noto", seen=True),
        method="simclr",
        out=given.out / "simclr",
        overwrite=True,
        max_time=f"{given.seconds / 2:.0f}s",
        judge=False,
    )
    assert alone is not None
    after = train(given.out / "clip-after-simclr", given.seconds / 2, alone.encoder)
    runs = {CLIP: clip, AFTER: after}
    columns = {"recall_image_to_text_at_1": "picture→text @1", "recall_image_to_text_at_10": "@10"}
    columns |= {"recall_text_to_image_at_1": "text→picture @1", "recall_text_to_image_at_10": "@10 "}
    columns |= {"zeroshot_image": "zero-shot group"}

    def part(source: str, of: dict[str, polysense.Run]) -> pd.DataFrame:
        found = judged(of, source)
        return found[["samples", *columns]].rename(columns=columns)

    show(
        "1  another artist's pictures of the concepts trained on (twemoji)",
        part(rows("twemoji", seen=True), {CLIP: clip}),
    )
    show(
        "2  concepts never seen (both artists' pictures)",
        pd.concat(
            {vendor: part(rows(vendor, seen=False), {CLIP: clip}) for vendor in ("noto", "twemoji")}
        ).pipe(lambda table: table.set_axis([" ".join(place) for place in table.index])),
    )
    show(
        "3  equal time, the picture tower first by SimCLR or not (twemoji)",
        part(rows("twemoji", seen=True), runs),
    )
    for query in QUERIES:
        picture = given.out / "clip" / f"search-{query.replace(' ', '-')}.png"
        search(clip, query, "builtin:emoji?vendor == 'twemoji'", out=picture)
        console.print(f"{query!r} → {picture}")
    console.print(
        f"report: {(given.out / 'clip' / 'report.html').resolve()}   ({time.monotonic() - started:.0f} s)"
    )


if __name__ == "__main__":
    main()
