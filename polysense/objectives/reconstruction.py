"""Objectives that predict what was hidden from the encoder."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distributed import mean_over_processes


class MaskedReconstruction(Objective):
    """The error of predicted values at the hidden tokens.

    With ``normalise`` each target token is first standardised over its own values,
    ``(x - mean) / sqrt(var + 1e-6)`` with the unbiased variance; then::

        loss = mean over hidden tokens of mean over values of distance(prediction, target)

    ``distance`` is one of torch's functions that take ``reduction="none"``: ``F.mse_loss`` in MAE
    (https://arxiv.org/abs/2111.06377) and MaskFeat (https://arxiv.org/abs/2112.09133), ``F.l1_loss`` in
    SimMIM (https://arxiv.org/abs/2111.09886), ``F.smooth_l1_loss`` in I-JEPA
    (https://arxiv.org/abs/2301.08243). Where nothing is hidden the loss is 0. The target gets no gradient.

    >>> prediction, target = torch.zeros(1, 2, 4), torch.tensor([[[1.0] * 4, [9.0] * 4]])
    >>> MaskedReconstruction(normalise=False)(prediction, target, torch.tensor([[True, False]]))
    tensor(1.)

    Raises PolysenseError where the shapes do not fit, the mask is not of booleans, or tokens of one value
    are to be standardised.
    """

    def __init__(self, normalise: bool = True, distance: Callable[..., Tensor] = F.mse_loss) -> None:
        super().__init__()
        self.normalise, self.distance = normalise, distance

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of ``prediction[B, T, K]`` against ``target[B, T, K]`` where ``mask[B, T]`` is True.

        Without a mask every token counts: prediction and target are the hidden tokens alone.
        """
        if prediction.ndim != 3 or prediction.shape != target.shape:
            raise PolysenseError(
                "MaskedReconstruction takes a prediction and a target of one shape [samples, tokens, values],"
                f" but got {list(prediction.shape)} and {list(target.shape)}; check the decoder's width"
            )
        target = target.detach()
        if self.normalise:
            if target.shape[-1] < 2:
                raise PolysenseError(
                    "tokens of one value have no spread to standardise by; set normalise=False"
                )
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        return mean_of_hidden(self.distance(prediction, target, reduction="none").mean(-1), mask)


class MaskedClassification(Objective):
    """BEiT's cross-entropy of the hidden tokens' numbers in a vocabulary (https://arxiv.org/abs/2106.08254).

    ::

        loss = mean over hidden tokens of - log softmax(prediction)[target]

    >>> MaskedClassification()(torch.zeros(1, 2, 8), torch.tensor([[3, 7]])).exp()
    tensor(8.)

    Raises PolysenseError where the shapes do not fit or the mask is not of booleans.
    """

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of the logits ``prediction[B, T, K]`` of ``target[B, T]`` where ``mask[B, T]`` is True.

        Without a mask every token counts.
        """
        if prediction.ndim != 3 or prediction.shape[:2] != target.shape:
            raise PolysenseError(
                "MaskedClassification takes logits [samples, tokens, vocabulary] and the tokens' numbers"
                f" [samples, tokens], but got {list(prediction.shape)} and {list(target.shape)}; check the"
                " tokenizer"
            )
        return mean_of_hidden(F.cross_entropy(prediction.mT, target, reduction="none"), mask)


def mean_of_hidden(error: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of ``error[B, T]`` where ``mask[B, T]`` is True, over all processes; 0 where it nowhere is.

    >>> mean_of_hidden(torch.tensor([[1.0, 5.0]]), torch.tensor([[True, False]]))
    tensor(1.)
    """
    if mask is None:
        mask = torch.ones_like(error, dtype=torch.bool)
    if mask.dtype != torch.bool or mask.shape != error.shape:
        raise PolysenseError(
            f"the mask must be booleans [samples, tokens] of shape {list(error.shape)}, True where hidden,"
            f" but got {mask.dtype} of {list(mask.shape)}; check the masker's grid"
        )
    # processes hide different numbers of tokens: average sums and counts, not means
    total, hidden = mean_over_processes(
        torch.stack([error.masked_fill(~mask, 0).sum(), mask.sum().to(error.dtype)])
    )
    mean: Tensor = total / hidden.clamp_min(torch.finfo(error.dtype).tiny)
    return mean


class DiscreteAutoencoding(Objective):
    """The loss of a discrete variational autoencoder (https://arxiv.org/abs/2102.12092).

    With ``p`` each token's softmax over K words::

        loss = mean (decoded - token)^2 + kl * mean over tokens of sum p log(K p)

    >>> DiscreteAutoencoding()(torch.zeros(1, 2, 4), torch.ones(1, 2, 4), torch.zeros(1, 2, 8))
    tensor(1.)
    """

    def __init__(self, kl: float = 1e-3) -> None:
        super().__init__()
        self.kl = kl

    def forward(self, decoded: Tensor, tokens: Tensor, logits: Tensor) -> Tensor:
        """The loss of ``decoded[B, T, V]``, ``tokens[B, T, V]`` and ``logits[B, T, K]``."""
        log_p = logits.log_softmax(-1)
        divergence = (log_p.exp() * log_p).sum(-1).mean() + math.log(logits.shape[-1])
        error = F.mse_loss(decoded, tokens.detach())
        return mean_over_processes(error + self.kl * divergence)
