"""k-means in torch: prototypes that are means of the data, on any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError

_CHUNK = 2**22  # distances held at once, 16 MB in float32


@torch.no_grad()
def kmeans(
    x: Tensor, clusters: int, iterations: int = 10, *, spherical: bool = False
) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: ``(centroids[K, D], assignment[N])`` for ``x[N, D]``.

    Starts at distinct rows of ``x``, drawn by torch's global generator, and ends early where nothing
    moves any more. A cluster that loses all its points starts anew at one of the points that lie
    farthest from their centroids. ``spherical`` compares directions only: rows and centroids are
    normalised. The ``N x K`` distances exist only a few rows at a time.

    >>> centroids, assignment = kmeans(torch.tensor([[0.0], [0.2], [8.0], [8.2]]), clusters=2)
    >>> centroids.sort(0).values.flatten()
    tensor([0.1000, 8.1000])
    >>> bool(assignment[0] == assignment[1] != assignment[2])
    True

    Raises PolysenseError unless ``x`` is ``[N, D]`` with at least as many rows as clusters.
    """
    if x.ndim != 2 or not 1 <= clusters <= len(x):
        raise PolysenseError(
            f"kmeans got data of shape {list(x.shape)} for {clusters} clusters, but needs [samples,"
            " dimensions] with at least as many samples as clusters; ask for fewer clusters"
        )
    x = F.normalize(x, dim=1) if spherical else x
    centroids = x[torch.randperm(len(x))[:clusters].to(x.device)]
    distance, assignment = _closest(x, centroids)
    for _ in range(iterations):
        centroids = _means(x, assignment, distance, clusters)
        centroids = F.normalize(centroids, dim=1) if spherical else centroids
        before = assignment
        distance, assignment = _closest(x, centroids)
        if torch.equal(before, assignment):
            break
    return centroids, assignment


@torch.no_grad()
def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """``[N]``: the centroid, of ``centroids[K, D]``, nearest to each row of ``x[N, D]``.

    >>> nearest(torch.tensor([[1.0], [9.0]]), torch.tensor([[8.0], [0.0]]))
    tensor([1, 0])
    """
    return _closest(x, centroids)[1]


def _closest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """``[N]`` each: the squared distance to the nearest centroid, and which it is."""
    lengths = centroids.square().sum(1)
    found = [
        torch.addmm(lengths, rows, centroids.T, alpha=-2).min(1)
        for rows in x.split(max(1, _CHUNK // len(centroids)))
    ]
    distance = torch.cat([one.values for one in found]) + x.square().sum(1)
    return distance, torch.cat([one.indices for one in found])


def _means(x: Tensor, assignment: Tensor, distance: Tensor, clusters: int) -> Tensor:
    """``[K, D]``: each cluster's mean; an empty one starts anew at a far-off point."""
    counts = assignment.bincount(minlength=clusters)
    sums = x.new_zeros(clusters, x.shape[1]).index_add_(0, assignment, x)
    means = sums / counts.clamp(min=1)[:, None]
    empty = counts == 0
    means[empty] = x[distance.topk(int(empty.sum())).indices]
    return means
