"""How features lie on the sphere: whether what belongs together is near, and the rest is spread out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ROWS = 2048
NARROW = 0.5
"""A mean cosine of different samples above this makes cosines hard to read."""


def alignment(a: Tensor, b: Tensor) -> float:
    """The mean squared distance of unit rows that belong together, ``[N, D]`` both: 0 is best, 2 is chance.

    https://arxiv.org/abs/2005.10242

    >>> alignment(torch.eye(2), torch.eye(2)), alignment(torch.eye(2), torch.eye(2).flip(0))
    (0.0, 2.0)
    """
    a, b = _unit(a), _unit(b)
    return float((a - b).square().sum(1).mean())


def uniformity(features: Tensor) -> float:
    """``log mean exp(-2 |x - y|^2)`` over pairs of different unit rows of ``[N, D]``: 0 is a point.

    Rows at right angles to each other have -4. Up to 2,048 rows, evenly spaced, are compared.
    https://arxiv.org/abs/2005.10242

    >>> round(uniformity(torch.eye(4)), 3)
    -4.0
    """
    return float((4 * _cosines(features) - 4).exp().mean().log())


def mean_cosine(features: Tensor) -> float:
    """The mean cosine of different rows of ``[N, D]``: near 1 they all point one way (anisotropy).

    Up to 2,048 rows, evenly spaced, are compared.

    >>> mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    0.0
    """
    return float(_cosines(features).mean())


def narrow(name: str, features: Tensor) -> list[str]:
    """A note when different samples all point one way; empty when they do not."""
    cosine = mean_cosine(features)
    if cosine <= NARROW:
        return []
    return [
        f"{name}: different samples have a cosine of {cosine:.2f} on average, so compare by rank and not by"
        " value, or subtract the mean"
    ]


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.double(), dim=1)


def _cosines(features: Tensor) -> Tensor:
    """The cosines of all pairs of different rows."""
    places = torch.linspace(0, len(features) - 1, min(len(features), _ROWS)).round().long()
    unit = _unit(features[places])
    above = torch.triu_indices(len(unit), len(unit), 1)
    return (unit @ unit.T)[above[0], above[1]]
