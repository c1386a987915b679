"""Objectives that keep dimensions from collapsing or repeating one another, without negatives."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from polysense.objectives.base import Objective, check_views
from polysense.objectives.distributed import gather


class VICReg(Objective):
    """Variance-invariance-covariance regularisation (https://arxiv.org/abs/2105.04906).

    For two views ``x, y`` of N samples in K dimensions, gathered from all processes::

        loss = invariance * mean (x - y)^2
             + variance   * sum over views of mean over dimensions of max(0, 1 - std) / 2
             + covariance * sum over views of (sum of squared off-diagonal covariances) / K

    with ``std = sqrt(var + eps)`` and variances and covariances divided by N - 1. With more than two
    views it is the mean over pairs of views.

    >>> views = torch.tensor([[1.0], [-1.0]]).expand(2, 2, 1)  # equal views, std above 1
    >>> VICReg()(views)
    tensor(0.)

    Raises PolysenseError for fewer than 2 views or 2 samples.
    """

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, eps: float = 1e-4
    ) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance, self.eps = invariance, variance, covariance, eps

    def forward(self, z: Tensor) -> Tensor:
        """The loss of ``z``, ``[V, B, K]``: V views of the same B samples."""
        check_views(self, z)
        z = gather(z, dim=1)
        between = 2 * z.var(0).mean()  # of two views: half their squared difference each
        z = z - z.mean(1, keepdim=True)
        spread = (1 - (z.var(1) + self.eps).sqrt()).relu().mean()
        shared = 2 * _off_diagonal(z, z).mean() / (z.shape[1] - 1) ** 2 / z.shape[2]
        return self.invariance * between + self.variance * spread + self.covariance * shared


class BarlowTwins(Objective):
    """Redundancy reduction (https://arxiv.org/abs/2103.03230).

    Each dimension of each view is standardised over the whole batch, of all processes, with the biased
    variance (as batch normalisation does, hence ``eps``); then, with ``C`` the ``K x K`` cross-correlation
    of two views, divided by the whole batch's N::

        loss = sum (1 - C_ii)^2 + off_diagonal * sum over i != j of C_ij^2

    With more than two views it is the mean over pairs of views.

    >>> views = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).expand(2, 4, 2)
    >>> bool(BarlowTwins()(views) < 1e-8)
    True

    Raises PolysenseError for fewer than 2 views or 2 samples.
    """

    def __init__(self, off_diagonal: float = 0.0051, eps: float = 1e-5) -> None:
        super().__init__()
        self.off_diagonal, self.eps = off_diagonal, eps

    def forward(self, z: Tensor) -> Tensor:
        """The loss of ``z``, ``[V, B, K]``: V views of the same B samples."""
        check_views(self, z)
        z = gather(z, dim=1)
        variance, mean = torch.var_mean(z, dim=1, correction=0, keepdim=True)
        z = (z - mean) / (variance + self.eps).sqrt()
        a, b = (z[list(side)] for side in zip(*combinations(range(len(z)), 2), strict=True))
        batch = z.shape[1]
        diagonal = (a * b).sum(1) / batch
        redundancy = _off_diagonal(a, b) / batch**2
        return ((1 - diagonal).square().sum(1) + self.off_diagonal * redundancy).mean()


def _off_diagonal(a: Tensor, b: Tensor) -> Tensor:
    """``[P]``: the sum of squared off-diagonal entries of ``a.T @ b`` for each of P pairs ``[N, K]``.

    ``|a.T b|^2 = <a a.T, b b.T>``, so the smaller of a ``K x K`` and an ``N x N`` matrix will do:
    8192 dimensions and 256 samples need a thousandth of the memory.
    """
    batch, dimensions = a.shape[1:]
    if batch < dimensions:
        gram = a @ a.mT
        everything = gram * (gram if b is a else b @ b.mT)
    else:
        everything = (a.mT @ b).square()
    return everything.sum((1, 2)) - (a * b).sum(1).square().sum(1)
