"""The data sets that come with the package: real, small, ready without a download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pandas as pd

from polysense.conditions import Condition
from polysense.errors import PolysenseError, unknown
from polysense.modalities.shipped import shipped

PREFIX = "builtin:"


@dataclass(frozen=True)
class Builtin:
    """What is known of a data set without opening it.

    ``label``: the column that holds the class; ``identity``: the column whose equal values mark samples
    of the same thing; ``evaluation``: how results on it are measured, None where there is no agreed way;
    ``drawn``: whether it is made when it is read, instead of lying in a file.
    """

    description: str
    modality: str
    licence: str
    rows: int
    label: str | None = None
    identity: str | None = None
    evaluation: Mapping[str, Any] | None = None
    drawn: bool = False


BUILTINS: Mapping[str, Builtin] = MappingProxyType(
    {
        "emoji": Builtin(
            description="pictures of 1,911 concepts by two vendors, 64 x 64, with names in eight languages",
            modality="image",
            licence="Apache-2.0 (Noto), CC-BY 4.0 (Twemoji), Unicode licence (names)",
            rows=3_822,
            label="group",
            identity="code",
            evaluation={
                "labels": ["group", "subgroup"],
                "bank": {"vendor": "twemoji"},
                "queries": {"vendor": "noto"},
                "identity": "code",
                "k": 10,
                "temperature": 0.1,
            },
        ),
        "scenes": Builtin(
            description="one to five emoji on textures and photographs, 96 x 96, with exact boxes and masks",
            modality="image",
            licence="as builtin:emoji; photographs CC-BY 2.0 (by way of scikit-learn)",
            rows=2_000,
            label="group",
            drawn=True,
        ),
        "speech": Builtin(
            description="recordings of about 600 prompts in five languages, one speaker each, 8 kHz",
            modality="audio",
            licence="CC-BY-SA 3.0 (en, es, fr), CC-BY 3.0 (it, ru)",
            rows=2_569,
            label="language",
            identity="prompt",
            # a language is one speaker here, so it is the easier one; "kind" is the prompt's folder
            evaluation={"labels": ["kind", "language"], "identity": "prompt", "k": 10, "temperature": 0.1},
        ),
        "glosses": Builtin(
            description="dictionary definitions with the words they define and examples",
            modality="text",
            licence="WordNet 3.0",
            rows=117_659,
            label="category",
        ),
        "weather": Builtin(
            description="hourly sensor readings of three airports, with real gaps",
            modality="table",
            licence="CC0",
            rows=26_115,
            label="origin",
        ),
        "diamonds": Builtin(
            description="stones described by numbers and categories",
            modality="table",
            licence="MIT",
            rows=53_940,
            label="cut",
        ),
    }
)
"""Every data set by its name; ``identity`` names the column by which a query's own kin leave the bank."""


def describe(name: str) -> Builtin:
    """What is known of a data set, by its name with or without ``builtin:`` before it and options behind.

    Of some of its rows there is no agreed way of evaluation.

    Raises:
        PolysenseError: if there is none of that name.

    >>> describe("builtin:emoji").label
    'group'
    """
    name, _, options = name.removeprefix(PREFIX).partition("?")
    if name not in BUILTINS:
        raise unknown("built-in data set", name, BUILTINS)
    return replace(BUILTINS[name], evaluation=None) if options else BUILTINS[name]


def builtins_for(modality: str) -> str:
    """The names of the data sets of a modality, with commas between.

    >>> builtins_for("table")
    'builtin:weather, builtin:diamonds'
    """
    return ", ".join(PREFIX + name for name, about in BUILTINS.items() if about.modality == modality)


def describe_for(modality: str, name: str, samples: str) -> Builtin:
    """As :func:`describe`, for readers of one modality; ``samples`` is what these are called.

    Raises:
        PolysenseError: for data of another modality.
    """
    about = describe(name)
    if about.modality != modality:
        raise PolysenseError(
            f"{name} holds no {samples} but data for {about.modality!r}; {samples}: {builtins_for(modality)}"
        )
    return about


def builtin(name: str) -> pd.DataFrame:
    """Read a data set that comes with the package; names are as for :func:`describe`.

    Pictures and sounds are ``{"bytes", "path"}`` dicts, as the Hugging Face libraries have them; those
    of ``builtin:scenes`` are arrays, see :func:`polysense.modalities.vision.scenes.scenes`, whose options
    follow the name as in ``builtin:scenes?count=500&size=64&seed=1``. Behind the others may stand a condition
    on their rows, see :class:`polysense.conditions.Condition`.

    Raises:
        PolysenseError: if there is none of that name, or it has no such option or no such row.

    >>> builtin("builtin:weather").shape, builtin("builtin:weather?origin == 'JFK' and temp > 80").shape
    ((26115, 14), (536, 14))
    """
    plain, _, options = name.removeprefix(PREFIX).partition("?")
    if describe(plain).drawn:
        from polysense.modalities.vision.scenes import scenes_with

        return scenes_with(options)
    frame = shipped(plain)
    if not options:
        return frame
    rows = Condition(options, list(frame.columns)).mask(frame)
    if not rows.any():
        raise PolysenseError(f"no row of {PREFIX}{plain} satisfies {options!r}; ask for less")
    return frame[rows].reset_index(drop=True)
