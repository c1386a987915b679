"""The one thing every encoder returns, and the contract that makes towers interchangeable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polysense.errors import PolysenseError


@dataclass(frozen=True)
class Encoded:
    """What an encoder made of one view.

    ``pooled``: ``[B, D]``. ``tokens``: ``[B, T, E]`` patches, frames, words or columns; under a mask
    that drops tokens only the visible ones, in their order. ``grid``: how all tokens lie, ``(h, w)``
    or ``(t,)``, None where they have no place. ``mask``: the ``[B, T]`` mask the encoder honoured,
    True where hidden.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    grid: tuple[int, ...] | None = None
    mask: Tensor | None = None

    @staticmethod
    def join(parts: Sequence[Encoded]) -> Encoded:
        """Lay batches one behind the other; tokens and masks only where all have as many."""
        if len(parts) == 1:
            return parts[0]
        tokens = [part.tokens for part in parts if part.tokens is not None]
        masks = [part.mask for part in parts if part.mask is not None]
        alike = len({token.shape[1:] for token in tokens}) == 1 and len(tokens) == len(parts)
        return Encoded(
            torch.cat([part.pooled for part in parts]),
            torch.cat(tokens) if alike else None,
            parts[0].grid if alike else None,
            torch.cat(masks) if alike and len(masks) == len(parts) else None,
        )

    def split(self, sizes: list[int]) -> list[Encoded]:
        """Cut along the batch: the views that went through the encoder together."""
        parts = len(sizes)
        pooled = self.pooled.split(sizes)
        tokens = self.tokens.split(sizes) if self.tokens is not None else [None] * parts
        masks = self.mask.split(sizes) if self.mask is not None else [None] * parts
        return [Encoded(pooled[i], tokens[i], self.grid, masks[i]) for i in range(parts)]


class Encoder(nn.Module):
    """A tower: data of one modality in, :class:`Encoded` out.

    Subclasses set ``dim`` (the width of ``pooled``) and implement ``forward``.
    ``trunk`` is the model as its own library knows it, so that its ``state_dict`` goes back there
    under the same key names.
    """

    dim: int
    trunk: nn.Module

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode ``[B, ...]``; ``mask`` is ``[B, T]``, True at the tokens to hide."""
        raise NotImplementedError

    def grid(self, data: Tensor) -> tuple[int, ...]:
        """How the tokens of ``data`` will lie, known before it is encoded: maskers need it.

        Raises:
            PolysenseError: here, and in every encoder that cannot hide tokens.
        """
        raise self.cannot_hide()

    @property
    def token_values(self) -> int:
        """How many raw input values one token stands for: the width of what a decoder predicts."""
        raise self.cannot_hide()

    def tokenise(self, data: Tensor) -> Tensor:
        """The raw input of each token, ``[B, T, token_values]``: what a decoder is to predict."""
        raise self.cannot_hide()

    def cannot_hide(self) -> PolysenseError:
        """The error for a method that hides tokens from an encoder that has no way to."""
        return PolysenseError(
            f"the encoder {type(self.trunk).__name__} cannot hide tokens; choose a ViT, such as 'vit_nano' or"
            " 'vit_tiny_patch16_224'"
        )
