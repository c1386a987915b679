"""The HEAR API: shapes, time stamps, rates, and that embeddings are of what is heard then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import polysense
from polysense import hear
from polysense.encoders.audio import build
from polysense.errors import PolysenseError
from polysense.modalities.audio.modality import Audio
from polysense.modalities.base import ViewPlan


def listener(rate: int = 16_000, name: str = "audio_cnn", **options: Any) -> hear.Listener:
    torch.manual_seed(0)
    form = "waves" if name.startswith("wav") else "mel"
    audio = Audio(rate=rate, plan=ViewPlan(options={"audio": {"form": form}}))
    encoder = build(name, form=form, mels=64, rate=rate, **options)
    return hear.Listener(polysense.Run(encoder, audio, Path("a/run"), {}))


CNN: dict[str, Any] = {"widths": (4, 4, 8, 8), "dim": 24}


@pytest.mark.parametrize(
    ("name", "options"),
    [("audio_cnn", CNN), ("audio_vit_nano", {"depth": 1}), ("wav_gru", {}), ("wav_nano", {})],
)
def test_shapes_are_as_the_attributes_say(name: str, options: dict[str, Any]) -> None:
    model = listener(name=name, **options)
    sounds = 0.1 * torch.randn(2, 16_000 + 400)
    scenes = hear.get_scene_embeddings(sounds, model)
    assert scenes.shape == (2, model.scene_embedding_size)
    frames, times = hear.get_timestamp_embeddings(sounds, model)
    assert frames.shape == (2, 21, model.timestamp_embedding_size)
    assert (frames.dtype, scenes.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(times[1], 50.0 * torch.arange(21))  # from 0 to the last within 1,025 ms


def test_an_embedding_hears_what_is_around_its_time() -> None:
    model = listener(**CNN)
    sound = torch.zeros(1, 32_000)
    sound[0, 16_000:16_160] = 0.5  # a click at 1,000 ms
    frames, times = hear.get_timestamp_embeddings(sound, model)
    silence = hear.get_timestamp_embeddings(0 * sound, model)[0]
    changed = (frames - silence).abs().amax(2)[0] > 1e-4
    heard = times[0][changed]
    assert 750 <= heard.min() <= 800
    assert 1200 <= heard.max() <= 1260


def test_a_run_at_a_rate_that_the_benchmark_lacks_takes_the_next_one() -> None:
    model = listener(rate=8000, **CNN)
    assert (model.rate, model.sample_rate) == (8000, 16_000)
    t = torch.arange(16_000) / 16_000
    tone = 0.3 * torch.sin(2 * torch.pi * 500 * t)[None]
    own = 0.3 * torch.sin(2 * torch.pi * 500 * torch.arange(8000) / 8000)[None]
    torch.testing.assert_close(hear.get_scene_embeddings(tone, model), model(own), atol=0.02, rtol=0.05)
    assert hear.get_timestamp_embeddings(tone, model)[1][0, -1] == 1000
    assert listener(rate=22_050, **CNN).sample_rate == 22_050


def test_a_run_is_loaded_from_its_folder(tmp_path: Path) -> None:
    tones = [(np.sin(np.arange(4000) / pitch).astype(np.float32) / 2, 8000) for pitch in (2, 3, 5, 9)]
    run = polysense.pretrain(
        tones, method="cola", views={"crop": 0.2}, encoder_options=CNN, steps=1, batch_size=4, judge=False,
        out=tmp_path / "run",
    )  # fmt: skip
    assert run is not None
    model = hear.load_model(str(tmp_path / "run"))
    sound = torch.from_numpy(tones[0][0])[None]
    torch.testing.assert_close(model(sound), run.embed([tones[0]]))


def test_what_cannot_be_heard_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        PolysenseError, match="HEAR's model path is empty; give the folder of a run on sounds"
    ):
        hear.load_model()
    with pytest.raises(PolysenseError, match=r"must be \[sounds, samples\], not \[16000\]; mix them down"):
        hear.get_scene_embeddings(torch.zeros(16_000), listener(**CNN))
    pictures = np.random.default_rng(0).integers(0, 255, (8, 8, 8, 3), dtype=np.uint8)
    run = polysense.pretrain(pictures, out=tmp_path / "run", size=8, batch_size=8, steps=1, judge=False)
    assert run is not None
    with pytest.raises(PolysenseError, match="embeds 'image' and HEAR asks for sounds; give a run on sounds"):
        hear.Listener(run)
