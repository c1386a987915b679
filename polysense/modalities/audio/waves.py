"""Changes to batches of waves ``[B, S]``, on their device, each clip with its own random numbers.

What happens to a clip is drawn by torch's global generator; what may happen is a parameter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

FFT = 512
"""Samples in a window of the phase vocoder."""


def uniform(count: int, low: float, high: float, like: Tensor) -> Tensor:
    """``[count, 1]`` numbers between the two, on the device of ``like``."""
    return low + (high - low) * torch.rand(count, 1, device=like.device)


def crop(waves: Tensor, lengths: Tensor, samples: int, speed: Tensor | None = None) -> Tensor:
    """``[B, samples]``: a random stretch of each clip; one that is shorter is repeated until it fills it.

    ``speed`` ``[B, 1]`` reads the clip so much faster, which raises its pitch alike. Where a repeated clip
    begins is random too.
    """
    steps = torch.arange(samples, device=waves.device)
    if speed is not None:
        moved = steps * speed
        start = _starts(lengths, (moved[:, -1].ceil() + 2).long())
        return read_at(waves, start[:, None] + moved, lengths)
    start = _starts(lengths, samples)
    if waves.shape[1] > samples:
        rows = torch.arange(len(waves), device=waves.device)
        made = waves.unfold(1, samples, 1)[rows, start.clamp_max(waves.shape[1] - samples)]
    else:  # there is but one place; a copy, for what follows changes it
        made = functional.pad(waves, (0, samples - waves.shape[1]))
    short = (lengths < samples).nonzero().squeeze(1)
    if len(short):
        made[short] = waves[short].gather(1, (start[short, None] + steps) % lengths[short, None])
    return made


def _starts(lengths: Tensor, reach: Tensor | int) -> Tensor:
    """``[B]``: where stretches of that reach may begin, anywhere in clips that are shorter than it."""
    spare = torch.where(lengths >= reach, lengths - reach + 1, lengths)
    return (torch.rand(len(lengths), device=lengths.device, dtype=torch.float64) * spare).long()


def read_at(waves: Tensor, positions: Tensor, lengths: Tensor) -> Tensor:
    """The waves at ``positions`` ``[B, N]`` in samples, clips going round in circles of their ``lengths``.

    Between samples a cubic through the nearest four (Catmull and Rom's) tells.
    """
    lengths = lengths[:, None]
    first = positions.floor()
    t, first = (positions - first).to(waves.dtype), first.long()
    before, here, after, next_ = (waves.gather(1, (first + step) % lengths) for step in (-1, 0, 1, 2))
    slope, bend = after - before, 2 * before - 5 * here + 4 * after - next_
    return here + t / 2 * (slope + t * (bend + t * (3 * (here - after) + next_ - before)))


def shift_pitch(waves: Tensor, semitones: Tensor) -> Tensor:
    """Raise the pitch by ``semitones`` ``[B, 1]`` at the same tempo: a phase vocoder, then another rate."""
    factor = 2 ** (semitones / 12)
    hop, window = FFT // 4, torch.hann_window(FFT, device=waves.device)
    spectrum = torch.stft(waves, FFT, hop, FFT, window, pad_mode="constant", return_complex=True)
    frames = spectrum.shape[2]
    count = math.ceil(frames * float(factor.max())) + 1
    places = (torch.arange(count, device=waves.device) / factor).clamp_max(frames - 1.001)
    first = places.long()[:, None].expand(-1, spectrum.shape[1], -1)
    now, later = spectrum.gather(2, first), spectrum.gather(2, first + 1)
    share = (places - places.floor())[:, None]
    strength = torch.lerp(now.abs(), later.abs(), share)
    # how far each frequency turns from frame to frame: what its centre turns, and what it is off
    centre = 2 * math.pi * hop / FFT * torch.arange(spectrum.shape[1], device=waves.device)[:, None]
    off = later.angle() - now.angle() - centre
    turn = centre + off - 2 * math.pi * (off / (2 * math.pi)).round()
    phase = now[..., :1].angle() + turn.cumsum(2) - turn
    stretched = torch.istft(torch.polar(strength, phase), FFT, hop, FFT, window)
    steps = torch.arange(waves.shape[1], device=waves.device) * factor
    whole = torch.full((len(waves),), stretched.shape[1], device=waves.device)
    return read_at(stretched, steps.clamp_max(stretched.shape[1] - 3), whole)


def band_filter(waves: Tensor, rate: int) -> Tensor:
    """Take away what lies above, or below, a random frequency: 12 dB an octave, as Butterworth's filters.

    High-cut from a sixteenth of the rate to 0.4 of it, low-cut from a hundred-sixtieth to a sixteenth,
    evenly in octaves.
    """
    spectrum = torch.fft.rfft(waves)
    hertz = torch.linspace(0, rate / 2, spectrum.shape[1], device=waves.device).clamp_min(1e-3)
    high = uniform(len(waves), math.log(rate / 16), math.log(0.4 * rate), waves).exp()
    low = uniform(len(waves), math.log(rate / 160), math.log(rate / 16), waves).exp()
    ratio = torch.where(uniform(len(waves), 0, 1, waves) < 0.5, hertz / high, low / hertz)
    filtered: Tensor = torch.fft.irfft(spectrum * (1 + ratio**4).rsqrt(), n=waves.shape[1])
    return filtered


def reverberate(waves: Tensor, rate: int, seconds: tuple[float, float]) -> Tensor:
    """The sound of a room: noise that falls by 60 dB within ``seconds`` follows each sample.

    The direct path comes first and is not delayed, the tail has up to as much energy as it; loudness stays.
    """
    count = max(2, round(seconds[1] * rate))
    t = torch.arange(count, device=waves.device) / rate
    falls = uniform(len(waves), *seconds, waves)
    tail = torch.randn(len(waves), count, device=waves.device) * (-math.log(1000) * t / falls).exp()
    tail[:, 0] = 0
    tail = tail / tail.norm(dim=1, keepdim=True) * uniform(len(waves), 0, 1, waves).sqrt()
    tail[:, 0] = 1
    size = waves.shape[1] + count
    made = torch.fft.irfft(torch.fft.rfft(waves, n=size) * torch.fft.rfft(tail, n=size), n=size)
    made = made[:, : waves.shape[1]]
    as_loud: Tensor = made * (loudness(waves) / loudness(made))
    return as_loud


def add(waves: Tensor, other: Tensor, snr: Tensor) -> Tensor:
    """Add another sound, ``snr`` ``[B, 1]`` dB below the clip's own loudness."""
    return torch.addcmul(waves, other, loudness(waves) / loudness(other) * 10 ** (-snr / 20))


def loudness(waves: Tensor) -> Tensor:
    """``[B, 1]``: the root of the mean square, of silence next to nothing."""
    level: Tensor = torch.linalg.vector_norm(waves, dim=1, keepdim=True) / math.sqrt(waves.shape[1])
    return level.clamp_min(1e-8)
