"""Log-mel spectrograms in plain torch: what is heard when, as most encoders of sound read it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from polysense.errors import PolysenseError

PART_SAMPLES = 2**18
"""On a processor waves are worked through in parts of about so many samples, to stay in its cache."""


class LogMel(nn.Module):
    """Log-mel spectrograms: ``log(max(M |STFT(x)|^power, epsilon))`` with HTK's triangular bands M.

    Frame t is a Hann window around sample ``t * hop``; before and behind a clip lies silence, so that
    nothing a frame shows depends on what a clip is padded to. The FFT is twice the window, rounded up to a
    power of two. torchaudio's ``MelSpectrogram`` gives the same with ``pad_mode="constant"``.

    Args:
        rate: samples a second.
        mels: bands.
        window, hop: of the frames, in seconds.
        low, high: edges of the lowest and the highest band in Hz; ``high`` is 0.4875 of the rate if None,
            COLA's 7,800 Hz at 16 kHz.
        power: 2 is energy, 1 magnitude.
        epsilon: the softest that is told apart.

    >>> LogMel(rate=16000)(torch.zeros(2, 16000)).shape
    torch.Size([2, 64, 101])

    Raises:
        PolysenseError: for bands that do not fit the rate, or that no frequency of the FFT falls into.
    """

    frame: Tensor
    bands: Tensor

    def __init__(
        self,
        rate: int,
        mels: int = 64,
        window: float = 0.025,
        hop: float = 0.01,
        low: float = 60.0,
        high: float | None = None,
        power: float = 2.0,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        high = 0.4875 * rate if high is None else high
        if rate < 1 or mels < 1 or not 0 <= low < high <= rate / 2:
            raise PolysenseError(
                f"{mels} bands from {low:g} to {high:g} Hz do not fit sound of {rate:,} samples a second;"
                f" choose low below high, and high up to {rate / 2:g}"
            )
        self.window, self.hop = round(window * rate), round(hop * rate)
        if self.window < 2 or self.hop < 1 or epsilon <= 0 or power <= 0:
            raise PolysenseError(
                f"a window of {window} s every {hop} s, power {power} and epsilon {epsilon} make no"
                f" spectrogram at {rate:,} samples a second; all must be above 0, and the window hold 2"
                " samples"
            )
        self.rate, self.mels, self.power, self.epsilon = rate, mels, power, epsilon
        self.fft = 1 << math.ceil(math.log2(2 * self.window))
        self.register_buffer("frame", torch.hann_window(self.window), persistent=False)
        self.register_buffer("bands", _bands(rate, self.fft, mels, low, high), persistent=False)

    @torch.no_grad()
    def forward(self, waves: Tensor) -> Tensor:
        """``[B, mels, 1 + S // hop]`` of waves ``[B, S]`` in [-1, 1]."""
        rows = max(1, PART_SAMPLES // max(1, waves.shape[1])) if waves.device.type == "cpu" else len(waves)
        with torch.autocast(waves.device.type, enabled=False):
            return torch.cat([self._spectrogram(part) for part in waves.float().split(max(1, rows))])

    def frames(self, lengths: Tensor) -> Tensor:
        """How many frames clips of so many samples have."""
        return 1 + lengths // self.hop

    def _spectrogram(self, waves: Tensor) -> Tensor:
        spectrum = torch.stft(
            waves, self.fft, self.hop, self.window, self.frame, pad_mode="constant", return_complex=True
        )
        energy = torch.view_as_real(spectrum).square().sum(-1)
        if self.power != 2:
            energy = energy ** (self.power / 2)
        return (self.bands @ energy).clamp_min(self.epsilon).log()


def _bands(rate: int, fft: int, mels: int, low: float, high: float) -> Tensor:
    """``[mels, fft // 2 + 1]``: triangles that are evenly spaced on HTK's scale, each of height 1."""
    first, last = (2595 * math.log10(1 + hertz / 700) for hertz in (low, high))
    corners = 700 * (10 ** (torch.linspace(first, last, mels + 2, dtype=torch.float64) / 2595) - 1)
    hertz = torch.linspace(0, rate / 2, fft // 2 + 1, dtype=torch.float64)
    widths, distance = corners.diff()[:, None], hertz - corners[:, None]
    bands = torch.minimum(distance[:-2] / widths[:-1], -distance[2:] / widths[1:]).clamp_min(0)
    if empty := int((bands.sum(1) == 0).sum()):
        raise PolysenseError(
            f"{empty} of {mels} bands lie between the frequencies that a window can tell apart at {rate:,}"
            " samples a second; use fewer mels or a longer window"
        )
    return bands.float()
