"""A report on sounds can be listened to."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import polysense
from polysense.deployment.gallery import write_gallery
from polysense.job import read_dataset
from polysense.report.gallery import read_gallery

RATE = 8000
HERTZ = [200, 300, 450, 700, 1000, 1500, 2200, 3000]
TONES = [np.sin(2 * np.pi * hertz * np.arange(RATE // 2) / RATE).astype(np.float32) / 2 for hertz in HERTZ]


def loudest(file: bytes) -> float:
    """The strongest frequency of a file, in Hz."""
    wave, rate = soundfile.read(io.BytesIO(file))
    return float(np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> polysense.Run:
    found = polysense.pretrain(
        [(tone, RATE) for tone in TONES],
        method="cola",
        views={"crop": 0.2},
        encoder_options={"dim": 16},
        options={"out": 8},
        steps=1,
        batch_size=4,
        out=tmp_path_factory.mktemp("run") / "it",
    )
    assert found is not None
    return found


def test_each_sound_is_kept_under_its_own_number(run: polysense.Run) -> None:
    found = read_gallery(run.path / "gallery.npz")
    assert found is not None
    assert sorted(found.sounds) == list(range(len(TONES)))
    for place, name in enumerate(found.names):
        wanted = HERTZ[int(name.removeprefix("sound "))]
        assert loudest(found.sounds[place]) == pytest.approx(wanted, abs=10)


def test_the_report_plays_them(run: polysense.Run) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert page.count('class="play"') >= len(TONES)
    assert "data:audio/ogg;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_of_pairs_the_first_part_is_heard(tmp_path: Path) -> None:
    for number, tone in enumerate(TONES):
        soundfile.write(tmp_path / f"{number}.wav", tone, RATE)
    frame = pd.DataFrame(
        {
            "audio": [str(tmp_path / f"{number}.wav") for number in range(len(TONES))],
            "text": [f"a tone of {hertz} hertz" for hertz in HERTZ],
        }
    )
    found = polysense.pretrain(
        frame,
        method="clap",
        towers={"audio": "audio_cnn", "text": "text_nano"},
        steps=1,
        batch_size=4,
        judge=False,
        out=tmp_path / "run",
    )
    assert found is not None
    write_gallery(found, read_dataset(found.modality, frame, {}))
    kept = read_gallery(found.path / "gallery.npz")
    assert kept is not None
    assert kept.names[0] == "a tone of 200 hertz"
    assert loudest(kept.sounds[0]) == pytest.approx(200, abs=10)
