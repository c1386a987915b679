"""Encoders of log-mels that know where a clip ends: what lies behind it changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import sine_cosine
from polysense.encoders.transformer import Block, kept_layers, through
from polysense.encoders.vit import patchify
from polysense.errors import PolysenseError

Sound = Mapping[str, Tensor]
"""``{"mel": [B, 1, F, T], "lengths": [B]}`` or ``{"waves": [B, S], "lengths": [B]}``."""


class SoundEncoder(Encoder):
    """A tower that reads sound."""

    def cannot_hide(self) -> PolysenseError:
        """The error for a method that hides tokens from an encoder that has no way to."""
        return PolysenseError(
            f"the encoder {type(self).__name__} cannot hide tokens; choose 'audio_vit_nano', or 'wav_nano'"
            " with the view setting form='waves'"
        )


class SoundNet(SoundEncoder):
    """A tower of this package's own, whose trunk is all of it."""

    @property
    def trunk(self) -> nn.Module:  # type: ignore[override]
        """The net itself: it is of no other library."""
        return self


class SpectrogramCNN(SoundNet):
    """Convolutions over log-mels, an MLP on each frame, and mean + max over the valid frames.

    As BYOL-A's encoder, with strides in place of its pooling; ``widths=(64, 64, 64, 64), dim=2048`` has its
    size. A frame of the map is 8 of the spectrogram's.

    https://arxiv.org/abs/2103.06695, https://arxiv.org/abs/2204.07402

    >>> encoder = SpectrogramCNN(mels=64, dim=32)
    >>> encoder({"mel": torch.zeros(2, 1, 64, 96), "lengths": torch.tensor([96, 50])}).pooled.shape
    torch.Size([2, 32])
    """

    STRIDES = (2, 2, 2, 1)  # in time; in frequency each halves

    def __init__(
        self, mels: int = 64, widths: Sequence[int] = (16, 32, 64, 128), dim: int = 512, dropout: float = 0.3
    ) -> None:
        super().__init__()
        if len(widths) != len(self.STRIDES):
            raise PolysenseError(f"the sound encoder got {len(widths)} widths; give {len(self.STRIDES)}")
        shapes = zip((1, *widths[:-1]), widths, self.STRIDES, strict=True)
        self.layers = nn.ModuleList(_layer(*shape) for shape in shapes)
        height = mels
        for _ in widths:
            height = (height + 1) // 2
        self.frames = nn.Sequential(
            nn.Linear(height * widths[-1], dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(dim, dim),
            nn.ReLU(),
        )
        self.dim = dim
        self.to(memory_format=torch.channels_last)

    def forward(self, data: Sound, mask: Tensor | None = None) -> Encoded:
        """Encode ``{"mel", "lengths"}``."""
        if mask is not None:
            raise self.cannot_hide()
        features, lengths = data["mel"].contiguous(memory_format=torch.channels_last), data["lengths"]
        for layer, stride in zip(self.layers, self.STRIDES, strict=True):
            lengths = (lengths + stride - 1) // stride
            features = layer(features)
            features = features * valid_frames(lengths, features.shape[3])[:, None, None]
        tokens = self.frames(features.permute(0, 3, 2, 1).flatten(2))
        valid = valid_frames(lengths, tokens.shape[1])
        largest = tokens.masked_fill(~valid[..., None], -torch.inf).amax(1)
        return Encoded(mean_of_valid(tokens, valid) + largest, tokens, (tokens.shape[1],))

    @property
    def token_dim(self) -> int:
        """The width of a frame."""
        return self.dim


class SpectrogramViT(SoundNet):
    """A transformer over patches of log-mels that can hide them, with fixed positions in two dimensions.

    Patches under a mask are left out, or, after :meth:`learn_mask_token`, replaced. Patches behind a clip's
    end are not attended to; ``pooled`` is the mean of the others.

    https://arxiv.org/abs/2207.06405

    >>> encoder = SpectrogramViT(mels=64, depth=1)
    >>> sound = {"mel": torch.zeros(2, 1, 64, 96), "lengths": torch.tensor([96, 50])}
    >>> encoder(sound).tokens.shape, encoder.grid(sound)
    (torch.Size([2, 48, 128]), (4, 12))
    """

    def __init__(
        self,
        mels: int = 64,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        patch: Sequence[int] = (16, 8),
    ) -> None:
        super().__init__()
        if mels % patch[0] or width % heads or width % 4:
            raise PolysenseError(
                f"patches of {patch[0]} bands and {heads} heads do not fit {mels} bands and a width of"
                f" {width}; choose what divides them, and a width that 4 divides"
            )
        self.patch, self.mels, self.dim = (int(patch[0]), int(patch[1])), mels, width
        self.embed = nn.Linear(self.token_values, width)
        self.blocks = nn.ModuleList(Block(width, heads, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.mask_token: nn.Parameter | None = None
        self.kept_layers = 0

    def forward(self, data: Sound, mask: Tensor | None = None) -> Encoded:
        """Encode ``{"mel", "lengths"}``; without a mask token ``mask`` hides equally many in each row."""
        grid = self.grid(data)
        tokens = self.embed(self.tokenise(data))
        places = sine_cosine(grid, self.dim, tokens.device).to(tokens.dtype)
        starts = self.patch[1] * torch.arange(grid[1], device=tokens.device).repeat(grid[0])
        valid = starts < data["lengths"][:, None]
        if mask is not None and self.mask_token is not None:
            tokens = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        tokens = tokens + places
        if mask is not None and self.mask_token is None:
            shown = (~mask).nonzero()[:, 1].view(len(mask), -1)
            tokens, valid = tokens.take_along_dim(shown[..., None], 1), valid.gather(1, shown)
        tokens, kept = through(self.blocks, tokens, valid, self.kept_layers)
        tokens = self.norm(tokens)
        return Encoded(mean_of_valid(tokens, valid), tokens, grid, mask, kept)

    def grid(self, data: Any) -> tuple[int, int]:
        """How many patches lie above and behind one another, of a view's data or its log-mels alone."""
        mel = data if isinstance(data, Tensor) else data["mel"]
        return self.mels // self.patch[0], -(-mel.shape[3] // self.patch[1])

    def tokenise(self, data: Sound) -> Tensor:
        """The patches ``[B, T, token_values]``; the last ones are filled up with 0, the mean."""
        mel = data["mel"]
        return patchify(functional.pad(mel, (0, -mel.shape[3] % self.patch[1])), self.patch)

    @property
    def token_values(self) -> int:
        """The values of one patch."""
        return self.patch[0] * self.patch[1]

    @property
    def token_dim(self) -> int:
        """The width of a patch's embedding, that of the pooled one."""
        return self.dim

    def learn_mask_token(self) -> None:
        """From now on put a learned vector where a patch is hidden."""
        self.mask_token = nn.Parameter(0.02 * torch.randn(self.dim))

    def keep_layers(self, count: int) -> None:
        """From now on give the patches of the last ``count`` blocks, before the closing norm, too."""
        self.kept_layers = kept_layers(count, self.blocks)

    def settle(self) -> None:
        """Put away the mask token and the kept layers."""
        self.mask_token, self.kept_layers = None, 0


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """``[B, frames]``: True where a clip has not ended.

    >>> valid_frames(torch.tensor([1, 3]), 3).int()
    tensor([[1, 0, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def mean_of_valid(tokens: Tensor, valid: Tensor) -> Tensor:
    """``[B, E]``: the mean of ``tokens[B, T, E]`` where ``valid[B, T]`` is True."""
    weights = valid / valid.sum(1, keepdim=True).clamp_min(1)
    return torch.einsum("bte,bt->be", tokens, weights.to(tokens.dtype))


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, (2, stride), padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
