from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from polysense.errors import PolysenseError
from polysense.rl.captions import read_captions
from polysense.rl.reading import import_frames


def pictures(folder: Path, values: list[int]) -> None:
    folder.mkdir(parents=True)
    for place, value in enumerate(values):
        Image.new("RGB", (40, 30), (value,) * 3).save(folder / f"frame{place}.png")


def test_each_subfolder_is_an_episode_in_the_order_of_its_names(tmp_path: Path) -> None:
    pictures(tmp_path / "in" / "b", [7] * 3)
    pictures(tmp_path / "in" / "a", list(range(12)))
    found = import_frames(tmp_path / "in", out=tmp_path / "out", size=16)
    assert found.table["recording"].tolist() == ["a"] * 12 + ["b"] * 3
    assert found.frames[:, 0, 0, 0].tolist() == [*range(12), 7, 7, 7]  # frame10 after frame9
    assert found.actions == 0
    assert found.action is None


def test_every_second_frame(tmp_path: Path) -> None:
    pictures(tmp_path / "in" / "a", list(range(6)))
    found = import_frames(tmp_path / "in", out=tmp_path / "out", size=16, grey=False, every=2)
    assert found.frames[:, 2, 0, 0].tolist() == [0, 2, 4]


def test_videos_are_episodes(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in (0, 100, 200):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = import_frames(tmp_path, out=tmp_path / "out", size=16)
    np.testing.assert_allclose(found.frames[:, 0, 8, 8], [0, 100, 200], atol=8)


def film(path: Path, count: int, rate: int = 10) -> None:
    """Frame number n is as bright as 10 n."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        for value in range(count):
            shade = np.full((32, 32, 3), 10 * value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode())


def captions(rows: list[dict[str, Any]], path: Path) -> Any:
    """As a table, or as a file of the kind that its name says."""
    table = pd.DataFrame(rows)
    match path.suffix:
        case ".csv":
            table.to_csv(path, index=False)
        case ".json":
            path.write_text(json.dumps(rows))
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case _:
            return table
    return path


@pytest.mark.parametrize("kind", [".csv", ".json", ".jsonl", ".table"])
def test_each_captioned_stretch_of_a_recording_is_an_episode_with_its_text(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in"
    pictures(source / "walk", [10 * n for n in range(20)])
    pictures(source / "still", [7, 7])
    told = [
        {"video": "walk", "start": 0.5, "end": 1.0, "text": "go, then stop"},
        {"video": "walk", "start": 0.0, "end": 0.2, "text": "start"},
        {"video": "walk", "start": 1.8, "end": 2.0, "text": "end"},
    ]
    made = captions(told, tmp_path / f"captions{kind}")
    found = import_frames(source, out=tmp_path / "out", size=16, captions=made, fps=10)
    shades = [
        group.tolist() for _, group in pd.Series(found.frames[:, 0, 0, 0]).groupby(found.table["episode"])
    ]
    assert shades == [[7, 7], [50, 60, 70, 80, 90], [0, 10], [180, 190]]
    assert found.table.groupby("episode")["mission"].first().tolist() == ["", "go, then stop", "start", "end"]
    assert found.sentences is not None
    assert found.sentences.texts == ["end", "go, then stop", "start"]
    assert found.sentences.which[:4].tolist() == [-1, -1, 1, 1]


def test_a_films_times_are_its_own_and_r3ms_names_are_understood(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    film(tmp_path / "in" / "a.avi", 20)
    told = pd.DataFrame({"path": ["/data/a"], "txt": ["C opens"], "start": [0.5], "end": [0.8]})
    found = import_frames(tmp_path / "in", out=tmp_path / "out", size=16, captions=told)
    np.testing.assert_allclose(found.frames[:, 0, 0, 0], [50, 60, 70], atol=4)


def test_a_film_that_ends_early_is_told(tmp_path: Path) -> None:
    film(tmp_path / "a.avi", 20)
    whole = (tmp_path / "a.avi").read_bytes()
    eleventh = [found.start() for found in re.finditer(b"00dc", whole)][10]
    (tmp_path / "a.avi").write_bytes(whole[:eleventh])
    with pytest.raises(PolysenseError, match=r"a.avi ends after \d+ of 20 frames"):
        import_frames(tmp_path, out=tmp_path / "out", size=16)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([{"video": "a", "text": "late", "start": 0.5, "end": 2}], "'late' .* 0.5 to 2 s, .* lasts 1 s"),
        ([{"video": "a", "text": "never", "start": 3}], "'never' .* is about 3 to 1 s"),
        ([{"video": "a", "text": "back", "start": 0.5, "end": 0.2}], "'back' .* is about 0.5 to 0.2 s"),
        ([{"video": "a", "text": "short", "start": 0, "end": 0.1}], "'short' .* shows 1 frames"),
        ([{"video": "b", "text": "x"}], "there are captions of b, and no such recordings; .* called a"),
        ([{"film": "a", "text": "x"}], "need a column 'video', and the table has film, text"),
        ([{"video": "a", "said": "x"}], "need a column 'text'"),
        ([{"video": "a", "text": "x", "start": "soon"}], "'start' of the captions must be seconds"),
    ],
)
def test_captions_that_do_not_fit_are_told(tmp_path: Path, told: list[dict[str, Any]], words: str) -> None:
    pictures(tmp_path / "in" / "a", list(range(10)))
    with pytest.raises(PolysenseError, match=words):
        import_frames(tmp_path / "in", out=tmp_path / "out", size=16, captions=pd.DataFrame(told), fps=10)


def test_a_file_that_is_no_list_of_captions_is_told(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text("{")
    with pytest.raises(PolysenseError, match=r"cannot read .*captions.json as a list of captions"):
        read_captions(tmp_path / "captions.json")


def refused(tmp_path: Path, what: str) -> None:
    pictures(tmp_path / "in" / "a", [1] if what == "short" else [1, 2])
    if what == "damaged":
        (tmp_path / "in" / "a" / "frame1.png").write_bytes(b"no picture")
    if what == "film":
        (tmp_path / "in" / "b.mp4").write_bytes(b"no film")
    source = tmp_path / ("elsewhere" if what == "nothing" else "in")
    import_frames(
        source,
        out=tmp_path / "out",
        size=16,
        every=0 if what == "never" else 1,
        fps=0.0 if what == "frozen" else 30.0,
    )


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing", "elsewhere holds no recordings"),
        ("short", "recording .*a has 1 frames; it needs at least 2"),
        ("damaged", "cannot read the frame .*frame1.png"),
        ("film", "cannot decode the video .*b.mp4"),
        ("frozen", r"fps is 0\.0; it must be above 0"),
        ("never", "every is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, what: str, words: str) -> None:
    if what == "film":
        pytest.importorskip("av")
    with pytest.raises(PolysenseError, match=words):
        refused(tmp_path, what)
