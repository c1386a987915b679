"""Ridge regression on unseen episodes, and principal components: how states are probed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polysense.errors import PolysenseError

TEST_EVERY = 5
"""Every fifth episode is kept for testing."""

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""The ridge penalties that are tried, as shares of the features' mean variance."""

PCA = "PCA of pixels"
"""The row of the humble baseline."""

COMPONENTS = 64


def ridge_r2(features: Tensor, truth: Tensor, episode: Tensor) -> list[float]:
    """R² of ridge regression from ``features[N, D]`` to each column of ``truth[N, V]``, on unseen episodes.

    Features are standardised. The penalty is chosen for each variable on every fifth episode of those that
    are not for testing.

    >>> x = torch.arange(20.0)[:, None]
    >>> [round(score, 3) for score in ridge_r2(x, 2 * x + 1, torch.arange(20) // 2)]
    [1.0]
    """
    test = held_out(episode)
    rest = torch.unique(episode[~test])
    chooses = ~test & torch.isin(episode, rest[TEST_EVERY - 1 :: TEST_EVERY])
    learns = ~test & ~chooses if bool(chooses.any()) else ~test
    tried = _r2(features, truth, learns, chooses if bool(chooses.any()) else ~test)
    scores = _r2(features, truth, ~test, test)
    return scores.gather(0, tried.argmax(0, keepdim=True))[0].tolist()


def principal_components(features: Tensor, count: int, fitted: Tensor) -> Tensor:
    """``[N, count]``: projections on the first principal components of the rows where ``fitted``."""
    return principal_projection(features[fitted], count)(features)


def principal_projection(examples: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """From features ``[N, D]`` to ``[N, count]``, on the first principal components of the examples.

    >>> principal_projection(torch.tensor([[-2.0, 0.1], [0.0, 0.0], [2.0, -0.1]]), 1)(torch.zeros(1, 2)).shape
    torch.Size([1, 1])
    """
    mean = examples.mean(0)
    chosen = examples[:: max(1, len(examples) // 4096)] - mean
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the decomposition starts from random vectors
        _, _, directions = torch.pca_lowrank(chosen, q=min(count + 10, *chosen.shape), center=False, niter=4)
    return lambda features: (features - mean) @ directions[:, :count]


def held_out(episode: Tensor) -> Tensor:
    """``[N]``: True in every fifth episode."""
    episodes: Sequence[int] = torch.unique(episode).tolist()
    if len(episodes) < TEST_EVERY:
        raise PolysenseError(
            f"a probe of states needs at least {TEST_EVERY} episodes, as every fifth is kept for testing, not"
            f" {len(episodes)}; collect more steps"
        )
    return torch.isin(episode, torch.tensor(episodes[TEST_EVERY - 1 :: TEST_EVERY]))


def _r2(features: Tensor, truth: Tensor, learns: Tensor, judges: Tensor) -> Tensor:
    """``[P, V]``: R² on the rows ``judges`` for each penalty and variable, in float64."""
    y = truth.double()
    error = (ridge_predictions(features, truth, learns)[:, judges] - y[judges]).square().sum(1)
    spread = (y[judges] - y[judges].mean(0)).square().sum(0)
    return 1 - error / spread.clamp_min(1e-12)


def ridge_predictions(features: Tensor, truth: Tensor, learns: Tensor) -> Tensor:
    """``[P, N, V]``: what ridge regression on the rows ``learns`` expects, for each penalty, in float64."""
    x, y = features.double(), truth.double()
    mean, std = x[learns].mean(0), x[learns].std(0)
    x = (x - mean) / std.where(std > 1e-5 * std.max(), torch.inf)  # rounding errors are no features
    centre = y[learns].mean(0)
    gram, cross = x[learns].T @ x[learns], x[learns].T @ (y[learns] - centre)
    unit = torch.eye(x.shape[1], dtype=x.dtype) * len(x[learns])
    solutions = torch.stack([torch.linalg.solve(gram + penalty * unit, cross) for penalty in PENALTIES])
    return x @ solutions + centre
