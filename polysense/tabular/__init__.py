"""Tables: their schema, more rows, filled gaps, rows by condition, and rows as a modality.

>>> from polysense import tabular
>>> import pandas as pd
>>> tabular.augment(pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), "swap", times=2).shape
(4, 2)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Augmenter": "polysense.tabular.augmentation",
    "Generator": "polysense.tabular.generate",
    "Imputer": "polysense.tasks.imputation",
    "Schema": "polysense.tabular.schema",
    "augment": "polysense.tabular.augmentation",
    "augment_file": "polysense.tabular.augmentation",
    "helps": "polysense.tabular.augmentation",
    "impute": "polysense.tasks.imputation",
    "impute_file": "polysense.tasks.imputation",
}
"""Where the names are defined; what may train a network stands above the rooms, and is known by name here."""

__all__ = [
    "Augmenter",
    "Generator",
    "Imputer",
    "Schema",
    "augment",
    "augment_file",
    "helps",
    "impute",
    "impute_file",
]

if TYPE_CHECKING:
    from polysense.tabular.augmentation import augment, augment_file
    from polysense.tabular.augmentation.augmenter import Augmenter, helps
    from polysense.tabular.generate import Generator
    from polysense.tabular.schema import Schema


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
