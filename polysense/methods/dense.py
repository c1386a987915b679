"""Recipes that compare places of a sample, for encoders whose tokens lie on a grid."""

from __future__ import annotations

from torch import nn

from polysense.encoders.base import Encoder
from polysense.encoders.heads import Projector, mlp
from polysense.encoders.teacher import Teacher
from polysense.errors import unknown
from polysense.methods.engine import Branch, Method
from polysense.methods.optimisation import Optimisation
from polysense.methods.places import (
    LocalGlobal,
    ShortcutMLP,
    SummaryAndTokens,
    TeacherTokens,
    TokenHead,
    TokensInPlace,
)
from polysense.methods.reads import EachOther, TeacherViews, global_views
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.cross_view import MoCo
from polysense.objectives.dense import DenseMoCo, LocalVICReg
from polysense.objectives.mutual_information import (
    DonskerVaradhan,
    JensenShannon,
    LocalInfoNCE,
    MutualInformation,
)
from polysense.objectives.redundancy import VICReg

ESTIMATORS: dict[str, type[MutualInformation]] = {
    "jsd": JensenShannon,
    "infonce": LocalInfoNCE,
    "dv": DonskerVaradhan,
}


@recipe(
    "densecl",
    family="contrastive",
    title="Dense Contrastive Learning for Self-Supervised Visual Pre-Training",
    paper="https://arxiv.org/abs/2011.09157",
    views=ViewPlan(
        options={
            "image": {
                "scale": (0.2, 1.0),
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.4,
                "hue": 0.1,
            }
        }
    ),
    optimisation=Optimisation("sgd", lr=0.03, weight_decay=1e-4, warmup=0.0),
    collapse="the teacher moves too fast or the queue is too short: raise momentum or queue",
    encoders="a conv net or a ViT",
)
def densecl(
    encoder: Encoder,
    modality: str = "image",
    *,
    momentum: float = 0.999,
    queue: int = 65536,
    temperature: float = 0.2,
    dense_weight: float = 0.5,
    hidden: int = 2048,
    out: int = 128,
) -> Method:
    """Tell a sample's summary, and each of its places, from those of earlier batches (MoCo, twice)."""
    whole = Projector(encoder.dim, hidden, out, norm="none")
    dense = TokenHead(mlp(encoder.token_dim, hidden, out, norm="none"))
    branches = {
        "global": Branch(
            whole, MoCo(out, queue, temperature), TeacherViews(global_views), weight=1 - dense_weight
        ),
        "dense": Branch(dense, DenseMoCo(out, queue, temperature), TeacherTokens(), weight=dense_weight),
    }
    return Method({modality: encoder}, branches, teacher=Teacher(momentum, schedule="constant"))


@recipe(
    "deep_infomax",
    family="contrastive",
    title="Learning Deep Representations by Mutual Information Estimation and Maximization",
    paper="https://arxiv.org/abs/1808.06670",
    views=ViewPlan(globals_=1, strength="weak"),
    optimisation=Optimisation("adamw", lr=1e-4, per=64, warmup=0.0),
    collapse="the estimate ran away from the encoder: choose estimator jsd or lower lr",
    encoders="a conv net or a ViT",
)
def deep_infomax(
    encoder: Encoder,
    modality: str = "image",
    *,
    estimator: str = "jsd",
    out: int = 2048,
) -> Method:
    """Raise the mutual information between a sample's summary and each of its places (local DIM)."""
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    local = nn.Sequential(ShortcutMLP(encoder.token_dim, out), nn.LayerNorm(out))
    head = SummaryAndTokens(ShortcutMLP(encoder.dim, out), local)
    return Method({modality: encoder}, {"match": Branch(head, ESTIMATORS[estimator](), LocalGlobal())})


@recipe(
    "vicregl",
    family="redundancy",
    title="VICRegL: Self-Supervised Learning of Local Visual Features",
    paper="https://arxiv.org/abs/2210.01571",
    optimisation=Optimisation("lars", lr=0.2, weight_decay=1e-6, warmup=0.1),
    collapse="the variance term is too weak for this learning rate: raise variance or lower lr",
    encoders="a conv net or a ViT",
)
def vicregl(
    encoder: Encoder,
    modality: str = "image",
    *,
    alpha: float = 0.75,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    matches: float = 20 / 49,
    hidden: int = 8192,
    out: int = 8192,
    local_hidden: int = 512,
    local_out: int = 512,
) -> Method:
    """VICReg of whole views and of their places, matched by embedding and by where they lie."""
    coefficients = invariance, variance, covariance / 2  # averaged over both views, where VICReg adds
    whole = Projector(encoder.dim, hidden, out, layers=3, last_bias=False)
    local = TokenHead(mlp(encoder.token_dim, local_hidden, local_out, layers=3, last_bias=False))
    branches = {
        "global": Branch(whole, VICReg(*coefficients), EachOther(), weight=alpha),
        "local": Branch(local, LocalVICReg(*coefficients, matches), TokensInPlace(), weight=1 - alpha),
    }
    return Method({modality: encoder}, branches)
