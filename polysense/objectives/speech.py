"""Objectives that came with sound: a bilinear contrast of clips, and the contrast of quantised frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective, check_views
from polysense.objectives.contrastive import info_nce
from polysense.objectives.distributed import gather, mean_over_processes, rank
from polysense.objectives.reconstruction import mean_of_hidden


class BilinearContrast(Objective):
    """Pick a clip's other view out of the batch by a learned similarity (https://arxiv.org/abs/2010.10915).

    For anchors a, the first view, and p, another one of N samples, gathered from all processes, with
    ``s(i, j) = a_i W p_j``, neither of unit length nor divided by a temperature::

        loss = mean of (-s(i, i) + log sum over j of exp s(i, j)) over i

    With more than two views it is the mean over all but the first.

    >>> objective = BilinearContrast(4)
    >>> objective(torch.zeros(2, 8, 4)).exp().round()  # indistinguishable samples are chance
    tensor(8., grad_fn=<RoundBackward0>)

    Raises PolysenseError for fewer than 2 views or 2 samples.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.similarity = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, dim)))

    def forward(self, z: Tensor) -> Tensor:
        """The loss of ``z``, ``[V, B, K]``: V views of the same B samples."""
        check_views(self, z)
        anchors, others = z[0] @ self.similarity.to(z.dtype), gather(z[1:], dim=1)
        partner = torch.arange(z.shape[1], device=z.device) + rank() * z.shape[1]
        losses = [info_nce(anchors, keys, partner) for keys in others]
        return mean_over_processes(torch.stack(losses).mean())


class FutureContrast(Objective):
    """CPC: tell the frame that follows from the clip's others, and from other clips' at that time.

    For each clip b, frame t and step k, with p the prediction of step k at t and z the frames::

        loss = mean of -p(b,t,k) . z(b,t+k) + log (sum over all frames u of exp p(b,t,k) . z(b,u)
                                                   + sum over other clips c of exp p(b,t,k) . z(c,t+k))

    Frames count that have all K steps before them. The paper draws its negatives of both kinds; here all
    frames of the clip, and of each other clip of all processes one, are taken.

    https://arxiv.org/abs/1807.03748

    >>> FutureContrast()(torch.zeros(2, 5, 3, 4), torch.zeros(2, 5, 4)).exp().round()  # among 5 and 1
    tensor(6.)

    Raises PolysenseError where the shapes do not fit, or clips have no more frames than there are steps.
    """

    def forward(self, predicted: Tensor, frames: Tensor) -> Tensor:
        """The loss of predictions ``[B, T, K, D]``, of which k foresees frame t + k + 1 of ``[B, T, D]``."""
        fits = predicted.ndim == 4 and frames.shape == (*predicted.shape[:2], predicted.shape[3])
        if not fits or predicted.shape[2] >= predicted.shape[1]:
            raise PolysenseError(
                "FutureContrast takes predictions [clips, frames, steps, values] and frames [clips, frames,"
                f" values], more of them than steps, but got {list(predicted.shape)} and"
                f" {list(frames.shape)}; take longer crops or fewer steps"
            )
        clips, total, steps, _ = predicted.shape
        everyone = gather(frames, dim=0)
        own = torch.arange(clips, device=frames.device) + rank() * clips
        itself = F.one_hot(own, len(everyone)).bool()
        losses = []
        for step in range(steps):
            asked = predicted[:, : total - steps, step]
            within = asked @ frames.mT
            then = everyone[:, step + 1 : total - steps + step + 1]
            across = torch.einsum("btd,ctd->btc", asked, then).masked_fill(itself[:, None], -torch.inf)
            right = within.diagonal(step + 1, 1, 2)[:, : total - steps]
            losses.append((torch.cat([within, across], 2).logsumexp(2) - right).mean())
        return mean_over_processes(torch.stack(losses).mean())


class QuantisedContrast(Objective):
    """wav2vec 2.0: find what was hidden among the clip's other hidden frames, and use the whole codebook.

    For each hidden frame with context c and quantised target q, and s = cosine / temperature::

        contrast  = mean of -s(c, q) + log (exp s(c, q) + negatives * mean over others of exp s(c, q'))
        diversity = (G V - sum over codebooks of exp H(p)) / (G V)
        loss      = contrast + weight * diversity

    The others are all other hidden frames of the same clip, where the authors draw ``negatives`` of them,
    those of the same codewords left out; p is the mean over hidden frames of each of G codebooks' softmax
    over V words, H its entropy. The authors' penalty on the extractor's output is for extractors with group
    norm, and not here.

    https://arxiv.org/abs/2006.11477

    >>> frames, even = torch.eye(4)[None], torch.full((1, 4, 2, 8), 1 / 8)
    >>> objective = QuantisedContrast(temperature=1.0, negatives=3)
    >>> objective(frames, frames, torch.ones(1, 4, dtype=torch.bool), even).exp()  # (e + 3) / e
    tensor(2.1036)

    Raises PolysenseError where the shapes do not fit.
    """

    def __init__(self, temperature: float = 0.1, negatives: int = 100, weight: float = 0.1) -> None:
        super().__init__()
        self.temperature, self.negatives, self.weight = temperature, negatives, weight

    def forward(self, context: Tensor, quantised: Tensor, mask: Tensor, probabilities: Tensor) -> Tensor:
        """The loss of ``context`` and ``quantised`` ``[B, T, K]``, hidden where ``mask[B, T]``.

        ``probabilities`` is ``[B, T, G, V]``.
        """
        fits = context.ndim == 3 and context.shape == quantised.shape
        if not fits or probabilities.ndim != 4 or probabilities.shape[:2] != context.shape[:2]:
            raise PolysenseError(
                "QuantisedContrast takes contexts and targets of one shape [clips, frames, values] and"
                f" probabilities [clips, frames, codebooks, words], but got {list(context.shape)},"
                f" {list(quantised.shape)} and {list(probabilities.shape)}; check the heads"
            )
        contrast = mean_of_hidden(self._contrast(context, quantised, mask), mask)
        return contrast + self.weight * _unused(probabilities, mask)

    def _contrast(self, context: Tensor, quantised: Tensor, mask: Tensor) -> Tensor:
        """``[B, T]``: each frame's loss; where it is not hidden, anything."""
        cosine = F.normalize(context, dim=-1) @ F.normalize(quantised, dim=-1).mT
        scores = cosine / self.temperature
        own = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
        others = (mask.sum(1) - 1).clamp_min(1)
        share = (self.negatives / others.to(scores.dtype)).log()[:, None, None]
        scores = torch.where(own, scores, scores + share)
        _, words = quantised.detach().flatten(0, 1).unique(dim=0, return_inverse=True)
        words = words.view(mask.shape)
        absent = ~mask[:, None] | (words[:, :, None] == words[:, None])
        return scores.masked_fill(absent & ~own, -torch.inf).logsumexp(2) - scores.diagonal(dim1=1, dim2=2)


def _unused(probabilities: Tensor, mask: Tensor) -> Tensor:
    """The share of the codebooks that the hidden frames leave unused, by the perplexity of their mean."""
    total = mean_over_processes((probabilities * mask[..., None, None]).sum((0, 1)))
    count = mean_over_processes(mask.sum().to(probabilities.dtype)).clamp_min(1)
    mean = total / count
    entropy = -torch.xlogy(mean, mean).sum(1)
    return 1 - entropy.exp().sum() / math.prod(mean.shape)
