"""Recipes for states of games: two crops of a moment, a moment and those after it, clips of an episode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import Pooled, Projector, mlp
from polysense.encoders.teacher import Teacher
from polysense.errors import PolysenseError
from polysense.methods.engine import Branch, Method, Reads, Seen, embed
from polysense.methods.optimisation import Optimisation
from polysense.methods.reads import TeacherViews
from polysense.methods.recipes import recipe
from polysense.modalities.base import View, ViewPlan
from polysense.objectives.temporal import (
    ActionPrediction,
    DotInfoNCE,
    LatentPrediction,
    unfit_actions,
)


def later_views(view: View) -> bool:
    """The views of what comes next."""
    return view.kind == "next"


class Latent(nn.Module):
    """A linear layer and LayerNorm on the pooled embedding: the space that CURL and ATC compare in.

    >>> Latent(64, 50)(Encoded(torch.randn(4, 64))).shape
    torch.Size([4, 50])
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, out), nn.LayerNorm(out))

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, out]``."""
        projected: Tensor = self.layers(encoded.pooled)
        return projected


class Residual(nn.Module):
    """ATC's way from a moment to a later one: an MLP beside the identity, then a linear map without bias.

    >>> Residual(50, 512)(torch.randn(4, 50)).shape
    torch.Size([4, 50])
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.mlp = mlp(dim, hidden, dim, norm="none")
        self.bilinear = nn.Linear(dim, dim, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """``[B, dim]`` of ``[B, dim]``."""
        mapped: Tensor = self.bilinear(embeddings + self.mlp(embeddings))
        return mapped


class Dynamics(nn.Module):
    """What an action makes of an embedding: an MLP on both, added to the embedding, and LayerNorm.

    ``actions`` is how many there are to choose from, or how many numbers make one.

    >>> Dynamics(64, actions=3, hidden=128)(torch.randn(4, 64), torch.tensor([0, 1, 2, -1])).shape
    torch.Size([4, 64])
    """

    def __init__(self, dim: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.actions = actions
        self.mlp = mlp(dim + actions, hidden, dim, norm="none")
        self.norm = nn.LayerNorm(dim)

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        """The next ``[B, dim]``, of ``latent`` and ``action``, ``[B]`` integers (-1: none) or ``[B, A]``."""
        told = action if action.is_floating_point() else self._one_hot(action)
        if told.shape[-1] != self.actions:
            raise unfit_actions(self.actions, f"of {told.shape[-1]} numbers")
        after: Tensor = self.norm(latent + self.mlp(torch.cat([latent, told.to(latent.dtype)], -1)))
        return after

    def _one_hot(self, action: Tensor) -> Tensor:
        if int(action.max()) >= self.actions:
            raise unfit_actions(self.actions, f"number {int(action.max())}")
        return F.one_hot(action.clamp_min(0), self.actions)


@dataclass(frozen=True)
class OtherView(TeacherViews):
    """Each of the student's views and the teacher's of the next one in turn, ``[V, B, K]`` both (CURL)."""

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Put each view's partner in its place."""
        student, teacher = super().__call__(branch, seen, teacher_head)
        return student, teacher.roll(-1, 0)


class Foreseen(nn.Module, Reads):
    """What the student foresees of the later views from the first one, against the teacher's of them.

    With ``dynamics`` it goes there by the actions between, a step at a time. Gives the objective
    ``[P, B, K]`` of both for P later views, and which of them are there, ``[P, B]``.
    """

    def __init__(self, dynamics: nn.Module | None = None) -> None:
        super().__init__()
        self.dynamics = dynamics

    def compares_embeddings(self) -> bool:
        """Those of whole samples."""
        return True

    def of_student(self, view: View) -> bool:
        """What the later ones are foreseen from."""
        return not later_views(view)

    def of_teacher(self, view: View) -> bool:
        """The later ones."""
        return later_views(view)

    def forward(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Foresee, and look."""
        if teacher_head is None:
            raise ValueError("Foreseen needs a Method with a teacher")
        places = [place for place, view in enumerate(seen.views) if later_views(view)]
        if not places:
            raise PolysenseError(
                "this method predicts later moments, and the views show none; set the view setting ahead to"
                " 1 or more"
            )
        later = [seen.views[place] for place in places]
        foreseen = self.foresee(seen, len(later))
        predicted = branch.project([Encoded(latent) for latent in foreseen], later)
        encoded = [one for place in places if (one := seen.teacher[place]) is not None]
        target = embed(teacher_head, encoded, later).detach()
        return predicted, target, which_present(later, target)

    def foresee(self, seen: Seen, count: int) -> list[Tensor]:
        """The embeddings ``[B, D]`` of the last ``count`` moments, as they are expected."""
        latent = seen.student[0].pooled
        if self.dynamics is None:
            return [latent] * count
        latents = []
        for action in actions_between(seen).unbind(1):
            latent = self.dynamics(latent, action)
            latents.append(latent)
        return latents[-count:]


class Between(Reads):
    """The student's embeddings of a moment and the next, and the action that was taken (inverse dynamics)."""

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Predict the first action from both."""
        now, later = embed(branch.head, seen.student[:2], seen.views[:2])
        predicted = branch.predictor(torch.cat([now, later], -1))
        return predicted, actions_between(seen)[:, 0], which_present(seen.views[1:2], now[None])[0]


def actions_between(seen: Seen) -> Tensor:
    """The actions between a moment and the latest view, ``[B, K]`` or ``[B, K, A]``."""
    if "action" not in seen.known:
        raise PolysenseError(
            "this method learns from actions, which the data do not tell or the views do not span; use"
            " trajectories with actions and the view setting ahead, or a method without,"
            " such as state_contrast"
        )
    return seen.known["action"]


def which_present(views: list[View], like: Tensor) -> Tensor:
    """``[P, B]``: which samples have each view; all, where the views do not say."""
    everything = torch.ones(like.shape[1], dtype=torch.bool, device=like.device)
    return torch.stack([everything if view.present is None else view.present for view in views])


@recipe(
    "curl",
    family="states",
    title="CURL: Contrastive Unsupervised Representations for Reinforcement Learning",
    paper="https://arxiv.org/abs/2004.04136",
    views=ViewPlan(globals_=2, options={"state": {"crop": 0.84}}),
    optimisation=Optimisation("adamw", lr=1e-3, per=128, warmup=0.0),
    collapse="the crops are too small a change for this teacher: lower crop, raise momentum",
    modalities=("state", "image"),
)
def curl(encoder: Encoder, modality: str = "state", *, momentum: float = 0.95, out: int = 50) -> Method:
    """Find the slow teacher's embedding of another crop of the same frames, by a learned bilinear product.

    Both crops ask and answer; the authors' first asks. They move the teacher every second step.
    """
    bilinear = nn.Linear(out, out, bias=False)
    nn.init.uniform_(bilinear.weight)
    match = Branch(Latent(encoder.dim, out), DotInfoNCE(), OtherView(), predictor=bilinear)
    return Method({modality: encoder}, {"match": match}, teacher=Teacher(momentum, schedule="constant"))


@recipe(
    "state_contrast",
    family="states",
    title="Decoupling Representation Learning from Reinforcement Learning",
    paper="https://arxiv.org/abs/2009.08319",
    views=ViewPlan(globals_=1, options={"state": {"ahead": 3}}),
    optimisation=Optimisation("adamw", lr=1e-3, warmup=0.05, clip=10.0),
    collapse="the moments are too alike, or told apart by what does not move: change ahead, raise momentum",
    modalities=("state",),
)
def state_contrast(
    encoder: Encoder,
    modality: str = "state",
    *,
    momentum: float = 0.99,
    hidden: int = 512,
    out: int = 128,
    with_actions: bool = False,
    actions: int = 18,
) -> Method:
    """Find the state some steps later among those of other moments (ATC), with the actions between or not.

    Where the background tells episodes apart, it learns the background instead of the state: there,
    ``inverse_dynamics`` and ``spr`` keep more of it.
    """
    dynamics = Dynamics(encoder.dim, actions, hidden) if with_actions else None
    predictor = Residual(out, hidden)
    match = Branch(Latent(encoder.dim, out), DotInfoNCE(), Foreseen(dynamics), predictor=predictor)
    return Method({modality: encoder}, {"match": match}, teacher=Teacher(momentum, schedule="constant"))


@recipe(
    "spr",
    family="states",
    title="Data-Efficient Reinforcement Learning with Self-Predictive Representations",
    paper="https://arxiv.org/abs/2007.05929",
    views=ViewPlan(globals_=1, options={"state": {"ahead": 5, "every": True, "intensity": 0.05}}),
    optimisation=Optimisation("adamw", lr=1e-4, per=32, warmup=0.0, clip=10.0),
    collapse="the teacher moves too fast or the predictor too slowly: raise momentum, lower lr",
    modalities=("state",),
)
def spr(
    encoder: Encoder,
    modality: str = "state",
    *,
    momentum: float = 0.99,
    hidden: int = 512,
    out: int = 256,
    actions: int = 18,
) -> Method:
    """Predict the slow teacher's embeddings of the next steps from the state and the actions taken.

    The authors' dynamics work on maps of features, these on the embedding.
    """
    foreseen = Foreseen(Dynamics(encoder.dim, actions, hidden))
    head = Projector(encoder.dim, hidden, out)
    predict = Branch(head, LatentPrediction(), foreseen, predictor=mlp(out, hidden, out))
    return Method({modality: encoder}, {"predict": predict}, teacher=Teacher(momentum, schedule="constant"))


@recipe(
    "inverse_dynamics",
    family="states",
    title="Curiosity-driven Exploration by Self-supervised Prediction",
    paper="https://arxiv.org/abs/1705.05363",
    views=ViewPlan(globals_=1, options={"state": {"ahead": 1}}),
    optimisation=Optimisation("adamw", lr=1e-3, warmup=0.0),
    collapse="the actions cannot be told from the frames: raise action_repeat where they are collected",
    modalities=("state",),
)
def inverse_dynamics(
    encoder: Encoder, modality: str = "state", *, hidden: int = 256, actions: int = 18
) -> Method:
    """Tell the action from the states before and after it; what actions cannot change is not learned."""
    predictor = mlp(2 * encoder.dim, hidden, actions, norm="none")
    predict = Branch(Pooled(), ActionPrediction(), Between(), predictor=predictor)
    return Method({modality: encoder}, {"predict": predict})
