"""Encoders of raw waves: a convolutional extractor of frames, and a transformer over them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded
from polysense.encoders.logmel import LogMel
from polysense.encoders.spectrograms import Sound, SoundNet, mean_of_valid, valid_frames
from polysense.encoders.transformer import Block, kept_layers, through
from polysense.encoders.wave_frames import WaveFrames
from polysense.errors import PolysenseError

CEPSTRA = 13
"""Coefficients of a frame's log-mel; with their first and second differences in time they are its target."""


class Wav2Vec(SoundNet):
    """wav2vec 2.0's encoder with layer norm in its extractor, from whose frames nothing leaks.

    Waves are normalised over their valid samples; convolutions, the first one twice as long and as far apart
    as the paper's, make a frame each 20 ms; a convolution over
    frames tells where they lie. Hidden frames are replaced by a learned vector. ``pooled`` is the mean of the
    valid frames. ``tokenise`` gives each frame's cepstral coefficients (MFCC), as HuBERT clusters them.

    https://arxiv.org/abs/2006.11477

    >>> encoder = Wav2Vec(rate=8000, depth=1)
    >>> encoder({"waves": torch.randn(2, 8000), "lengths": torch.tensor([8000, 900])}).tokens.shape
    torch.Size([2, 49, 128])

    Raises:
        PolysenseError: for a rate or width that does not work out.
    """

    def __init__(
        self,
        rate: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        channels: int = 64,
        reach: int = 31,
    ) -> None:
        super().__init__()
        halvings = round(math.log2(rate / 500)) if rate > 1000 else 0
        if not halvings or width % heads or reach % 2 == 0:
            raise PolysenseError(
                f"no wav2vec encoder has a rate of {rate}, {heads} heads for a width of {width} and a reach"
                f" of {reach}; choose a rate above 1,000, heads that divide the width, and an odd reach"
            )
        self.dim, self.channels = width, channels
        kernels = [20, *(3 if number < 4 else 2 for number in range(halvings))]
        self.extractor = WaveFrames(kernels, [10, *([2] * halvings)], channels)
        self.feature_norm = nn.LayerNorm(channels)
        self.embed = nn.Linear(channels, width)
        self.place = nn.Conv1d(width, width, reach, padding=reach // 2, groups=heads)
        self.blocks = nn.ModuleList(Block(width, heads, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.mask_token: nn.Parameter | None = None
        self.kept_layers = 0
        hop, field = self.extractor.hop, self.extractor.field
        self.cepstrum = LogMel(rate, mels=40, window=field / rate, hop=hop / rate, epsilon=1e-8)

    def forward(self, data: Sound, mask: Tensor | None = None) -> Encoded:
        """Encode ``{"waves", "lengths"}``; frames under ``mask`` ``[B, T]`` are replaced."""
        tokens = self.embed(self.extract(data))
        if mask is not None:
            if self.mask_token is None:
                raise PolysenseError(
                    "this encoder replaces hidden frames and does not leave them out; choose a method that"
                    " does so, such as wav2vec2 or hubert"
                )
            tokens = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        frames = tokens.shape[1]
        valid = valid_frames(self.frames(data["lengths"]), frames)
        tokens = tokens * valid[..., None]
        tokens = tokens + functional.gelu(self.place(tokens.mT)).mT
        tokens, kept = through(self.blocks, tokens, valid, self.kept_layers)
        tokens = self.norm(tokens)
        return Encoded(mean_of_valid(tokens, valid), tokens, (frames,), mask, kept)

    def extract(self, data: Sound) -> Tensor:
        """What the convolutions make of each frame, normalised: ``[B, T, channels]``."""
        normed: Tensor = self.feature_norm(self.extractor(data))
        return normed

    def frames(self, lengths: Tensor) -> Tensor:
        """How many frames clips of so many samples have, at least one."""
        return self.extractor.count(lengths)

    def grid(self, data: Any) -> tuple[int]:
        """How many frames lie behind one another, of a view's data or its waves alone."""
        return self.extractor.grid(data)

    def tokenise(self, data: Sound) -> Tensor:
        """``[B, T, 39]``: cepstral coefficients of the samples a frame reads, and their two differences."""
        waves = self.extractor.filled(data["waves"])
        frames = waves.unfold(1, self.cepstrum.window, self.cepstrum.hop) * self.cepstrum.frame
        energy = torch.fft.rfft(frames, n=self.cepstrum.fft).abs().square() @ self.cepstrum.bands.T
        mel = energy.clamp_min(self.cepstrum.epsilon).log()
        place = (torch.arange(mel.shape[2], device=mel.device) + 0.5) * math.pi / mel.shape[2]
        waves_of_cepstrum = (torch.arange(CEPSTRA, device=mel.device) * place[:, None]).cos()
        cepstra = mel @ waves_of_cepstrum * math.sqrt(2 / mel.shape[2])
        first = _difference(cepstra)
        return torch.cat([cepstra, first, _difference(first)], 2)

    @property
    def token_values(self) -> int:
        """The values of a frame's target."""
        return 3 * CEPSTRA

    @property
    def token_dim(self) -> int:
        """The width of a frame's embedding, that of the pooled one."""
        return self.dim

    def learn_mask_token(self) -> None:
        """From now on put a learned vector where a frame is hidden."""
        self.mask_token = nn.Parameter(torch.rand(self.dim))

    def keep_layers(self, count: int) -> None:
        """From now on give the frames of the last ``count`` blocks, before the closing norm, too."""
        self.kept_layers = kept_layers(count, self.blocks)

    def settle(self) -> None:
        """Put away the mask token and the kept layers."""
        self.mask_token, self.kept_layers = None, 0


def _difference(frames: Tensor) -> Tensor:
    """The slope in time of ``[B, T, K]``, by regression over two frames either way."""
    padded = functional.pad(frames.mT, (2, 2), mode="replicate").mT
    near, far = padded[:, 3:-1] - padded[:, 1:-3], padded[:, 4:] - padded[:, :-4]
    return (near + 2 * far) / 10
