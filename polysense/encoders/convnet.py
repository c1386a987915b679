"""Convolutional nets for small pictures, and the stem that fits a ResNet to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.errors import PolysenseError


class SmallConvNet(nn.Sequential):
    """A plain conv net for CPUs: 3×3 convolution, BatchNorm, ReLU, as often as there are ``widths``.

    Pictures ``[B, channels, H, W]`` become a map ``[B, widths[-1], H/s, W/s]``, s the product of the
    ``strides``. It shrinks early and works in the channels-last memory layout, which is fast on CPUs.
    ``last_relu=False`` leaves out the last ReLU.

    >>> SmallConvNet(channels=3)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 64, 4, 4])
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 64),
        strides: Sequence[int] = (2, 2, 2, 1),
        last_relu: bool = True,
    ) -> None:
        if not widths or len(widths) != len(strides):
            raise PolysenseError(
                f"the small encoder has {len(widths)} widths and {len(strides)} strides; "
                "give one of each per layer"
            )
        inputs = (channels, *widths[:-1])
        super().__init__(*(_layer(*shape) for shape in zip(inputs, widths, strides, strict=True)))
        if not last_relu:
            self[-1] = self[-1][:-1]  # type: ignore[index]
        self.dim = widths[-1]
        self.to(memory_format=torch.channels_last)

    def forward(self, data: Tensor) -> Tensor:
        """The map of features of pictures ``[B, C, H, W]``."""
        features = data.contiguous(memory_format=torch.channels_last)
        for layer in self:
            features = layer(features)
        return features


class SmallConvEncoder(Encoder):
    """The small net as a tower: its map pooled to ``pool`` x ``pool`` places, laid side by side.

    Keeping the places, where a global mean would lose them, tells drawings of one thing from another:
    on the emoji it is worth more than wider layers. With ``last_norm`` the embedding ends in BatchNorm
    without affine instead of ReLU: each of its values is then centred and spread alike, as comparing by
    the cosine supposes.

    >>> SmallConvEncoder(SmallConvNet(3), pool=4)(torch.zeros(2, 3, 32, 32)).pooled.shape
    torch.Size([2, 1024])
    """

    def __init__(self, trunk: SmallConvNet, *, pool: int = 4, last_norm: bool = False) -> None:
        super().__init__()
        if pool < 1:
            raise PolysenseError(f"the small encoder cannot pool to {pool} places a side; use at least 1")
        self.trunk, self.pool = trunk, pool
        self.dim = trunk.dim * pool**2
        self.norm = nn.BatchNorm1d(self.dim, affine=False) if last_norm else nn.Identity()

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode pictures ``[B, C, H, W]``."""
        if mask is not None:
            raise self.cannot_hide()
        features = self.trunk(data)
        pooled = nn.functional.adaptive_avg_pool2d(features, self.pool).flatten(1)
        return Encoded(self.norm(pooled), features.flatten(2).transpose(1, 2), tuple(features.shape[2:]))

    @property
    def token_dim(self) -> int:
        """The channels of the map."""
        return int(self.trunk.dim)  # type: ignore[arg-type]


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def fit_stem(
    trunk: nn.Module, *, channels: int, size: int | None, pretrained: bool, small_stem: bool | None
) -> None:
    """Give a ResNet for small pictures its stem: 3×3, stride 1, padding 1, and no max-pool.

    The usual stem shrinks a picture by 4 before the first block, too much for 32 or 64 pixels.
    With ``small_stem`` None it is replaced up to 64 pixels, unless that would lose pretrained weights.
    """
    stem = getattr(trunk, "conv1", None)
    if type(trunk).__name__ != "ResNet" or not isinstance(stem, nn.Conv2d):
        if small_stem:
            raise PolysenseError(
                f"small_stem is for ResNets that begin with one convolution, not for {type(trunk).__name__}; "
                "leave it out"
            )
        return
    if small_stem is None:
        small_stem = size is not None and size <= 64 and not pretrained
    if not small_stem:
        return
    convolution = nn.Conv2d(channels, stem.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    trunk.conv1, trunk.maxpool = convolution, nn.Identity()
