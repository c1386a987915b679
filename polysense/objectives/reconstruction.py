"""Objectives that predict what was hidden from the encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distributed import mean_over_processes


class MaskedReconstruction(Objective):
    """MAE's squared error at the hidden tokens (https://arxiv.org/abs/2111.06377).

    With ``normalise`` each target token is first standardised over its own values,
    ``(x - mean) / sqrt(var + 1e-6)`` with the unbiased variance; then::

        loss = mean over hidden tokens of mean over values of (prediction - target)^2

    A batch with nothing hidden gives 0. The target gets no gradient.

    >>> prediction, target = torch.zeros(1, 2, 4), torch.tensor([[[1.0] * 4, [9.0] * 4]])
    >>> MaskedReconstruction(normalise=False)(prediction, target, torch.tensor([[True, False]]))
    tensor(1.)

    Raises PolysenseError where the shapes do not fit or the mask is not of booleans.
    """

    def __init__(self, normalise: bool = True) -> None:
        super().__init__()
        self.normalise = normalise

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The loss of ``prediction[B, T, K]`` against ``target[B, T, K]`` where ``mask[B, T]`` is True."""
        self._check(prediction, target, mask)
        target = target.detach()
        if self.normalise:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        error = (prediction - target).square().mean(-1).masked_fill(~mask, 0)
        # processes hide different numbers of tokens: average sums and counts, not means
        total, hidden = mean_over_processes(torch.stack([error.sum(), mask.sum().to(error.dtype)]))
        loss: Tensor = total / hidden.clamp_min(torch.finfo(error.dtype).tiny)
        return loss

    def _check(self, prediction: Tensor, target: Tensor, mask: Tensor) -> None:
        if prediction.ndim != 3 or prediction.shape != target.shape or mask.shape != target.shape[:2]:
            raise PolysenseError(
                "MaskedReconstruction takes a prediction and a target of one shape [samples, tokens, values] "
                f"and a mask [samples, tokens], but got {list(prediction.shape)}, {list(target.shape)} and "
                f"{list(mask.shape)}; check the decoder's width and the masker's grid"
            )
        if mask.dtype != torch.bool:
            raise PolysenseError(
                f"MaskedReconstruction takes a mask of booleans, True where hidden, but got {mask.dtype}; "
                "convert it with mask.bool()"
            )
