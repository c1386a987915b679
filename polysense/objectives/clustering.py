"""Objectives that compare views by the clusters they fall into, never sample with sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distillation import Distillation, mean_dot
from polysense.objectives.distributed import gather, mean_over_processes, rank, world_size
from polysense.objectives.kmeans import kmeans
from polysense.objectives.sinkhorn import sinkhorn


class SwAV(Distillation):
    """Swapped prediction of balanced cluster assignments (https://arxiv.org/abs/2006.09882).

    The student's whole views are their own teachers: ``teacher[T, B, dim]`` are the projections
    ``student[:T]`` without their gradient. With ``s`` the cosines to learned ``prototypes``::

        code = sinkhorn(s_teacher / epsilon) over the samples of all processes and the queue
        loss = mean over samples of - sum code * log softmax(s_student / temperature)

    averaged over pairs of a code's view and another view. ``queue`` (a buffer, 0 for none) keeps the
    last projections of each of the T views, from ``queue_from`` of training on; once it is full it
    joins in the balancing, so that a batch may be smaller than the number of prototypes. Until
    ``frozen_until`` of training the prototypes get a gradient of zeros.

    >>> objective = SwAV(prototypes=8, dim=4, queue=0)
    >>> objective(torch.randn(6, 5, 4), torch.randn(2, 5, 4)).shape
    torch.Size([])

    Raises PolysenseError where the shapes do not fit the prototypes, the queue or each other.
    """

    queue: Tensor

    def __init__(
        self,
        prototypes: int = 3000,
        dim: int = 128,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        *,
        queue: int = 3840,
        queue_from: float = 0.075,
        frozen_until: float = 0.005,
        teachers: int = 2,
    ) -> None:
        super().__init__()
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.queue_from, self.frozen_until = queue_from, frozen_until
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, dim), dim=1))
        self.register_buffer("queue", torch.zeros(teachers, queue, dim))  # the newest first
        self.at(0.0)

    def at(self, progress: float) -> None:
        """Free the prototypes and start the queue when it is time."""
        self.frozen = progress < self.frozen_until
        self.queueing = progress >= self.queue_from

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of ``student[V, B, dim]`` against ``teacher[T, B, dim]``, not normalised."""
        pairs = self.compared(student, teacher)
        teachers, _, dim = self.queue.shape
        if teacher.shape[::2] != (teachers, dim):
            raise PolysenseError(
                f"SwAV was made for {teachers} whole views in {dim} dimensions, but got {len(teacher)} in"
                f" {teacher.shape[-1]}; make its teachers and dim those of the view plan and the projector"
            )
        weight = self.prototypes.detach() + 0 * self.prototypes if self.frozen else self.prototypes
        prototypes = F.normalize(weight, dim=1).to(student.dtype)
        teacher = F.normalize(teacher.detach(), dim=-1)
        codes = self._codes(teacher, prototypes.detach())
        log_p = (F.normalize(student, dim=-1) @ prototypes.T / self.temperature).log_softmax(-1)
        cross_entropy = -mean_dot(codes, log_p)
        if self.training and self.queueing:
            newest_first = torch.cat([gather(teacher, dim=1), self.queue], 1)
            self.queue.copy_(newest_first[:, : self.queue.shape[1]])
        return mean_over_processes((cross_entropy * pairs).sum() / pairs.sum())

    def _codes(self, teacher: Tensor, prototypes: Tensor) -> Tensor:
        """``[T, B, prototypes]``: each view balanced by itself, together with its queue once that is full."""
        batch = teacher.shape[1]
        if self.queue[:, -1:].any():
            # sinkhorn sees all processes: each brings its share of the queue, which they all hold
            teacher = torch.cat([teacher, self.queue[:, rank() :: world_size()]], 1)
        codes = [sinkhorn(view @ prototypes.T, self.epsilon, self.iterations)[:batch] for view in teacher]
        return torch.stack(codes)


class DeepClusterV2(Objective):
    """Prediction of the cluster a sample was in an epoch ago (https://arxiv.org/abs/2006.09882, appendix).

    A bank remembers, of every one of the ``samples`` in the data, the last projections of its T whole
    views. Whenever as many samples as the data hold have gone by, spherical :func:`kmeans` clusters it,
    ``clusterings`` times, each on the next of the views. Every view of a sample must then tell that
    sample's cluster from the others, by cosine to the centroids::

        loss = mean over views, clusterings and samples of
               - log softmax(cosines to centroids / temperature)[cluster of the sample]

    A sample that has never been seen has no cluster and counts for nothing. So the first epoch has a
    loss and gradient of zero and just fills the bank: it is the pass over the data that the authors
    make before they train. Bank, centroids, clusters and the count are buffers.

    >>> objective = DeepClusterV2(samples=4, clusters=2, dim=3)
    >>> views, index = torch.randn(2, 4, 3), torch.arange(4)
    >>> float(objective(views, views, index))
    0.0
    >>> bool(objective(views, views, index) > 0)
    True

    Raises PolysenseError for more clusters than samples, or shapes and places that do not fit the bank.
    """

    bank: Tensor
    centroids: Tensor
    assignment: Tensor
    waiting: Tensor

    def __init__(
        self,
        samples: int,
        clusters: int = 3000,
        dim: int = 128,
        clusterings: int = 3,
        temperature: float = 0.1,
        *,
        teachers: int = 2,
    ) -> None:
        super().__init__()
        if clusters > samples:
            raise PolysenseError(
                f"{samples} samples cannot fall into {clusters} clusters; ask for fewer prototypes"
            )
        self.temperature = temperature
        self.register_buffer("bank", torch.zeros(teachers, samples, dim))
        self.register_buffer("centroids", torch.zeros(clusterings, clusters, dim))
        self.register_buffer("assignment", torch.full((clusterings, samples), -1))  # -1: not yet known
        self.register_buffer("waiting", torch.tensor(0))  # samples remembered since the last clustering

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor) -> Tensor:
        """The loss of ``student[V, B, dim]``; ``teacher[T, B, dim]`` goes into the bank at ``index[B]``."""
        self._check(student, teacher, index)
        if self.training and self.waiting >= self.bank.shape[1]:
            self.cluster()
        student = F.normalize(student, dim=-1)
        targets = self.assignment[:, index]
        total = student.new_zeros(())
        for centroids, target in zip(self.centroids.to(student.dtype), targets, strict=True):
            scores = (student @ centroids.T / self.temperature).flatten(0, 1)
            total = total + F.cross_entropy(
                scores, target.repeat(len(student)), ignore_index=-1, reduction="sum"
            )
        known = (gather(targets) >= 0).sum().clamp(min=1) / world_size()
        if self.training:
            self._remember(F.normalize(teacher.detach(), dim=-1), index)
        return mean_over_processes(total) / (known * len(student))

    @torch.no_grad()
    def cluster(self) -> None:
        """Cluster the bank anew; the first process's clusters hold for all."""
        seen = self.bank[0].any(1)
        for place in range(len(self.centroids)):
            view = self.bank[place % len(self.bank)]
            centroids, assignment = kmeans(view[seen], self.centroids.shape[1], spherical=True)
            self.centroids[place] = gather(centroids[None])[0]
            self.assignment[place, seen] = gather(assignment[None])[0]
        self.waiting.zero_()

    def _remember(self, projections: Tensor, index: Tensor) -> None:
        places = gather(index)
        self.bank[:, places] = gather(projections, dim=1).to(self.bank.dtype)
        self.waiting += len(places)

    def _check(self, student: Tensor, teacher: Tensor, index: Tensor) -> None:
        teachers, samples, dim = self.bank.shape
        shapes = (student.shape[1:], teacher.shape)
        expected = ((len(index), dim), (teachers, len(index), dim))
        if shapes != expected or not 0 <= int(index.min()) <= int(index.max()) < samples:
            raise PolysenseError(
                f"DeepClusterV2 was made for {samples} samples with {teachers} whole views in {dim}"
                f" dimensions, but got views {list(student.shape)}, whole ones {list(teacher.shape)} and"
                f" {len(index)} places up to {int(index.max())}; make its samples, teachers and dim those of"
                " the data and the projector"
            )
