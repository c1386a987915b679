"""Modalities: how each kind of data is read, collated and turned into views."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from polysense.errors import unknown
from polysense.modalities.base import Modality

MODALITIES: Mapping[str, str] = MappingProxyType(
    {
        "image": "polysense.modalities.vision.modality:Vision",
        "text": "polysense.modalities.text.modality:Text",
        "audio": "polysense.modalities.audio.modality:Audio",
        "pair": "polysense.modalities.pairs.modality:Paired",
        "text_pair": "polysense.modalities.pairs.texts:TextPairs",
        "table": "polysense.tabular.modality:Table",
        "state": "polysense.rl.modality:States",
    }
)
"""Where each modality is defined. Two have rooms of their own above this one, so all are known by name."""


def modality_class(name: str) -> Any:
    """The modality of this name; its library loads now.

    >>> modality_class("image").name
    'image'

    Raises:
        PolysenseError: for an unknown name.
    """
    if name not in MODALITIES:
        raise unknown("modality", name, MODALITIES)
    module, _, attribute = MODALITIES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def make(name: str, options: Mapping[str, Any]) -> Modality:
    """A modality that is not fitted to any data yet, with the options that its constructor takes.

    >>> make("image", {"size": 64}).settings()["size"]
    64

    Raises:
        PolysenseError: for an unknown name or option.
    """
    maker = modality_class(name)
    known = inspect.signature(maker).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for option in options:
            if option not in known:
                raise unknown(f"option of the modality {name!r}", option, known)
    modality: Modality = maker(**options)
    return modality


def rebuild(name: str, settings: Mapping[str, Any], attachments: Mapping[str, str]) -> Modality:
    """A modality from the settings and attachments that a run folder keeps."""
    modality: Modality = modality_class(name).from_settings(settings, attachments)
    return modality
