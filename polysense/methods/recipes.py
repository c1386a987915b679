"""What a recipe is: a function of a few lines that wires an encoder into branches, and where it is from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from polysense.errors import PolysenseError, unknown
from polysense.methods.engine import Method
from polysense.methods.optimisation import Optimisation
from polysense.modalities.base import ViewPlan

Build = Callable[..., Method]


@dataclass(frozen=True)
class Recipe:
    """A named method: how it is built, which views it wants, and where it was published.

    ``collapse`` says what most likely went wrong when the embeddings collapse. ``embeds_with`` names
    the tower that is worth keeping: the "student" or the "teacher". ``encoders`` says in words what fits,
    ``labels`` whether the method learns from the data's classes. ``modalities``: those it is for, the usual
    one first; empty for all. ``default_encoders``: what it trains where none is named, by modality, where
    that modality's own default does not fit. ``parts``: those it joins where none are named and they are
    not the pair's own.
    """

    name: str
    build: Build
    family: str
    title: str
    paper: str
    views: ViewPlan
    optimisation: Optimisation
    collapse: str
    embeds_with: str = "student"
    encoders: str = "any"
    labels: bool = False
    modalities: tuple[str, ...] = ()
    default_encoders: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first line of the recipe's docstring."""
        return (inspect.getdoc(self.build) or "").splitlines()[0]

    @property
    def published(self) -> dict[str, Any]:
        """The options and their published defaults."""
        parameters = list(inspect.signature(self.build).parameters.values())[2:]
        return {parameter.name: parameter.default for parameter in parameters}

    def options(self, given: Mapping[str, Any], scaled: Mapping[str, Any]) -> dict[str, Any]:
        """Every option's value: what the user gave, else the scaled default.

        Raises:
            PolysenseError: for an option that this recipe does not have.
        """
        for name in given:
            if name not in self.published:
                raise unknown(f"option of {self.name}", name, self.published)
            _check_kind(f"the option {name} of {self.name}", self.published[name], given[name])
        return {**self.published, **scaled, **given}


def _check_kind(what: str, published: Any, given: Any) -> None:
    """Refuse a word where a number is wanted, and what a configuration file could not hold."""
    if not isinstance(given, str | int | float | list | tuple | dict | None):
        raise PolysenseError(
            f"{what} is a {type(given).__name__}, which a run's configuration cannot hold; give a plain"
            " value, or build the method yourself with find(name).build(encoder, modality, ...)"
        )
    number = isinstance(published, int | float) and not isinstance(published, bool)
    fits = isinstance(given, int | float) and not isinstance(given, bool)
    if (number and not fits) or (isinstance(published, bool) and not isinstance(given, bool)):
        kind = "a number" if number else "true or false"
        raise PolysenseError(f"{what} is {given!r}; give {kind}, such as the published {published}")


TABLE: dict[str, Recipe] = {}
"""Every recipe that was entered, by its name; read it through :mod:`polysense.methods.table`."""


def recipe(
    name: str,
    *,
    family: str,
    title: str,
    paper: str,
    optimisation: Optimisation,
    collapse: str,
    views: ViewPlan | None = None,
    embeds_with: str = "student",
    encoders: str = "any",
    labels: bool = False,
    modalities: tuple[str, ...] = (),
    default_encoders: Mapping[str, str] | None = None,
    parts: tuple[str, ...] = (),
) -> Callable[[Build], Build]:
    """Enter the decorated function ``(encoder, modality_name, *, options) -> Method`` in the table."""

    def enter(build: Build) -> Build:
        TABLE[name] = Recipe(
            name,
            build,
            family,
            title,
            paper,
            views if views is not None else ViewPlan(),
            optimisation,
            collapse,
            embeds_with,
            encoders,
            labels,
            modalities,
            default_encoders or {},
            parts,
        )
        return build

    return enter
