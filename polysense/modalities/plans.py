"""View plans as settings: of each view as a dataclass, and of the whole plan as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from polysense.errors import PolysenseError, unknown
from polysense.modalities.base import ViewPlan

Settings = TypeVar("Settings")
"""A frozen dataclass of one view's settings."""


def view_settings(
    plan: ViewPlan,
    modality: str,
    strengths: Mapping[str, Settings],
    localise: Callable[[Settings], Settings],
) -> tuple[list[Settings], Settings]:
    """The settings of the global views, taken in turn, and of the local ones.

    ``strengths`` holds what "strong" and "weak" stand for; the plan's options for ``modality`` go over it.
    Among them ``"views"`` may be a list of settings for the global views, and ``"local"`` settings for the
    local ones, over what ``localise`` makes of the others.

    Raises:
        PolysenseError: for an unknown strength or setting, or settings that are no names with values.
    """
    if plan.strength not in strengths:
        raise unknown("view strength", plan.strength, strengths)
    options = dict(plan.options.get(modality, {}))
    turns, local = options.pop("views", None) or [{}], options.pop("local", None) or {}
    base = _override(strengths[plan.strength], options)
    return [_override(base, turn) for turn in turns], _override(localise(base), local)


def check_setting(name: str, value: object, most: float, expected: str) -> None:
    """Refuse a view setting that is no number from 0 to ``most``; ``expected`` says in words what it is."""
    if not isinstance(value, int | float) or not 0 <= value <= most:
        raise out_of_range(name, value, expected)


def setting_range(
    name: str, value: object, fits: Callable[[float], bool], expected: str
) -> tuple[float, float]:
    """A view setting of two numbers, the smaller first, whose smaller one ``fits``."""
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(isinstance(end, int | float) for end in value)
        or not (fits(value[0]) and value[0] <= value[1])
    ):
        raise out_of_range(name, value, expected)
    return float(value[0]), float(value[1])


def out_of_range(name: str, value: object, expected: str) -> PolysenseError:
    """The error for a view setting that is not what it should be."""
    return PolysenseError(f"the view setting {name!r} is {value!r}; give {expected}")


def plan_settings(plan: ViewPlan, modality: str) -> dict[str, Any]:
    """A plan as plain values, with the options of one modality.

    >>> plan_settings(ViewPlan(options={"text": {"crop": (0.5, 1.0)}}), "text")
    {'globals': 2, 'locals': 0, 'strength': 'strong', 'options': {'crop': [0.5, 1.0]}}
    """
    return {
        "globals": plan.globals_,
        "locals": plan.locals_,
        "strength": plan.strength,
        "options": _plain_values(plan.options.get(modality, {})),
    }


def plan_from_settings(settings: Mapping[str, Any], modality: str) -> ViewPlan:
    """The plan that gave these :func:`plan_settings`."""
    options = {modality: settings["options"]}
    return ViewPlan(settings["globals"], settings["locals"], settings["strength"], options)


def _override(settings: Settings, options: Mapping[str, Any]) -> Settings:
    if not isinstance(options, Mapping):
        raise PolysenseError(f"view settings are {options!r}; give names with values, as in {{'hue': 0.1}}")
    known = [field.name for field in fields(settings)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise unknown("view setting", name, [*known, "views", "local"])
    return replace(settings, **options)  # type: ignore[type-var]


def _plain_values(value: Any) -> Any:
    """Tuples as lists and mappings as dicts, as YAML gives them back."""
    if isinstance(value, Mapping):
        return {name: _plain_values(each) for name, each in value.items()}
    return [_plain_values(each) for each in value] if isinstance(value, list | tuple) else value
