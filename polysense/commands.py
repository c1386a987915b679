"""What each command prints. The work is done by the functions of the front door."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from polysense import front
from polysense.report import write_report

console = Console()


def table() -> dict[str, Callable[..., Any]]:
    """Every command by its name."""
    return {
        "pretrain": pretrain,
        "resume": resume,
        "evaluate": evaluate,
        "embed": embed,
        "report": report,
        "methods": methods,
        "encoders": encoders,
        "data": data,
    }


@functools.wraps(front.pretrain)
def pretrain(*args: Any, **kwargs: Any) -> int:
    run = front.pretrain(*args, **kwargs)
    if run is None:
        return 143
    _tell(run.path)
    return 0


@functools.wraps(front.resume)
def resume(*args: Any, **kwargs: Any) -> int:
    run = front.resume(*args, **kwargs)
    if run is None:
        return 143
    _tell(run.path)
    return 0


@functools.wraps(front.evaluate)
def evaluate(*args: Any, **kwargs: Any) -> None:
    content = front.evaluate(*args, **kwargs)
    _print_verdict(content)


@functools.wraps(front.embed)
def embed(*args: Any, **kwargs: Any) -> None:
    console.print(f"wrote {front.embed(*args, **kwargs)}", highlight=False)


def report(run: str) -> None:
    """Write RUN/report.html anew from what the run folder holds.

    Args:
        run: the run folder.

    $ polysense report runs/demo
    """
    console.print(f"wrote {write_report(Path(run))}", highlight=False)


def methods(name: str | None = None) -> None:
    """List the methods, or show one with its published defaults and what becomes of them here.

    Args:
        name: a method's name.

    $ polysense methods    $ polysense methods simclr
    """
    from polysense.methods.recipes import find, recipes

    if name is not None:
        _print_recipe(find(name))
        return
    shown = Table("method", "family", "encoders", "what it does", "paper")
    for recipe in recipes().values():
        shown.add_row(recipe.name, recipe.family, recipe.encoders, recipe.summary, recipe.paper)
    console.print(shown)


def encoders() -> None:
    """List the encoders that can be built by name.

    $ polysense encoders
    """
    from polysense.encoders.vision import list_encoders

    shown = Table("encoder", "what it is")
    for name, line in list_encoders():
        shown.add_row(name, line)
    console.print(shown)


def data() -> None:
    """List the data sets that come with the package.

    $ polysense data
    """
    from polysense.modalities.builtin import BUILTINS

    shown = Table("data", "modality", "samples", "what it is", "licence")
    for name, builtin in BUILTINS.items():
        shown.add_row(
            f"builtin:{name}", builtin.modality, f"{builtin.rows:,}", builtin.description, builtin.licence
        )
    console.print(shown)


def _print_recipe(recipe: Any) -> None:
    from polysense.methods.scaling import (
        OPTIMISER_RULE,
        RULES,
        Circumstances,
        scaled_optimisation,
        scaled_options,
    )

    here = Circumstances()
    console.print(
        f"[bold]{recipe.name}[/bold]  {recipe.title}\n{recipe.paper}\n{recipe.summary}", highlight=False
    )
    console.print(f"family: {recipe.family}; encoders: {recipe.encoders}", highlight=False)
    scaled = scaled_options(recipe.published, here)
    where = f"batch {here.batch}, {here.samples:,} samples, width {here.dim}"
    shown = Table("option", "published", f"at {where}", "rule")
    for option, value in recipe.published.items():
        rule = RULES[option].words if option in RULES else "as published"
        shown.add_row(option, str(value), str(scaled.get(option, value)), rule)
    published, now = recipe.optimisation, scaled_optimisation(recipe.optimisation, here)
    shown.add_row(
        "optimiser", published.name, now.name, OPTIMISER_RULE if now != published else "as published"
    )
    shown.add_row(
        "lr", f"{published.lr} x batch/{published.per}", f"{now.rate(here.batch):.4g}", "linear in the batch"
    )
    shown.add_row("weight decay", str(published.weight_decay), str(now.weight_decay), "")
    shown.add_row("warm-up", f"{published.warmup:.0%}", f"{now.warmup:.0%}", "of training")
    console.print(shown)


def _tell(folder: Path) -> None:
    """The verdict and where the report lies."""
    import json

    verdict = folder / "evaluation.json"
    if verdict.exists():
        _print_verdict(json.loads(verdict.read_text(encoding="utf-8")))
        console.print(f"report: {(folder / 'report.html').resolve()}", highlight=False, soft_wrap=True)
    console.print(f"run: {folder}", highlight=False)


def _print_verdict(content: dict[str, Any]) -> None:
    from polysense.evaluation.judge import Judgement
    from polysense.evaluation.judge import table as judgement_table

    console.print(judgement_table(Judgement(content["results"], content["intervals"], content["notes"])))
    for note in content["notes"]:
        console.print(f"note: {note}", highlight=False)
