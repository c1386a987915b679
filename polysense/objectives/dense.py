"""Objectives that compare places: tokens of one view with the tokens of another that match them."""

from __future__ import annotations

from itertools import permutations, product

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distillation import Distillation
from polysense.objectives.distributed import mean_over_processes, world_size
from polysense.objectives.queue import Queue
from polysense.objectives.redundancy import VICReg


class DenseMoCo(Distillation):
    """DenseCL's contrast of places (https://arxiv.org/abs/2011.09157).

    Each place p of a student view is matched with the place m of the teacher's view whose *features*,
    those of the encoder, have the largest cosine with its own. Then, with s = cosine / temperature of
    the *projections* q and k::

        loss = mean over p of -s(q_p, k_m) + log (exp s(q_p, k_m) + sum over queue of exp s(q_p, key))

    averaged over pairs of a student's and a teacher's view; with one teacher view it is the paper's.
    Afterwards, in training mode, the mean over places of the teacher's projections, one key for each
    sample and view, goes into the queue.

    >>> views = torch.eye(4).expand(2, 1, 4, 4)  # two views of one sample at four places
    >>> aligned = DenseMoCo(dim=4, queue=8)(views, views, views, views)
    >>> bool(aligned < DenseMoCo(dim=4, queue=8)(views, -views, views, views))
    True

    Raises PolysenseError where the shapes do not fit or there is only one view.
    """

    def __init__(self, dim: int, queue: int = 65536, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature
        self.queue = Queue(queue, dim)

    def forward(
        self, student: Tensor, teacher: Tensor, student_features: Tensor, teacher_features: Tensor
    ) -> Tensor:
        """The loss of projections ``[V, B, T, dim]`` matched by features ``[V, B, T, E]``.

        There may be fewer views of the teacher's, which are then the student's first ones.
        """
        for projected, features in ((student, student_features), (teacher, teacher_features)):
            if projected.ndim != 4 or features.shape[:-1] != projected.shape[:-1]:
                raise PolysenseError(
                    "DenseMoCo compares projections and features stacked as [views, samples, places, "
                    f"dimensions], but got {list(projected.shape)} and {list(features.shape)}; check that "
                    "the head keeps the places"
                )
        teacher = teacher.detach()
        summary = teacher.mean(2)
        self.compared(student.mean(2), summary)
        queries, keys = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
        crowd = (self.queue.similarities(queries) / self.temperature).logsumexp(-1)
        losses = []
        for v, t in product(range(len(student)), range(len(teacher))):
            if v != t:
                match = _most_alike(student_features[v], teacher_features[t])
                partner = (queries[v] * _take(keys[t], match)).sum(-1) / self.temperature
                losses.append((torch.logaddexp(partner, crowd[v]) - partner).mean())
        if self.training:
            self.queue.push(F.normalize(summary, dim=-1))
        return mean_over_processes(torch.stack(losses).mean())


class LocalVICReg(Objective):
    """VICRegL's regularisation of matched places (https://arxiv.org/abs/2210.01571).

    Each place of a view is matched with the place of another view that is nearest

    - in embedding, for all places, and
    - in the sample itself, for the ``share`` of places that have the nearest ones.

    :class:`.VICReg` of the matched embeddings, its invariance over all of them and its variance and
    covariance at each place over the samples of all processes, is averaged over the ordered pairs of
    views, and the two ways of matching are added. The published 20 of 49 places (and 4 of 9 in small
    crops) are a ``share`` of 20/49.

    >>> views = torch.tensor([[[1.0]], [[-1.0]]]).expand(2, 2, 3, 1)  # equal everywhere, std above 1
    >>> LocalVICReg()(views, torch.arange(3.0).expand(2, 2, 3)[..., None])
    tensor(0.)

    Raises PolysenseError where the shapes do not fit, for fewer than 2 views or 2 samples, or where
    ``share`` is not above 0 and at most 1.
    """

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        share: float = 20 / 49,
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise PolysenseError(
                f"the share of places to match is {share}; choose a number above 0 and up to 1"
            )
        self.invariance, self.share = invariance, share
        self.regularise = VICReg(0.0, variance, covariance)

    def forward(self, z: Tensor, places: Tensor) -> Tensor:
        """The loss of ``z[V, B, T, K]`` that lie at ``places[V, B, T, G]`` of their samples."""
        if z.ndim != 4 or places.shape[:-1] != z.shape[:3] or len(z) < 2 or z.shape[1] * world_size() < 2:
            raise PolysenseError(
                "LocalVICReg compares at least 2 views of at least 2 samples, stacked as [views, samples, "
                f"places, dimensions], and where they lie, but got {list(z.shape)} and {list(places.shape)}; "
                "check the head, the view plan and the batch size"
            )
        everywhere = z.shape[2]
        near = max(1, round(self.share * everywhere))
        ways = ((z.detach(), everywhere), (places, near))
        losses = [
            self._vicreg(*_nearest(z[a], z[b], torch.cdist(where[a], where[b]), count))
            for (a, b), (where, count) in product(permutations(range(len(z)), 2), ways)
        ]
        return torch.stack(losses).mean() * len(ways)

    def _vicreg(self, a: Tensor, b: Tensor) -> Tensor:
        """VICReg of ``[B, M, K]`` twice; with each place as a view of its own, it regularises each."""
        regularised: Tensor = self.regularise(torch.cat([a, b], dim=1).transpose(0, 1))
        return self.invariance * mean_over_processes((a - b).square().mean()) + regularised


def _nearest(a: Tensor, b: Tensor, distances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` tokens of ``a[B, T, K]`` whose nearest in ``b`` is nearest, in their order, and those."""
    least, match = distances.min(2)
    chosen = least.topk(count, largest=False).indices.sort(1).values
    return _take(a, chosen), _take(b, match.gather(1, chosen))


def _most_alike(a: Tensor, b: Tensor) -> Tensor:
    """``[B, T]``: for each token of ``a[B, T, E]`` the place of the one in ``b`` with the largest cosine."""
    with torch.no_grad():
        return (a @ F.normalize(b, dim=-1).mT).argmax(2)  # the length of its own features does not matter


def _take(tokens: Tensor, places: Tensor) -> Tensor:
    """``[B, M, K]``: of ``tokens[B, T, K]`` those at ``places[B, M]``."""
    return tokens.take_along_dim(places[..., None], dim=1)
