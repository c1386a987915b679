"""A memory of earlier batches, for objectives that compare with more samples than one batch holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.distributed import gather


class Queue(nn.Module):
    """The latest ``size`` keys of ``dim`` dimensions in a ring: new ones take the places of the oldest.

    It begins with random directions, as in MoCo (https://arxiv.org/abs/1911.05722). ``size`` need not be
    a multiple of the batch. ``keys`` ``[size, dim]`` and ``position``, the place of the oldest, are
    buffers; all processes hold the same ones.

    >>> queue = Queue(size=3, dim=1)
    >>> queue.push(torch.tensor([[1.0], [2.0]]))
    >>> queue.push(torch.tensor([[3.0], [4.0]]))
    >>> queue.keys.flatten().tolist()
    [4.0, 2.0, 3.0]

    Raises PolysenseError for a queue without places.
    """

    keys: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise PolysenseError(f"a queue of {size} keys remembers nothing; use at least 1")
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Remember ``keys[..., B, dim]`` of all processes, in the order they would have in one."""
        self._check(keys)
        latest = gather(keys, dim=-2).flatten(0, -2)[-len(self.keys) :]
        places = (self.position + torch.arange(len(latest), device=latest.device)) % len(self.keys)
        self.keys[places] = latest.to(self.keys.dtype)
        self.position.add_(len(latest)).remainder_(len(self.keys))

    def similarities(self, queries: Tensor) -> Tensor:
        """``[..., size]``: the dot products of ``queries[..., dim]`` with all keys.

        Keys may be pushed before the gradient is taken.
        """
        self._check(queries)
        return queries @ self.keys.to(queries, copy=True).T

    @torch.no_grad()
    def nearest(self, queries: Tensor) -> Tensor:
        """``[..., dim]``: the key with the largest dot product for each of ``queries[..., dim]``."""
        self._check(queries)
        keys = self.keys.to(queries)
        return keys[(queries @ keys.T).argmax(-1)]

    def _check(self, embeddings: Tensor) -> None:
        dim = self.keys.shape[1]
        if embeddings.ndim < 2 or embeddings.shape[-1] != dim:
            raise PolysenseError(
                f"the queue holds keys of {dim} dimensions, but got a tensor of shape "
                f"{list(embeddings.shape)}; make the head's last dimension {dim}"
            )
