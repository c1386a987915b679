"""Contrastive objectives that look for each embedding's partner in another view."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.objectives.base import Objective, check_views
from polysense.objectives.contrastive import info_nce
from polysense.objectives.distillation import Distillation
from polysense.objectives.distributed import gather, mean_over_processes, rank
from polysense.objectives.queue import Queue


class InfoNCE(Objective):
    """Pick the partner out of another view (https://arxiv.org/abs/1807.03748).

    For two views ``a, b`` of N samples, gathered from all processes, and s = cosine / temperature::

        loss = mean of (-s(a_i, b_i) + log sum over j of exp s(a_i, b_j)) over i, a -> b and b -> a

    Unlike in :class:`.NTXent` nothing is compared within a view. DirectCLR's loss
    (https://arxiv.org/abs/2110.09348). With more than two views it is the mean over pairs of views. With
    ``one_way`` only the first view asks, as in SCARF (https://arxiv.org/abs/2106.15147); without ``cosine``
    s is the dot product / temperature, as in SAINT (https://arxiv.org/abs/2106.01342).

    >>> InfoNCE()(torch.ones(2, 8, 3)).exp().round()  # indistinguishable samples are chance
    tensor(8.)

    Raises PolysenseError for fewer than 2 views or 2 samples.
    """

    def __init__(self, temperature: float = 0.1, *, one_way: bool = False, cosine: bool = True) -> None:
        super().__init__()
        self.temperature, self.one_way, self.cosine = temperature, one_way, cosine

    def forward(self, z: Tensor) -> Tensor:
        """The loss of ``z``, ``[V, B, K]``: V views of the same B samples, not normalised."""
        check_views(self, z)
        return across_views(z[:1] if self.one_way else z, z, self.temperature, self.cosine)


class MoCoV3(Distillation):
    """The student's embedding picks the teacher's of another view (https://arxiv.org/abs/2104.02057).

    With s = cosine / temperature and the teacher's N embeddings gathered from all processes::

        loss = 2 * temperature * sum over teacher views of the mean over other student views and samples
               of (-s(q_i, k_i) + log sum over j of exp s(q_i, k_j))

    Two views give the paper's sum of both directions. The published temperature is 0.2 for ViTs and 1
    for ResNets.

    >>> student = torch.eye(4).expand(2, 4, 4)
    >>> MoCoV3(temperature=1.0)(student, student)
    tensor(2.9747)

    Raises PolysenseError where the shapes do not fit or there is only one view.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of ``student[V, B, K]`` against ``teacher[T, B, K]``, not normalised."""
        self.compared(student, teacher)
        contrast = across_views(student, teacher.detach(), self.temperature)
        return 2 * self.temperature * len(teacher) * contrast


class MoCo(Distillation):
    """The student's embedding picks the teacher's out of a queue of earlier ones.

    With s = cosine / temperature, student embedding q and teacher embedding k of another view::

        loss = mean over samples of -s(q, k) + log (exp s(q, k) + sum over queue of exp s(q, key))

    averaged over pairs of views; with one teacher view it is the paper's. The samples of a batch are not
    compared with each other. Afterwards, in training mode, the teacher's embeddings go into the queue.

    https://arxiv.org/abs/1911.05722, https://arxiv.org/abs/2003.04297

    >>> student = torch.eye(4).expand(2, 4, 4)
    >>> objective = MoCo(dim=4, queue=8).eval()
    >>> bool(objective(student, student) < objective(student, -student))
    True

    Raises PolysenseError where the shapes do not fit or there is only one view.
    """

    def __init__(self, dim: int, queue: int = 65536, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature
        self.queue = Queue(queue, dim)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of ``student[V, B, dim]`` against ``teacher[T, B, dim]``, not normalised."""
        pairs = self.compared(student, teacher)
        queries, keys = F.normalize(student, dim=-1), F.normalize(teacher.detach(), dim=-1)
        partner = torch.einsum("vbk,tbk->tvb", queries, keys) / self.temperature
        crowd = (self.queue.similarities(queries) / self.temperature).logsumexp(-1)
        contrast = (torch.logaddexp(partner, crowd) - partner).mean(-1)
        if self.training:
            self.queue.push(keys)
        return mean_over_processes((contrast * pairs).sum() / pairs.sum())


class NNCLR(Distillation):
    """The nearest neighbour of one view's projection picks the prediction from another view.

    With s = cosine / temperature, n the key of the queue that is nearest to the projection of view a,
    and p the predictions from view b of N samples, gathered from all processes::

        loss = mean over i of (-s(n_i, p_i) + log sum over j of exp s(n_i, p_j))

    averaged over pairs of views. Afterwards, in training mode, the projections of the first view go into
    the queue. Projections get no gradient but through their predictions.

    https://arxiv.org/abs/2104.14548

    >>> views = torch.ones(2, 8, 3)  # indistinguishable samples are chance
    >>> NNCLR(dim=3, queue=16)(views, views).exp().round()
    tensor(8.)

    Raises PolysenseError where the shapes do not fit or there is only one view.
    """

    def __init__(self, dim: int, queue: int = 98304, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature
        self.queue = Queue(queue, dim)

    def forward(self, predicted: Tensor, projected: Tensor) -> Tensor:
        """The loss of ``predicted[V, B, dim]`` and ``projected[T, B, dim]``, not normalised."""
        self.compared(predicted, projected)
        projected = F.normalize(projected.detach(), dim=-1)
        neighbours = self.queue.nearest(projected)
        if self.training:
            self.queue.push(projected[0])
        return across_views(neighbours, predicted, self.temperature)


def across_views(queries: Tensor, keys: Tensor, temperature: float, cosine: bool = True) -> Tensor:
    """InfoNCE of ``queries[V, B, K]`` in ``keys[T, B, K]``, the mean over pairs of different views.

    View number v of the one is that of the other. With ``cosine`` both are normalised here. The keys are
    gathered from all processes, and the logits worked through in chunks: see :func:`.info_nce`.
    """
    if cosine:
        queries, keys = F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
    queries, crowd = queries / temperature, gather(keys, dim=1)
    batch = queries.shape[1]
    partner = torch.arange(batch, device=queries.device) + rank() * batch
    pairs = [(v, t) for v, t in product(range(len(queries)), range(len(crowd))) if v != t]
    losses = [info_nce(queries[v], crowd[t], partner) for v, t in pairs]
    return mean_over_processes(torch.stack(losses).mean())
