"""Every method of the table on the emoji, each with the same budget: what its encoder is worth afterwards.

Each method trains its default encoder for ``--minutes``, or for ``--steps``, which a busy machine does not
change, on one thread, ``--jobs`` of them at a time, through the same command a user would type. A run that
is there is not trained again, one that was cut off goes on, so the whole can be stopped and started at
will. The table goes to ``docs/results.md`` and, with the machine it was made on, to
``benchmarks/results/emoji.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.common import environment, left_by, report
from polysense.methods.recipes import Recipe
from polysense.methods.table import find, recipes

SEED = 0
PAGE = Path(__file__).parent.parent / "docs" / "results.md"
COLUMNS = {
    "knn_group": "kNN",
    "linear_group": "linear",
    "recall_at_1": "recall@1",
    "knn_subgroup": "subgroup",
    "rankme": "RankMe",
}
BASELINES = {"untrained": "the encoder untrained", "pixels": "the pixels as they are"}


def main() -> None:
    """Train what is missing, then print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=5.0, help="training time of each method")
    budget.add_argument("--steps", type=int, help="steps of each method, instead of minutes")
    parser.add_argument("--jobs", type=int, default=2, help="methods trained at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/emoji"), help="where the runs are kept")
    parser.add_argument("--table", action="store_true", help="train nothing, write what is there")
    parser.add_argument("--methods", nargs="*", default=list(recipes()), help="by default all")
    asked = parser.parse_args()
    chosen = [find(name) for name in asked.methods]
    limit = ["--steps", str(asked.steps)] if asked.steps else ["--max-time", f"{60 * asked.minutes}s"]
    first = [recipe for recipe in chosen if not _follows(recipe)]
    with ThreadPoolExecutor(asked.jobs) as pool:
        later = [recipe for recipe in chosen if recipe not in first]
        for group in () if asked.table else (first, later):
            list(pool.map(lambda recipe: train(recipe, asked.runs, limit), group))
    rows = [row(recipe, asked.runs / recipe.name) for recipe in chosen if done(asked.runs / recipe.name)]
    rows.sort(key=lambda each: -each["kNN"])
    rows += baselines(asked.runs, chosen)
    record = {**environment(SEED, peers=["lightning", "timm"]), "threads": 1, "jobs": asked.jobs}
    report("emoji", rows, record)
    said = f"{asked.steps} steps" if asked.steps else f"{asked.minutes:g} minutes of training"
    missing = [recipe.name for recipe in chosen if not done(asked.runs / recipe.name)]
    PAGE.write_text(page(rows, record, said, missing))


def _follows(recipe: Recipe) -> bool:
    """Whether the recipe learns from an encoder that another run has to make first."""
    return "teacher" in recipe.published


def done(folder: Path) -> bool:
    """Whether the run was trained and judged."""
    return (folder / "evaluation.json").exists()


def train(recipe: Recipe, runs: Path, limit: list[str]) -> None:
    """One method through the command line: begun, resumed, or left as it is."""
    folder = runs / recipe.name
    if done(folder):
        return
    if (folder / "checkpoint.ckpt").exists():
        command = ["resume", str(folder)]
    else:
        command = ["pretrain", "builtin:emoji", "--method", recipe.name, *limit]
        command += ["--out", str(folder), "--overwrite", "true", "--accelerator", "cpu", "--seed", str(SEED)]
        if _follows(recipe):
            command += ["--options", json.dumps({"teacher": str(runs / "simclr")})]
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / f"{recipe.name}.log").open("w") as log:
        code = subprocess.run(
            [sys.executable, "-m", "polysense.cli", *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    print(f"{recipe.name}: {'done' if code == 0 else f'failed, see {log.name}'}", flush=True)


def row(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What one run came to."""
    evaluation, logged = left_by(folder)
    last = [line for line in logged if "seconds" in line][-1]
    found, untrained = evaluation["results"]["pretrained"], evaluation["results"]["untrained"]
    low, high = evaluation["intervals"]["pretrained"]["knn_group"]
    return {
        "method": recipe.name,
        "family": recipe.family,
        "encoder": recipe.default_encoders.get("image", "small"),
        **{shown: found[metric] for metric, shown in COLUMNS.items()},
        "±": (high - low) / 2,
        "untrained kNN": untrained["knn_group"],
        "untrained recall@1": untrained["recall_at_1"],
        "steps": last["step"],
        "minutes": round(last["seconds"] / 60, 1),
    }


def baselines(runs: Path, chosen: list[Recipe]) -> list[dict[str, Any]]:
    """The pixels, and each encoder as it is before training."""
    rows: dict[str, dict[str, Any]] = {}
    for recipe in chosen:
        if not done(runs / recipe.name):
            continue
        results = left_by(runs / recipe.name)[0]["results"]
        for baseline, name in BASELINES.items():
            encoder = recipe.default_encoders.get("image", "small") if baseline == "untrained" else "–"
            values = {shown: results[baseline][metric] for metric, shown in COLUMNS.items()}
            rows.setdefault(baseline + encoder, {"method": name, "encoder": encoder, **values})
    return list(rows.values())


def page(rows: list[dict[str, Any]], record: dict[str, Any], budget: str, missing: list[str]) -> str:
    """The table as Markdown."""
    columns = ["method", "encoder", *COLUMNS.values(), "untrained kNN", "untrained recall@1"]
    columns += ["steps", "minutes"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        "# Every method on the emoji",
        "",
        "Written by `python -m benchmarks.emoji`; do not edit.",
        "",
        f"{budget} each on one thread, {record['jobs']} at a time, batch of 256,"
        f" 32 pixels, seed {SEED}, every method with its default options as scaled to these data. Groups"
        " (10) and subgroups (99) by kNN and a linear probe across vendors, recall@1 of one concept drawn"
        f" by the other vendor, in %; kNN is ± about {rows[0]['±']:.1f} (95 %, bootstrap)."
        f" {record['processor']}; {versions}; {record['date']}.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    for each in rows:
        lines.append("| " + " | ".join(_cell(each.get(column)) for column in columns) + " |")
    if missing:
        lines += ["", f"Not trained with this budget yet: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
