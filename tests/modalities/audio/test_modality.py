"""Sound as a modality: statistics, views by plan, the plain view, raw features, pictures, settings."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from polysense.errors import PolysenseError
from polysense.modalities import make, rebuild
from polysense.modalities.audio.modality import Audio
from polysense.modalities.audio.sources import read_sounds
from polysense.modalities.base import Batch, ViewPlan
from tests.modalities.audio.conftest import tone


def speech(count: int = 6) -> list[tuple[Any, int]]:
    rng = np.random.default_rng(0)
    return [(0.1 * rng.normal(size=2000 + 900 * i).astype(np.float32), 8000) for i in range(count)]


def fitted(plan: ViewPlan | None = None) -> tuple[Audio, Batch]:
    data = read_sounds(speech())
    audio = Audio().fit(data, plan or ViewPlan())
    return audio, audio.collate(data.__getitems__(range(len(data))))


def test_plain_log_mels_have_mean_0_and_deviation_1_over_valid_frames() -> None:
    audio, batch = fitted()
    data = audio.plain(batch).data
    assert isinstance(data, dict)
    values = torch.cat([mel[..., :n].flatten() for mel, n in zip(data["mel"], data["lengths"], strict=True)])
    assert float(values.mean()) == pytest.approx(0, abs=1e-4)
    assert float(values.std()) == pytest.approx(1, abs=1e-3)
    assert audio.rate == 8000


def test_a_clip_is_drawn_alike_alone_and_before_silence() -> None:
    audio, batch = fitted()
    together = audio.plain(batch).data
    alone = audio.plain(audio.batch([speech()[0]])).data
    assert isinstance(together, dict)
    assert isinstance(alone, dict)
    frames = int(alone["lengths"][0])
    # the one was kept in 16 bits
    torch.testing.assert_close(together["mel"][0, ..., :frames], alone["mel"][0], atol=0.02, rtol=0)
    assert not together["mel"][0, ..., frames:].any()


def test_views_follow_the_plan() -> None:
    options = {"crop": 0.5, "views": [{"noise": 1.0}, {"polarity": 1.0}], "local": {"gain": 1.0}}
    audio, batch = fitted(ViewPlan(globals_=3, locals_=1, options={"audio": options}))
    views = audio.views(batch)
    assert [view.kind for view in views] == ["global"] * 3 + ["local"]
    shapes = [tuple(view.data["mel"].shape) for view in views]  # type: ignore[call-overload]
    assert shapes == [(6, 1, 64, 51)] * 3 + [(6, 1, 64, 26)]
    assert all((view.data["lengths"] == view.data["mel"].shape[3]).all() for view in views)  # type: ignore[call-overload]


def test_views_together_show_the_same_stretch() -> None:
    plan = ViewPlan(strength="weak", options={"audio": {"crop": 0.2, "together": True}})
    audio, batch = fitted(plan)
    one, other = (view.data["mel"] for view in audio.views(batch))  # type: ignore[call-overload]
    assert torch.equal(one, other)
    apart, batch = fitted(ViewPlan(strength="weak", options={"audio": {"crop": 0.2}}))
    one, other = (view.data["mel"] for view in apart.views(batch))  # type: ignore[call-overload]
    assert not torch.equal(one, other)


def test_views_may_be_waves() -> None:
    audio, batch = fitted(ViewPlan(options={"audio": {"form": "waves", "crop": 0.2}}))
    assert audio.form == "waves"
    assert audio.views(batch)[0].data["waves"].shape == (6, 1600)  # type: ignore[call-overload]
    plain = audio.plain(batch).data
    assert isinstance(plain, dict)
    assert plain["waves"].shape == (6, 6500)
    assert audio.show(audio.views(batch)[0]).shape == (6, 64, 64, 3)


def test_raw_features_are_the_statistics_of_valid_frames() -> None:
    audio, batch = fitted()
    raw = audio.raw(batch)
    drawn = audio.plain(batch).data
    assert isinstance(drawn, dict)
    valid = drawn["mel"][1, 0, :, : int(drawn["lengths"][1])]
    expected = torch.cat([valid.mean(1), valid.std(1, correction=0)])
    torch.testing.assert_close(raw[1], expected, atol=1e-4, rtol=1e-4)


def test_pictures_have_low_sounds_at_the_bottom_and_one_shape() -> None:
    audio = Audio(rate=8000, mean=-5.0, std=3.0)
    low, high = (audio.show(audio.plain(audio.batch([tone(hertz)])))[0] for hertz in (150, 3000))
    assert low.shape == high.shape == (64, 64, 3)
    assert low.dtype == np.uint8
    assert low.mean((1, 2)).argmax() > 50
    assert high.mean((1, 2)).argmax() < 10


def test_few_sounds_in_memory_are_brought_to_the_rate(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", tone(rate=16000), 16000)
    batch = Audio(rate=8000).batch(
        [tmp_path / "a.wav", (tone(rate=44100), 44100), tone(), torch.from_numpy(tone())]
    )
    assert isinstance(batch.data, dict)
    assert batch.data["lengths"].tolist() == [4000] * 4
    with pytest.raises(PolysenseError, match="cannot read sound 1 of the list: is silent; mend it"):
        Audio(rate=8000).batch([tone(), 0 * tone()])


def test_settings_rebuild_it() -> None:
    plan = ViewPlan(options={"audio": {"crop": 0.4, "snr": (0, 9)}})
    audio, batch = fitted(plan)
    again = rebuild("audio", audio.settings(), audio.attachments())
    assert again.settings() == audio.settings()
    torch.manual_seed(0)
    views = audio.views(batch)
    torch.manual_seed(0)
    for one, other in zip(views, again.views(batch), strict=True):
        assert torch.equal(one.data["mel"], other.data["mel"])  # type: ignore[call-overload]


def test_options_are_checked() -> None:
    assert make("audio", {"mels": 40}).settings()["mels"] == 40
    for options, told in (
        ({"std": 0.0}, "std is 0.0; it must be above 0"),
        ({"plan": ViewPlan(options={"audio": {"noize": 1}})}, "unknown view setting 'noize'; did you mean"),
    ):
        with pytest.raises(PolysenseError, match=told):
            Audio(**options)  # type: ignore[arg-type]


def test_clips_are_heard_as_files_of_a_few_seconds() -> None:
    audio = Audio(rate=8000)
    first, long = audio.listen(audio.batch([tone(440, 0.5), tone(220, 7)]))
    assert soundfile.info(io.BytesIO(first)).format == "OGG"
    wave, rate = soundfile.read(io.BytesIO(first))
    assert rate == 8000
    assert len(wave) == 4000
    wanted = tone(440, 0.5)[500:-500]
    assert float(np.corrcoef(wave[500:-500], wanted)[0, 1]) > 0.99
    assert soundfile.info(io.BytesIO(long)).duration == 5
