"""One random view of a batch of clips: polysense beside torch-audiomentations and audiomentations.

    .venv-bench/bin/python -m benchmarks.audio_views

Each starts from a batch of waves in memory and ends with one, on one thread, with the same changes at the
same probabilities and ranges. Each peer runs as its users run it: torch-audiomentations on the batch, each
clip with its own draw (``mode="per_example"``), audiomentations on numpy arrays clip by clip, then stacked.
Pitch is a case of its own, for it costs more than all others together.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import compare, environment, report
from polysense.encoders.logmel import LogMel
from polysense.modalities.audio.views import RandomView, Spectrograms, ViewSettings

Case = Callable[[], Any]

RATE = 16_000
GAIN, SNR = 6.0, (5.0, 20.0)

CASES: tuple[tuple[tuple[str, ...], float, int], ...] = (
    (("gain",), 1.0, 256),
    (("polarity",), 1.0, 256),
    (("noise",), 1.0, 256),
    (("band",), 1.0, 256),
    (("gain", "polarity", "noise", "band"), 1.0, 256),
    (("gain", "polarity", "noise", "band"), 4.0, 64),
    (("pitch",), 1.0, 64),
)
"""What changes, how many seconds the clips have, and how many make a batch; each with probability 0.5."""


def polysense_view(waves: Tensor, changes: tuple[str, ...]) -> Case:
    chances = {change: GAIN if change == "gain" else 0.5 for change in changes}
    settings = ViewSettings(crop=waves.shape[1] / RATE, form="waves", snr=SNR, **chances)
    view = RandomView(settings, Spectrograms(LogMel(RATE), mean=0.0, std=1.0))
    lengths = torch.full((len(waves),), waves.shape[1])
    return lambda: view(waves, lengths)["waves"]


def torch_audiomentations_view(waves: Tensor, changes: tuple[str, ...]) -> Case:
    import torch_audiomentations as peer

    common: dict[str, Any] = {"p": 0.5, "mode": "per_example", "output_type": "tensor"}
    steps = {
        "gain": lambda: peer.Gain(-GAIN, GAIN, **{**common, "p": 1.0}),
        "polarity": lambda: peer.PolarityInversion(**common),
        "noise": lambda: peer.AddColoredNoise(SNR[0], SNR[1], 0.0, 0.0, **common),
        "band": lambda: peer.LowPassFilter(RATE / 16, 0.4 * RATE, **common),
        "pitch": lambda: peer.PitchShift(-4, 4, sample_rate=RATE, **common),
    }
    transform = peer.Compose([steps[change]() for change in changes], output_type="tensor")
    return lambda: transform(waves[:, None], sample_rate=RATE)


def audiomentations_view(waves: Tensor, changes: tuple[str, ...]) -> Case:
    import audiomentations as peer

    steps = {
        "gain": lambda: peer.Gain(-GAIN, GAIN, p=1.0),
        "polarity": lambda: peer.PolarityInversion(p=0.5),
        "noise": lambda: peer.AddGaussianSNR(*SNR, p=0.5),
        "band": lambda: peer.LowPassFilter(RATE / 16, 0.4 * RATE, p=0.5),
        "pitch": lambda: peer.PitchShift(-4, 4, p=0.5),
    }
    transform = peer.Compose([steps[change]() for change in changes])
    clips = list(waves.numpy())
    return lambda: torch.from_numpy(np.stack([transform(clip, sample_rate=RATE) for clip in clips]))


def measure(changes: tuple[str, ...], seconds: float, count: int, repeats: int) -> dict[str, Any]:
    waves = 0.1 * torch.randn(count, round(seconds * RATE))
    makers: dict[str, Callable[[Tensor, tuple[str, ...]], Case]] = {
        "polysense": polysense_view,
        "torch-audiomentations": torch_audiomentations_view,
        "audiomentations": audiomentations_view,
    }
    timings = compare({name: make(waves, changes) for name, make in makers.items()}, repeats)
    took = {name: timing.median for name, timing in timings.items()}
    return {
        "changes": " ".join(changes),
        "seconds": seconds,
        "batch": count,
        **{f"{name} clips/s": round(count / each) for name, each in took.items()},
        **{f"x {name}": each / took["polysense"] for name, each in list(took.items())[1:]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    record = environment(0, peers=["torch-audiomentations", "audiomentations", "numpy"])
    report("audio_views", [measure(*case, repeats) for case in CASES], record)


if __name__ == "__main__":
    main()
