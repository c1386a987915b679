"""The transformer block of this package: for pixels, for words, and for whatever else comes in a row."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.errors import PolysenseError


class Memory:
    """Keys and values of the tokens so far, so that one more token costs one token's work."""

    def __init__(self) -> None:
        self.past: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.past is None else self.past.shape[3]

    def extend(self, fresh: Tensor) -> Tensor:
        """Append ``[2, B, H, T, D]`` and return all."""
        self.past = fresh if self.past is None else torch.cat([self.past, fresh], dim=3)
        return self.past


class Block(nn.Module):
    """GPT-2's block: attention, then an MLP, each behind a norm and added to what came in.

    ``depth`` is how many such blocks there will be. ``dropout`` acts on the attention and on what is added.

    Raises:
        PolysenseError: where the heads cannot share the width.

    >>> Block(width=8, heads=2, depth=1)(torch.zeros(1, 3, 8), causal=False).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, width: int, heads: int, depth: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise PolysenseError(f"{heads} heads cannot share a width of {width}; choose one they divide")
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)
        for name, part in self.named_modules():
            if isinstance(part, nn.Linear):
                adds = name in ("project", "mlp.2")  # what 2 * depth additions sum up to stays in bounds
                nn.init.normal_(part.weight, std=0.02 / math.sqrt(2 * depth) if adds else 0.02)
                nn.init.zeros_(part.bias)

    def forward(
        self, x: Tensor, causal: bool, memory: Memory | None = None, attended: Tensor | None = None
    ) -> Tensor:
        """``x[B, T, width]``; with a memory, behind what it holds.

        ``attended`` is ``[B, T]``, False at padding: none looks at it, it costs next to nothing, and zeros
        come out there. Causal blocks expect it on the right, behind all that look.
        """
        places = None if attended is None else attended.flatten().nonzero()[:, 0]
        tokens = x if places is None else x.flatten(0, 1)[places]
        heads = _spread(self.qkv(self.norm1(tokens)), places, x.shape)
        heads = heads.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, pairs = heads[0], heads[1:]
        if memory is not None:
            pairs = memory.extend(pairs)
        mixed = functional.scaled_dot_product_attention(
            query,
            pairs[0],
            pairs[1],
            attn_mask=None if attended is None or causal else attended[:, None, None],
            dropout_p=self.drop.p if self.training else 0.0,
            is_causal=causal and query.shape[2] > 1,  # a single token sees all before it
        )
        mixed = mixed.transpose(1, 2).flatten(2)
        if places is not None:
            mixed = mixed.flatten(0, 1)[places]
        tokens = tokens + self.drop(self.project(mixed))
        tokens = tokens + self.drop(self.mlp(self.norm2(tokens)))
        return _spread(tokens, places, x.shape)


def _spread(tokens: Tensor, places: Tensor | None, shape: torch.Size) -> Tensor:
    """Tokens ``[N, E]`` back in their places of ``[B, T, E]``, zeros in the others."""
    if places is None:
        return tokens
    whole = tokens.new_zeros(shape[0] * shape[1], tokens.shape[-1]).index_copy(0, places, tokens)
    return whole.reshape(*shape[:2], -1)


def through(blocks: nn.ModuleList, tokens: Tensor, valid: Tensor, keep: int) -> tuple[Tensor, Tensor | None]:
    """Tokens ``[B, T, E]`` after all blocks, and those after the last ``keep``: ``[B, keep, T, E]``, or None.

    Those that are not ``valid`` ``[B, T]`` are not attended to.
    """
    attended, kept = None if bool(valid.all()) else valid, []
    for number, block in enumerate(blocks, start=1):
        tokens = block(tokens, causal=False, attended=attended)
        if number > len(blocks) - keep:
            kept.append(tokens)
    return tokens, torch.stack(kept, 1) if kept else None


def kept_layers(count: int, blocks: nn.ModuleList) -> int:
    """How many blocks' tokens to keep; raises PolysenseError for more than there are."""
    depth = len(blocks)
    if not 0 <= count <= depth:
        raise PolysenseError(
            f"this encoder has {depth} blocks and cannot keep {count}; choose 0 to {depth}, or more depth"
        )
    return count
