"""What shows only when a model encodes something, found out with something empty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoder, eval_mode


def on_empty_pictures(module: nn.Module, channels: int, size: int | None) -> Any:
    """What ``module`` makes of two empty pictures, see :func:`in_eval_mode`.

    >>> on_empty_pictures(nn.Conv2d(3, 8, 1), channels=3, size=4).shape
    torch.Size([2, 8, 4, 4])
    """
    side = size or 224
    # The pictures go where the weights are; a module without weights works anywhere.
    like = next(module.parameters(), torch.empty(0))
    return in_eval_mode(module, torch.zeros(2, channels, side, side, device=like.device, dtype=like.dtype))


def in_eval_mode(module: nn.Module, *inputs: Tensor) -> Any:
    """What ``module`` makes of its inputs in eval mode, see :func:`.eval_mode`."""
    with torch.no_grad(), eval_mode(module):
        return module(*inputs)


class ProbedEncoder(Encoder):
    """A tower around another library's model, which does not tell how wide its tokens are."""

    trunk: Any

    def __init__(self, trunk: nn.Module, dim: int, *, channels: int, size: int | None) -> None:
        super().__init__()
        self.trunk, self.dim = trunk.to(memory_format=torch.channels_last), dim  # faster convolutions
        self._pictures = channels, size
        self._token_dim: int | None = None

    @property
    def token_dim(self) -> int:
        """The width of a place of the model's map, seen when it is first asked for.

        Raises:
            PolysenseError: where the model has no tokens on a grid.
        """
        if self._token_dim is None:
            encoded = on_empty_pictures(self, *self._pictures)
            if encoded.tokens is None or encoded.grid is None:
                return super().token_dim
            self._token_dim = int(encoded.tokens.shape[-1])
        return self._token_dim
