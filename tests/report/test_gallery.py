"""Neighbours, map and views."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polysense.errors import PolysenseError
from polysense.report import gallery
from polysense.report.gallery import Gallery

RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)


def small(**changes: object) -> Gallery:
    values: dict[str, object] = {
        "names": ["ape", "bee", "cat", "dog"],
        "labels": ["x", "y", "x", ""],
        "captions": ["", "", "", ""],
        "map": np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]),
        "neighbours": np.array([[0, 2, 1], [3, 1, 0]]),
        "similarity": np.array([[0.91, 0.5], [0.4, 0.3]]),
    }
    return Gallery(**{**values, **changes})  # type: ignore[arg-type]


def solid(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.full((16, 16, 3), colour, dtype=np.uint8) for colour in colours])


def decoded(sheet: gallery.Sheet) -> np.ndarray:
    data = base64.b64decode(sheet.uri.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_each_picture_shows_its_own_part_of_the_sheet() -> None:
    sheet = gallery.sheet(solid(RED, GREEN, BLUE, RED, BLUE), largest=64, limit=100_000)
    pixels = decoded(sheet)
    assert pixels.shape == (32, 48, 3)
    for index, colour in enumerate((RED, GREEN, BLUE, RED, BLUE)):
        x, y = re.findall(r"background-position:([\d.]+)% ([\d.]+)%", sheet.picture("thumb", index, "a"))[0]
        # What CSS shows at these percentages, with the sheet as large as columns x rows elements.
        left, top = float(x) / 100 * (48 - 16), float(y) / 100 * (32 - 16)
        middle = pixels[round(top) + 8, round(left) + 8]
        assert np.abs(middle - colour).max() < 40


def test_a_sheet_shrinks_its_pictures_until_it_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (49, 64, 64, 3), dtype=np.uint8)
    large = gallery.sheet(noise, largest=64, limit=10_000_000)
    tight = gallery.sheet(noise, largest=64, limit=60_000)
    assert large.aspect == "64/64"
    assert tight.aspect != "64/64"
    assert len(tight.uri) < 60_000 * 4 / 3 + 100


def test_neighbours_are_in_order_and_marked_by_label() -> None:
    thumbs = gallery.sheet(solid(RED, GREEN, BLUE, RED), largest=64, limit=100_000)
    html = gallery.neighbours(small(), thumbs)
    first, second = html.split('<div class="row">')[1:]
    assert re.findall(r'<li class="(\w+)">.*?aria-label="([^"]*)".*?<small>([\d.]+)', first) == [
        ("same", "cat, x", "0.91"),
        ("other", "bee, y", "0.50"),
    ]
    assert 'class="same"' not in second  # the query has no label
    assert "(50\u00a0% of the neighbours shown)" in html


def test_neighbours_without_labels_claim_no_agreement() -> None:
    html = gallery.neighbours(small(labels=[""] * 4), None)
    assert "Underlined" not in html
    assert 'class="same"' not in html


def test_neighbours_without_pictures_show_captions_or_names() -> None:
    html = gallery.neighbours(small(captions=["a long <tale>", "", "", ""]), None)
    assert "<q>a long &lt;tale&gt;</q>" in html
    assert "<q>cat</q>" in html
    assert "picture" not in html


def test_map_keeps_one_scale_and_points_up() -> None:
    html = gallery.embedding_map(small(), None)
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', html)[0])
    x, y = data["x"], data["y"]
    assert x[1] - x[0] == pytest.approx(y[0] - y[2], abs=0.2)
    assert data["names"] == ["ape", "bee", "cat", "dog"]
    assert [data["labels"][code] for code in data["label"]] == ["x", "y", "x", ""]
    assert data["sheet"] is None
    assert "Pictures" not in html


def test_map_groups_are_the_commonest_labels_first_and_no_label_last() -> None:
    html = gallery.embedding_map(small(), None)
    legend = re.findall(r'data-group="(\d+)" aria-pressed="true">.*?<span>(.*?)</span><small>(\d)', html)
    assert legend == [("0", "x", "2"), ("1", "y", "1"), (str(gallery.REST), "no label", "1")]


def test_many_labels_stay_apart_by_colour_and_shape_and_the_rest_is_one_group() -> None:
    labels = [f"label {index:02}" for index in range(30)]
    html = gallery.embedding_map(
        Gallery(labels, labels, [""] * 30, map=np.random.default_rng(0).normal(size=(30, 2))), None
    )
    assert html.count('aria-pressed="true"') == gallery.REST + 1
    assert "<span>9 more labels</span><small>9</small>" in html
    marks = {
        (style, re.sub(r"[\d. -]+", "", shape.split("d=")[-1]))
        for style, shape in re.findall(r'<g class="(\w+)" data-group="\d+">(<[^>]*>)', html)
    }
    assert len(marks) == gallery.REST + 1


def test_map_without_labels_has_no_legend_and_copes_with_a_single_point() -> None:
    html = gallery.embedding_map(Gallery(["a"], [""], [""], map=np.zeros((1, 2))), None)
    assert 'aria-pressed="true"' not in html
    assert 'cx="300.0"' in html


def test_views_are_a_row_for_each_sample_with_named_columns() -> None:
    views = np.stack([solid(RED, GREEN, BLUE), solid(BLUE, RED, GREEN)])
    html, style = gallery.views(small(views=views, view_names=["original", "global"], method_name="a & b"))
    assert re.findall(r'aria-label="([^"]*)"', html) == [
        f"Sample {sample}, {name}" for sample in (1, 2) for name in ("original", "global", "view 2")
    ]
    assert "what a &amp; b was trained on" in html
    assert style.startswith(".view{background-image:url(data:image/webp;base64,")


def test_missing_pieces_leave_their_section_empty() -> None:
    bare = small(map=None, neighbours=None)
    assert gallery.neighbours(bare, None) == gallery.embedding_map(bare, None) == ""
    assert gallery.views(bare) == ("", "")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"names": ["a", "b"], "map": np.zeros((3, 2))}, "'map' has 3 rows for 2 names"),
        ({"names": ["a", "b"], "labels": ["x"]}, "'labels' has 1 rows for 2 names"),
        (
            {"names": ["a", "b"], "neighbours": [[0, 2]]},
            "'neighbours' must lie between 0 and 1, found 0 to 2",
        ),
        ({"labels": ["x"]}, "cannot be read as a gallery .*names"),
        ({"names": np.array(["a", None], dtype=object)}, "cannot be read as a gallery"),
    ],
)
def test_a_gallery_that_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, object], message: str
) -> None:
    path = tmp_path / "gallery.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(PolysenseError, match=message) as caught:
        gallery.read_gallery(path)
    assert "polysense evaluate" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gallery_cut_off_by_a_kill_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gallery.npz"
    np.savez(path, names=np.array(["a"] * 100))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PolysenseError, match="cannot be read as a gallery"):
        gallery.read_gallery(path)


def test_what_can_be_heard_is_a_button_and_its_file_is_in_the_page_once() -> None:
    thumbs = gallery.sheet(solid(RED, GREEN, BLUE, RED), largest=64, limit=100_000)
    heard = small(sounds={0: b"first", 2: b"other"})
    html = gallery.neighbours(heard, thumbs)
    # the query 0, its neighbour 2, and 0 again as a neighbour of 3; 1 and 3 have no file
    assert re.findall(r'data-sound="(\d)".*?aria-label="([^"]*)"', html) == [
        ("0", "Play Query: ape, x"),
        ("2", "Play cat, x"),
        ("0", "Play ape, x"),
    ]
    files = json.loads(gallery.sounds(heard).partition('json">')[2].partition("</script>")[0])
    assert {index: base64.b64decode(file) for index, file in files.items()} == {"0": b"first", "2": b"other"}
    assert gallery.sounds(small()) == ""
    assert "button" not in gallery.neighbours(small(), thumbs)


def test_the_original_of_a_view_can_be_heard() -> None:
    pictures = np.stack([solid(RED, GREEN), solid(BLUE, RED)])
    shown, _ = gallery.views(
        small(views=pictures, view_names=["original", "view"], viewed=[3, 1], sounds={1: b"it"})
    )
    assert re.findall(r'data-sound="(\d)".*?aria-label="([^"]*)"', shown) == [
        ("1", "Play Sample 2, original")
    ]


def test_files_of_sound_are_told_apart(tmp_path: Path) -> None:
    bytes_, path = np.frombuffer(b"onethree", np.uint8), tmp_path / "gallery.npz"
    np.savez(path, names=["a", "b"], sounds=bytes_, sound_ends=[3, 8], sound_rows=[1, 0])
    found = gallery.read_gallery(path)
    assert found is not None
    assert found.sounds == {1: b"one", 0: b"three"}
    np.savez(path, names=["a", "b"], sounds=bytes_, sound_ends=[3, 8], sound_rows=[1])
    with pytest.raises(PolysenseError, match="cannot be read as a gallery"):
        gallery.read_gallery(path)
