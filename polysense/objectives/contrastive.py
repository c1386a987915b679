"""Contrastive objectives: pick the partner out of a crowd."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective, check_views
from polysense.objectives.distributed import gather, mean_over_processes, rank

_CHUNK = 2**21  # logits held at once, 8 MB in float32: fits a processor's cache, fills an accelerator


class NTXent(Objective):
    """SimCLR's normalised, temperature-scaled cross-entropy (https://arxiv.org/abs/2002.05709).

    Two views of each of N samples make 2N embeddings, ``z[V, B, K]`` with V = 2. Each must find its
    partner among the other 2N - 1 by cosine similarity::

        row(i)  = -s(i, partner) + log sum over j != i of exp s(i, j),   s = cosine / temperature
        loss    = mean of row over the first view + mean of row over the second

    With more views it is the mean over pairs of views. The crowd is gathered from all processes, each
    of which scores its own rows. Memory grows linearly with the batch: see :func:`info_nce`.

    >>> views = torch.eye(4).expand(2, 4, 4)
    >>> NTXent(temperature=0.5)(views)
    tensor(1.1889)

    Raises PolysenseError for fewer than 2 views or 2 samples.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, z: Tensor) -> Tensor:
        """The loss of ``z``, ``[V, B, K]``: V views of the same B samples, not normalised."""
        check_views(self, z)
        z = F.normalize(z, dim=-1)
        crowd = gather(z, dim=1)
        pairs = [self._pair(z[[a, b]], crowd[[a, b]]) for a, b in combinations(range(len(z)), 2)]
        return mean_over_processes(torch.stack(pairs).mean())

    def _pair(self, own: Tensor, crowd: Tensor) -> Tensor:
        """``own``: ``[2, B, K]``, this process's rows; ``crowd``: ``[2, N, K]``, everybody's."""
        batch, total = own.shape[1], crowd.shape[1]
        first = torch.arange(batch, device=own.device) + rank() * batch
        second = first + total
        mean = info_nce(
            own.flatten(0, 1) / self.temperature,
            crowd.flatten(0, 1),
            partner=torch.cat([second, first]),
            ignored=torch.cat([first, second]),
        )
        return 2 * mean  # the mean over each view, added


def info_nce(queries: Tensor, keys: Tensor, partner: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of finding each query's partner among the keys by dot product.

    ``queries``: ``[Q, K]``, divided by the temperature; ``keys``: ``[M, K]``; ``partner``: ``[Q]``, the
    index of each query's key; ``ignored``: ``[Q]``, a key left out for each query (itself, say).
    The ``Q x M`` logits exist only a few rows at a time and the gradient is worked out beside the
    loss, so memory is that of the inputs. Differentiable once.

    >>> info_nce(torch.zeros(3, 2), torch.zeros(4, 2), torch.arange(3)).exp()
    tensor(4.)
    """
    loss: Tensor = _InfoNCE.apply(queries, keys, partner, ignored)
    return loss


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, partner: Tensor, ignored: Tensor | None) -> Tensor:
        differentiate = any(ctx.needs_input_grad[:2])
        grad_queries, grad_keys = torch.empty_like(queries), torch.zeros_like(keys)
        total = queries.new_zeros(())
        rows = max(1, _CHUNK // len(keys))
        for start in range(0, len(queries), rows):
            part = slice(start, start + rows)
            log_p = _log_probabilities(queries[part], keys, None if ignored is None else ignored[part])
            target = partner[part, None]
            total -= log_p.gather(1, target).sum()
            if differentiate:
                error = log_p.exp_()  # the gradient at the logits: softmax - one_hot
                error.scatter_add_(1, target, error.new_full(target.shape, -1.0))
                grad_queries[part] = error @ keys
                grad_keys.addmm_(error.T, queries[part])
        ctx.save_for_backward(grad_queries, grad_keys)
        return total / len(queries)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        if torch.is_grad_enabled():
            raise PolysenseError("info_nce can be differentiated once only; do not ask for create_graph=True")
        grad_queries, grad_keys = ctx.saved_tensors
        scale = grad / len(grad_queries)
        return scale * grad_queries, scale * grad_keys, None, None


def _log_probabilities(queries: Tensor, keys: Tensor, ignored: Tensor | None) -> Tensor:
    logits = queries @ keys.T
    if ignored is not None:
        logits.scatter_(1, ignored[:, None], -torch.inf)
    return logits.log_softmax(1)
