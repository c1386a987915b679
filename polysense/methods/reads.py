"""Which views a branch reads, against which targets: the wiring that recipes choose from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polysense.methods.engine import Branch, Seen, embed
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
class EachOther:
    """The student's views of a sample against each other (SimCLR, VICReg, Barlow Twins).

    Gives the objective one tensor ``[V, B, K]``.
    """

    student: Select = every_view

    def of_teacher(self, view: View) -> bool:
        """No teacher is needed."""
        return False

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project the chosen views."""
        chosen = [place for place, view in enumerate(seen.views) if self.student(view)]
        views = [seen.views[place] for place in chosen]
        return (branch.project([seen.student[place] for place in chosen], views),)


@dataclass(frozen=True)
class TeacherViews:
    """The student's views against the teacher's (BYOL, DINO).

    Gives the objective ``[V, B, K]`` of the student and ``[T, B, K]`` of the teacher; the views that
    the teacher reads come first on the student's side, in the same order.
    """

    student: Select = every_view
    teacher: Select = global_views

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


@dataclass(frozen=True)
class HiddenInput:
    """What the student predicts at the hidden tokens against the input itself (MAE).

    ``tokenise`` cuts a view's data into one target per token, ``[B, T, K]``. Gives the objective
    prediction, target and mask.
    """

    tokenise: Callable[[Any], Tensor]

    def of_teacher(self, view: View) -> bool:
        """No teacher is needed."""
        return False

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Decode every masked view and lay the views' batches one behind the other."""
        masked = [place for place, view in enumerate(seen.views) if view.mask is not None]
        prediction = torch.cat([branch.head(seen.student[place]) for place in masked])
        target = torch.cat([self.tokenise(seen.views[place].data) for place in masked])
        mask = torch.cat([m for place in masked if (m := seen.views[place].mask) is not None])
        return branch.predictor(prediction), target, mask
