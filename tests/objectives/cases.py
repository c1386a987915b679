"""Every objective, fed from one stack of embeddings, for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from polysense import objectives


@dataclass(frozen=True)
class Case:
    make: Callable[[], objectives.Objective]
    inputs: Callable[[Tensor], tuple[Tensor, ...]]

    def loss(self, z: Tensor) -> Tensor:
        """The loss of a fresh objective on ``z``, ``[V, B, K]``."""
        return self.make().eval()(*self.inputs(z))


def student_only(z: Tensor) -> tuple[Tensor, ...]:
    return (z,)


def with_teacher(z: Tensor) -> tuple[Tensor, ...]:
    return z, (0.7 * z[:2] + z[:2].flip(-1)).detach()


def tokens(z: Tensor) -> tuple[Tensor, ...]:
    prediction = z.transpose(0, 1)
    return prediction, (3 * prediction).cos().detach(), prediction[..., 0].detach() > -0.3


K = 4
CASES = {
    "ntxent": Case(lambda: objectives.NTXent(0.3), student_only),
    "vicreg": Case(lambda: objectives.VICReg(), student_only),
    "barlow": Case(lambda: objectives.BarlowTwins(0.1), student_only),
    "cosine": Case(lambda: objectives.NegativeCosine(), with_teacher),
    "dino": Case(lambda: objectives.DINO(K, teacher_temperature=0.2, warmup=0.0), with_teacher),
    "masked": Case(lambda: objectives.MaskedReconstruction(), tokens),
}


def random_views(views: int = 2, batch: int = 6, dimensions: int = K, seed: int = 0) -> Tensor:
    """``[V, B, K]`` in float64, views of a sample resembling one another."""
    torch.manual_seed(seed)
    shared = torch.randn(1, batch, dimensions, dtype=torch.float64)
    return 0.4 * shared + 0.3 * torch.randn(views, batch, dimensions, dtype=torch.float64)
