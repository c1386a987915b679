"""Objectives that keep dimensions from collapsing or repeating one another, without negatives."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

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
        views, batch, dimensions = z.shape
        # half the mean squared difference of two views is their variance
        between = 2 * (z - z.mean(0)).square().mean() * views / (views - 1)
        z = z - z.mean(1, keepdim=True)
        variance = z.square().sum(1) / (batch - 1)  # torch's var is slow along this axis
        spread = (1 - (variance + self.eps).sqrt()).relu().mean()
        shared = 2 * _off_diagonal(z, z).mean() / (batch - 1) ** 2 / dimensions
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
        standardised = [F.batch_norm(view, None, None, training=True, eps=self.eps) for view in z]
        return torch.stack([self._pair(a, b) for a, b in combinations(standardised, 2)]).mean()

    def _pair(self, a: Tensor, b: Tensor) -> Tensor:
        """``a``, ``b``: ``[N, K]``, standardised."""
        diagonal = (a * b).mean(0)
        redundancy = _off_diagonal(a, b) / len(a) ** 2
        loss: Tensor = (1 - diagonal).square().sum() + self.off_diagonal * redundancy
        return loss


def _off_diagonal(a: Tensor, b: Tensor) -> Tensor:
    """The sum of squared off-diagonal entries of ``a.T @ b``, for ``[N, K]`` or a stack of them.

    ``|a.T b|^2 = <a a.T, b b.T>``, so one ``K x K`` matrix will do, or one ``N x N`` matrix for each of
    a and b, whichever is less work: 8192 dimensions and 256 samples need a thousandth of the memory.
    """
    batch, dimensions = a.shape[-2:]
    if batch * (1 if b is a else 2) < dimensions:
        first = a @ a.mT
        second = first if b is a else b @ b.mT
    else:
        first = second = a.mT @ b
    everything: Tensor = torch.linalg.vecdot(first.flatten(-2), second.flatten(-2))
    return everything - (a * b).sum(-2).square().sum(-1)
