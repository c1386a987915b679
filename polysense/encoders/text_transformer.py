"""What every encoder of texts has in common, and a small transformer for CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.transformer import Block
from polysense.errors import PolysenseError, unknown

POOLINGS = ("mean", "first", "last")

Words = dict[str, Tensor]
"""``ids`` int64 and ``attended`` bool, ``[B, T]`` both, padding on the right."""


def pool(tokens: Tensor, attended: Tensor, how: str) -> Tensor:
    """``[B, E]``: the mean, first or last of the attended ``tokens[B, T, E]``; padding does not count.

    >>> tokens, attended = torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])
    >>> [pool(tokens, attended, how).item() for how in POOLINGS]
    [2.0, 1.0, 3.0]
    """
    if how == "first":
        return tokens[:, 0]
    counts = attended.sum(1).clamp(min=1)  # a text that is missing has no tokens
    if how == "last":
        return tokens[torch.arange(len(tokens), device=tokens.device), counts - 1]
    return (tokens * attended[..., None]).sum(1) / counts[:, None]


class TextEncoder(Encoder):
    """A tower for texts: ``{"ids", "attended"}`` in, a token per id out.

    Hidden tokens are replaced by a learned vector, see :meth:`learn_mask_token`. Subclasses implement
    ``embeddings`` and ``through``.

    Args:
        trunk: the model.
        dim: its width.
        depth: how many blocks it has.
        length: tokens of a text at most.
        pooling: "mean", "first" (BERT's class token) or "last" (a causal one has seen all there).

    Raises:
        PolysenseError: for an unknown pooling.
    """

    def __init__(self, trunk: nn.Module, *, dim: int, depth: int, length: int, pooling: str) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        self.trunk, self.dim, self.depth, self.length, self.pooling = trunk, dim, depth, length, pooling
        self.mask_token: nn.Parameter | None = None
        self.kept_layers = 0

    @property
    def embeddings(self) -> nn.Embedding:
        """``[vocabulary, E]``: the vectors that ids become, which a decoder may share."""
        raise NotImplementedError

    def through(self, vectors: Tensor, attended: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The tokens ``[B, T, E]`` made of ``vectors[B, T, E]``, and what each block has made on the way."""
        raise NotImplementedError

    def forward(self, data: Words, mask: Tensor | None = None) -> Encoded:
        """Encode texts; ``mask`` is ``[B, T]``, True at the tokens to hide."""
        ids, attended = data["ids"], data["attended"]
        if ids.shape[1] > self.length:
            raise PolysenseError(
                f"this encoder reads up to {self.length} tokens and a text has {ids.shape[1]}; cut texts at"
                " the length it was built for"
            )
        vectors: Tensor = self.embeddings(ids)
        if mask is not None:
            vectors = torch.where(mask[..., None], self._stand_in(vectors), vectors)
        tokens, layers = self.through(vectors, attended)
        kept = torch.stack(layers[-self.kept_layers :], 1) if self.kept_layers else None
        return Encoded(pool(tokens, attended, self.pooling), tokens, self.grid(data), mask, kept)

    def grid(self, data: Words) -> tuple[int, ...]:
        """How many tokens the longest text has."""
        return (data["ids"].shape[1],)

    @property
    def token_dim(self) -> int:
        """The width of a token, that of the pooled embedding."""
        return self.dim

    def learn_mask_token(self) -> None:
        """From now on put a learned vector where a token is hidden."""
        self.mask_token = nn.Parameter(0.02 * torch.randn(self.embeddings.embedding_dim))

    def keep_layers(self, count: int) -> None:
        """From now on give the tokens of the last ``count`` blocks too."""
        if not 0 <= count <= self.depth:
            raise PolysenseError(
                f"this encoder has {self.depth} blocks and cannot keep {count}; choose 0 to {self.depth}"
            )
        self.kept_layers = count

    def settle(self) -> None:
        """Put away the mask token and the kept layers."""
        self.mask_token, self.kept_layers = None, 0

    def cannot_hide(self) -> PolysenseError:
        """The error for a method that hides tokens in a way that is none for texts."""
        return PolysenseError(
            "an encoder of texts neither leaves tokens out nor has values to predict behind them; choose a"
            " method for texts"
        )

    def _stand_in(self, vectors: Tensor) -> Tensor:
        if self.mask_token is None:
            raise self.cannot_hide()
        return self.mask_token.to(vectors.dtype)


class TextTransformer(nn.Module):
    """A transformer over words with learned places; ``vocabulary`` ids, texts of up to ``length`` tokens.

    With ``causal`` a token sees those before it only, as in CLIP's text tower.

    >>> model = TextTransformer(vocabulary=100, length=8, width=16, depth=1, heads=2)
    >>> model(torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        *,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise PolysenseError(f"the text transformer's depth is {depth}; use at least 1")
        self.causal = causal
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.01 * torch.randn(length, width))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, depth, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, ids: Tensor, attended: Tensor) -> Tensor:
        """The tokens ``[B, T, width]`` of texts ``ids[B, T]``, ``attended[B, T]``."""
        tokens: Tensor = self.norm(self.layers(self.words(ids), attended)[-1])
        return tokens

    def layers(self, vectors: Tensor, attended: Tensor) -> list[Tensor]:
        """What each block makes of ``vectors[B, T, width]``, before the closing norm."""
        x = self.drop(vectors + self.places[: vectors.shape[1]])
        # the first token is always there to look at: nothing at all would be a division by zero
        visible = attended | (torch.arange(attended.shape[1], device=attended.device) == 0)
        padding, made = None if visible.all() else visible, []
        for block in self.blocks:
            x = block(x, self.causal, attended=padding)
            made.append(x)
        return made


class TextTransformerEncoder(TextEncoder):
    """The small transformer as a tower.

    >>> encoder = TextTransformerEncoder(TextTransformer(100, 8, width=16, depth=2))
    >>> ids = torch.tensor([[2, 7, 3, 0]])
    >>> encoder({"ids": ids, "attended": ids > 0}).pooled.shape
    torch.Size([1, 16])
    """

    trunk: TextTransformer

    def __init__(self, trunk: TextTransformer, *, pooling: str = "mean") -> None:
        length, width = trunk.places.shape
        super().__init__(trunk, dim=width, depth=len(trunk.blocks), length=length, pooling=pooling)

    @property
    def embeddings(self) -> nn.Embedding:
        """The vectors of the vocabulary."""
        return self.trunk.words

    def through(self, vectors: Tensor, attended: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The tokens after the closing norm, and what each block has made before it."""
        layers = self.trunk.layers(vectors, attended)
        return self.trunk.norm(layers[-1]), layers
