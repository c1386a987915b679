"""A decoder that writes texts from what a tower saw."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polysense.encoders.attention_pool import AttentionPool
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
        queries: how many learned queries pool the other tower's tokens first (:class:`.AttentionPool`), as
            CoCa's authors have it with 256; if None, each layer looks at the tokens themselves.

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
        queries: int | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise PolysenseError(f"{heads} heads cannot share a width of {width}; choose one they divide")
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.words.weight, std=0.02)
        self.see: nn.Module = nn.Linear(seen_dim, width)
        if queries is not None:
            self.see = AttentionPool(seen_dim, width, queries, heads)
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
        return self._read(*self._shown(seen, visible), ids)

    @torch.no_grad()
    def write(self, seen: Encoded, *, start: int, end: int, beams: int = 1) -> Tensor:
        """``[B, T]``: the likeliest text for what was seen, from ``start`` to ``end``, with ``end`` behind.

        At each token the ``beams`` likeliest beginnings of a text are kept; with one, that is the likeliest
        token after the likeliest token. Of those kept at last the one with the highest mean log-probability
        per token wins, so that a short one is not better for being short.

        Raises:
            PolysenseError: for no beams or more than there are tokens, and as :meth:`forward` does.
        """
        count, vocabulary = len(seen.pooled), len(self.words.weight)
        if not 1 <= beams <= vocabulary:
            raise PolysenseError(f"beams is {beams}; give from 1 to {vocabulary}, the number of tokens")
        shown = self._shown(seen)[0].repeat_interleave(beams, 0)
        ids = torch.full((count * beams, 1), start, device=shown.device)
        score = torch.full((count, beams), -torch.inf, device=shown.device)
        score[:, 0] = 0  # at first all beginnings are the same one
        first = beams * torch.arange(count, device=shown.device)[:, None]
        while ids.shape[1] < self.length and not bool((over := (ids[:, 1:] == end).any(1)).all()):
            likely = self._read(shown, None, ids)[:, -1].float().log_softmax(-1)
            likely[over] = -torch.inf
            likely[over, end] = 0  # what has ended stays as it is
            score, best = (score[:, :, None] + likely.view(count, beams, -1)).flatten(1).topk(beams)
            kept = (first + best // vocabulary).flatten()
            ids = torch.cat([ids[kept], (best % vocabulary).view(-1, 1)], 1)
        length = (1 + (ids[:, 1:] != end).sum(1)).clamp(max=ids.shape[1] - 1).view_as(score)
        return ids[first[:, 0] + (score / length).argmax(1)]

    @property
    def pools(self) -> bool:
        """Whether learned queries stand between the tokens of the other tower and the layers."""
        return isinstance(self.see, AttentionPool)

    def _shown(self, seen: Encoded, visible: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """``[B, S, width]``: what every layer looks at, and which of it is no padding."""
        if seen.tokens is None:
            raise PolysenseError(
                "a text is written from the places of a picture, and the tower gives none; choose a conv net"
                " or a ViT, such as 'small' or 'vit_nano'"
            )
        if self.pools:
            return self.see(seen.tokens, visible), None
        return self.see(seen.tokens), visible

    def _read(self, shown: Tensor, visible: Tensor | None, ids: Tensor) -> Tensor:
        words = self.words(ids) + self.places[: ids.shape[1]]
        for layer in self.layers:
            words = layer(words, shown, visible)
        logits: Tensor = self.norm(words) @ self.words.weight.T
        return logits


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
