"""Learning to give another encoder's features."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distributed import mean_over_processes


class FeatureRegression(Objective):
    """The distance to a teacher's features of the same view, in direction (https://arxiv.org/abs/2201.05131).

    The teacher's features are first standardised, dimension by dimension over the batch of all processes,
    lest a mean that all samples share hide in what they differ::

        target = (teacher - mean) / (std + 1e-6)
        loss   = mean of 2 - 2 cos(student, target)

    which is the squared distance of the normalised two. The teacher gets no gradient.

    >>> import torch
    >>> features = torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    >>> FeatureRegression()(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), features).abs().round(decimals=4)
    tensor(0.)

    Raises PolysenseError where the shapes differ.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of ``student[..., K]`` against ``teacher[..., K]``, of samples or of their tokens."""
        if student.shape != teacher.shape:
            raise PolysenseError(
                f"the student gives features of shape {list(student.shape)} and its teacher"
                f" {list(teacher.shape)}, which must agree; where their grids differ, leave tokens at 0"
            )
        rows = teacher.detach().flatten(0, -2)
        mean = mean_over_processes(rows.mean(0))
        deviation = rows - mean
        target = deviation / (mean_over_processes(deviation.square().mean(0)).sqrt() + 1e-6)
        cosine = F.cosine_similarity(student.flatten(0, -2), target, dim=-1)
        return mean_over_processes((2 - 2 * cosine).mean())
