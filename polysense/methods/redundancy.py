"""Recipes that keep dimensions informative instead of comparing samples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.encoders.heads import Projector
from polysense.methods.build import joint_embedding
from polysense.methods.engine import Branch, Method, Seen
from polysense.methods.optimisation import Optimisation
from polysense.methods.reads import EachOther, global_views
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.redundancy import BarlowTwins, VICReg
from polysense.objectives.sigreg import LeJEPA
from polysense.objectives.whitening import WMSE


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


@recipe(
    "wmse",
    family="redundancy",
    title="Whitening for Self-Supervised Representation Learning",
    paper="https://arxiv.org/abs/2007.06346",
    views=ViewPlan(options={"image": {"grey": 0.1}}),
    optimisation=Optimisation("adamw", lr=3e-3, per=512, weight_decay=1e-6, warmup=0.005),
    collapse="the whitening is too rough an estimate: raise sub_batch and the batch size, or lower out",
)
def wmse(
    encoder: Encoder,
    modality: str = "image",
    *,
    hidden: int = 1024,
    out: int = 64,
    sub_batch: int = 128,
    iterations: int = 1,
    shrink: float = 0.0,
) -> Method:
    """Bring views together after whitening them, which leaves no room for collapse."""
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, layers=2),
        objective=WMSE(sub_batch, iterations, shrink),
    )


@dataclass(frozen=True)
class AndGlobals(EachOther):
    """The student's views, ``[V, B, K]``, and once more those of the whole sample, ``[G, B, K]``."""

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project the chosen views once."""
        (projected,) = super().__call__(branch, seen, teacher_head)
        chosen = [view for view in seen.views if self.student(view)]
        return projected, projected[[place for place, view in enumerate(chosen) if global_views(view)]]


@recipe(
    "lejepa",
    family="redundancy",
    title="LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics",
    paper="https://arxiv.org/abs/2511.08544",
    views=ViewPlan(
        locals_=6,
        options={
            "image": {
                "scale": (0.3, 1.0),
                "local": {"scale": (0.05, 0.3)},
                "saturation": 0.2,
                "blur": 0.5,
                "solarise": 0.2,
            }
        },
    ),
    optimisation=Optimisation("adamw", lr=5e-4, weight_decay=0.05, warmup=0.1),
    collapse="the views agree before they are spread out: raise regularisation or the batch size",
)
def lejepa(
    encoder: Encoder,
    modality: str = "image",
    *,
    regularisation: float = 0.05,
    slices: int = 1024,
    knots: int = 17,
    hidden: int = 2048,
    out: int = 128,
) -> Method:
    """Predict the global views' mean from every view, while SIGReg keeps the embeddings Gaussian."""
    projector = Projector(encoder.dim, hidden, out, layers=3)
    match = Branch(projector, LeJEPA(regularisation, slices, knots), AndGlobals())
    return Method({modality: encoder}, {"match": match})
