"""The one thing every encoder returns, and the contract that makes towers interchangeable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from polysense.errors import PolysenseError


@dataclass(frozen=True)
class Encoded:
    """What an encoder made of one view.

    ``pooled``: ``[B, D]``. ``tokens``: ``[B, T, E]`` patches, frames, words or columns; under a mask
    that drops tokens only the visible ones, in their order. ``grid``: how all tokens lie, ``(h, w)``
    or ``(t,)``, None where they have no place. ``mask``: the ``[B, T]`` mask the encoder honoured,
    True where hidden. ``layers``: ``[B, L, T, E]``, the tokens after each of the last L blocks before
    the closing norm, where :meth:`Encoder.keep_layers` asked for them.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    grid: tuple[int, ...] | None = None
    mask: Tensor | None = None
    layers: Tensor | None = None

    @staticmethod
    def join(parts: Sequence[Encoded]) -> Encoded:
        """Lay batches one behind the other; tokens and masks only where all have as many."""
        if len(parts) == 1:
            return parts[0]
        tokens = [part.tokens for part in parts if part.tokens is not None]
        masks = [part.mask for part in parts if part.mask is not None]
        layers = [part.layers for part in parts if part.layers is not None]
        alike = len({token.shape[1:] for token in tokens}) == 1 and len(tokens) == len(parts)
        return Encoded(
            torch.cat([part.pooled for part in parts]),
            torch.cat(tokens) if alike else None,
            parts[0].grid if alike else None,
            torch.cat(masks) if alike and len(masks) == len(parts) else None,
            torch.cat(layers) if alike and len(layers) == len(parts) else None,
        )

    def split(self, sizes: list[int]) -> list[Encoded]:
        """Cut along the batch: the views that went through the encoder together."""

        def cut(whole: Tensor | None) -> Sequence[Tensor | None]:
            return whole.split(sizes) if whole is not None else [None] * len(sizes)

        columns = (self.pooled.split(sizes), cut(self.tokens), cut(self.mask), cut(self.layers))
        return [
            Encoded(pooled, tokens, self.grid, mask, layers)
            for pooled, tokens, mask, layers in zip(*columns, strict=True)
        ]


class Encoder(nn.Module):
    """A tower: data of one modality in, :class:`Encoded` out.

    Subclasses set ``dim`` (the width of ``pooled``) and implement ``forward``.
    ``trunk`` is the model as its own library knows it, so that its ``state_dict`` goes back there
    under the same key names.
    """

    dim: int
    trunk: nn.Module

    def forward(self, data: Any, mask: Tensor | None = None) -> Encoded:
        """Encode a view's data, ``[B, ...]``, one tensor or several under names.

        ``mask`` is ``[B, T]``, True at the tokens to hide.
        """
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Put all into training mode but what :func:`~polysense.encoders.adapters.freeze` has frozen."""
        super().train(mode)
        for module in self.modules():
            if getattr(module, "is_frozen", False):
                nn.Module.train(module, False)
        return self

    def grid(self, data: Any) -> tuple[int, ...]:
        """How the tokens of ``data`` will lie, known before it is encoded: maskers need it.

        Raises:
            PolysenseError: here, and in every encoder that cannot hide tokens.
        """
        raise self.cannot_hide()

    @property
    def token_dim(self) -> int:
        """The width E of ``Encoded.tokens``, for methods that compare places.

        Raises:
            PolysenseError: here, and in every encoder without tokens on a grid.
        """
        raise PolysenseError(
            f"the encoder {type(self.trunk).__name__} has no places on a grid to compare; choose a conv net"
            " or a ViT, such as 'small', 'resnet18' or 'vit_nano'"
        )

    def learn_mask_token(self) -> None:
        """From now on put a learned vector where a token is hidden, and do not leave the token out.

        BEiT, SimMIM and iBOT hide in this way; MAE and I-JEPA leave out.

        Raises:
            PolysenseError: here, and in every encoder that cannot hide tokens.
        """
        raise self.cannot_hide()

    def keep_layers(self, count: int) -> None:
        """From now on give the tokens of the last ``count`` blocks in ``Encoded.layers`` too.

        Raises:
            PolysenseError: here, and in every encoder that is not a stack of equal blocks.
        """
        raise PolysenseError(
            f"the encoder {type(self.trunk).__name__} is no stack of equal blocks; choose a ViT, such as"
            " 'vit_nano'"
        )

    def settle(self) -> None:
        """Put away what only training used (a mask token, kept layers), before the weights are written."""

    def freeze_stem(self) -> None:
        """Keep a transformer's random patch projection as it is (MoCo v3); others have none to freeze."""

    @property
    def token_values(self) -> int:
        """How many raw input values one token stands for: the width of what a decoder predicts."""
        raise self.cannot_hide()

    def tokenise(self, data: Any) -> Tensor:
        """The raw input of each token, ``[B, T, token_values]``: what a decoder is to predict."""
        raise self.cannot_hide()

    def cannot_hide(self) -> PolysenseError:
        """The error for a method that hides tokens from an encoder that has no way to."""
        return PolysenseError(
            f"the encoder {type(self.trunk).__name__} cannot hide tokens; choose a ViT, such as 'vit_nano' or"
            " 'vit_tiny_patch16_224'"
        )


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode for a while; every part is left in the mode it was in.

    >>> dropout = nn.Dropout()
    >>> with eval_mode(dropout):
    ...     print(dropout.training)
    False
    >>> dropout.training
    True
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
