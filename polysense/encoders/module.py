"""An encoder around any module that turns pictures into vectors, maps or tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.probe import on_empty_pictures
from polysense.errors import PolysenseError


class ModuleEncoder(Encoder):
    """A tower around your own ``nn.Module``.

    The module may return ``[B, D]``, a map ``[B, C, H, W]`` (pooled by its mean, its places are the
    tokens), tokens ``[B, T, D]`` (pooled by their mean) or an :class:`Encoded`. It cannot hide tokens.

    >>> import torch
    >>> encoder = ModuleEncoder(nn.Conv2d(3, 8, 3), dim=8)
    >>> encoded = encoder(torch.zeros(2, 3, 6, 6))
    >>> encoded.pooled.shape, encoded.tokens.shape, encoded.grid
    (torch.Size([2, 8]), torch.Size([2, 16, 8]), (4, 4))
    """

    def __init__(self, trunk: nn.Module, dim: int, *, grid: bool = True) -> None:
        super().__init__()
        self.trunk, self.dim = trunk, dim
        self._has_grid = grid

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode pictures ``[B, C, H, W]``."""
        if mask is not None:
            raise self.cannot_hide()
        return as_encoded(self.trunk(data), type(self.trunk).__name__)

    @property
    def token_dim(self) -> int:
        """The width of a place of the module's map."""
        return self.dim if self._has_grid else super().token_dim


def wrap(module: nn.Module, channels: int, size: int | None) -> ModuleEncoder:
    """Find the width of a module's output with an empty picture, and make it an encoder."""
    name, side = type(module).__name__, size or 224
    try:
        encoded = as_encoded(on_empty_pictures(module, channels, size), name)
    except (RuntimeError, TypeError, ValueError) as error:
        raise PolysenseError(
            f"the encoder {name} failed on pictures [2, {channels}, {side}, {side}] ({_first_line(error)}); "
            "pass the channels and size it takes"
        ) from error
    return ModuleEncoder(module, encoded.pooled.shape[-1], grid=encoded.grid is not None)


def as_encoded(output: Any, name: str) -> Encoded:
    """A module's output as :class:`Encoded`; ``name`` is what an error calls the module."""
    if isinstance(output, Encoded):
        return output
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
        found = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise PolysenseError(
            f"the encoder {name} returned {found}; return [B, D], [B, C, H, W], [B, T, D] or an Encoded"
        )
    if output.ndim == 2:
        return Encoded(output)
    if output.ndim == 3:
        return Encoded(output.mean(1), output)
    return Encoded(output.mean((2, 3)), map_tokens(output), tuple(output.shape[2:]))


def map_tokens(features: Tensor) -> Tensor:
    """The places of a map ``[B, C, H, W]`` as tokens ``[B, H·W, C]``, row by row."""
    return features.flatten(2).transpose(1, 2)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
