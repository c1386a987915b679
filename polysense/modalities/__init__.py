"""Modalities: how each kind of data is read, collated and turned into views."""

from __future__ import annotations

from typing import Any

from polysense.errors import unknown
from polysense.modalities.base import Modality

MODALITIES = ("image",)


def modality_class(name: str) -> Any:
    """The modality of this name; its library loads now.

    >>> modality_class("image").name
    'image'

    Raises:
        PolysenseError: for an unknown name.
    """
    if name == "image":
        from polysense.modalities.vision.modality import Vision

        return Vision
    raise unknown("modality", name, MODALITIES)


def rebuild(name: str, settings: dict[str, Any]) -> Modality:
    """A modality from the settings that a run folder keeps."""
    modality: Modality = modality_class(name).from_settings(settings)
    return modality
