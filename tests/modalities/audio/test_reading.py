"""Sounds from every kind of source, at one rate, and what is said of those that cannot be read."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from polysense.errors import PolysenseError
from polysense.modalities.audio import sources, store
from polysense.modalities.audio.decode import Clip, decode, header, resample
from polysense.modalities.audio.sources import read_sounds
from polysense.modalities.builtin import builtin
from tests.modalities.audio.conftest import tone


def as_bytes(path: Path) -> bytes:
    return path.read_bytes()


def test_a_folder_with_its_classes(folder: Path) -> None:
    sounds = read_sounds(folder)
    assert sounds.table["name"].tolist() == ["high/a.wav", "high/b.flac", "low/c.ogg", "low/d.wav"]
    assert sounds.table["label"].tolist() == ["high", "high", "low", "low"]
    assert (sounds.label, sounds.rate, len(sounds)) == ("label", 8000, 4)
    first = sounds.__getitems__([0])
    np.testing.assert_allclose(first["waves"][0], tone(900), atol=1e-4)
    assert sounds.table["seconds"].tolist() == pytest.approx([0.5] * 4, abs=0.01)


@pytest.mark.parametrize("kind", ["csv", "parquet of bytes", "parquet of structs", "frame", "list", "glob"])
def test_other_sources_give_the_same(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(folder.glob("*/*"))
    rows = pd.DataFrame({"file": [str(path.relative_to(folder)) for path in paths], "kind": list("hhll")})
    source: Any
    match kind:
        case "csv":
            rows.to_csv(source := folder / "table.csv", index=False)
        case "parquet of bytes":
            source = folder / "table.parquet"
            rows.assign(file=list(map(as_bytes, paths))).to_parquet(source)
        case "parquet of structs":
            source = folder / "table.parquet"
            structs = [{"bytes": as_bytes(path), "path": path.name} for path in paths]
            rows.assign(file=structs).to_parquet(source)
        case "frame":
            monkeypatch.chdir(folder)
            source = rows
        case "list":
            source = paths
        case "glob":
            source = str(folder / "*" / "*")
    sounds = read_sounds(source)
    expected = read_sounds(folder)
    assert np.array_equal(sounds.samples, expected.samples)
    if kind not in ("list", "glob"):
        assert read_sounds(source, label="kind").label == "kind"


def test_a_hugging_face_data_set(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    structs = [{"bytes": as_bytes(path), "path": path.name} for path in sorted(folder.glob("*/*"))]
    data = datasets.Dataset.from_dict({"sound": structs, "kind": [0, 0, 1, 1]})
    data = data.cast_column("sound", datasets.Audio()).cast_column(
        "kind", datasets.ClassLabel(names=["h", "l"])
    )
    sounds = read_sounds(data)
    assert sounds.table["kind"].tolist() == ["h", "h", "l", "l"]
    assert (sounds.label, len(sounds)) == ("kind", 4)
    assert np.array_equal(sounds.samples, read_sounds(folder).samples)


def test_arrays_come_with_their_rate() -> None:
    stack = np.stack([tone(300), tone(500)])
    assert len(read_sounds((stack, 8000))) == 2
    assert len(read_sounds((torch.from_numpy(stack[0]), 8000))) == 1
    sounds = read_sounds([{"array": stack[0], "sampling_rate": 8000}, (stack[1, :400], 8000)])
    assert sounds.lengths.tolist() == [4000, 400]
    with pytest.raises(PolysenseError, match=r"do not tell their rate; give \(samples, rate\)"):
        read_sounds(stack)


def test_integers_and_channels() -> None:
    words = (tone() * 32767).astype(np.int16)
    for samples in (words, np.stack([words, words]), np.stack([words, words], 1), torch.from_numpy(words)):
        np.testing.assert_allclose(decode(Clip(samples, 8000)), tone(), atol=1e-4)
    stereo = np.stack([tone(), np.zeros_like(tone())])
    np.testing.assert_allclose(decode(Clip(stereo, 8000)), tone() / 2, atol=1e-6)


def test_rates_are_made_one() -> None:
    seconds, mixed = 0.5, [(tone(rate=rate), rate) for rate in (8000, 8000, 44100, 11025)]
    sounds = read_sounds(mixed)
    assert sounds.rate == 8000
    assert sounds.lengths.tolist() == [4000] * 4
    batch = sounds.__getitems__(range(4))["waves"]
    inner = slice(400, -400)  # filters ring at the ends
    for wave in batch[1:]:
        torch.testing.assert_close(wave[inner], batch[0, inner], atol=2e-3, rtol=0)
    assert read_sounds(mixed, rate=16000).lengths.tolist() == [round(seconds * 16000)] * 4
    assert read_sounds([(tone(rate=48000), 48000)]).rate == 16000


def test_resampling_lets_nothing_through_that_would_fold() -> None:
    high = resample(tone(7000, rate=32000), 32000, 8000)
    assert np.abs(high[100:-100]).max() < 0.01


def test_long_files_are_cut_into_equal_windows_by_seeking(tmp_path: Path) -> None:
    rising = np.linspace(-0.9, 0.9, 25 * 800, dtype=np.float32)
    soundfile.write(tmp_path / "long.wav", rising, 800)
    sounds = read_sounds(tmp_path / "long.wav", window=10)
    assert sounds.lengths.tolist() == [6667, 6666, 6667]
    assert [name.split(" at ")[1] for name in sounds.table["name"]] == ["0.0 s", "8.3 s", "16.7 s"]
    whole = np.concatenate([sounds.__getitems__([i])["waves"][0] for i in range(3)])
    np.testing.assert_allclose(whole, rising, atol=1e-4)
    np.testing.assert_allclose(decode(tmp_path / "long.wav", 5000, 10), rising[5000:5010], atol=1e-4)


def test_shorter_clips_are_followed_by_silence() -> None:
    samples = read_sounds([(tone(), 8000), (tone()[:100], 8000)]).__getitems__([1, 0])
    assert samples["waves"].shape == (2, 4000)
    assert samples["lengths"].tolist() == [100, 4000]
    assert not samples["waves"][0, 100:].any()


def broken(tmp_path: Path) -> dict[str, Any]:
    """A sound for each thing that can be wrong, by what is said of it."""
    soundfile.write(tmp_path / "cut.wav", tone(), 8000)
    content = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.flac").write_bytes(b"fLaC" + content[:50])
    (tmp_path / "text.mp3").write_text("this is no sound")
    soundfile.write(tmp_path / "empty.wav", tone()[:0], 8000)
    soundfile.write(tmp_path / "silent.wav", 0 * tone(), 8000)
    soundfile.write(tmp_path / "clipped.wav", np.sign(tone()) * 1.0, 8000)
    bad = tone().copy()
    bad[7] = np.nan
    return {
        "there is no such file": tmp_path / "none.wav",
        "holds no samples": tmp_path / "empty.wav",
        "is silent": tmp_path / "silent.wav",
        "is clipped: ": tmp_path / "clipped.wav",
        "holds values that are not numbers": (bad, 8000),
        "holds values up to 300; give integers, or floats from -1 to 1": (600 * tone(), 8000),
        "text.mp3: ": tmp_path / "text.mp3",
        "cut.flac: ": tmp_path / "cut.flac",
        "is missing": None,
        "is a float; give a path, bytes, or samples": 3.5,
        "is float32 [1, 2, 3]": (np.ones((1, 2, 3), np.float32), 8000),
    }


def test_what_is_wrong_with_a_sound_is_named_and_it_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for told, item in broken(tmp_path).items():
        with caplog.at_level(logging.WARNING):
            sounds = read_sounds([(tone(), 8000), item], max_bad=0.5)
        assert len(sounds) == 1
        assert "skipped 1 of 2 sounds (50.0 %)" in caplog.text
        assert told in caplog.text
        caplog.clear()
    with pytest.raises(PolysenseError, match=r"cannot read 1 of 2 sounds .*is silent; mend or remove them"):
        read_sounds([(tone(), 8000), tmp_path / "silent.wav"])


def test_a_header_that_promises_too_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 8000)
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, count, **kw: read(self, count // 2, **kw))
    with pytest.raises(PolysenseError, match=r"its header promises 4,000 samples and 2,000 can be read"):
        read_sounds(tmp_path / "a.wav")
    assert header(tmp_path / "a.wav") == (8000, 4000)


def test_a_bad_window_of_a_long_sound_leaves_the_others() -> None:
    wave = np.concatenate([tone(seconds=1), 0 * tone(seconds=1), tone(seconds=1)])
    sounds = read_sounds([(wave, 8000)], window=1, max_bad=0.5)
    assert len(sounds) == 2
    assert [name for name, _ in sounds.bad] == ["sound 0 at 1.0 s"]


def test_what_does_not_fit_into_memory_is_kept_in_a_file(tmp_path: Path, folder: Path) -> None:
    paths = sorted(folder.glob("*/*"))
    listing = store.Listing(paths, pd.DataFrame({"name": list("abcd")}))
    options: dict[str, Any] = {"rate": None, "window": 10.0, "max_bad": 0.0}
    kept = store.decode_all(listing, cache=tmp_path / "cache", memory=100, **options)
    assert isinstance(kept.samples, np.memmap)
    expected = store.decode_all(listing, cache=None, memory=10**9, **options)
    assert np.array_equal(kept.samples, expected.samples)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere.wav", "no such file or folder: nowhere.wav"),
        ("builtin:emoji", "holds no sounds but data for 'image'; sounds: builtin:speech"),
        ([], "the list of sounds is empty"),
        (7, "cannot read sounds from a int; give a folder"),
        (pd.DataFrame({"a": [1]}), "the DataFrame has no column with sounds or their paths \\(a\\)"),
        (pd.DataFrame({"a": ["x.wav"], "b": ["y.wav"]}), "more than one column with sounds"),
        (pd.DataFrame({"a": []}), "the DataFrame has no rows"),
        ("*.nothing", "no sound matches"),
    ],
)
def test_sources_that_are_none(source: Any, told: str) -> None:
    with pytest.raises(PolysenseError, match=told):
        read_sounds(source)


def test_options_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    for options, told in (
        ({"label": "lable"}, "unknown column 'lable'; did you mean 'label'"),
        ({"window": 0}, "a window of 0 s at rate None holds nothing"),
    ):
        with pytest.raises(PolysenseError, match=told):
            read_sounds(folder, **options)
    with pytest.raises(PolysenseError, match="unknown column 'sond'"):
        read_sounds(pd.DataFrame({"sound": ["a.wav"]}), column="sond")
    (empty := tmp_path / "none").mkdir()
    with pytest.raises(PolysenseError, match=r"no sound in .*; looked for files ending in \.wav"):
        read_sounds(empty)
    (note := tmp_path / "note.txt").write_text("x")
    with pytest.raises(PolysenseError, match=r"note.txt is no sound and no table of sounds"):
        read_sounds(note)


def test_a_missing_library_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(
        PolysenseError, match=r"needs the package 'soundfile': pip install 'polysense\[audio\]'"
    ):
        read_sounds(folder)


def test_the_built_in_speech() -> None:
    listing = sources._find("builtin:speech", None)
    assert len(listing.items) == 2569
    assert (listing.identity, listing.label) == ("prompt", "language")
    assert listing.table["kind"].value_counts().head(2).to_dict() == {"sentence": 1532, "digits": 525}
    assert listing.evaluation is not None
    assert all(label in listing.table.columns for label in listing.evaluation["labels"])
    some = slice(None, None, 40)
    part = store.Listing(listing.items[some], listing.table[some])
    sounds = store.decode_all(part, rate=None, window=10.0, max_bad=0.0, cache=None)
    assert sounds.rate == 8000
    stated = builtin("builtin:speech")["seconds"][some]
    np.testing.assert_allclose(sounds.table["seconds"], stated, atol=1e-3)
