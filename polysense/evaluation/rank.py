"""How much of their space features use: measures of collapse that need no labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.evaluation.knn import unit_rows


def rankme(features: Tensor, eps: float = 1e-7) -> float:
    """RankMe, the effective rank of ``[N, D]`` features (https://arxiv.org/abs/2210.02885).

    The exponential of the entropy of the singular values, each divided by their sum, plus ``eps``:
    from 1, all on one line, to ``min(N, D)``, all directions alike. It rises with N: compare figures
    of the same samples only. Features that are all zero have rank 1.

    The singular values come from the eigenvalues of the smaller Gram matrix, which is faster than
    decomposing the features, the more so the wider they are. Squaring costs digits, hence float64.

    >>> round(rankme(torch.eye(4).repeat(3, 1)), 3)
    4.0
    """
    singular = _gram_eigenvalues(features).sqrt()
    share = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny) + eps
    return math.exp(-(share * share.log()).sum().item())


def alpha_req(features: Tensor) -> float:
    """α-ReQ, how fast the spectrum of the features' covariance decays (Agrawal et al., NeurIPS 2022).

    The exponent of the power law ``eigenvalue ∝ rank ** -α``, fitted by least squares in log-log over
    the eigenvalues above rounding error. Near 1 is good; far above 1 says that few directions matter.

    >>> directions = torch.diag(torch.arange(1.0, 9.0) ** -0.5)
    >>> round(alpha_req(torch.cat([directions, -directions])), 3)
    1.0
    """
    eigenvalues = _gram_eigenvalues(features.double() - features.double().mean(dim=0)).flip(0)
    eigenvalues = eigenvalues[eigenvalues > 1e-12 * eigenvalues[0]]
    if len(eigenvalues) < 2:
        raise PolysenseError("the features vary in fewer than two directions, so their spectrum has no slope")
    rank = torch.arange(1, len(eigenvalues) + 1, dtype=eigenvalues.dtype, device=eigenvalues.device).log()
    rank = rank - rank.mean()
    return -((rank * eigenvalues.log()).sum() / rank.square().sum()).item()


def feature_spread(features: Tensor) -> float:
    """How far ``[N, D]`` features, each scaled to length 1, spread over the sphere.

    The mean over the dimensions of their standard deviation, times √D: near 1 where all directions
    are used, 0 where all samples have collapsed to one. SimSiam's measure of collapse
    (https://arxiv.org/abs/2011.10566).

    >>> feature_spread(torch.ones(5, 3))
    0.0
    """
    unit = unit_rows(features, "features")
    return unit.std(dim=0, correction=0).mean().item() * math.sqrt(unit.shape[1])


def _gram_eigenvalues(features: Tensor) -> Tensor:
    """The squared singular values of ``[N, D]`` features in float64, lowest first."""
    if features.ndim != 2 or features.numel() == 0:
        raise PolysenseError(
            f"the rank of features needs at least one row of shape [N, D], not {list(features.shape)}"
        )
    if not features.isfinite().all():
        raise PolysenseError("the features hold NaN or infinite values; check whether the training diverged")
    rows, columns = features.shape
    gram = _lower_gram(features if rows >= columns else features.T)
    eigenvalues: Tensor = torch.linalg.eigvalsh(gram)
    return eigenvalues.clamp_min(0)


def _lower_gram(features: Tensor, rows: int = 1024, columns: int = 192) -> Tensor:
    """``features.T @ features`` in float64, only the lower triangle of blocks: eigvalsh reads no more.

    Rows are converted a part at a time, so that no float64 copy of all of them is made.
    """
    width = features.shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for part in features.split(rows):
        part = part.double()
        for start in range(0, width, columns):
            block = slice(start, start + columns)
            gram[start:, block] += part[:, start:].T @ part[:, block]
    return gram
