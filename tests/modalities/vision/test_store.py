"""Pictures on their canvas: places, sizes, statistics, memory and the cache on disk."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader

from polysense.errors import PolysenseError
from polysense.modalities.base import Dataset
from polysense.modalities.vision import cache as cache_module
from polysense.modalities.vision import store
from polysense.modalities.vision.sources import read_pictures
from polysense.modalities.vision.store import Pictures, canvas_side


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of several shapes."""
    here = tmp_path / "pictures"
    here.mkdir()
    for i in range(12):
        Image.fromarray(noise(10 + i, 30 - i, seed=i)).save(here / f"{i:02d}.png")
    return here


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    seen: list[object] = []
    real = store.decode

    def counting(item: object, side: int) -> np.ndarray:
        seen.append(item)
        return real(item, side)

    monkeypatch.setattr(store, "decode", counting)
    return seen


def test_each_picture_lies_in_the_top_left_corner_and_its_edge_goes_on() -> None:
    images = [Image.fromarray(noise(10, 24)), Image.fromarray(noise(24, 6, seed=1))]
    pictures = read_pictures(images, size=32)
    assert isinstance(pictures, Dataset)
    assert (pictures.side, pictures.channels, pictures.depth, len(pictures)) == (24, 3, 8, 2)
    batch = pictures.__getitems__([1, 0])
    assert batch["pixels"].dtype == torch.uint8
    assert batch["size"].tolist() == [[24, 6], [10, 24]]
    assert batch["index"].tolist() == [1, 0]
    tall, wide = batch["pixels"].permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(tall[:, :6], np.asarray(images[1]))
    np.testing.assert_array_equal(tall[:, 6:], np.broadcast_to(tall[:, 5:6], (24, 18, 3)))
    np.testing.assert_array_equal(wide[:10], np.asarray(images[0]))
    np.testing.assert_array_equal(wide[10:], np.broadcast_to(wide[9:10], (14, 24, 3)))


@pytest.mark.parametrize(("size", "side"), [(32, 64), (64, 128), (65, 82), (224, 280)])
def test_the_canvas_leaves_room_for_crops(size: int, side: int) -> None:
    assert canvas_side(size) == side


def test_shrunk_to_the_canvas_with_the_aspect_ratio_kept() -> None:
    pictures = read_pictures([Image.new("RGB", (400, 100)), Image.new("RGB", (20, 30))], size=32)
    assert pictures.side == 64
    assert pictures.__getitems__([0, 1])["size"].tolist() == [[16, 64], [30, 20]]


def test_grey_only_if_all_are_and_sixteen_bits_only_if_all_have_them() -> None:
    grey, colour = Image.new("L", (4, 4), 9), Image.new("RGB", (4, 4), (1, 2, 3))
    deep = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    assert read_pictures([grey, grey], size=8).channels == 1
    mixed = read_pictures([grey, colour], size=8).__getitems__([0, 1])["pixels"]
    assert mixed[:, :, 0, 0].tolist() == [[9, 9, 9], [1, 2, 3]]
    all_deep = read_pictures([deep, deep], size=8)
    assert (all_deep.depth, all_deep.channels) == (16, 1)
    assert all_deep.__getitems__([0])["pixels"].dtype == torch.uint16
    scaled = read_pictures([deep, colour], size=8)
    assert scaled.depth == 8
    assert scaled.__getitems__([0])["pixels"][0, :, 0, 0].tolist() == [128] * 3


def test_the_odd_one_out_in_channels_is_bad() -> None:
    arrays = [np.zeros((4, 4, 3), np.uint8)] * 3 + [np.zeros((8, 8, 5), np.uint8)]
    pictures = read_pictures(arrays, size=8, max_bad=0.5)
    assert pictures.bad == [("picture 3", "5 channels where the other pictures have 3")]


def test_statistics_are_of_the_content_only() -> None:
    first = np.zeros((10, 40, 3), np.uint8)
    second = np.zeros((40, 10, 3), np.uint8)
    first[..., 0], second[..., 0], second[:20, :, 1] = 255, 51, 255
    mean, std = read_pictures([first, second], size=32).statistics()
    assert mean == pytest.approx([0.6, 0.25, 0])
    assert std == pytest.approx([0.4, np.sqrt(0.25 * 0.75), 0])


def test_statistics_of_sixteen_bits_are_on_the_same_scale() -> None:
    mean, std = read_pictures(np.full((2, 4, 4), 65535, np.uint16), size=8).statistics()
    assert mean == [1.0]
    assert std == [0.0]


def test_bad_pictures_are_named_counted_and_skipped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "03.png").write_bytes(b"")
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:-600])
    pictures = read_pictures(folder, size=8, max_bad=0.2)
    assert pictures.bad == [("03.png", "zero bytes"), ("05.png", "truncated")]
    assert "skipped 2 of 12 pictures (16.7 %): 03.png: zero bytes; 05.png: truncated" in caplog.text
    assert pictures.table["name"].tolist() == [f"{i:02d}.png" for i in range(12) if i not in (3, 5)]
    last = pictures.__getitems__([9])
    assert last["size"].tolist() == [[16, 14]]  # 21 x 19 at a longer side of 16
    assert not torch.equal(last["pixels"], pictures.__getitems__([8])["pixels"])


def test_too_many_bad_ones_are_one_error(folder: Path) -> None:
    for i in range(7):
        (folder / f"{i:02d}.png").write_bytes(b"")
    with pytest.raises(PolysenseError) as error:
        read_pictures(folder, size=8)
    message = str(error.value)
    assert message.startswith("cannot read 7 of 12 pictures (58.3 %): 00.png: zero bytes; ")
    assert "04.png: zero bytes; …; " in message
    assert "05.png" not in message
    assert message.endswith("allow so many with --max-bad 0.59")
    assert len(read_pictures(folder, size=8, max_bad=0.59)) == 5


def test_none_left_is_an_error_whatever_is_allowed(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"no")
    with pytest.raises(PolysenseError, match=r"12 of 12 pictures .* none is left"):
        read_pictures(folder, size=8, max_bad=1)


def test_what_does_not_fit_memory_is_mapped_from_disk_and_used_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "03.png").write_bytes(b"")
    in_memory = read_pictures(folder, size=8, max_bad=0.1)
    decoded = count_decoding(monkeypatch)

    def read() -> Pictures:
        return read_pictures(folder, size=8, max_bad=0.1, cache=tmp_path / "cache", memory=100)

    first = read()
    assert isinstance(first.pixels, np.memmap)
    assert len(decoded) == 11
    assert f"more than the 1e-07 GB of memory allowed: kept in {tmp_path / 'cache'}" in caplog.text
    again = read()
    assert len(decoded) == 11
    for pictures in (first, again):
        assert pictures.bad == in_memory.bad
        assert pictures.table.equals(in_memory.table)
        for key, tensor in pictures.__getitems__(range(11)).items():
            assert torch.equal(tensor, in_memory.__getitems__(range(11))[key])


def test_a_changed_folder_is_decoded_anew_in_the_same_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"size": 8, "cache": tmp_path / "cache", "memory": 0}
    read_pictures(folder, **options)
    decoded = count_decoding(monkeypatch)
    Image.new("RGB", (9, 9), "red").save(folder / "00.png")
    changed = read_pictures(folder, **options)
    assert len(decoded) == 12
    assert changed.__getitems__([0])["pixels"][0, :, 0, 0].tolist() == [255, 0, 0]
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_a_picture_over_a_broken_cache_is_decoded_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"size": 8, "cache": tmp_path / "cache", "memory": 0}
    read_pictures(folder, **options)
    (pixels,) = (tmp_path / "cache").glob("*/pixels.npy")
    for damage in (lambda: os.truncate(pixels, 500), lambda: os.truncate(pixels, 0), pixels.unlink):
        damage()
        with monkeypatch.context() as patch:
            decoded = count_decoding(patch)
            assert len(read_pictures(folder, **options)) == 12
            assert len(decoded) == 12


def _read_slowly(folder: Path, cache: Path) -> None:
    real = store.decode

    def slow(item: object, side: int) -> np.ndarray:
        if str(item).endswith("07.png"):
            (cache / "busy").touch()
            time.sleep(60)
        return real(item, side)

    store.decode = slow
    read_pictures(folder, size=8, cache=cache, memory=0)


def test_killed_while_writing_leaves_nothing_that_looks_complete(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    process = multiprocessing.get_context("fork").Process(target=_read_slowly, args=(folder, cache))
    process.start()
    for _ in range(200):
        if (cache / "busy").exists():
            break
        time.sleep(0.05)
    assert (cache / "busy").exists()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".part"]
    pictures = read_pictures(folder, size=8, cache=cache, memory=0)
    assert torch.equal(
        pictures.__getitems__(range(12))["pixels"],
        read_pictures(folder, size=8).__getitems__(range(12))["pixels"],
    )
    assert not list(cache.glob("*.part"))


def _read_and_count(folder: Path, cache: Path, count: Any) -> None:
    real = store.decode

    def counting(item: object, side: int) -> np.ndarray:
        with count.get_lock():
            count.value += 1
        time.sleep(0.02)
        return real(item, side)

    store.decode = counting
    read_pictures(folder, size=8, cache=cache, memory=0)


def test_processes_of_one_job_build_the_cache_once(folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    count = context.Value("i", 0)
    ranks = [
        context.Process(target=_read_and_count, args=(folder, tmp_path / "cache", count)) for _ in range(3)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert count.value == 12


def test_a_full_disk_is_an_error_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(
        PolysenseError, match=r"cannot keep decoded pictures in .*9.22e-06 GB needed, 1e-08 GB free"
    ):
        read_pictures(folder, size=8, cache=tmp_path / "cache", memory=0)


@pytest.mark.parametrize("memory", [None, 0])
def test_workers_of_a_loader_fetch_the_same(folder: Path, tmp_path: Path, memory: int | None) -> None:
    pictures = read_pictures(folder, size=8, cache=tmp_path / "cache", memory=memory)
    loader = DataLoader(pictures, batch_size=5, num_workers=2, collate_fn=lambda batch: batch)
    pixels = torch.cat([batch["pixels"] for batch in loader])
    assert torch.equal(pixels, pictures.__getitems__(range(12))["pixels"])


def test_a_mapped_file_is_pickled_by_name(folder: Path, tmp_path: Path) -> None:
    pictures = read_pictures(folder, size=32, cache=tmp_path / "cache", memory=0)
    data = pickle.dumps(pictures)
    assert len(data) < pictures.pixels.nbytes / 4
    assert torch.equal(pickle.loads(data).__getitems__([3])["pixels"], pictures.__getitems__([3])["pixels"])


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 10), (True, 0.001), (False, 10)])
def test_a_progress_bar_only_on_a_terminal_and_only_when_it_takes_long(
    folder: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, seconds: float
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(store, "Console", lambda stderr: Console(file=shown, force_terminal=terminal))
    clock = itertools.count(step=seconds)
    monkeypatch.setattr(store, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    read_pictures(folder, size=8)
    assert ("decoding pictures" in shown.getvalue()) == (terminal and seconds > 2)
    assert bool(shown.getvalue()) == (terminal and seconds > 2)
