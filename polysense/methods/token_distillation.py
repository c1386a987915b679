"""Recipes in which a student that misses parts of a view follows a teacher that sees the whole."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import Pooled, Projector, PrototypeHead
from polysense.encoders.teacher import Teacher
from polysense.errors import PolysenseError
from polysense.methods.block_masks import BlockMask
from polysense.methods.distillation import multi_crop
from polysense.methods.engine import Branch, Method, Seen
from polysense.methods.maskers import AsTheyLie, Only, RandomMask, SomeBlocks
from polysense.methods.optimisation import Optimisation
from polysense.methods.reads import EachOther, HiddenTokens, TeacherViews, global_views
from polysense.methods.recipes import recipe
from polysense.methods.word_masks import HideSpans
from polysense.modalities.base import ViewPlan
from polysense.objectives.distillation import DINO
from polysense.objectives.masked_siamese import MSN
from polysense.objectives.reconstruction import MaskedReconstruction
from polysense.objectives.token_distillation import IBOT, KoLeo


@recipe(
    "ibot",
    family="distillation",
    title="iBOT: Image BERT Pre-Training with Online Tokenizer",
    paper="https://arxiv.org/abs/2111.07832",
    views=multi_crop(locals_=10, border=0.25),
    optimisation=Optimisation(
        "adamw", lr=5e-4, weight_decay=0.04, final_weight_decay=0.4, warmup=0.1, clip=3.0
    ),
    collapse="the teacher's temperatures or the centre: lower teacher_temperature if the output is uniform,"
    " raise it if one prototype takes all; lower lr",
    embeds_with="teacher",
    encoders="a ViT",
    default_encoders={"image": "vit_nano"},
)
def ibot(
    encoder: Encoder,
    modality: str = "image",
    *,
    momentum: float = 0.996,
    prototypes: int = 8192,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.07,
    patch_temperature: float = 0.07,
    least_masked: float = 0.1,
    most_masked: float = 0.5,
    masked_samples: float = 0.5,
    hidden: int = 2048,
    bottleneck: int = 256,
    frozen_until: float = 0.01,
) -> Method:
    """DINO, and the same head's answer at hidden patches, which the teacher sees."""
    encoder.learn_mask_token()
    head = PrototypeHead(encoder.dim, hidden, bottleneck, prototypes, frozen_until=frozen_until)
    whole = DINO(prototypes, student_temperature, teacher_temperature)
    patches = IBOT(DINO(prototypes, student_temperature, patch_temperature))
    return Method(
        {modality: encoder},
        {"match": Branch(head, whole, TeacherViews()), "patches": Branch(head, patches, HiddenTokens())},
        teacher=Teacher(momentum),
        masker=Only(global_views, SomeBlocks(least_masked, most_masked, masked_samples)),
    )


@recipe(
    "dinov2",
    family="distillation",
    title="DINOv2: Learning Robust Visual Features without Supervision",
    paper="https://arxiv.org/abs/2304.07193",
    views=multi_crop(locals_=8, border=0.32),
    optimisation=Optimisation(
        "adamw", lr=4e-3, per=1024, weight_decay=0.04, final_weight_decay=0.4, warmup=0.1, clip=3.0
    ),
    collapse="the batch is too small to balance so many prototypes: use fewer, or raise spread; lower lr",
    embeds_with="teacher",
    encoders="a ViT",
    default_encoders={"image": "vit_nano"},
)
def dinov2(
    encoder: Encoder,
    modality: str = "image",
    *,
    momentum: float = 0.992,
    prototypes: int = 65536,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.07,
    sinkhorn_iterations: int = 3,
    spread: float = 0.1,
    least_masked: float = 0.1,
    most_masked: float = 0.5,
    masked_samples: float = 0.5,
    hidden: int = 2048,
    bottleneck: int = 256,
    frozen_until: float = 0.01,
) -> Method:
    """DINO and iBOT with a head each and balanced targets, and embeddings spread apart (KoLeo)."""
    encoder.learn_mask_token()
    whole, patches = (
        PrototypeHead(width, hidden, bottleneck, prototypes, frozen_until=frozen_until)
        for width in (encoder.dim, encoder.token_dim)
    )
    balanced = partial(
        DINO,
        prototypes,
        student_temperature,
        teacher_temperature,
        sinkhorn_iterations=sinkhorn_iterations,
    )
    branches = {
        "match": Branch(whole, balanced(), TeacherViews()),
        "patches": Branch(patches, IBOT(balanced()), HiddenTokens()),
        "spread": Branch(Pooled(), KoLeo(), EachOther(global_views), weight=spread),
    }
    return Method(
        {modality: encoder},
        branches,
        teacher=Teacher(momentum),
        masker=Only(global_views, SomeBlocks(least_masked, most_masked, masked_samples)),
    )


@dataclass(frozen=True)
class HiddenLayers(HiddenTokens):
    """Hidden tokens against the mean of the teacher's last layers, each token of each standardised.

    Gives the objective prediction and target, ``[1, N, E]`` each.
    """

    def targets(self, teacher: Encoded) -> Tensor:
        """The mean over layers: ``[B, T, E]``."""
        assert teacher.layers is not None
        return functional.layer_norm(teacher.layers, teacher.layers.shape[-1:]).mean(1)

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Pick the hidden tokens of both sides."""
        predicted, target, _ = super().__call__(branch, seen, teacher_head)
        return predicted[None], target[None]


@recipe(
    "data2vec",
    family="distillation",
    title="data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language",
    paper="https://arxiv.org/abs/2202.03555",
    views=ViewPlan(globals_=1, strength="weak"),
    optimisation=Optimisation("adamw", lr=2e-3, per=2048, weight_decay=0.05, warmup=0.05, clip=3.0),
    collapse="the teacher moves too fast or the targets lose their variance: raise momentum, lower lr",
    encoders="a ViT",
    default_encoders={"image": "vit_nano", "audio": "audio_vit_nano"},
)
def data2vec(
    encoder: Encoder,
    modality: str = "image",
    *,
    momentum: float = 0.9998,
    layers: int = 6,
    beta: float = 2.0,
    mask_ratio: float = 0.6,
) -> Method:
    """Predict at hidden tokens the mean of the teacher's last layers, which saw the whole (smooth L1).

    The defaults are those for pictures; for texts the authors take 10 layers, beta=4 and mask_ratio=0.35.
    """
    if layers < 1 or beta <= 0:
        raise PolysenseError(
            f"data2vec got {layers} layers and beta {beta}; average at least 1 layer, with beta above 0"
        )
    encoder.learn_mask_token()
    encoder.keep_layers(layers)
    predict = Branch(
        Pooled(),
        MaskedReconstruction(normalise=False, distance=partial(functional.smooth_l1_loss, beta=beta)),
        HiddenLayers(),
        predictor=nn.Linear(encoder.token_dim, encoder.token_dim),
    )
    return Method(
        {modality: encoder},
        {"predict": predict},
        teacher=Teacher(momentum, schedule="constant"),
        masker=AsTheyLie(plane=BlockMask(mask_ratio), line=HideSpans(mask_ratio, mean=4.0)),
    )


@recipe(
    "msn",
    family="distillation",
    title="Masked Siamese Networks for Label-Efficient Learning",
    paper="https://arxiv.org/abs/2204.07141",
    views=ViewPlan(
        globals_=2, locals_=10, options={"image": {"scale": (0.3, 1.0), "local": {"scale": (0.05, 0.3)}}}
    ),
    optimisation=Optimisation(
        "adamw", lr=1e-3, per=1024, weight_decay=0.04, final_weight_decay=0.4, warmup=0.02, clip=3.0
    ),
    collapse="the prototypes' mean entropy is held too weakly: raise entropy_weight, use fewer prototypes",
    embeds_with="teacher",
    encoders="a ViT",
    default_encoders={"image": "vit_nano"},
)
def msn(
    encoder: Encoder,
    modality: str = "image",
    *,
    momentum: float = 0.996,
    prototypes: int = 1024,
    temperature: float = 0.1,
    teacher_temperature: float = 0.025,
    entropy_weight: float = 1.0,
    sinkhorn_iterations: int = 3,
    mask_ratio: float = 0.15,
    hidden: int = 2048,
    out: int = 256,
) -> Method:
    """Let views with patches missing, and small crops, fall to the prototypes of another whole view.

    The paper has one whole view for the teacher; here each of the two is the other's.
    """
    if not encoder.token_values:
        raise encoder.cannot_hide()
    objective = MSN(prototypes, out, temperature, teacher_temperature, entropy_weight, sinkhorn_iterations)
    projector = Projector(encoder.dim, hidden, out, layers=3, activation=nn.GELU)
    return Method(
        {modality: encoder},
        {"match": Branch(projector, objective, TeacherViews())},
        teacher=Teacher(momentum, schedule="linear"),
        masker=Only(global_views, RandomMask(mask_ratio)),
    )
