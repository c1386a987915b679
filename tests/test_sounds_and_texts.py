"""Pairs of sounds and texts, from a folder to a search by words, as it is with pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

import polysense
from polysense.errors import PolysenseError
from polysense.evaluation.joint import templates_for, text_part
from polysense.job import read_dataset
from polysense.modalities.pairs.modality import Paired
from polysense.tasks.zeroshot import classify, search
from tests.cli_tools import command

PITCHES = {"deep": 150.0, "middle": 600.0, "high": 2400.0}
RATE = 8000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty short tones, each beside the text that says how high it is."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    for place in range(30):
        name, hertz = list(PITCHES.items())[place % 3]
        tone = np.sin(2 * np.pi * hertz * rng.uniform(0.95, 1.05) * np.arange(RATE // 4) / RATE)
        soundfile.write(folder / f"{place:02}.wav", 0.5 * tone + rng.normal(0, 0.01, len(tone)), RATE)
        (folder / f"{place:02}.txt").write_text(f"a {name} tone")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    run = polysense.pretrain(
        folder,
        method="clap",
        towers={"sound": "audio_cnn", "words": "text_nano"},
        modality_options={
            "parts": {
                "sound": {"modality": "audio"},
                "words": {"modality": "text", "length": 8, "vocabulary": 512},
            }
        },
        encoder_options={"sound": {"widths": [4, 8, 8, 16], "dim": 32}, "dim": 16},
        views={"sound": {"crop": 0.2}},
        out=folder / "run",
        batch_size=15,
        steps=40,
        lr=3e-3,
    )
    assert run is not None
    return run.path


def test_each_part_finds_the_other_and_the_verdict_tells(trained: Path) -> None:
    told = json.loads((trained / "evaluation.json").read_text())["results"]
    for metric in ("recall_sound_to_words_at_1", "recall_words_to_sound_at_1"):
        assert told["pretrained"][metric] > 90 > told["chance"][metric] + 40
    page = (trained / "report.html").read_text()
    assert 'class="play"' in page
    assert "a deep tone" in page


def test_sounds_are_classified_by_words_whatever_the_parts_are_called(trained: Path, folder: Path) -> None:
    found = classify(trained, str(folder / "*.wav"), list(PITCHES), templates=["a {} tone"])
    right = [list(PITCHES)[int(Path(name).stem) % 3] for name in found["name"]]
    assert (found["class"] == right).mean() > 0.9
    done = command("zeroshot", trained, folder / "*.wav", "--classes", ",".join(PITCHES))
    assert done.code == 0, done.err


def test_a_search_by_words_or_by_a_sound(trained: Path, folder: Path, tmp_path: Path) -> None:
    grid = tmp_path / "found.png"
    found = search(trained, "a high tone", str(folder / "*.wav"), count=4, out=grid)
    assert [int(Path(name).stem) % 3 for name in found["name"]] == [2] * 4
    assert Image.open(grid).size == (2 * 128, 2 * 144)  # spectrograms
    alike = search(
        trained, folder / "00.wav", str(folder / "*.wav"), count=4, by="sound", part="sound", out=None
    )
    assert [int(Path(name).stem) % 3 for name in alike["name"]] == [0] * 4


def test_templates_are_those_of_what_is_classified(trained: Path) -> None:
    modality = polysense.load(trained).modality
    assert isinstance(modality, Paired)
    assert text_part(modality) == "words"
    assert "the sound of {}" in templates_for(modality.parts["sound"])
    assert templates_for(modality.parts["words"]) == ("{}",)
    two = Paired({"left": {"modality": "audio"}, "right": {"modality": "audio"}})
    with pytest.raises(PolysenseError, match="none of the parts left, right reads texts; name a part"):
        text_part(two)


def test_columns_of_sounds_are_found_by_what_they_hold(folder: Path) -> None:
    paths = sorted(folder.glob("*.wav"))[:3]
    frame = pd.DataFrame({"file": [str(path) for path in paths], "said": ["deep", "middle", "high"]})
    pairs = Paired({"audio": {}, "text": {}}).read(frame)
    assert len(pairs) == 3
    assert pairs.table["text"].tolist() == ["deep", "middle", "high"]


def test_the_recordings_that_come_with_the_package_have_transcripts() -> None:
    pairs = read_dataset(
        Paired({"audio": {}, "text": {}}), "builtin:speech?language == 'en' and seconds < 1", {}
    )
    assert len(pairs) > 20
    assert pairs.table["text"].str.len().min() > 0
    with pytest.raises(PolysenseError, match="builtin:weather holds no pairs; give builtin:emoji or"):
        read_dataset(Paired({"audio": {}, "text": {}}), "builtin:weather", {})
