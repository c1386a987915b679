"""Objectives that raise the mutual information between a sample's summary and its own places."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distributed import gather, mean_over_processes, rank, world_size


class MutualInformation(Objective):
    """Deep InfoMax's local-global objective (https://arxiv.org/abs/1808.06670), whatever the estimator.

    The score of sample i's summary and place t of sample j is their dot product ``u(i, j, t)``. A pair
    is *joint* where i = j and *mismatched* otherwise; subclasses say in :meth:`estimate` what the loss
    makes of both. With several views it is the mean over views, each with its own mismatched pairs.
    The places are gathered from all processes, each of which scores its own summaries.
    """

    def forward(self, tokens: Tensor, summary: Tensor) -> Tensor:
        """The loss of ``tokens[V, B, T, K]``, the places, and ``summary[V, B, K]``."""
        self._check(tokens, summary)
        batch, crowd = tokens.shape[1], gather(tokens, dim=1)
        scores = torch.einsum("vik,vjtk->vijt", summary, crowd)
        own = torch.arange(batch, device=scores.device) + rank() * batch
        same = own[:, None] == torch.arange(crowd.shape[1], device=scores.device)
        joint = torch.einsum("vik,vitk->vit", summary, tokens)
        return self.estimate(joint, scores.masked_fill(same[..., None], -torch.inf)).mean()

    def estimate(self, joint: Tensor, mismatched: Tensor) -> Tensor:
        """``[V]``: the loss of the scores ``joint[V, B, T]`` and ``mismatched[V, B, N, T]``.

        B are the summaries of this process and N the samples of all; a summary's own sample scores
        minus infinity among the mismatched.
        """
        raise NotImplementedError

    def _check(self, tokens: Tensor, summary: Tensor) -> None:
        fits = tokens.ndim == 4 and summary.shape == (*tokens.shape[:2], tokens.shape[3])
        if not fits or tokens.shape[1] * world_size() < 2:
            raise PolysenseError(
                f"{type(self).__name__} compares places [views, samples, places, dimensions] with summaries "
                f"[views, samples, dimensions] of at least 2 samples, but got {list(tokens.shape)} and "
                f"{list(summary.shape)}; check the head and the batch size"
            )


class JensenShannon(MutualInformation):
    """The Jensen-Shannon estimator, Deep InfoMax's steadiest.

    With ``softplus(x) = log(1 + exp x)``::

        loss = mean over joint of softplus(-u) + mean over mismatched of softplus(u) - 2 log 2

    0 where the scores tell nothing, at best -2 log 2.

    >>> tokens, summary = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 4)
    >>> JensenShannon()(tokens, summary)
    tensor(0.)

    Raises PolysenseError where the shapes do not fit or there is one sample only.
    """

    def estimate(self, joint: Tensor, mismatched: Tensor) -> Tensor:
        """The sum of both means; a score of minus infinity adds nothing."""
        apart = F.softplus(mismatched).sum((1, 2, 3)) / _mismatched_pairs(mismatched)
        return mean_over_processes(F.softplus(-joint).mean((1, 2)) + apart) - 2 * math.log(2)


class LocalInfoNCE(MutualInformation):
    """The noise-contrastive estimator: pick the summary's own place among all places of other samples.

    ::

        loss = - mean over joint (i, t) of log( exp u(i, i, t) / (exp u(i, i, t) + sum of exp u(i, j, s)) )

    where the sum is over all places s of all samples j other than i.

    >>> tokens, summary = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 4)
    >>> LocalInfoNCE()(tokens, summary).exp()  # one against the three places of the other sample
    tensor(4.)

    Raises PolysenseError where the shapes do not fit or there is one sample only.
    """

    def estimate(self, joint: Tensor, mismatched: Tensor) -> Tensor:
        """The mean cross-entropy."""
        others = mismatched.flatten(2).logsumexp(2, keepdim=True)
        return mean_over_processes(F.softplus(others - joint).mean((1, 2)))


class DonskerVaradhan(MutualInformation):
    """The Donsker-Varadhan estimator of the Kullback-Leibler divergence (MINE).

    ::

        loss = log of the mean over mismatched of exp u  -  mean over joint of u

    Minus the loss is a lower bound of the mutual information in nats. It has no floor: with few samples
    the scores may run away.

    >>> tokens, summary = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 4)
    >>> DonskerVaradhan()(tokens, summary)
    tensor(0.)

    Raises PolysenseError where the shapes do not fit or there is one sample only.
    """

    def estimate(self, joint: Tensor, mismatched: Tensor) -> Tensor:
        """The difference of both means."""
        pairs = _mismatched_pairs(mismatched) * world_size()
        apart = gather(mismatched.flatten(1).logsumexp(1)[None]).logsumexp(0) - math.log(pairs)
        return apart - mean_over_processes(joint.mean((1, 2)))


def _mismatched_pairs(scores: Tensor) -> int:
    """How many pairs of a summary and a place of another sample this process scores."""
    batch, samples, places = scores.shape[1:]
    return batch * (samples - 1) * places
