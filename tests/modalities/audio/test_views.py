"""What random views do to sound: each change against its definition, on batches, apart for each clip."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from polysense.encoders.logmel import LogMel
from polysense.errors import PolysenseError
from polysense.modalities.audio import mels, waves
from polysense.modalities.audio.views import DESTROYS, RandomView, Spectrograms, ViewSettings

RATE = 8000


def tones(*hertz: float, samples: int = RATE) -> Tensor:
    steps = torch.arange(samples) / RATE
    return torch.stack([0.5 * torch.sin(2 * math.pi * each * steps) for each in hertz])


def lengths_of(clips: Tensor) -> Tensor:
    return torch.full((len(clips),), clips.shape[1])


def pitch(wave: Tensor) -> float:
    spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave)))
    return float(spectrum.abs().argmax()) * RATE / len(wave)


@pytest.mark.parametrize(
    "options",
    [{}, {"mels": 80, "power": 1.0, "low": 0.0}, {"window": 0.05, "hop": 0.0125, "high": 3000.0, "mels": 40}],
)
def test_log_mels_are_torchaudios(options: dict[str, Any]) -> None:
    torchaudio = pytest.importorskip("torchaudio")
    torch.manual_seed(0)
    ours = LogMel(16000, **options)
    peer = torchaudio.transforms.MelSpectrogram(
        16000,
        n_fft=ours.fft,
        win_length=ours.window,
        hop_length=ours.hop,
        f_min=options.get("low", 60.0),
        f_max=options.get("high", 7800.0),
        n_mels=ours.mels,
        power=ours.power,
        pad_mode="constant",
    )
    x = 0.3 * torch.randn(3, 9000)
    torch.testing.assert_close(ours(x), peer(x).clamp_min(ours.epsilon).log(), atol=1e-4, rtol=1e-4)


def test_log_mels_that_do_not_work_out() -> None:
    for options, told in (
        ({"rate": 8000, "high": 5000.0}, "do not fit sound of 8,000 samples a second"),
        ({"rate": 8000, "mels": 400}, "of 400 bands lie between the frequencies"),
        ({"rate": 8000, "hop": 0.0}, "all must be above 0"),
    ):
        with pytest.raises(PolysenseError, match=told):
            LogMel(**options)


def test_a_crop_is_a_stretch_of_the_clip_and_a_short_clip_goes_round() -> None:
    torch.manual_seed(0)
    clips = torch.arange(100.0).expand(2000, 100)
    lengths = torch.tensor([100, 20] * 1000)
    made = waves.crop(clips, lengths, 30)
    long, short = made[::2], made[1::2]
    assert (long.diff(dim=1) == 1).all()
    assert set(long[:, 0].tolist()) == set(range(71))
    assert (short.diff(dim=1).remainder(20) == 1).all()
    assert set(short[:, 0].tolist()) == set(range(20))
    assert torch.equal(waves.crop(clips, torch.full((2000,), 100), 100), clips)


def test_speed_moves_pitch_and_tempo() -> None:
    clips = tones(500, 500, samples=3 * RATE)
    fast = waves.crop(clips, lengths_of(clips), RATE, torch.tensor([[1.2], [0.8]]))
    assert [round(pitch(wave)) for wave in fast] == [600, 400]
    exact = 0.5 * torch.ones(1)
    assert fast.abs().max() == pytest.approx(float(exact), abs=0.01)


def test_pitch_moves_and_the_tempo_stays() -> None:
    clips = tones(500, 500, 500)
    clips[:, : RATE // 2] = 0  # a sound that begins in the middle
    made = waves.shift_pitch(clips, torch.tensor([[4.0], [-4.0], [0.0]]))
    found = [pitch(wave[5000:7500] * 1.0) for wave in made]
    assert found == pytest.approx([500 * 2 ** (4 / 12), 500 * 2 ** (-4 / 12), 500], abs=4)
    assert made.shape == clips.shape
    assert made[:, :3500].abs().max() < 0.02
    torch.testing.assert_close(made[2, 4500:7500], clips[2, 4500:7500], atol=0.02, rtol=0)


def test_noise_has_the_stated_distance() -> None:
    torch.manual_seed(0)
    clips = tones(300, 700)
    made = waves.add(clips, torch.randn_like(clips), torch.tensor([[10.0], [20.0]]))
    snr = 20 * (clips.norm(dim=1) / (made - clips).norm(dim=1)).log10()
    assert snr.tolist() == pytest.approx([10, 20], abs=1e-3)
    assert torch.equal(waves.add(clips, clips, torch.tensor([[torch.inf], [torch.inf]])), clips)


def test_a_filter_takes_away_one_side() -> None:
    torch.manual_seed(0)
    noise = torch.randn(64, RATE)
    made = torch.fft.rfft(waves.band_filter(noise, RATE)).abs() / torch.fft.rfft(noise).abs()
    low, high = made[:, 5:40].mean(1), made[:, 3800:].mean(1)
    assert ((low > 0.95) ^ (high > 0.95)).all()
    assert 0.2 < float((low > 0.95).float().mean()) < 0.8


def test_a_room_keeps_loudness_and_onset() -> None:
    torch.manual_seed(0)
    clips = torch.zeros(8, RATE)
    clips[:, 2000:4000] = torch.randn(8, 2000)
    made = waves.reverberate(clips, RATE, (0.2, 0.3))
    torch.testing.assert_close(waves.loudness(made), waves.loudness(clips))
    assert made[:, :1990].abs().max() < 1e-4
    assert (made[:, 4000:5000].norm(dim=1) > 10 * made[:, 6600:7600].norm(dim=1)).all()


def test_mixup_is_byol_as_formula() -> None:
    x = torch.randn(2, 1, 4, 5).double()
    torch.manual_seed(3)
    made = mels.mixup(x, 0.4)
    torch.manual_seed(3)
    share = 0.4 * torch.rand(2, 1, 1, 1).double()
    other = x[torch.randperm(2)]
    torch.testing.assert_close(
        made, ((1 - share) * x.exp() + share * other.exp()).log(), atol=1e-6, rtol=1e-6
    )


def test_a_resize_crop_is_a_part_drawn_larger_or_smaller() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(16.0).view(1, 1, 16, 1).expand(200, 1, 16, 24).contiguous()
    for scale in (0.5, 0.75):
        middle = mels.resize_crop(ramp, (scale, scale))[:, 0, 4:12, 11:14]
        inside = middle.diff(dim=2).abs().amax((1, 2)) < 1e-3  # not at the edge of the spectrogram in time
        slope = (middle[inside, -1, 1] - middle[inside, 0, 1]) / 7
        torch.testing.assert_close(slope, torch.full_like(slope, scale), atol=0.03, rtol=0)
        assert float(inside.float().mean()) > 0.8
    left = mels.resize_crop(ramp, (0.5, 0.5))[:, 0, 8, 0]  # a quarter of the parts begin beside it
    assert 0.15 < float((left == 0).float().mean()) < 0.35
    # as high as the spectrogram at most
    tall = mels.resize_crop(ramp, (1.4, 1.4))[:, 0, :, 12]
    torch.testing.assert_close(tall, ramp[:, 0, :, 12], atol=0.01, rtol=0)


def test_stripes_differ_from_clip_to_clip() -> None:
    torch.manual_seed(0)
    x = torch.ones(300, 1, 20, 30)
    for dim, side in ((2, 20), (3, 30)):
        hidden = mels.hide_stripe(x, 0.5, dim).select(5 - dim, 0).squeeze(1) == 0
        width = hidden.sum(1)
        assert int(width.max()) <= side // 2 + 1
        assert float(width.float().mean()) == pytest.approx(side / 4, abs=1)
        assert len(hidden.unique(dim=0)) > 50
        edges = hidden.int().diff(dim=1).abs().sum(1)
        assert int(edges.max()) <= 2


def view(**settings: Any) -> RandomView:
    return RandomView(ViewSettings(**settings), Spectrograms(LogMel(RATE), mean=-5.0, std=3.0))


EVERYTHING = {
    "speed": 0.5, "pitch": 0.5, "band": 0.5, "reverb": 0.5, "polarity": 0.5, "gain": 6.0, "background": 0.5,
    "noise": 0.5, "mixup": 0.3, "resize": 0.5, "frequency_mask": 0.3, "time_mask": 0.3,
}  # fmt: skip


def test_everything_at_once_is_finite_repeats_and_differs() -> None:
    clips, lengths = torch.randn(9, 6000) * 0.1, torch.tensor([6000, 300, 4000] * 3)
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(view(**EVERYTHING)(clips, lengths)["mel"])
    assert made[0].shape == (9, 1, 64, 96)
    assert made[0].isfinite().all()
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("setting", EVERYTHING)
def test_each_setting_alone_changes_the_view(setting: str) -> None:
    clips = tones(300, 500, 900, 1500)
    least = {"crop": 1.0, setting: 1.0 if isinstance(EVERYTHING[setting], float) else 0.5}
    torch.manual_seed(0)
    plain = view(crop=1.0, form="waves" if setting == "polarity" else "mel")(clips, lengths_of(clips))
    made = view(**least, form="waves" if setting == "polarity" else "mel")(clips, lengths_of(clips))
    name = "waves" if setting == "polarity" else "mel"
    assert (made[name] - plain[name]).abs().max() > 1e-2


def test_backgrounds_are_other_clips() -> None:
    clips = tones(300, 1000)
    made = view(crop=1.0, form="waves", background=1.0, snr=(0.0, 0.0))(clips, lengths_of(clips))["waves"]
    torch.testing.assert_close(made[0], clips[0] + clips[1], atol=1e-3, rtol=0)
    one = view(crop=1.0, form="waves", background=1.0)(clips[:1], lengths_of(clips[:1]))["waves"]
    assert torch.equal(one, clips[:1])


def test_every_change_says_what_it_destroys() -> None:
    parameters = {"together", "speed_range", "semitones", "reverb_seconds", "snr", "resize_range", "form"}
    assert set(DESTROYS) == {field.name for field in fields(ViewSettings)} - parameters


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"noise": 2.0}, "the view setting 'noise' is 2.0; give a probability from 0 to 1"),
        ({"crop": 0.0}, "the view setting 'crop' is 0.0; give seconds above 0"),
        ({"snr": (20, 5)}, "the view setting 'snr' is"),
        ({"speed_range": 1.0}, "give two numbers in range, the smaller first"),
        ({"gain": -1}, "give dB from 0 up"),
        ({"mixup": "much"}, "give a share from 0 to 1"),
        ({"form": "mels"}, "unknown form of sound 'mels'; did you mean 'mel'"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(PolysenseError, match=told):
        ViewSettings(**settings)


def test_a_view_of_whole_clips_leaves_the_batch_as_it_was() -> None:
    clips = torch.randn(4, 1000)
    before, lengths = clips.clone(), torch.tensor([1000, 1000, 700, 1000])
    for samples in (1000, 1200):
        made = waves.crop(clips, lengths, samples)
        made *= -2
        assert made.shape == (4, samples)
        assert torch.equal(clips, before)
    torch.testing.assert_close(waves.crop(clips, lengths, 1000)[0], clips[0])
