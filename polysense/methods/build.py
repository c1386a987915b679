"""Helpers that build the usual methods: views that are matched, and hidden parts that are predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.encoders.teacher import Teacher
from polysense.methods.engine import Branch, Masker, Method
from polysense.methods.reads import EachOther, HiddenInput, TeacherViews
from polysense.objectives.base import Objective


def joint_embedding(
    encoder: Encoder,
    modality: str,
    *,
    projector: nn.Module,
    objective: Objective,
    predictor: nn.Module | None = None,
    teacher: Teacher | None = None,
) -> Method:
    """A method that matches embeddings: of a sample's views, or of the student and its teacher."""
    reads = EachOther() if teacher is None else TeacherViews()
    match = Branch(projector, objective, reads, predictor=predictor)
    return Method({modality: encoder}, {"match": match}, teacher=teacher)


def masked_prediction(
    encoder: Encoder,
    modality: str,
    *,
    masker: Masker,
    decoder: nn.Module,
    objective: Objective,
    tokenise: Callable[[Any], Tensor],
    beside: Mapping[str, Branch] | None = None,
) -> Method:
    """A method that hides tokens of the input and predicts them; the decoder is the head.

    ``beside`` holds further branches (a tokenizer that learns).
    """
    predict = Branch(decoder, objective, HiddenInput(tokenise))
    return Method({modality: encoder}, {"predict": predict, **(beside or {})}, masker=masker)
