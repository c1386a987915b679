"""A run on sounds behind the HEAR benchmark's common API: ``polysense.hear`` is the module its tools ask for.

Two kinds of embeddings are asked for: one of a whole scene, and one every few milliseconds. The latter are
those of a window around each time stamp, which any encoder of sounds can give.

    python3 -m heareval.embeddings.runner polysense.hear --model runs/sounds

https://hearbenchmark.com/hear-api.html, https://arxiv.org/abs/2203.03022
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.deployment.run import Run, load
from polysense.errors import PolysenseError
from polysense.modalities.audio.decode import resample
from polysense.modalities.audio.modality import Audio
from polysense.modalities.base import Batch

RATES = (16_000, 22_050, 32_000, 44_100, 48_000)
"""The rates at which the benchmark has its sounds."""

STEP, WINDOW = 0.05, 0.5
"""Seconds from time stamp to time stamp, the most that HEAR advises, and that each embedding hears."""

WINDOWS_AT_ONCE = 256


class Listener(nn.Module):
    """A run on sounds with the attributes that HEAR asks of a model.

    ``sample_rate`` is the run's own, or the next one that the benchmark has; then sounds are resampled.
    ``scene_embedding_size`` and ``timestamp_embedding_size`` are the encoder's width.

    Raises:
        PolysenseError: for a run on anything but sounds.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        if not isinstance(run.modality, Audio):
            raise PolysenseError(
                f"{run.path} embeds {run.modality.name!r} and HEAR asks for sounds; give a run on sounds, or"
                " a joint run's part for them to polysense.hear.Listener"
            )
        self.run, self.rate = run.eval(), run.modality.logmel.rate
        self.sample_rate = min((rate for rate in RATES if rate >= self.rate), default=self.rate)
        self.scene_embedding_size = self.timestamp_embedding_size = run.encoder.dim

    @torch.no_grad()
    def forward(self, waves: Tensor) -> Tensor:
        """``[N, D]`` of waves ``[N, S]`` at the run's own rate, all sound."""
        lengths = torch.full((len(waves),), waves.shape[1], device=waves.device)
        batch = Batch({"waves": waves, "lengths": lengths}, torch.arange(len(waves)))
        embedded: Tensor = self.run(self.run.modality.plain(batch))
        return embedded.float()

    def at_own_rate(self, audio: Tensor) -> Tensor:
        """Sounds ``[N, S]`` at ``sample_rate``, brought to the run's.

        Raises:
            PolysenseError: for a tensor of another shape.
        """
        if audio.ndim != 2 or not audio.shape[1]:
            raise PolysenseError(
                f"sounds must be [sounds, samples], not {list(audio.shape)}; mix them down to one channel"
            )
        audio = audio.float()
        if self.sample_rate == self.rate:
            return audio
        rows = [resample(row.cpu().numpy(), self.sample_rate, self.rate) for row in audio]
        return torch.stack([torch.from_numpy(row) for row in rows]).to(audio.device)


def load_model(model_file_path: str | Path = "") -> Listener:
    """The run in a folder, as HEAR's tools load it.

    Raises:
        PolysenseError: where there is no run, or one on anything but sounds.
    """
    if not str(model_file_path):
        raise PolysenseError("HEAR's model path is empty; give the folder of a run on sounds")
    return Listener(load(model_file_path))


def get_scene_embeddings(audio: Tensor, model: Listener) -> Tensor:
    """One embedding for each sound: ``[N, scene_embedding_size]``.

    Args:
        audio: ``[N, S]`` in [-1, 1], at ``model.sample_rate``.
        model: from :func:`load_model`; it moves to the sounds' device.
    """
    embedded: Tensor = model.to(audio.device)(model.at_own_rate(audio))
    return embedded


def get_timestamp_embeddings(audio: Tensor, model: Listener) -> tuple[Tensor, Tensor]:
    """Embeddings of the sound around every 50 ms: ``[N, T, timestamp_embedding_size]``, and ``[N, T]`` when.

    Time stamps are the middles of what each embedding hears, in milliseconds, from 0 on; beyond a sound's
    ends lies silence.

    Args:
        audio: ``[N, S]`` in [-1, 1], at ``model.sample_rate``.
        model: from :func:`load_model`; it moves to the sounds' device.
    """
    waves = model.to(audio.device).at_own_rate(audio)
    step, half = round(STEP * model.rate), round(WINDOW / 2 * model.rate)
    windows = functional.pad(waves, (half, half)).unfold(1, 2 * half, step)
    embedded = torch.cat([model(part) for part in windows.flatten(0, 1).split(WINDOWS_AT_ONCE)])
    times = 1000 / model.rate * step * torch.arange(windows.shape[1], device=audio.device)
    return embedded.unflatten(0, windows.shape[:2]), times.expand(len(audio), -1)
