"""Sinkhorn-Knopp: from scores to assignments that use all prototypes equally."""

from __future__ import annotations

import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives.distributed import gather


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Balanced soft assignments (https://arxiv.org/abs/1306.0895, as in SwAV and DINOv2).

    From ``scores[B, K]``, start at ``Q = exp(scores / epsilon)`` and, ``iterations`` times, divide each
    column by its sum over the samples of all processes, then each row by its sum. Rows of the answer
    ``[B, K]`` sum to 1; columns come ever nearer to equal sums. A small ``epsilon`` makes it sharp. It
    is worked out in logarithms, so no score is too large. Processes may hold different numbers of
    samples, and the answer has no gradient.

    >>> sinkhorn(torch.tensor([[9.0, 9.0], [9.0, 0.0]]), epsilon=1.0, iterations=100).round(decimals=1)
    tensor([[0., 1.],
            [1., 0.]])

    Raises PolysenseError for an ``epsilon`` that is not positive or fewer than 1 iterations.
    """
    if epsilon <= 0 or iterations < 1:
        raise PolysenseError(
            f"sinkhorn got epsilon {epsilon} and {iterations} iterations; choose a positive epsilon, such as"
            " 0.05, and at least 1 iteration, such as 3"
        )
    log_q = scores / epsilon
    for _ in range(iterations):
        log_q -= gather(log_q.logsumexp(0, keepdim=True)).logsumexp(0)
        log_q -= log_q.logsumexp(1, keepdim=True)
    return log_q.exp_()
