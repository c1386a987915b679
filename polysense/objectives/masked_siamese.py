"""Masked siamese networks: views with parts missing fall to the prototypes of the whole view."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.distillation import Distillation, mean_dot
from polysense.objectives.distributed import mean_over_processes
from polysense.objectives.sinkhorn import sinkhorn


class MSN(Distillation):
    """Assignment to learned prototypes with their mean entropy raised (https://arxiv.org/abs/2204.07141).

    With ``s`` the cosines to the ``prototypes``, which student and teacher share and the student learns::

        p      = softmax(s_student / temperature)
        target = softmax(s_teacher / teacher_temperature)
        loss   = mean of - sum target * log p  +  entropy_weight * (log(prototypes) - entropy(mean p))

    the first mean over samples and pairs of a teacher and another student view, the second over all
    student views of all processes. With ``sinkhorn_iterations`` above 0 the targets of each teacher view
    are balanced over the samples of all processes.

    >>> MSN(prototypes=8, dim=4)(torch.randn(3, 5, 4), torch.randn(2, 5, 4)).shape
    torch.Size([])

    Raises PolysenseError where the shapes do not fit the prototypes or each other.
    """

    def __init__(
        self,
        prototypes: int = 1024,
        dim: int = 256,
        temperature: float = 0.1,
        teacher_temperature: float = 0.025,
        entropy_weight: float = 1.0,
        sinkhorn_iterations: int = 3,
    ) -> None:
        super().__init__()
        bound = dim**-0.5
        self.prototypes = nn.Parameter(torch.empty(prototypes, dim).uniform_(-bound, bound))
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.entropy_weight = entropy_weight
        self.sinkhorn_iterations = sinkhorn_iterations

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of ``student[V, B, dim]`` against ``teacher[T, B, dim]``, not normalised."""
        pairs = self.compared(student, teacher)
        if student.shape[-1] != self.prototypes.shape[1]:
            raise PolysenseError(
                f"MSN's prototypes have {self.prototypes.shape[1]} dimensions, but the projector gives"
                f" {student.shape[-1]}; make the two equal"
            )
        prototypes = F.normalize(self.prototypes, dim=1).to(student.dtype)
        log_p = (F.normalize(student, dim=-1) @ prototypes.T / self.temperature).log_softmax(-1)
        targets = self._targets(F.normalize(teacher.detach(), dim=-1) @ prototypes.detach().T)
        cross_entropy = -mean_dot(targets, log_p)
        mean_p = mean_over_processes(log_p.exp().mean((0, 1)))
        lacking = math.log(len(prototypes)) - torch.special.entr(mean_p).sum()
        matched = mean_over_processes((cross_entropy * pairs).sum() / pairs.sum())
        loss: Tensor = matched + self.entropy_weight * lacking
        return loss

    def _targets(self, scores: Tensor) -> Tensor:
        log_p = (scores / self.teacher_temperature).log_softmax(-1)
        if not self.sinkhorn_iterations:
            return log_p.exp()
        return torch.stack([sinkhorn(view, 1.0, self.sinkhorn_iterations) for view in log_p])
