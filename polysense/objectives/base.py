"""What all objectives share: tensors in, one scalar out, in full precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from polysense.errors import PolysenseError
from polysense.objectives.distributed import world_size


class Objective(nn.Module):
    """A loss: tensors in, one scalar out.

    Half-precision inputs are widened to float32 and autocast is off inside ``forward``, so that a
    subclass writes its formula once and it is right in mixed precision; float64 stays float64. On
    several processes an objective gives the value of the whole batch on each of them, and with the
    usual averaging of parameter gradients (``DistributedDataParallel``) the gradient of the whole
    batch; every process must hold the same number of samples. State that lives across steps is a
    registered buffer.

    >>> class Closeness(Objective):
    ...     def forward(self, a: Tensor, b: Tensor) -> Tensor:
    ...         return (a - b).square().mean()
    >>> Closeness()(torch.ones(2, dtype=torch.bfloat16), torch.zeros(2)).dtype
    torch.float32
    """

    def __call__(self, *tensors: Tensor, **named: Tensor) -> Any:
        """The loss of these tensors; see the subclass's ``forward`` for their shapes."""
        device = next(iter((*tensors, *named.values()))).device
        with torch.autocast(device.type, enabled=False):
            return super().__call__(
                *map(_widened, tensors), **{name: _widened(tensor) for name, tensor in named.items()}
            )

    def at(self, progress: float) -> None:
        """Called before every step with the share of training done, in [0, 1]: a place for schedules."""


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def check_views(objective: Objective, z: Tensor) -> None:
    """Raise PolysenseError unless ``z`` is ``[V, B, K]`` with two views and two samples to compare."""
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] * world_size() < 2:
        raise PolysenseError(
            f"{type(objective).__name__} compares at least 2 views of at least 2 samples, stacked as "
            f"[views, samples, dimensions], but got shape {list(z.shape)}; check the view plan and the "
            "batch size"
        )
