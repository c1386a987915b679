"""Which views a branch reads, against which targets: the wiring that recipes choose from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded
from polysense.errors import PolysenseError
from polysense.methods.engine import Branch, Reads, Seen, embed
from polysense.modalities.base import View

Select = Callable[[View], bool]
"""Which views are meant."""


def every_view(view: View) -> bool:
    """All views of the batch."""
    return True


def global_views(view: View) -> bool:
    """The views of the whole sample, without multi-crop's local ones."""
    return view.kind == "global"


@dataclass(frozen=True)
class EachOther(Reads):
    """The student's views of a sample against each other (SimCLR, VICReg, Barlow Twins).

    Gives the objective one tensor ``[V, B, K]``.
    """

    student: Select = every_view

    def compares_embeddings(self) -> bool:
        """Those of whole samples."""
        return True

    def of_student(self, view: View) -> bool:
        """The chosen views."""
        return self.student(view)

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project the chosen views."""
        chosen = [place for place, view in enumerate(seen.views) if self.student(view)]
        views = [seen.views[place] for place in chosen]
        return (branch.project([seen.student[place] for place in chosen], views),)


@dataclass(frozen=True)
class OwnPredictions(Reads):
    """What the student predicts from its views, and its projections of them, ``[V, B, K]`` both (NNCLR)."""

    def compares_embeddings(self) -> bool:
        """Those of whole samples."""
        return True

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project all views, and predict from the projections."""
        projected = embed(branch.head, seen.student, seen.views)
        predicted = branch.predictor(projected.flatten(0, 1)).unflatten(0, projected.shape[:2])
        return predicted, projected


@dataclass(frozen=True)
class TeacherViews(Reads):
    """The student's views against the teacher's (BYOL, DINO).

    Gives the objective ``[V, B, K]`` of the student and ``[T, B, K]`` of the teacher; the views that
    the teacher reads come first on the student's side, in the same order.
    """

    student: Select = every_view
    teacher: Select = global_views

    def compares_embeddings(self) -> bool:
        """Those of whole samples."""
        return True

    def of_student(self, view: View) -> bool:
        """The student's own and those of the teacher."""
        return self.student(view) or self.teacher(view)

    def of_teacher(self, view: View) -> bool:
        """The views whose targets are wanted."""
        return self.teacher(view)

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project the student's views and the teacher's."""
        if teacher_head is None:
            raise ValueError("TeacherViews needs a Method with a teacher")
        taught = [place for place, view in enumerate(seen.views) if self.teacher(view)]
        chosen = taught + [
            place for place, view in enumerate(seen.views) if self.student(view) and place not in taught
        ]
        views = seen.views
        student = branch.project([seen.student[place] for place in chosen], [views[p] for p in chosen])
        encoded = [one for place in taught if (one := seen.teacher[place]) is not None]
        teacher = embed(teacher_head, encoded, [views[place] for place in taught]).detach()
        return student, teacher


class HiddenInput(nn.Module, Reads):
    """What the student predicts at the hidden tokens against the input itself (MAE, BEiT).

    ``tokenise`` makes one target per token of a view's data, ``[B, T, K]`` or ``[B, T]``; where it is a
    module (a tokenizer that learns), it is saved with the method. Gives the objective prediction, target
    and mask.
    """

    def __init__(self, tokenise: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.tokenise = tokenise

    def forward(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Decode every masked view and lay the views' batches one behind the other."""
        masked = [place for place, view in enumerate(seen.views) if view.mask is not None]
        prediction = torch.cat([branch.head(seen.student[place]) for place in masked])
        target = torch.cat([self.tokenise(seen.views[place].data) for place in masked])
        mask = torch.cat([_to_predict(seen.views[place]) for place in masked])
        return branch.predictor(prediction), target, mask


def _to_predict(view: View) -> Tensor:
    """``[B, T]``: the hidden tokens, or those of them that are asked for."""
    assert view.mask is not None
    return view.mask if view.asked is None else view.asked.any(1)


@dataclass(frozen=True)
class HiddenTokens(Reads):
    """The student's tokens where they were hidden from it against the teacher's, who saw all (iBOT).

    The head reads a token as it reads a pooled embedding, so that both can share one. Gives the objective
    ``[N, K]`` of student and teacher, the N hidden tokens one behind the other, and the mask ``[B, T]``
    that tells whose they are. The encoder must replace hidden tokens and not leave them out.
    """

    def of_teacher(self, view: View) -> bool:
        """The views of which something is hidden."""
        return view.mask is not None

    def targets(self, teacher: Encoded) -> Tensor:
        """What the teacher knows of its tokens: ``[B, T, E]``."""
        if teacher.tokens is None:
            raise PolysenseError("this method compares tokens, and the encoder gives none; choose a ViT")
        return teacher.tokens

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Pick the hidden tokens of both sides."""
        if teacher_head is None:
            raise ValueError("HiddenTokens needs a Method with a teacher")
        masks, ours, theirs = [], [], []
        for view, student, teacher in zip(seen.views, seen.student, seen.teacher, strict=True):
            if view.mask is not None and student.tokens is not None and teacher is not None:
                masks.append(view.mask)
                ours.append(student.tokens[view.mask])
                theirs.append(self.targets(teacher)[view.mask])
        predicted = branch.predictor(branch.head(Encoded(torch.cat(ours))))
        with torch.no_grad():
            target = teacher_head(Encoded(torch.cat(theirs)))
        return predicted, target, torch.cat(masks)


@dataclass(frozen=True)
class WithKnown(Reads):
    """What ``reads`` gives the objective, and behind it what is ``known`` of the samples by that name."""

    reads: Reads
    known: str

    def of_student(self, view: View) -> bool:
        """As in ``reads``."""
        return self.reads.of_student(view)

    def of_teacher(self, view: View) -> bool:
        """As in ``reads``."""
        return self.reads.of_teacher(view)

    def compares_embeddings(self) -> bool:
        """As in ``reads``."""
        return self.reads.compares_embeddings()

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Add what is known."""
        if self.known not in seen.known:
            raise PolysenseError(
                f"this method learns from the {self.known} of every sample, which the data do not tell; use"
                " data that do, or a method without"
            )
        return *self.reads(branch, seen, teacher_head), seen.known[self.known]
