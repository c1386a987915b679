"""Recipes in which a student follows its own moving average."""

from __future__ import annotations

from polysense.encoders.base import Encoder
from polysense.encoders.heads import Projector, PrototypeHead, mlp
from polysense.encoders.teacher import Teacher
from polysense.methods.build import joint_embedding
from polysense.methods.engine import Method
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.distillation import DINO, NegativeCosine


@recipe(
    "byol",
    family="distillation",
    title="Bootstrap Your Own Latent",
    paper="https://arxiv.org/abs/2006.07733",
    views=ViewPlan(options={"image": {"views": [{"blur": 1.0}, {"blur": 0.1, "solarise": 0.2}]}}),
    optimisation=Optimisation("lars", lr=0.2, weight_decay=1.5e-6, warmup=0.01),
    collapse="the teacher moves too fast or the predictor too slowly: raise momentum, lower lr",
)
def byol(
    encoder: Encoder,
    modality: str = "image",
    *,
    momentum: float = 0.996,
    hidden: int = 4096,
    out: int = 256,
) -> Method:
    """Predict from one view what a slowly moving teacher makes of the other."""
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, layers=2),
        predictor=mlp(out, hidden, out),
        teacher=Teacher(momentum),
        objective=NegativeCosine(),
    )


@recipe(
    "dino",
    family="distillation",
    title="Emerging Properties in Self-Supervised Vision Transformers",
    paper="https://arxiv.org/abs/2104.14294",
    views=ViewPlan(
        globals_=2,
        locals_=8,
        options={
            "image": {
                "scale": (0.4, 1.0),
                "local": {"scale": (0.05, 0.4), "blur": 0.5},
                "views": [{"blur": 1.0}, {"blur": 0.1, "solarise": 0.2}],
            }
        },
    ),
    optimisation=Optimisation(
        "adamw", lr=5e-4, weight_decay=0.04, final_weight_decay=0.4, warmup=0.1, clip=3.0
    ),
    collapse="the teacher's temperature or the centre: lower teacher_temperature if the output is uniform,"
    " raise it if one prototype takes all; lower lr",
    embeds_with="teacher",
)
def dino(
    encoder: Encoder,
    modality: str = "image",
    *,
    momentum: float = 0.996,
    prototypes: int = 65536,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    hidden: int = 2048,
    bottleneck: int = 256,
    frozen_until: float = 0.01,
) -> Method:
    """Match the teacher's soft assignment to prototypes, from global to local views (multi-crop)."""
    return joint_embedding(
        encoder,
        modality,
        projector=PrototypeHead(encoder.dim, hidden, bottleneck, prototypes, frozen_until=frozen_until),
        teacher=Teacher(momentum),
        objective=DINO(prototypes, student_temperature, teacher_temperature),
    )
