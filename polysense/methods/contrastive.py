"""Recipes that tell a sample's views from everybody else's."""

from __future__ import annotations

from polysense.encoders.base import Encoder
from polysense.encoders.heads import Projector
from polysense.methods.build import joint_embedding
from polysense.methods.engine import Method
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.objectives.contrastive import NTXent


@recipe(
    "simclr",
    family="contrastive",
    title="A Simple Framework for Contrastive Learning of Visual Representations",
    paper="https://arxiv.org/abs/2002.05709",
    optimisation=Optimisation("lars", lr=0.3, weight_decay=1e-4, warmup=0.1),
    collapse="the views are too easy or the temperature too high: strengthen the crops, lower temperature",
)
def simclr(
    encoder: Encoder,
    modality: str = "image",
    *,
    temperature: float = 0.1,
    hidden: int = 2048,
    out: int = 128,
    layers: int = 3,
) -> Method:
    """Pull two views of a sample together, push all other samples of the batch away (NT-Xent)."""
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, layers=layers),
        objective=NTXent(temperature),
    )
