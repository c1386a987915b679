"""CNN, ViT and CapsNet of about equal parameters, under five methods: who learns most from the same data?

Twice: once every encoder takes the same number of steps, once it has the same time. Each cell is trained
with ``--seeds`` seeds, judged on the emoji across vendors, and asked where things are on ``builtin:scenes``
(CorLoc, with encoders whose tokens lie on a grid). Finished runs are kept in ``--runs`` and not trained
again. Prints a table, draws ``benchmarks/results/showdown.png`` and writes ``showdown.json``.

    .venv-bench/bin/python -m benchmarks.showdown --steps 200 --minutes 1
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot

import polysense
from benchmarks.common import RESULTS, environment, left_by, report
from polysense.deployment.run import Run
from polysense.errors import PolysenseError
from polysense.evaluation.localise import by_token_cut, localisation
from polysense.modalities.vision.modality import Vision
from polysense.modalities.vision.sources import read_pictures
from polysense.modalities.vision.store import Pictures

METHODS = ("simclr", "moco_v2", "byol", "vicreg", "barlow_twins")
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "CNN": ("small", {}),
    "ViT": ("vit_nano", {"width": 80, "depth": 2, "heads": 4}),
    "CapsNet": ("capsnet", {"types": 2, "widths": [16, 32, 64]}),
}
METRICS = {"knn_group": "kNN", "linear_group": "linear", "recall_at_1": "recall@1"}


def train(encoder: str, method: str, seed: int, budget: dict[str, Any], runs: Path) -> Run:
    """One cell of the table for one seed, from disk where it was trained before."""
    name, options = ENCODERS[encoder]
    amount = next(iter(budget.values()))
    folder = runs / f"{encoder}-{method}-{seed}-{next(iter(budget))}-{amount}"
    if (folder / "evaluation.json").exists():
        return polysense.load(folder)
    run = polysense.pretrain(
        "builtin:emoji",
        method=method,
        encoder=name,
        encoder_options=options,
        out=folder,
        overwrite=True,
        seed=seed,
        accelerator="cpu",
        **budget,
    )
    if run is None:
        raise SystemExit(143)
    return run


def measure(run: Run, scenes: Pictures) -> dict[str, float | None]:
    """What one trained encoder can do, and how fast it was trained."""
    evaluation, logged = left_by(run.path)
    results = evaluation["results"]
    speeds = [line["samples_per_second"] for line in logged if "samples_per_second" in line]
    assert isinstance(run.modality, Vision)
    try:
        corloc: float | None = localisation(
            partial(by_token_cut, run.encoder), run.modality, scenes, size=scenes_side(scenes)
        )["corloc"]
    except PolysenseError:  # capsules lie on no grid
        corloc = None
    return {
        **{shown: results["pretrained"][metric] for metric, shown in METRICS.items()},
        "CorLoc": corloc,
        "images/s": statistics.median(speeds),
        "untrained kNN": results["untrained"]["knn_group"],
        "pixels kNN": results["pixels"]["knn_group"],
    }


def scenes_side(scenes: Pictures) -> int:
    """The side of the scenes in pixels."""
    return len(scenes.table["mask"].iloc[0])


def row(label: str, encoder: str, method: str, cells: list[dict[str, float | None]]) -> dict[str, Any]:
    """Means over seeds, with the standard deviation of the kNN beside it."""
    means = {name: _mean([cell[name] for cell in cells]) for name in cells[0]}
    spread = statistics.stdev(cell["kNN"] or 0.0 for cell in cells) if len(cells) > 1 else None
    return {"equal": label, "encoder": encoder, "method": method, **means, "kNN sd": spread}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def draw(rows: list[dict[str, Any]]) -> None:
    """The kNN of every cell, a panel for each kind of budget."""
    labels = list(dict.fromkeys(each["equal"] for each in rows))
    figure, panels = pyplot.subplots(
        1, len(labels), figsize=(6 * len(labels), 4), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, label in zip(panels[0], labels, strict=True):
        for place, encoder in enumerate(ENCODERS):
            cells = [each for each in rows if each["equal"] == label and each["encoder"] == encoder]
            at = [number + 0.27 * (place - 1) for number in range(len(cells))]
            panel.bar(
                at, [c["kNN"] for c in cells], 0.25, yerr=[c["kNN sd"] or 0 for c in cells], label=encoder
            )
            panel.set_xticks(range(len(cells)), [c["method"] for c in cells])
        panel.axhline(rows[0]["pixels kNN"], color="grey", linestyle=":", label="pixels")
        panel.set_title(f"equal {label}")
        panel.set_ylabel("group kNN, %")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(RESULTS / "showdown.png", dpi=120)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="the budget of equal steps")
    parser.add_argument("--minutes", type=float, default=3.0, help="the budget of equal time")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--scenes", type=int, default=300, help="scenes to localise on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/showdown"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    record = environment(0, peers=["matplotlib"])
    scenes = read_pictures(f"builtin:scenes?count={given.scenes}", size=96)
    budgets = {"steps": {"steps": given.steps}, "time": {"max_time": f"{60 * given.minutes}s"}}
    rows: list[dict[str, Any]] = []
    for label, budget in budgets.items():
        for encoder in ENCODERS:
            for method in given.methods:
                runs = [train(encoder, method, seed, budget, given.runs) for seed in range(given.seeds)]
                parameters = sum(weight.numel() for weight in runs[0].encoder.parameters())
                cells = [measure(run, scenes) for run in runs]
                rows.append({**row(label, encoder, method, cells), "parameters": parameters})
                report("showdown", rows, {**record, **{k: str(v) for k, v in vars(given).items()}})
    draw(rows)


if __name__ == "__main__":
    main()
