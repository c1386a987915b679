"""W-MSE: views that agree after whitening cannot have collapsed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective, check_views
from polysense.objectives.distributed import gather, mean_over_processes


class WMSE(Objective):
    """The distance between whitened views (https://arxiv.org/abs/2007.06346).

    The samples of all processes are dealt at random into sub-batches of ``sub_batch``, the same for every
    view, and each view of each sub-batch is whitened by Cholesky's factor L of its covariance
    (divided by n - 1), mixed with ``shrink`` of the identity::

        covariance = (1 - shrink) * cov(z) + shrink * identity = L L'
        whitened   = inverse(L) (z - mean)
        loss       = mean over samples and pairs of views of 2 - 2 cos(whitened, whitened)

    averaged over ``iterations`` deals. A batch that does not divide evenly is dealt into sub-batches a
    little larger, and the few samples that are left sit out. Small sub-batches make W-MSE strict, for
    the whitening is estimated with more noise: the authors use twice the dimensions.

    >>> views = torch.randn(1, 64, 4).expand(2, 64, 4)
    >>> bool(WMSE()(views) < 1e-5)
    True

    Raises PolysenseError for fewer than 2 views or 2 samples, for no more samples than dimensions
    where nothing is shrunk, and for embeddings that do not fill their dimensions.
    """

    def __init__(self, sub_batch: int = 128, iterations: int = 1, shrink: float = 0.0) -> None:
        super().__init__()
        if sub_batch < 2 or iterations < 1:
            raise PolysenseError(
                f"W-MSE cannot whiten sub-batches of {sub_batch} in {iterations} iterations; use at least 2 "
                "samples and 1 iteration"
            )
        self.sub_batch, self.iterations, self.shrink = sub_batch, iterations, shrink

    def forward(self, z: Tensor) -> Tensor:
        """The loss of ``z``, ``[V, B, K]``: V views of the same B samples."""
        check_views(self, z)
        z = gather(z, dim=1)
        views, batch, dimensions = z.shape
        groups = max(1, batch // self.sub_batch)
        size = batch // groups
        if size <= dimensions and not self.shrink:
            raise PolysenseError(
                f"W-MSE whitens {dimensions} dimensions over {size} samples, and needs more samples than "
                "dimensions; raise the batch size (and sub_batch) or lower out"
            )
        losses = []
        for _ in range(self.iterations):
            # the mean of the processes' draws deals the same way on all of them
            order = mean_over_processes(torch.rand(batch, device=z.device)).argsort()[: groups * size]
            dealt = z[:, order].unflatten(1, (groups, size))
            whitened = F.normalize(self._whiten(dealt), dim=-1)
            # over the pairs of unit vectors: |their sum|^2 = views + 2 * sum of their cosines
            cosines = (whitened.sum(0).square().sum(-1) - views) / (views * (views - 1))
            losses.append(2 - 2 * cosines.mean())
        return torch.stack(losses).mean()

    def _whiten(self, z: Tensor) -> Tensor:
        """``[..., N, K]`` without mean and with the identity as covariance."""
        z = z - z.mean(-2, keepdim=True)
        covariance = z.mT @ z / (z.shape[-2] - 1)
        identity = torch.eye(z.shape[-1], device=z.device, dtype=z.dtype)
        factor, failed = torch.linalg.cholesky_ex(torch.lerp(covariance, identity, self.shrink))
        if failed.any():
            raise PolysenseError(
                "W-MSE cannot whiten embeddings that do not fill their dimensions; lower out or the learning "
                "rate, or set shrink to 0.01"
            )
        whitened: Tensor = torch.linalg.solve_triangular(factor, z.mT, upper=False).mT
        return whitened
