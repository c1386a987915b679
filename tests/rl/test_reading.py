from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polysense.errors import PolysenseError
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


def refused(tmp_path: Path, what: str) -> None:
    pictures(tmp_path / "in" / "a", [1] if what == "short" else [1, 2])
    if what == "damaged":
        (tmp_path / "in" / "a" / "frame1.png").write_bytes(b"no picture")
    if what == "film":
        (tmp_path / "in" / "b.mp4").write_bytes(b"no film")
    source = tmp_path / ("elsewhere" if what == "nothing" else "in")
    import_frames(source, out=tmp_path / "out", size=16, every=0 if what == "never" else 1)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing", "elsewhere holds no recordings"),
        ("short", "recording .*a has 1 frames; it needs at least 2"),
        ("damaged", "cannot read the frame .*frame1.png"),
        ("film", "cannot decode the video .*b.mp4"),
        ("never", "every is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, what: str, words: str) -> None:
    if what == "film":
        pytest.importorskip("av")
    with pytest.raises(PolysenseError, match=words):
        refused(tmp_path, what)
