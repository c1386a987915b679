"""Self-distillation of single tokens, and what keeps whole embeddings apart meanwhile."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distillation import DINO
from polysense.objectives.distributed import gather, mean_over_processes, world_size


class IBOT(Objective):
    """Self-distillation of hidden tokens (https://arxiv.org/abs/2111.07832).

    ``dino`` makes targets of the teacher's scores and has the temperatures. With H(b) the hidden tokens
    of sample b::

        loss = mean over samples of 1 / |H(b)| * sum over t in H(b) of - sum target * log softmax(x_student)

    A sample of which nothing is hidden counts with a loss of 0. The centre follows the teacher's scores
    at the hidden tokens, as in DINOv2's code; in iBOT's own it follows those of all tokens.

    >>> hidden = torch.tensor([[True, False, True], [False, False, False]])
    >>> IBOT(DINO(prototypes=8))(torch.zeros(2, 8), torch.zeros(2, 8), hidden).mul(2).exp().round()
    tensor(8.)

    Raises PolysenseError where the shapes do not fit.
    """

    def __init__(self, dino: DINO) -> None:
        super().__init__()
        self.dino = dino

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """The loss of ``student[N, prototypes]`` against ``teacher[N, prototypes]``, N of ``mask[B, T]``."""
        hidden = mask.sum(1)
        if student.shape != teacher.shape or student.shape != (int(hidden.sum()), len(self.dino.centre)):
            raise PolysenseError(
                f"IBOT takes the scores of student and teacher at the {int(hidden.sum())} hidden tokens for"
                f" {len(self.dino.centre)} prototypes, but got {list(student.shape)} and"
                f" {list(teacher.shape)}; make head and objective equal"
            )
        log_p = (student / self.dino.student_temperature).log_softmax(-1)
        cross_entropy = -(self.dino.targets(teacher.detach()) * log_p).sum(-1)
        share = (1 / hidden.clamp_min(1).to(log_p.dtype))[:, None].expand_as(mask)[mask]
        return mean_over_processes((cross_entropy * share).sum() / len(mask))


class KoLeo(Objective):
    """Spreads a batch evenly over the sphere (https://arxiv.org/abs/1806.03198, as in DINOv2).

    With ``n(b)`` the nearest other sample by cosine, among those of all processes, for each view::

        loss = - mean over samples of log |z(b) - z(n(b))|,   z normalised

    summed over views.

    >>> KoLeo()(torch.eye(2)[None]).exp()  # the reciprocal of the distance between the two
    tensor(0.7071)

    Raises PolysenseError unless there are views of at least 2 samples.
    """

    def forward(self, z: Tensor) -> Tensor:
        """The loss of ``z[V, B, K]``, not normalised."""
        if z.ndim != 3 or z.shape[1] * world_size() < 2:
            raise PolysenseError(
                "KoLeo spreads at least 2 samples, stacked as [views, samples, dimensions], but got shape"
                f" {list(z.shape)}; raise the batch size"
            )
        z = gather(F.normalize(z, dim=-1), dim=1)
        alike = (z @ z.mT).detach()
        alike.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        nearest = z.take_along_dim(alike.argmax(-1, keepdim=True), 1)
        # eps: copies of one sample have a distance of 0, whose logarithm and root have no gradient
        distance = F.pairwise_distance(z, nearest, eps=1e-8)
        loss: Tensor = -(distance + 1e-8).log().mean(1).sum()
        return loss
