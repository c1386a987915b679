"""A decoder that writes texts from what a tower saw."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded
from polysense.encoders.transformer import Block
from polysense.errors import PolysenseError


class Captioner(nn.Module):
    """Predicts a text's next token from those before it and from the tokens of another tower.

    Each layer looks at the words so far, then at what the other tower saw. Words go in and come out by one
    embedding.

    Args:
        seen_dim: width of the other tower's tokens.
        vocabulary: how many different tokens texts are made of.
        length: the longest text, in tokens.
        width, depth, heads: shape of the transformer.

    >>> seen = Encoded(torch.zeros(2, 8), torch.zeros(2, 9, 8))
    >>> Captioner(8, vocabulary=100, length=16, width=32)(seen, torch.ones(2, 5, dtype=torch.long)).shape
    torch.Size([2, 5, 100])
    """

    def __init__(
        self,
        seen_dim: int,
        vocabulary: int,
        length: int,
        *,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if width % heads:
            raise PolysenseError(f"{heads} heads cannot share a width of {width}; choose one they divide")
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.words.weight, std=0.02)
        self.see = nn.Linear(seen_dim, width)
        self.layers = nn.ModuleList(_Layer(width, heads, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @property
    def length(self) -> int:
        """The longest text, in tokens."""
        return len(self.places)

    def forward(self, seen: Encoded, ids: Tensor, visible: Tensor | None = None) -> Tensor:
        """``[B, T, vocabulary]``: the logits of the token behind each of ``ids[B, T]``.

        ``visible`` is False at the tokens of ``seen`` that are padding, ``[B, S]``.

        Raises:
            PolysenseError: when nothing but a summary was seen.
        """
        if seen.tokens is None:
            raise PolysenseError(
                "a text is written from the places of a picture, and the tower gives none; choose a conv net"
                " or a ViT, such as 'small' or 'vit_nano'"
            )
        shown, words = self.see(seen.tokens), self.words(ids) + self.places[: ids.shape[1]]
        for layer in self.layers:
            words = layer(words, shown, visible)
        logits: Tensor = self.norm(words) @ self.words.weight.T
        return logits

    @torch.no_grad()
    def write(self, seen: Encoded, *, start: int, end: int) -> Tensor:
        """``[B, T]``: the likeliest token after the likeliest token, from ``start`` until each text ends.

        What follows ``end`` is ``end`` again.
        """
        ids = torch.full((len(seen.pooled), 1), start, device=seen.pooled.device)
        while ids.shape[1] < self.length and not bool((ids == end).any(1).all()):
            likeliest = self(seen, ids)[:, -1].argmax(-1)
            over = (ids == end).any(1)
            ids = torch.cat([ids, torch.where(over, end, likeliest)[:, None]], 1)
        return ids


class _Layer(nn.Module):
    """Attention to the words before, an MLP, and attention to what was seen."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.read = Block(width, heads, depth)
        self.norm = nn.LayerNorm(width)
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, words: Tensor, seen: Tensor, visible: Tensor | None) -> Tensor:
        words = self.read(words, causal=True)
        padding = None if visible is None else ~visible
        looked, _ = self.look(self.norm(words), seen, seen, key_padding_mask=padding, need_weights=False)
        changed: Tensor = words + looked
        return changed
