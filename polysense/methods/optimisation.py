"""How a recipe is optimised: plain values that the training room turns into an optimiser."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Optimisation:
    """An optimiser and its schedules.

    ``lr`` is the rate at a batch of ``per`` samples and is scaled linearly with the batch.
    ``weight_decay`` moves to ``final_weight_decay`` along a cosine, where that is given. ``warmup``
    is a share of training, ``clip`` the largest norm of the whole gradient.
    """

    name: str
    lr: float
    per: int = 256
    weight_decay: float = 0.0
    final_weight_decay: float | None = None
    warmup: float = 0.1
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None

    def rate(self, batch: int) -> float:
        """The learning rate for a batch of this many samples, over all processes.

        >>> Optimisation("lars", lr=0.3).rate(512)
        0.6
        """
        return self.lr * batch / self.per
