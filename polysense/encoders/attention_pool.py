"""Attention pooling: a few learned queries look at all that a tower saw."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded
from polysense.errors import PolysenseError


class AttentionPool(nn.Module):
    """As many vectors as there are queries, each a mean of tokens weighted by attention (CoCa).

    https://arxiv.org/abs/2205.01917, section 3.2.

    Args:
        seen_dim: width of the tokens.
        width: of the queries and of what comes out; the heads divide it.
        queries: how many.
        heads: of the attention.

    >>> AttentionPool(8, 16, queries=3)(torch.zeros(2, 9, 8)).shape
    torch.Size([2, 3, 16])
    """

    def __init__(self, seen_dim: int, width: int, queries: int, heads: int = 4) -> None:
        super().__init__()
        if queries < 1:
            raise PolysenseError(f"{queries} queries see nothing; give at least 1, or none for all places")
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.norm_queries, self.norm_seen = nn.LayerNorm(width), nn.LayerNorm(seen_dim)
        self.look = nn.MultiheadAttention(width, heads, kdim=seen_dim, vdim=seen_dim, batch_first=True)

    def forward(self, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
        """``[B, queries, width]`` from ``tokens[B, S, seen_dim]``; ``visible[B, S]`` is False at padding."""
        seen = self.norm_seen(tokens)
        asking = self.norm_queries(self.queries).expand(len(tokens), -1, -1)
        hidden = None if visible is None else ~visible
        pooled: Tensor = self.look(asking, seen, seen, key_padding_mask=hidden, need_weights=False)[0]
        return pooled


class QueryHead(nn.Module):
    """A head whose one query looks at the places of a picture, in place of the tower's own pooling."""

    def __init__(self, seen_dim: int, dim: int) -> None:
        super().__init__()
        self.pool = AttentionPool(seen_dim, seen_dim, 1, heads=_heads(seen_dim))
        self.norm, self.last = nn.LayerNorm(seen_dim), nn.Linear(seen_dim, dim, bias=False)

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, dim]``."""
        assert encoded.tokens is not None  # or there was no width of tokens
        embedded: Tensor = self.last(self.norm(self.pool(encoded.tokens)[:, 0]))
        return embedded


def _heads(width: int) -> int:
    """Up to four heads, as many as divide a width."""
    return next(heads for heads in (4, 3, 2, 1) if width % heads == 0)
