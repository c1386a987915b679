"""Recipes for clips of episodes: how far off a goal is, in which order frames came, what they were told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.encoders.heads import Pooled, mlp
from polysense.errors import PolysenseError
from polysense.methods.engine import Branch, Method, Reads, Seen, embed
from polysense.methods.optimisation import Optimisation
from polysense.methods.reads import EachOther, global_views
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.pairs import PairContrast
from polysense.objectives.temporal import VIP, FrameOrder, InstructionContrast, Sparsity

ONE_CUT = {"scale": (0.2, 1.0), "together": True}
"""One random resized crop for all frames of a clip."""


@dataclass(frozen=True)
class Fulfilled(Reads):
    """Which frames of R3M's clip fulfil its instruction: scores of pairs with the clip's start.

    The end, now and a later frame do, more than the start, an earlier frame and now, and more than the same
    frames of ``negatives`` other clips with other instructions. Gives the objective the scores ``[3, B]`` and
    ``[3, N, B]``, and where there is an instruction.
    """

    negatives: int

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Score them all by the predictor, which reads ``[start, frame, sentence]``."""
        sentence, instruction = sentences(seen)
        now, earlier, later, start, end = embed(branch.head, seen.student[:5], seen.views[:5])
        right, wrong = torch.stack([end, now, later]), torch.stack([start, earlier, now])
        shifts = (torch.randperm(max(1, len(now) - 1))[: self.negatives] + 1).tolist()
        frames = torch.stack([right, wrong, *(right.roll(shift, 1) for shift in shifts)], 1)
        starts = torch.stack([start, start, *(start.roll(shift, 0) for shift in shifts)])
        read = [starts.expand_as(frames), frames, sentence.to(frames.dtype).expand(*frames.shape[:3], -1)]
        scores = branch.predictor(torch.cat(read, -1))[..., 0]
        same = torch.stack([instruction.roll(shift) == instruction for shift in shifts])
        others = scores[:, 2:].masked_fill(same, -torch.inf)
        return scores[:, 0], torch.cat([scores[:, 1:2], others], 1), instruction >= 0


class Goals(nn.Module, Reads):
    """The goal as a frame and as a sentence, ``[B, D]`` both, which are there, and which are equal (LIV)."""

    def __init__(self, texts: nn.Module) -> None:
        super().__init__()
        self.texts = texts

    def forward(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Embed the last view, and map the sentence."""
        sentence, instruction = sentences(seen)
        goal = embed(branch.head, seen.student[3:4], seen.views[3:4])[0]
        return goal, self.texts(sentence), instruction >= 0, instruction


class TowardsSentence(nn.Module, Reads):
    """VIP's clip with the sentence in place of the goal, ``[4, B, D]``, and where there is one."""

    def __init__(self, texts: nn.Module) -> None:
        super().__init__()
        self.texts = texts

    def forward(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Embed the first three views, and map the sentence."""
        sentence, instruction = sentences(seen)
        frames = embed(branch.head, seen.student[:3], seen.views[:3])
        goal: Tensor = self.texts(sentence)
        return torch.cat([frames, goal[None].to(frames.dtype)]), instruction >= 0


def sentences(seen: Seen) -> tuple[Tensor, Tensor]:
    """The embedded instructions ``[B, S]`` and their numbers ``[B]``, -1 where there is none."""
    if "sentence" not in seen.known:
        raise untold()
    return seen.known["sentence"], seen.known["instruction"]


def untold() -> PolysenseError:
    """The error for data that tell no instruction."""
    return PolysenseError(
        "this method learns from instructions, which the data do not tell; use trajectories with missions,"
        " such as recordings with captions, or a method without, such as vip"
    )


@recipe(
    "vip",
    family="states",
    title="VIP: Towards Universal Visual Reward and Representation via Value-Implicit Pre-Training",
    paper="https://arxiv.org/abs/2210.00030",
    views=ViewPlan(globals_=1, options={"state": {"clip": "goal", **ONE_CUT}}),
    optimisation=Optimisation("adamw", lr=1e-4, per=32, warmup=0.0),
    collapse="the penalty on the embedding outweighs the value: lower sparsity",
    modalities=("state",),
)
def vip(
    encoder: Encoder, modality: str = "state", *, discount: float = 0.98, sparsity: float = 1e-3
) -> Method:
    """Make the distance to a goal in the embedding a value: how many steps it takes to get there."""
    branches = {
        "value": Branch(Pooled(), VIP(discount), EachOther()),
        "sparsity": Branch(Pooled(), Sparsity(sparsity, sparsity), EachOther()),
    }
    return Method({modality: encoder}, branches)


@recipe(
    "r3m",
    family="states",
    title="R3M: A Universal Visual Representation for Robot Manipulation",
    paper="https://arxiv.org/abs/2203.12601",
    views=ViewPlan(globals_=1, options={"state": {"clip": "order", **ONE_CUT}}),
    optimisation=Optimisation("adamw", lr=1e-4, per=32, warmup=0.0),
    collapse="the penalty on the embedding outweighs the order of the frames: lower sparsity",
    modalities=("state",),
)
def r3m(
    encoder: Encoder,
    modality: str = "state",
    *,
    negatives: int = 3,
    sparsity: float = 1e-5,
    language: float = 1.0,
    hidden: int = 1024,
    sentence_dim: int = 0,
) -> Method:
    """Bring frames near in time closer than those far off, and score them for what their clip is told to do.

    The second is the paper's language alignment, at the weight ``language``: an MLP scores the clip's start,
    a frame and the frozen embedding of the instruction together. Data without missions do without.
    """
    told = language > 0 and sentence_dim > 0
    branches = {
        "order": Branch(Pooled(), FrameOrder(negatives), EachOther(global_views)),
        "sparsity": Branch(
            Pooled(), Sparsity(sparsity, sparsity), EachOther() if told else EachOther(global_views)
        ),
    }
    if told:
        score = mlp(2 * encoder.dim + sentence_dim, hidden, 1, layers=5, norm="none")
        branches["language"] = Branch(
            Pooled(), InstructionContrast(), Fulfilled(negatives), predictor=score, weight=language
        )
    return Method({modality: encoder}, branches)


@recipe(
    "liv",
    family="states",
    title="LIV: Language-Image Representations and Rewards for Robotic Control",
    paper="https://arxiv.org/abs/2306.00958",
    views=ViewPlan(globals_=1, options={"state": {"clip": "goal", **ONE_CUT}}),
    optimisation=Optimisation("adamw", lr=1e-5, per=64, weight_decay=1e-3, warmup=0.0),
    collapse="the instructions are too few to tell goals apart: choose vip",
    modalities=("state",),
)
def liv(
    encoder: Encoder,
    modality: str = "state",
    *,
    discount: float = 0.98,
    language: float = 1.0,
    sentence_dim: int = 256,
) -> Method:
    """Make nearness to a goal a value, be it a frame or an instruction, and find each by the other.

    VIP with cosines towards the last frame and, at the weight ``language``, towards the sentence, and InfoNCE
    between both without a temperature. The authors train CLIP's text tower too; here a linear map of a frozen
    embedding is trained. Their released configuration sets ``language`` to 0 and, unlike here, holds no
    frames of other clips against a goal.

    Raises PolysenseError where the data tell no instructions.
    """
    if sentence_dim < 1:
        raise untold()
    texts = nn.Linear(sentence_dim, encoder.dim)
    no_scale = nn.Parameter(torch.zeros(()), requires_grad=False)
    branches = {
        "match": Branch(Pooled(), PairContrast(no_scale), Goals(texts)),
        "value": Branch(Pooled(), VIP(discount, cosine=True), EachOther()),
        "language": Branch(Pooled(), VIP(discount, cosine=True), TowardsSentence(texts), weight=language),
    }
    return Method({modality: encoder}, branches)
