"""Recipes in which a student follows itself, its own moving average, or another encoder."""

from __future__ import annotations

from torch import nn

from polysense.encoders.base import Encoder
from polysense.encoders.heads import OnTokens, Pooled, Projector, PrototypeHead, mlp
from polysense.encoders.teacher import FrozenTeacher, Teacher
from polysense.errors import PolysenseError
from polysense.methods.build import joint_embedding
from polysense.methods.engine import Branch, Method
from polysense.methods.optimisation import Optimisation
from polysense.methods.reads import OwnPredictions, TeacherViews
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.distillation import DINO, NegativeCosine
from polysense.objectives.features import FeatureRegression


def multi_crop(locals_: int, border: float) -> ViewPlan:
    """Two crops of at least ``border`` of the picture, in DINO's colours, and small ones of at most that."""
    options = {
        "scale": (border, 1.0),
        "local": {"scale": (0.05, border), "blur": 0.5},
        "views": [{"blur": 1.0}, {"blur": 0.1, "solarise": 0.2}],
    }
    return ViewPlan(globals_=2, locals_=locals_, options={"image": options})


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
    views=multi_crop(locals_=8, border=0.4),
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


@recipe(
    "simsiam",
    family="distillation",
    title="Exploring Simple Siamese Representation Learning",
    paper="https://arxiv.org/abs/2011.10566",
    optimisation=Optimisation("sgd", lr=0.05, weight_decay=1e-4, warmup=0.0),
    collapse="the predictor does not keep up: raise lr, and see that predictor_hidden is well below out",
)
def simsiam(
    encoder: Encoder,
    modality: str = "image",
    *,
    hidden: int = 2048,
    out: int = 2048,
    predictor_hidden: int = 512,
) -> Method:
    """Predict from one view the student's own projection of the other, which gets no gradient."""
    match = Branch(
        Projector(encoder.dim, hidden, out, layers=3, last_norm="batch_no_affine"),
        NegativeCosine(),
        OwnPredictions(),
        predictor=mlp(out, predictor_hidden, out),
        weight=0.25,  # the paper's mean of both directions of -cos is a quarter of this one's sum, less 1
    )
    return Method({modality: encoder}, {"match": match})


@recipe(
    "distill",
    family="distillation",
    title="SimReg: Regression as a Simple Yet Effective Tool for Self-supervised Knowledge Distillation",
    paper="https://arxiv.org/abs/2201.05131",
    views=ViewPlan(globals_=1, strength="weak"),
    optimisation=Optimisation("sgd", lr=0.05, weight_decay=1e-4, warmup=0.0),
    collapse="the teacher's own embeddings have collapsed, or do not suit these data: try another teacher",
)
def distill(
    encoder: Encoder,
    modality: str = "image",
    *,
    teacher: Encoder | None = None,
    tokens: float = 0.0,
    hidden: int = 1024,
    layers: int = 4,
) -> Method:
    """Give a frozen teacher's features of the same view, whatever the teacher is.

    ``tokens`` is the weight of a second loss, on the tokens, for two encoders with one grid.
    """
    if teacher is None:
        raise PolysenseError(
            "distill needs a teacher: name one with the option teacher, such as 'resnet18', a run folder,"
            " 'open_clip:MODEL/WEIGHTS' or 'transformers:NAME'"
        )
    head = Projector(encoder.dim, hidden, teacher.dim, layers=layers)
    branches = {"match": Branch(head, FeatureRegression(), TeacherViews())}
    heads: dict[str, nn.Module] = {"match": Pooled()}
    if tokens:
        each = OnTokens(nn.Linear(encoder.token_dim, teacher.token_dim))
        branches["tokens"] = Branch(each, FeatureRegression(), TeacherViews(), weight=tokens)
        heads["tokens"] = OnTokens(nn.Identity())
    return Method({modality: encoder}, branches, teacher=FrozenTeacher({modality: teacher}, heads))
