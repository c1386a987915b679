"""The table of recipes, every family in it."""

from __future__ import annotations

from polysense.errors import unknown
from polysense.methods import (  # noqa: F401 - they fill the table
    captioning,
    clips,
    clustering,
    contrastive,
    cpc,
    denoising,
    dense,
    distillation,
    jepa,
    joint,
    masked,
    pixels,
    redundancy,
    sound,
    states,
    tables,
    text_pairs,
    texts,
    token_distillation,
)
from polysense.methods.recipes import TABLE, Recipe


def recipes() -> dict[str, Recipe]:
    """Every recipe by its name."""
    return dict(TABLE)


def find(name: str) -> Recipe:
    """The recipe of this name.

    >>> find("simclr").paper
    'https://arxiv.org/abs/2002.05709'

    Raises:
        PolysenseError: for an unknown name, with the nearest ones.
    """
    if name not in TABLE:
        raise unknown("method", name, TABLE)
    return TABLE[name]
