"""CPC's encoder of raw waves: frames, and what was heard up to each."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from polysense.encoders.base import Encoded
from polysense.encoders.spectrograms import Sound, SoundNet, mean_of_valid, valid_frames
from polysense.encoders.wave_frames import WaveFrames
from polysense.errors import PolysenseError


class WaveGRU(SoundNet):
    """Convolutions that make a frame each 10 ms, and a GRU that knows the frames up to now.

    The paper's five convolutions at 16 kHz, and one less at each half of that; with layer norm over their
    channels, without which they are hard to train. ``channels=512, width=256`` has its size. Tokens are the
    GRU's states, ``pooled`` the mean of the valid ones; after ``keep_layers`` the frames that the GRU reads
    are in ``Encoded.layers``.

    https://arxiv.org/abs/1807.03748

    >>> import torch
    >>> encoder = WaveGRU(rate=8000)
    >>> encoder({"waves": torch.randn(2, 8000), "lengths": torch.tensor([8000, 900])}).tokens.shape
    torch.Size([2, 98, 128])

    Raises:
        PolysenseError: for a rate at which no frame is about 10 ms long.
    """

    def __init__(self, rate: int, width: int = 128, channels: int = 64) -> None:
        super().__init__()
        halvings = round(math.log2(rate / 2000)) if rate > 0 else 0
        if halvings < 1:
            raise PolysenseError(f"the encoder 'wav_gru' has no rate of {rate}; choose one of 4,000 or more")
        self.dim, self.channels = width, channels
        self.extractor = WaveFrames([10, 8, *([4] * halvings)], [5, 4, *([2] * halvings)], channels)
        self.gru = nn.GRU(channels, width, batch_first=True)
        self.keeps_frames = False

    def forward(self, data: Sound, mask: Tensor | None = None) -> Encoded:
        """Encode ``{"waves", "lengths"}``."""
        if mask is not None:
            raise self.cannot_hide()
        frames = self.extractor(data)
        tokens, _ = self.gru(frames)
        valid = valid_frames(self.extractor.count(data["lengths"]), tokens.shape[1])
        layers = frames[:, None] if self.keeps_frames else None
        return Encoded(mean_of_valid(tokens, valid), tokens, (tokens.shape[1],), layers=layers)

    def grid(self, data: Any) -> tuple[int]:
        """How many frames lie behind one another, of a view's data or its waves alone."""
        return self.extractor.grid(data)

    @property
    def token_dim(self) -> int:
        """The width of the GRU's state."""
        return self.dim

    def keep_layers(self, count: int) -> None:
        """From now on give the frames that the GRU reads too; there is one layer of them."""
        self.keeps_frames = True

    def settle(self) -> None:
        """Give the states alone again."""
        self.keeps_frames = False
