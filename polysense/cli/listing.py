"""The commands that list what there is, a line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from polysense.methods.recipes import Recipe
from polysense.methods.scaling import (
    OPTIMISER_RULE,
    RULES,
    Circumstances,
    scaled_optimisation,
    scaled_options,
)
from polysense.methods.table import find, recipes

console = Console()


def methods(name: str | None = None) -> None:
    """List the methods, or show one with its published defaults and what becomes of them here.

    Args:
        name: a method's name.

    $ polysense methods
    $ polysense methods simclr
    """
    if name is not None:
        _print_recipe(find(name))
        return
    _print_lines(
        (recipe.name, recipe.family, f"for {recipe.encoders} encoder", recipe.summary, recipe.paper)
        for recipe in recipes().values()
    )


def encoders() -> None:
    """List the encoders that can be built by name.

    $ polysense encoders
    """
    from polysense.encoders import audio, clip_models, tabular, text, vision

    listed = {
        "pictures": vision.list_encoders(),
        "texts": text.list_text_encoders(),
        "sound": audio.list_encoders(),
        "tables": tabular.list_encoders(),
        "states": [
            ("state_conv", "four convolutions for stacks of frames; all encoders of pictures fit too")
        ],
        "pairs": clip_models.list_clips(),
    }
    _print_lines((*line, f"for {kind}") for kind, lines in listed.items() for line in lines)


def data() -> None:
    """List the data sets that come with the package.

    $ polysense data
    """
    from polysense.modalities.builtin import BUILTINS

    _print_lines(
        (f"builtin:{name}", about.modality, f"{about.rows:,} samples", about.description, about.licence)
        for name, about in BUILTINS.items()
    )


def _print_recipe(recipe: Recipe) -> None:
    here = Circumstances()
    _print_lines([(f"{recipe.name}:", recipe.title)])
    _print_lines([(recipe.paper,), (recipe.summary,), (f"{recipe.family}; for {recipe.encoders} encoder",)])
    shown = Table("option", "published", "here", "rule")
    scaled = scaled_options(recipe.published, here)
    for option, value in recipe.published.items():
        rule = RULES[option].words if option in RULES else "as published"
        shown.add_row(option, str(value), str(scaled.get(option, value)), rule)
    published, now = recipe.optimisation, scaled_optimisation(recipe.optimisation, here)
    rule = OPTIMISER_RULE if now != published else "as published"
    shown.add_row("optimiser", published.name, now.name, rule)
    shown.add_row("lr", f"{published.lr} x batch/{published.per}", f"{now.rate(here.batch):.4g}", "")
    shown.add_row("weight decay", str(published.weight_decay), str(now.weight_decay), "")
    shown.add_row("warm-up", f"{published.warmup:.0%}", f"{now.warmup:.0%}", "share of training")
    console.print(shown)
    console.print(
        f"here: batch {here.batch}, {here.samples:,} samples, a time budget",
        highlight=False,
    )


def _print_lines(rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns without a frame; a line is never folded, so that it can be piped."""
    listed = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in listed) for column in range(len(listed[0]))]
    for row in listed:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        console.print(line, highlight=False, markup=False, soft_wrap=True)
