"""Objectives in which a student predicts what a teacher makes of other views. No negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distributed import mean_over_processes
from polysense.objectives.sinkhorn import sinkhorn


class Distillation(Objective):
    """Compares student views with teacher views, ``student[V, B, K]`` and ``teacher[T, B, K]``.

    Teacher view t is the same view as student view t, so T <= V; with ``skip_same`` a view is not
    compared with itself. The teacher's side gets no gradient.
    """

    def __init__(self, skip_same: bool = True) -> None:
        super().__init__()
        self.skip_same = skip_same

    def compared(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``[T, V]``: 1 where that teacher view is compared with that student view, else 0."""
        fits = student.ndim == teacher.ndim == 3 and student.shape[1:] == teacher.shape[1:]
        if not fits or len(teacher) > len(student):
            raise PolysenseError(
                f"{type(self).__name__} compares student views with teacher views, stacked as [views, "
                f"samples, dimensions] and no more of the teacher's, but got shapes {list(student.shape)} "
                f"and {list(teacher.shape)}; check which views the teacher reads"
            )
        pairs = student.new_ones(len(teacher), len(student))
        if not self.skip_same:
            return pairs
        if len(student) < 2:
            raise PolysenseError(
                f"{type(self).__name__} got one view and does not compare a view with itself; ask for at "
                "least 2 views or set skip_same=False"
            )
        return pairs.fill_diagonal_(0)


class NegativeCosine(Distillation):
    """BYOL's regression of the teacher's direction (https://arxiv.org/abs/2006.07733).

    For each teacher view the mean of ``2 - 2 cos(student, teacher)`` over the samples and over the
    student views it is compared with, summed over teacher views: two views give the paper's sum of
    both directions, between 0 (aligned) and 8 (opposed).

    >>> student = torch.eye(3).expand(2, 3, 3)
    >>> NegativeCosine()(student, -student)
    tensor(8.)

    Raises PolysenseError where the shapes do not fit or a lone view would be compared with itself.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of ``student[V, B, K]`` against ``teacher[T, B, K]``, not normalised."""
        pairs = self.compared(student, teacher)
        cosine = mean_dot(F.normalize(teacher.detach(), dim=-1), F.normalize(student, dim=-1))
        per_teacher = ((2 - 2 * cosine) * pairs).sum(1) / pairs.sum(1)
        return mean_over_processes(per_teacher.sum())


class DINO(Distillation):
    """Self-distillation of prototype assignments (https://arxiv.org/abs/2104.14294).

    For each pair of a teacher and a student view, with ``x`` the ``prototypes`` outputs of the head::

        target = softmax((x_teacher - centre) / teacher temperature)
        loss   = mean over samples of - sum target * log softmax(x_student / student_temperature)

    averaged over pairs. Afterwards, in training mode, ``centre`` (a buffer) moves towards the mean
    teacher output of all processes: ``centre_momentum * centre + (1 - centre_momentum) * mean``. The
    teacher's temperature rises linearly from ``warmup_teacher_temperature`` to ``teacher_temperature``
    over the first ``warmup`` share of training. A loss that stays at ``log(prototypes)`` has collapsed
    to the uniform answer.

    With ``sinkhorn_iterations`` above 0 there is no centre: as in DINOv2 (https://arxiv.org/abs/2304.07193)
    the target is ``sinkhorn(x_teacher / teacher temperature)`` over all teacher views of all processes.

    >>> uniform = torch.zeros(2, 4, 8)
    >>> DINO(prototypes=8)(uniform, uniform).exp()
    tensor(8.)

    Raises PolysenseError where the shapes do not fit or a lone view would be compared with itself.
    """

    centre: Tensor

    def __init__(
        self,
        prototypes: int,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_teacher_temperature: float = 0.04,
        warmup: float = 0.3,
        centre_momentum: float = 0.9,
        skip_same: bool = True,
        sinkhorn_iterations: int = 0,
    ) -> None:
        super().__init__(skip_same)
        self.sinkhorn_iterations = sinkhorn_iterations
        self.student_temperature = student_temperature
        self.teacher_temperatures = warmup_teacher_temperature, teacher_temperature
        self.warmup = warmup
        self.centre_momentum = centre_momentum
        self.register_buffer("centre", torch.zeros(prototypes))
        self.at(0.0)

    def at(self, progress: float) -> None:
        """Set the teacher's temperature for this share of training."""
        start, end = self.teacher_temperatures
        warmed = min(1.0, progress / self.warmup) if self.warmup > 0 else 1.0
        self.teacher_temperature = start + (end - start) * warmed

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of ``student[V, B, prototypes]`` against ``teacher[T, B, prototypes]``."""
        pairs = self.compared(student, teacher)
        if student.shape[-1] != len(self.centre):
            raise PolysenseError(
                f"DINO was made for {len(self.centre)} prototypes, but the head gives "
                f"{student.shape[-1]}; make the two equal"
            )
        log_p = (student / self.student_temperature).log_softmax(-1)
        cross_entropy = -mean_dot(self.targets(teacher), log_p)
        return mean_over_processes((cross_entropy * pairs).sum() / pairs.sum())

    @torch.no_grad()
    def targets(self, teacher: Tensor) -> Tensor:
        """The teacher's probabilities ``[..., prototypes]`` of its scores; afterwards the centre moves."""
        scores = teacher.flatten(0, -2)
        if self.sinkhorn_iterations:
            return sinkhorn(scores, self.teacher_temperature, self.sinkhorn_iterations).view_as(teacher)
        target = ((teacher - self.centre) / self.teacher_temperature).softmax(-1)
        if self.training:
            # processes may hold different numbers of rows, even none: average sums and counts
            rows = mean_over_processes(scores.new_tensor(float(len(scores))))
            mean = mean_over_processes(scores.sum(0)) / rows.clamp_min(1e-6)
            step = (1 - self.centre_momentum) * (rows > 0)
            self.centre += (step * (mean - self.centre)).to(self.centre.dtype)
        return target


def mean_dot(teacher: Tensor, student: Tensor) -> Tensor:
    """``[T, V]``: the mean over samples of the dot products of each teacher and student view."""
    return teacher.flatten(1) @ student.flatten(1).T / teacher.shape[1]
