"""Recipes that keep dimensions informative instead of comparing samples."""

from __future__ import annotations

from polysense.encoders.base import Encoder
from polysense.encoders.heads import Projector
from polysense.methods.build import joint_embedding
from polysense.methods.engine import Method
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.objectives.redundancy import BarlowTwins, VICReg


@recipe(
    "vicreg",
    family="redundancy",
    title="VICReg: Variance-Invariance-Covariance Regularization",
    paper="https://arxiv.org/abs/2105.04906",
    optimisation=Optimisation("lars", lr=0.2, weight_decay=1e-6, warmup=0.01),
    collapse="the variance term is too weak for this learning rate: raise variance or lower lr",
)
def vicreg(
    encoder: Encoder,
    modality: str = "image",
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    hidden: int = 8192,
    out: int = 8192,
) -> Method:
    """Bring two views together while every dimension varies and no two dimensions repeat each other."""
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, layers=3),
        objective=VICReg(invariance, variance, covariance),
    )


@recipe(
    "barlow_twins",
    family="redundancy",
    title="Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
    paper="https://arxiv.org/abs/2103.03230",
    optimisation=Optimisation("lars", lr=0.2, weight_decay=1e-6, warmup=0.01),
    collapse="off_diagonal outweighs the diagonal at this width: lower off_diagonal or out",
)
def barlow_twins(
    encoder: Encoder,
    modality: str = "image",
    *,
    off_diagonal: float = 0.0051,
    hidden: int = 8192,
    out: int = 8192,
) -> Method:
    """Make the cross-correlation of two views' dimensions the identity."""
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, layers=3),
        objective=BarlowTwins(off_diagonal),
    )
