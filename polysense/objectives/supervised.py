"""Contrastive learning with classes: everything of the same class is a partner."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective, check_views
from polysense.objectives.contrastive import info_nce
from polysense.objectives.distributed import gather, mean_over_processes, rank


class SupCon(Objective):
    """Supervised contrastive learning, the paper's L_out (https://arxiv.org/abs/2004.11362).

    V views of each of N samples, gathered from all processes, make VN embeddings. P(i) are all others of
    the class of i, its own other views among them; s = cosine / temperature::

        loss = mean over i of mean over p in P(i) of (-s(i, p) + log sum over j != i of exp s(i, j))

    A sample whose label is below 0 is a class of its own. Without any class the loss is half of
    :class:`.NTXent`. Memory grows linearly with the batch: see :func:`.info_nce`.

    >>> SupCon(temperature=0.5)(torch.ones(2, 4, 3), torch.tensor([0, 0, 1, -1])).exp().round()
    tensor(7.)

    Raises PolysenseError for fewer than 2 views or 2 samples, or labels that do not fit.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """The loss of ``z[V, B, K]``, not normalised, whose samples have the classes ``labels[B]``."""
        check_views(self, z)
        if labels.shape != z.shape[1:2] or labels.is_floating_point():
            raise PolysenseError(
                f"SupCon takes one whole number per sample as its class, {z.shape[1]} of them, but got "
                f"{labels.dtype} of shape {list(labels.shape)}; pass the classes' codes, -1 where unknown"
            )
        z = F.normalize(z, dim=-1)
        everyone = gather(z, dim=1)
        views, batch = z.shape[:2]
        classes, own = _classes(gather(labels)), slice(rank() * batch, (rank() + 1) * batch)
        # log sum exp comes with the next view as the only partner, which then gives way to the mean
        partner = z.roll(-1, 0)
        partners = _mean_partner(z, everyone, classes, classes[own])
        samples, total = torch.arange(batch, device=z.device) + own.start, everyone.shape[1]
        places = samples + total * torch.arange(views, device=z.device)[:, None]
        contrast = info_nce(
            z.flatten(0, 1) / self.temperature,
            everyone.flatten(0, 1),
            partner=places.roll(-1, 0).flatten(),
            ignored=places.flatten(),
        )
        correction = (z * (partner - partners)).sum(-1).mean() / self.temperature
        return mean_over_processes(contrast + correction)


def _mean_partner(z: Tensor, everyone: Tensor, classes: Tensor, own: Tensor) -> Tensor:
    """``[V, B, K]``: the mean of all others of the same class, from the sums over each class."""
    views, total, dim = everyone.shape
    sums = z.new_zeros(total, dim).index_add(0, classes, everyone.sum(0))
    counts = views * classes.bincount(minlength=total)
    return (sums[own] - z) / (counts[own, None] - 1)


def _classes(labels: Tensor) -> Tensor:
    """Numbers from 0 below the number of samples; an unknown label becomes a class of its own."""
    alone = -1 - torch.arange(len(labels), device=labels.device)
    numbers: Tensor = torch.where(labels < 0, alone, labels).unique(return_inverse=True)[1]
    return numbers
