"""The small convolutional net of pixel-based agents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.errors import PolysenseError


class StateConv(Encoder):
    """Four 3 x 3 convolutions, a linear layer and LayerNorm, as agents on pixels have them (SAC-AE, CURL).

    Strides are 2, 2, 2 and 1, without padding. ``Encoded.tokens`` are the places of the last map.

    Args:
        channels: of a whole stack of frames.
        size: side of the frames in pixels.
        width: channels of each layer.
        dim: width of the embedding.

    Raises:
        PolysenseError: for frames that are too small.

    >>> StateConv(channels=3, size=64)(torch.zeros(2, 3, 64, 64)).pooled.shape
    torch.Size([2, 64])
    """

    trunk: nn.Sequential

    def __init__(self, channels: int, size: int, *, width: int = 32, dim: int = 64) -> None:
        super().__init__()
        inputs, strides = (channels, width, width, width), (2, 2, 2, 1)
        side = size
        layers: list[nn.Module] = []
        for given, stride in zip(inputs, strides, strict=True):
            convolution = nn.Conv2d(given, width, 3, stride)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [convolution, nn.ReLU(inplace=True)]
            side = (side - 3) // stride + 1
        if side < 1:
            raise PolysenseError(
                f"frames of {size} x {size} pixels are too small for the encoder 'state_conv'; collect"
                " them at 32 or more"
            )
        self.width, self.dim = width, dim
        convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        head = nn.Sequential(nn.Flatten(), nn.Linear(width * side**2, dim), nn.LayerNorm(dim))
        self.trunk = nn.Sequential(convolutions, head)

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode stacks of frames ``[B, channels, size, size]``."""
        if mask is not None:
            raise self.cannot_hide()
        convolutions, head = self.trunk
        features = convolutions(data.contiguous(memory_format=torch.channels_last))
        tokens = features.flatten(2).transpose(1, 2)
        return Encoded(head(features), tokens, tuple(features.shape[2:]))

    @property
    def token_dim(self) -> int:
        """The channels of the map."""
        return self.width
