"""Matryoshka embeddings: whatever compares embeddings is asked of their first dimensions, too."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import OnTokens
from polysense.encoders.teacher import FrozenTeacher
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.methods.engine import Branch, Method
from polysense.objectives.base import Objective


class ReadsPrefix(nn.Module):
    """A head that sees the first ``width`` dimensions of the pooled embedding, and zeros for the others.

    >>> ReadsPrefix(nn.Identity(), 2)(Encoded(torch.ones(1, 4))).pooled
    tensor([[1., 1., 0., 0.]])
    """

    def __init__(self, head: nn.Module, width: int) -> None:
        super().__init__()
        self.head, self.width = head, width

    def forward(self, encoded: Encoded) -> Tensor:
        """What the head makes of it."""
        made: Tensor = self.head(replace(encoded, pooled=_first(encoded.pooled, self.width)))
        return made


class GivesPrefix(nn.Module):
    """The first ``width`` dimensions of what a head makes, and zeros for the others."""

    def __init__(self, head: nn.Module, width: int) -> None:
        super().__init__()
        self.head, self.width = head, width

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, K]``."""
        return _first(self.head(encoded), self.width)


def _first(embedded: Tensor, width: int) -> Tensor:
    return embedded * (torch.arange(embedded.shape[-1], device=embedded.device) < width)


def compare_prefixes(method: Method, encoder: Encoder, widths: Sequence[int]) -> None:
    """Let every branch that compares embeddings of whole samples compare their prefixes, too.

    Each width is a branch of its own, ``match_64`` beside ``match``, which shares heads, predictor and
    learned parameters with it and has the same weight; an objective's state (a queue, a centre) it has for
    itself. What is cut is what the run embeds with: the encoder's pooled embedding before the heads, of
    towers their embedding in the shared space. A prefix is filled up with zeros, so that a linear layer of
    the head reads it with the first columns of the same weights (the paper's MRL-E).

    https://arxiv.org/abs/2205.13147

    Raises:
        PolysenseError: for widths that are no prefix, or a method that compares no embeddings.
    """
    for width in widths:
        if not 1 <= width < encoder.dim:
            raise PolysenseError(
                f"a prefix of {width} dimensions of an embedding of {encoder.dim} is none; choose 1 to"
                f" {encoder.dim - 1}"
            )
    compared = {name: branch for name, branch in method.branches.items() if _compares(branch)}
    if not compared:
        raise PolysenseError(
            "this method compares no embeddings of whole samples, of which prefixes could be trained; leave"
            " out matryoshka, or choose a method such as simclr"
        )
    for width in sorted(set(widths), reverse=True):
        for name, branch in compared.items():
            assert isinstance(branch, Branch)
            shared = isinstance(encoder, Towers) and branch.head is encoder.heads
            method.branches[f"{name}_{width}"] = Branch(
                _of_each(branch.head, width, GivesPrefix if shared else ReadsPrefix),
                _with_own_state(branch.objective),
                branch.reads,
                predictor=branch.predictor,
                weight=branch.weight,
            )
            if method.teacher is not None:
                heads = method.teacher["heads"]
                assert isinstance(heads, nn.ModuleDict)
                whole = isinstance(method.teacher, FrozenTeacher)  # of another width: the target stays whole
                heads[f"{name}_{width}"] = heads[name] if whole else ReadsPrefix(heads[name], width)


def _compares(branch: nn.Module) -> bool:
    return (
        isinstance(branch, Branch)
        and branch.reads.compares_embeddings()
        and not isinstance(branch.head, OnTokens)
    )


def _of_each(head: nn.Module, width: int, cut: type[ReadsPrefix | GivesPrefix]) -> nn.Module:
    if isinstance(head, nn.ModuleDict):
        return nn.ModuleDict({part: cut(one, width) for part, one in head.items()})
    return cut(head, width)


def _with_own_state(objective: Objective) -> Objective:
    """A copy that shares the parameters and not the buffers."""
    return copy.deepcopy(objective, {id(parameter): parameter for parameter in objective.parameters()})
