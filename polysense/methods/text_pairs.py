"""Recipes for texts that belong together: the right answer before everybody's and before wrong ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.encoders.heads import Pooled
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.ranking import AnswerRanking

AS_THEY_ARE = ViewPlan(globals_=1, strength="weak")


@dataclass(frozen=True)
class PartsOfSamples(Reads):
    """Every part of a sample beside the others, the one that asks first.

    Gives the objective ``[V, B, K]``, which of them are there ``[V, B]`` and, where it is known, the samples'
    ``identity`` ``[B]``.
    """

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project all parts."""
        z = branch.project(seen.student, seen.views)
        everywhere = torch.ones(z.shape[1], dtype=torch.bool, device=z.device)
        present = torch.stack([everywhere if view.present is None else view.present for view in seen.views])
        identity = seen.known.get("identity")
        return (z, present) if identity is None else (z, present, identity)


def _ranking(encoder: Encoder, modality: str, objective: AnswerRanking) -> Method:
    return Method({modality: encoder}, {"rank": Branch(Pooled(), objective, PartsOfSamples())})


@recipe(
    "mnrl",
    family="contrastive",
    title="Efficient Natural Language Response Suggestion for Smart Reply",
    paper="https://arxiv.org/abs/1705.00652",
    views=AS_THEY_ARE,
    optimisation=Optimisation("adamw", lr=2e-5, per=64, weight_decay=0.01, warmup=0.1, clip=1.0),
    collapse="the answers are too alike or the batch too small: use larger batches, with chunk",
    modalities=("text_pair",),
)
def mnrl(
    encoder: Encoder, modality: str = "text_pair", *, scale: float = 20.0, both_ways: bool = False
) -> Method:
    """Find a text's partner among those of the batch (multiple negatives ranking), and hard negatives."""
    return _ranking(encoder, modality, AnswerRanking(scale, both_ways=both_ways))


@recipe(
    "simcse_supervised",
    family="contrastive",
    title="SimCSE: Simple Contrastive Learning of Sentence Embeddings",
    paper="https://arxiv.org/abs/2104.08821",
    views=AS_THEY_ARE,
    optimisation=Optimisation("adamw", lr=5e-5, per=512, weight_decay=0.0, warmup=0.0),
    collapse="training went on for too long, or contradictions are none: take fewer steps",
    modalities=("text_pair",),
)
def simcse_supervised(encoder: Encoder, modality: str = "text_pair", *, temperature: float = 0.05) -> Method:
    """Find what follows from a premise among all else and what contradicts it (supervised SimCSE).

    The authors put a layer on the first token's embedding and keep it; here the encoder's pooled embedding
    itself is compared, which is what the run keeps.
    """
    return _ranking(encoder, modality, AnswerRanking(1 / temperature))
