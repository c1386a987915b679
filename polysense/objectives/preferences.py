"""The objective that learns a reward from which of two things somebody prefers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distributed import mean_over_processes


class BradleyTerry(Objective):
    """Preferred things have the greater reward (Bradley and Terry, https://arxiv.org/abs/1706.03741).

    For rewards a and b of two things, the share s in which the first was preferred (1, 0, or 1/2 for a tie)
    and the share ``noise`` of answers that are given at random::

        p    = (1 - noise) sigmoid(a - b) + noise / 2
        loss = mean of -s log p - (1 - s) log(1 - p)

    >>> round(BradleyTerry()(torch.zeros(4), torch.zeros(4), torch.ones(4)).item(), 4)  # log 2
    0.6931

    Raises PolysenseError for a ``noise`` outside [0, 1), or shapes that differ.
    """

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        if not 0 <= noise < 1:
            raise PolysenseError(f"noise is {noise}; give the share of random answers, from 0 up to below 1")
        self.noise = noise

    def forward(self, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
        """The loss of rewards ``first`` and ``second`` ``[B]``, preferred as ``share`` ``[B]`` says."""
        if not first.shape == second.shape == share.shape or first.ndim != 1:
            raise PolysenseError(
                "BradleyTerry compares rewards [B] of two things by the shares [B], but got shapes"
                f" {list(first.shape)}, {list(second.shape)} and {list(share.shape)}"
            )
        wins = self._log_probability(first - second)
        loses = self._log_probability(second - first)
        return mean_over_processes(-(share * wins + (1 - share) * loses).mean())

    def _log_probability(self, margin: Tensor) -> Tensor:
        if self.noise == 0:
            return F.logsigmoid(margin)
        return torch.log((1 - self.noise) * torch.sigmoid(margin) + self.noise / 2)
