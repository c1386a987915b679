"""Batches spread over processes, seen as one, with gradients. In one process all of this does nothing.

``torch.distributed``'s own ``all_gather`` and ``all_reduce`` cut the graph; these do not. Each is the
transpose of itself: where the forward pass sends a row to all processes, the backward pass sums that
row's gradients from all processes. If every process computes the whole batch's loss from what it
gathered, the gradient at its own rows is therefore ``world_size()`` times the one-process gradient, and
averaging parameter gradients over processes, as ``DistributedDataParallel`` does, gives exactly the
one-process gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together; 1 without ``torch.distributed``.

    >>> world_size()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0.

    >>> rank()
    0
    """
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(x: Tensor, dim: int = 0) -> Tensor:
    """The rows of all processes along ``dim``, in order of rank. All must hold equal shapes.

    >>> gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x, dim)
    return gathered


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of ``x`` over processes, element by element.

    >>> mean_over_processes(torch.tensor(2.0))
    tensor(2.)
    """
    if world_size() == 1:
        return x
    mean: Tensor = _Mean.apply(x)
    return mean


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.size = dim, x.shape[dim]
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        summed = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.narrow(ctx.dim, rank() * ctx.size, ctx.size), None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _averaged(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _averaged(grads[0])


def _averaged(x: Tensor) -> Tensor:
    summed = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed / world_size()
