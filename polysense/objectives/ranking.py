"""Contrastive objectives for a question, its answer, and answers that only seem right."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective, check_views
from polysense.objectives.distributed import gather, mean_over_processes, rank, world_size


class AnswerRanking(Objective):
    """Rank each question's answer before everybody's, and before wrong answers that are hard to tell.

    With questions a, answers p and wrong answers n of N samples, gathered from all processes, and
    s = scale * cosine::

        loss = mean over i of (-s(a_i, p_i) + log sum over j of (exp s(a_i, p_j) + exp s(a_i, n_j)))

    Multiple negatives ranking (https://arxiv.org/abs/1705.00652); with wrong answers that of supervised
    SimCSE (https://arxiv.org/abs/2104.08821), whose temperature is 1 / ``scale``. With ``both_ways`` the
    answers also look for their questions, and the loss is the mean of both.

    >>> AnswerRanking()(torch.ones(3, 4, 2)).exp().round()  # indistinguishable: one of 4 + 4 answers
    tensor(8.)

    Raises PolysenseError for a scale that is not positive, fewer than 2 sides or 2 samples, and known
    values of another shape.
    """

    def __init__(self, scale: float = 20.0, *, both_ways: bool = False) -> None:
        super().__init__()
        if scale <= 0:
            raise PolysenseError(f"scale is {scale}; cosines are multiplied by it, so give one above 0")
        self.scale, self.both_ways = scale, both_ways

    def forward(self, z: Tensor, present: Tensor | None = None, identity: Tensor | None = None) -> Tensor:
        """The loss of ``z``, ``[V, B, K]``: questions, answers and V - 2 wrong answers, not normalised.

        ``present`` ``[V, B]`` is False where a sample lacks the side. Samples of equal ``identity`` ``[B]``
        (the same question asked twice) are not held against each other.
        """
        check_views(self, z)
        present = torch.ones_like(z[..., 0], dtype=torch.bool) if present is None else present
        identity = (
            torch.arange(z.shape[1], device=z.device) + rank() * z.shape[1] if identity is None else identity
        )
        if present.shape != z.shape[:2] or identity.shape != z.shape[1:2]:
            raise PolysenseError(
                f"present and identity have the shapes {list(present.shape)} and {list(identity.shape)} where"
                f" the sides are {list(z.shape)}; give [sides, samples] and [samples]"
            )
        z = F.normalize(z, dim=-1)
        loss = self._asked(z[0], z[1:], present[0] & present[1], present[1:], identity)
        if self.both_ways:
            back = self._asked(z[1], z[:1], present[0] & present[1], present[:1], identity)
            loss = (loss + back) / 2
        return loss

    def _asked(self, asking: Tensor, sides: Tensor, both: Tensor, there: Tensor, identity: Tensor) -> Tensor:
        """The loss of ``asking[B, K]``, whose answers are in the first of ``sides[W, B, K]``."""
        answers, there, everyone = gather(sides, dim=1), gather(there, dim=1), gather(identity)
        own = torch.arange(len(asking), device=asking.device) + rank() * len(asking)
        unfair = identity[:, None] == everyone
        unfair.scatter_(1, own[:, None], False)
        left_out = torch.cat([unfair, torch.zeros_like(unfair).repeat(1, len(answers) - 1)], 1)
        left_out = left_out | ~there.flatten()
        logits = self.scale * asking @ answers.flatten(0, 1).T
        logits = logits.masked_fill(left_out, torch.finfo(logits.dtype).min)
        losses = F.cross_entropy(logits, own, reduction="none")
        count = gather(both).sum().clamp(min=1)
        return mean_over_processes(losses[both].sum() * world_size() / count)
