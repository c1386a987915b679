"""polysense: self-supervised learning across modalities.

>>> import polysense
>>> polysense.recipes()["byol"].family
'distillation'

The names here load what they need when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "pretrain": "polysense.front:pretrain",
    "resume": "polysense.front:resume",
    "evaluate": "polysense.judging:evaluate",
    "embed": "polysense.front:embed",
    "localise": "polysense.tasks.localisation:localise",
    "caption": "polysense.tasks.captions:caption",
    "filter_pairs": "polysense.tasks.captions:filter_pairs",
    "load": "polysense.deployment.run:load",
    "Run": "polysense.deployment.run:Run",
    "builtin": "polysense.modalities.builtin:builtin",
    "recipes": "polysense.methods.table:recipes",
    "write_report": "polysense.report:write_report",
    "SelfSupervisedEncoder": "polysense.estimator:SelfSupervisedEncoder",
    "PolysenseError": "polysense.errors:PolysenseError",
}

__all__ = [
    "PolysenseError",
    "Run",
    "SelfSupervisedEncoder",
    "builtin",
    "caption",
    "embed",
    "evaluate",
    "filter_pairs",
    "load",
    "localise",
    "pretrain",
    "recipes",
    "resume",
    "write_report",
]

if TYPE_CHECKING:
    from polysense.deployment.run import Run, load
    from polysense.errors import PolysenseError
    from polysense.estimator import SelfSupervisedEncoder
    from polysense.front import embed, pretrain, resume
    from polysense.judging import evaluate
    from polysense.methods.table import recipes
    from polysense.modalities.builtin import builtin
    from polysense.report import write_report
    from polysense.tasks.captions import caption, filter_pairs
    from polysense.tasks.localisation import localise


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'polysense' has no attribute {name!r}")
    home, attribute = _HOMES[name].split(":")
    return getattr(importlib.import_module(home), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
