"""Recipes that bring what belongs together, a picture and its sentence, to one place among all others.

Each takes :class:`~polysense.encoders.towers.Towers` for two or more parts and compares every two of them;
samples of equal ``identity`` (the same sentence) are not held against each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, permutations

import torch
from torch import Tensor, nn

from polysense.encoders.adapters import freeze
from polysense.encoders.base import Encoder
from polysense.encoders.heads import Projector
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError, unknown
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.modalities.base import View, ViewPlan
from polysense.objectives.contrastive import NTXent
from polysense.objectives.pairs import OneWayContrast, PairContrast, PairObjective, PairSigmoid

ALMOST_WHOLE = ViewPlan(globals_=1, strength="weak", options={"image": {"scale": (0.9, 1.0), "flip": 0.0}})
"""CLIP's views: words may name left and right, and what is at the edge."""

SCALE = 1 / 0.07
"""What CLIP multiplies cosines by at the start of training."""


@dataclass(frozen=True)
class PartPair(Reads):
    """The first view of one part against the first view of another.

    Gives the objective ``[B, K]`` of both and, where it is known, ``present`` and ``identity`` ``[B]``.
    """

    a: str
    b: str

    def compares_embeddings(self) -> bool:
        """Those of whole samples."""
        return True

    def of_student(self, view: View) -> bool:
        """Those of both parts."""
        return view.modality in (self.a, self.b)

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project both."""
        places = [view_places(seen, part)[0] for part in (self.a, self.b)]
        views = [seen.views[place] for place in places]
        a, b = branch.project([seen.student[place] for place in places], views)
        masks = [view.present for view in views if view.present is not None]
        identity = seen.known.get("identity")
        if not masks and identity is None:
            return a, b
        present = torch.ones(len(a), dtype=torch.bool, device=a.device)
        for mask in masks:
            present = present & mask
        return (a, b, present) if identity is None else (a, b, present, identity)


@dataclass(frozen=True)
class LaterViews(Reads):
    """The views of one part but the first, against each other: ``[V, B, K]`` (SLIP)."""

    part: str

    def compares_embeddings(self) -> bool:
        """Those of whole samples."""
        return True

    def of_student(self, view: View) -> bool:
        """Those of the part."""
        return view.modality == self.part

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project them."""
        places = view_places(seen, self.part)[1:]
        views = [seen.views[place] for place in places]
        if any(view.present is not None for view in views):
            raise PolysenseError(
                f"this method compares every sample's views of {self.part!r}, which some samples lack; leave"
                " those out, or choose clip"
            )
        return (branch.project([seen.student[place] for place in places], views),)


def view_places(seen: Seen, part: str) -> list[int]:
    """Which views are of a part."""
    return [place for place, view in enumerate(seen.views) if view.modality == part]


def matches(
    encoder: Towers, objective: PairObjective, *, hub: str | None = None, weight: float = 1.0
) -> dict[str, Branch]:
    """A branch for every two parts, or for the hub and each other one; their mean is the loss."""
    couples = [couple for couple in combinations(encoder.towers, 2) if hub is None or hub in couple]
    return {
        f"{a}_{b}": Branch(encoder.heads, objective, PartPair(a, b), weight=weight / len(couples))
        for a, b in couples
    }


def logit_scale(branch: Branch) -> float:
    """What a match of parts multiplies cosines by."""
    assert isinstance(branch.objective, PairObjective)
    return branch.objective.logit_scale.exp().item()


def chance_loss(branch: Branch, pairs: int) -> float:
    """The loss of a match that knows nothing, where the number of pairs alone decides it; else infinite."""
    return math.log(pairs) if isinstance(branch.objective, PairContrast | OneWayContrast) else math.inf


def check_part(encoder: Towers, part: str) -> None:
    """Raise PolysenseError where there is no tower for a part."""
    if part not in encoder.towers:
        raise unknown("part", part, encoder.towers)


@recipe(
    "clip",
    family="joint",
    title="Learning Transferable Visual Models From Natural Language Supervision",
    paper="https://arxiv.org/abs/2103.00020",
    views=ALMOST_WHOLE,
    optimisation=Optimisation("adamw", lr=5e-4, per=32768, weight_decay=0.2, warmup=0.05, betas=(0.9, 0.98)),
    collapse="the texts are too alike or the batch too small: use larger batches, or siglip",
    modalities=("pair",),
)
def clip(encoder: Towers, modality: str = "pair", *, scale: float = SCALE) -> Method:
    """Find each picture's sentence among all of the batch, and each sentence's picture."""
    encoder.start_logits(scale)
    return Method(_towers(encoder), matches(encoder, PairContrast(encoder.logit_scale)))


@recipe(
    "align",
    family="joint",
    title="Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision",
    paper="https://arxiv.org/abs/2102.05918",
    views=ViewPlan(globals_=1, strength="weak", options={"image": {"scale": (0.7, 1.0)}}),
    optimisation=Optimisation("adamw", lr=1e-3, per=16384, weight_decay=1e-5, warmup=0.05),
    collapse="the texts are too alike or too noisy: filter them, or use larger batches",
    modalities=("pair",),
)
def align(
    encoder: Towers, modality: str = "pair", *, temperature: float = 1.0, label_smoothing: float = 0.1
) -> Method:
    """CLIP for noisy texts: the target is not quite sure of any pair (label smoothing).

    The authors first drop texts that are rare, frequent, too short or too long, which ``polysense filter``
    and :func:`polysense.filter_pairs` do, and train with LAMB (``optimiser="lamb"``) where this takes AdamW.
    """
    encoder.start_logits(1 / temperature)
    objective = PairContrast(encoder.logit_scale, label_smoothing=label_smoothing)
    return Method(_towers(encoder), matches(encoder, objective))


@recipe(
    "siglip",
    family="joint",
    title="Sigmoid Loss for Language Image Pre-Training",
    paper="https://arxiv.org/abs/2303.15343",
    views=ALMOST_WHOLE,
    optimisation=Optimisation("adamw", lr=1e-3, per=32768, weight_decay=1e-4, warmup=0.05, betas=(0.9, 0.95)),
    collapse="the bias has not caught up with the batch: train longer, or start it nearer -ln(batch)",
    modalities=("pair",),
)
def siglip(encoder: Towers, modality: str = "pair", *, scale: float = 10.0, bias: float = -10.0) -> Method:
    """Judge every picture with every sentence on its own, as belonging together or not."""
    encoder.start_logits(scale, bias)
    return Method(_towers(encoder), matches(encoder, PairSigmoid(encoder.logit_scale, encoder.logit_bias)))


@recipe(
    "lit",
    family="joint",
    title="LiT: Zero-Shot Transfer with Locked-image text Tuning",
    paper="https://arxiv.org/abs/2111.07991",
    views=ALMOST_WHOLE,
    optimisation=Optimisation("adamw", lr=1e-3, per=16384, weight_decay=1e-4, warmup=0.05),
    collapse="the locked tower knows nothing of these data: start from one that has learned (pretrained)",
    modalities=("pair",),
)
def lit(encoder: Towers, modality: str = "pair", *, locked: str = "image", scale: float = SCALE) -> Method:
    """Teach the text tower to read a picture tower that stays as it is.

    The locked tower stays in evaluation mode. Its head, a linear layer, does learn.
    """
    check_part(encoder, locked)
    encoder.start_logits(scale)
    freeze(encoder.towers[locked])
    return Method(_towers(encoder), matches(encoder, PairContrast(encoder.logit_scale)))


@recipe(
    "slip",
    family="joint",
    title="SLIP: Self-supervision meets Language-Image Pre-training",
    paper="https://arxiv.org/abs/2112.12750",
    views=ViewPlan(
        globals_=1,
        parts={
            "image": ViewPlan(
                globals_=3,
                options={
                    "image": {
                        "brightness": 0.4,
                        "contrast": 0.4,
                        "saturation": 0.4,
                        "hue": 0.1,
                        "views": [
                            {"scale": (0.5, 1.0), "flip": 0.0, "jitter": 0.0, "grey": 0.0, "blur": 0.0},
                            {"scale": (0.08, 1.0)},
                            {"scale": (0.08, 1.0)},
                        ],
                    }
                },
            )
        },
    ),
    optimisation=Optimisation("adamw", lr=3e-3, per=4096, weight_decay=0.1, warmup=0.05, betas=(0.9, 0.98)),
    collapse="one loss outweighs the other: change image_weight, or use larger batches",
    modalities=("pair",),
)
def slip(
    encoder: Towers,
    modality: str = "pair",
    *,
    part: str = "image",
    image_weight: float = 1.0,
    temperature: float = 0.1,
    scale: float = SCALE,
    hidden: int = 4096,
    out: int = 256,
) -> Method:
    """CLIP on one view of a picture and SimCLR on two more, which share the tower and not the head."""
    check_part(encoder, part)
    encoder.start_logits(scale)
    projector = nn.ModuleDict({part: Projector(_towers(encoder)[part].dim, hidden, out, layers=3)})
    alone = Branch(projector, NTXent(temperature), LaterViews(part), weight=image_weight)
    return Method(
        _towers(encoder), {**matches(encoder, PairContrast(encoder.logit_scale)), f"{part}_alone": alone}
    )


@recipe(
    "pair",
    family="joint",
    title="ImageBind: One Embedding Space To Bind Them All",
    paper="https://arxiv.org/abs/2305.05665",
    views=ALMOST_WHOLE,
    optimisation=Optimisation("adamw", lr=5e-4, per=2048, weight_decay=0.05, warmup=0.05, betas=(0.9, 0.95)),
    collapse="the parts are too alike or the batch too small: use larger batches",
    modalities=("pair",),
)
def pair(encoder: Towers, modality: str = "pair", *, hub: str | None = None, scale: float = SCALE) -> Method:
    """Bring any parts together, every two of them or each with a hub; samples may lack some.

    The authors compare pictures with each other modality, and leave it to the space that sounds and texts
    then meet: that is ``hub="image"``.
    """
    if hub is not None:
        check_part(encoder, hub)
    encoder.start_logits(scale)
    return Method(_towers(encoder), matches(encoder, PairContrast(encoder.logit_scale), hub=hub))


@recipe(
    "clap",
    family="joint",
    title="Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption"
    " Augmentation",
    paper="https://arxiv.org/abs/2211.06687",
    views=ViewPlan(globals_=1, strength="weak", options={"audio": {"crop": 4.0}}),
    optimisation=Optimisation("adamw", lr=1e-4, per=2304, weight_decay=0.0, warmup=0.06),
    collapse="the texts are too alike or the batch too small: use larger batches",
    modalities=("pair",),
    parts=("audio", "text"),
)
def clap(encoder: Towers, modality: str = "pair", *, scale: float = SCALE) -> Method:
    """Find each sound's text, and each text's sound, with a scale for either way.

    Heads are linear, where the authors' have a hidden layer. The first part's scale is the towers' own, the
    one that classifies sounds by words later.
    """
    encoder.start_logits(scale)
    others = list(encoder.towers)[1:]
    scales = {part: nn.Parameter(encoder.logit_scale.detach().clone()) for part in others}
    contrasts = {part: OneWayContrast(scales.get(part, encoder.logit_scale)) for part in encoder.towers}
    couples = list(permutations(encoder.towers, 2))
    branches = {
        f"{a}_to_{b}": Branch(encoder.heads, contrasts[a], PartPair(a, b), weight=1 / len(couples))
        for a, b in couples
    }
    return Method(_towers(encoder), branches)


def _towers(encoder: Towers) -> dict[str, Encoder]:
    return dict(encoder.towers.items())  # type: ignore[arg-type]
