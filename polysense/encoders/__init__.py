"""Backbones by name, heads, and the teacher; everything a method is put together from."""

from __future__ import annotations

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import MaskedDecoder, Projector, PrototypeHead, mlp
from polysense.encoders.schedule import Scheduled, cosine, linear
from polysense.encoders.teacher import Teacher
from polysense.encoders.vision import build, list_encoders
from polysense.encoders.vit import patchify, unpatchify

__all__ = [
    "Encoded",
    "Encoder",
    "MaskedDecoder",
    "Projector",
    "PrototypeHead",
    "Scheduled",
    "Teacher",
    "build",
    "cosine",
    "linear",
    "list_encoders",
    "mlp",
    "patchify",
    "unpatchify",
]
