"""Scenes: the truth about where things are is exact, and a seed says it all."""

from __future__ import annotations

import time

import numpy as np
import pytest

from polysense.errors import PolysenseError
from polysense.modalities.builtin import builtin
from polysense.modalities.vision import scenes as module
from polysense.modalities.vision.scenes import BACKGROUNDS, MOST_OBJECTS, cut_out, scenes
from polysense.modalities.vision.sources import read_pictures


def test_boxes_are_the_tight_bounds_of_the_masks() -> None:
    for row in scenes(40, size=64).itertuples():
        assert row.mask.max() == len(row.boxes) == len(row.objects) in range(1, MOST_OBJECTS + 1)
        for number, (left, top, right, bottom) in enumerate(row.boxes, start=1):
            inside = row.mask[top:bottom, left:right] == number
            assert inside.sum() == (row.mask == number).sum() > 0
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_every_count_of_objects_and_every_background_comes_up() -> None:
    drawn = scenes(150, size=32)
    assert set(drawn["objects"].map(len)) == set(range(1, MOST_OBJECTS + 1))
    assert set(drawn["background"]) == set(BACKGROUNDS)
    assert drawn["group"].nunique() > 5


def test_the_mask_says_what_was_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without grain and on black, pixels without an object stay black but for the outlines."""
    monkeypatch.setattr(module, "_GRAIN", 0.0)
    monkeypatch.setattr(
        module, "BACKGROUNDS", {"black": lambda _, size: np.zeros((size, size, 3), np.float32)}
    )
    for row in scenes(20).itertuples():
        painted = row.image.max(-1) > 0
        around = np.zeros_like(row.mask, bool)
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                around |= np.roll(row.mask > 0, (down, across), (0, 1))
        assert not (painted & ~around).any()
        # A few drawings hold black of their own.
        assert (painted & (row.mask > 0)).sum() > 0.5 * (row.mask > 0).sum()


def test_a_seed_draws_the_same_scenes_and_more_of_them_begin_alike() -> None:
    few, more, others = scenes(3, 32, seed=4), scenes(5, 32, seed=4), scenes(3, 32, seed=5)
    assert few["boxes"].tolist() == more["boxes"].tolist()[:3] != others["boxes"].tolist()
    for one, two in zip(few["image"], more["image"], strict=False):
        np.testing.assert_array_equal(one, two)


def test_white_inside_a_drawing_is_kept_and_white_outside_goes() -> None:
    ring = np.full((1, 9, 9, 3), 255, np.uint8)
    ring[0, 2:7, 2:7] = (200, 0, 0)
    ring[0, 4, 4] = 255
    ring[0, 0, :] = 0  # paint at the border does not let the inside out
    alpha = cut_out(ring)[0, ..., 3]
    assert alpha[4, 4] == 255
    assert alpha[0, 0] == 255
    assert (alpha[1] == 0).all()


def test_paint_mixed_with_white_is_unmixed_at_the_outline() -> None:
    edge = np.full((1, 5, 6, 3), 255, np.uint8)
    edge[0, 1:4, 3:5] = (255, 0, 0)
    edge[0, 1:4, 2] = (255, 127, 127)  # half covered
    cut = cut_out(edge)[0, 2, 2]
    assert cut[3] == pytest.approx(128, abs=1)
    assert cut[:3].tolist() == pytest.approx([255, 0, 0], abs=1)


def test_pictures_read_from_scenes_keep_boxes_and_masks() -> None:
    pictures = read_pictures("builtin:scenes?count=6&size=32&seed=2", size=32)
    expected = scenes(6, 32, seed=2)
    assert len(pictures) == 6
    assert pictures.label == "group"
    assert pictures.table["boxes"].tolist() == expected["boxes"].tolist()
    shown = pictures.__getitems__(range(6))["pixels"].permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(shown, np.stack(expected["image"].tolist()))
    np.testing.assert_array_equal(pictures.table["mask"][3], expected["mask"][3])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("scenes?size=8", "size of the scenes is 8; it must be at least 16"),
        ("scenes?count=0", "count of the scenes is 0"),
        ("scenes?count=many", "count of builtin:scenes is 'many'; give a whole number"),
        ("scenes?sise=32", "unknown option of builtin:scenes 'sise'; did you mean 'size'"),
        ("emoji?count=5", "the condition 'count=5' is not written as one"),
    ],
)
def test_options_that_do_not_fit_are_told(name: str, told: str) -> None:
    with pytest.raises(PolysenseError, match=told.replace("?", r"\?")):
        builtin(f"builtin:{name}")


def test_scenes_are_drawn_quickly() -> None:
    """Hundreds a second on one core; the bound leaves room for a busy machine."""
    scenes(1)  # cuts out the emoji
    start = time.process_time()
    scenes(100)
    assert time.process_time() - start < 1.5
