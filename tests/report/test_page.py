"""The page as a whole: what is on it, what must never be on it, and how it is written."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from polysense.errors import PolysenseError
from polysense.report import results as told
from polysense.report import write_report
from tests.report.run_folder import evaluation, write_run

SECTIONS = ["curves", "evaluation", "neighbours", "map", "views", "configuration", "environment"]
HOSTILE = "<script>alert('x')</script>\"&"


class Outline(HTMLParser):
    """The tags of a page; fails where they are not closed in order."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def ids(self) -> list[str | None]:
        return [attrs.get("id") for tag, attrs in self.tags if tag == "section"]


def written(run: Path) -> str:
    return write_report(run).read_text("utf-8")


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html).replace("\u00a0", " "))


def test_all_sections_are_there_in_order_and_well_formed(emoji_page: str) -> None:
    assert Outline(emoji_page).ids() == SECTIONS
    links = re.findall(r'<a href="#([a-z]+)">', emoji_page)
    assert links == SECTIONS


def test_page_refers_to_nothing_outside_itself(emoji_page: str) -> None:
    outside = re.findall(r"https?://|//[a-z]+\.|@import|<link|<iframe|<img", emoji_page)
    assert outside == []
    assert all(url.startswith("data:image/webp") for url in re.findall(r"url\(([^)]*)", emoji_page))
    assert "default-src 'none'" in emoji_page


def test_both_colour_schemes_and_small_screens(emoji_page: str) -> None:
    assert "@media (prefers-color-scheme: dark)" in emoji_page
    assert 'name="viewport"' in emoji_page
    assert "@media (max-width: 760px)" in emoji_page


def test_every_drawing_and_picture_has_a_text_alternative(emoji_page: str) -> None:
    roles = [attrs for _, attrs in Outline(emoji_page).tags if attrs.get("role") == "img"]
    assert len(roles) > 100
    assert all(attrs.get("aria-label") for attrs in roles)


def test_headline_tells_what_was_trained_and_what_came_of_it(emoji_page: str) -> None:
    head = text_of(emoji_page[emoji_page.index("<header>") : emoji_page.index("</header>")])
    assert (
        "resnet18 trained with simclr on emoji.parquet for 3,000 steps (100 epochs), in 3 min 27 s." in head
    )
    assert "kNN, group: 56.1 % after pretraining" in head
    assert "against 38.4 % for the untrained encoder and 36.0 % for raw pixels" in head
    assert "In 1 of 4 columns it falls short." in head


def test_configuration_shows_what_nobody_foresaw(emoji_page: str) -> None:
    assert "<dt>nested.deeper</dt><dd>[1, 2, {&quot;a&quot;: null}]</dd>" in emoji_page
    assert "<dt>projector.hidden</dt><dd>2048</dd>" in emoji_page


def test_environment_holds_the_command_as_typed(emoji_page: str) -> None:
    assert "--method simclr --name &#x27;a run&#x27;</code>" in emoji_page
    assert "<dt>torch</dt><dd>2.14.0</dd>" in emoji_page


def test_a_thousand_pictures_stay_under_four_megabytes(tmp_path: Path) -> None:
    run = write_run(tmp_path, samples=40)
    arrays = dict(np.load(run / "gallery.npz"))
    noise = np.random.default_rng(0).integers(
        0, 256, (1000, 64, 64, 3), dtype=np.uint8
    )  # hardest to compress
    picks = np.arange(1000) % 40
    arrays |= {key: arrays[key][picks] for key in ("names", "labels", "map")}
    np.savez(run / "gallery.npz", **{**arrays, "thumbnails": noise})
    assert write_report(run).stat().st_size < 4_000_000


def test_hostile_text_is_escaped_wherever_it_comes_from(tmp_path: Path) -> None:
    run = write_run(tmp_path, samples=40)
    (run / "config.yaml").write_text(
        json.dumps(dict.fromkeys(("method", "encoder", "data", HOSTILE), HOSTILE))
    )
    (run / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE, "command": HOSTILE}))
    lines = [
        {"step": step, HOSTILE: step, f"loss/{HOSTILE}": 1, "loss/b": 1, "warning": HOSTILE}
        for step in (1, 2)
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    results = {name: {f"knn_{HOSTILE}": 50.0} for name in ("pretrained", "pixels", HOSTILE)}
    report = {"results": results, "protocol": {HOSTILE: HOSTILE}, "notes": [HOSTILE]}
    (run / "evaluation.json").write_text(json.dumps(report))
    arrays = dict(np.load(run / "gallery.npz"))
    many = np.array([HOSTILE] * 40)
    arrays |= {"names": many, "labels": many, "captions": many, "view_names": np.array([HOSTILE] * 6)}
    arrays["method_name"] = np.array(HOSTILE)
    for modality in ("pictures", "texts"):
        if modality == "texts":
            del arrays["thumbnails"]
        np.savez(run / "gallery.npz", **arrays)
        html = written(run)
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert" in html
        assert Outline(html).ids() == SECTIONS


def test_a_name_that_is_not_unicode_does_not_break_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path, samples=40)
    arrays = dict(np.load(run / "gallery.npz"))
    names = arrays["names"].astype(object)
    names[:] = "caf\udce9.png"
    np.savez(run / "gallery.npz", **{**arrays, "names": names.astype(str)})
    assert "caf?.png" in written(run)


def test_a_run_that_has_only_begun(run: Path) -> None:
    html = written(run)
    assert Outline(html).ids() == ["curves", "evaluation", "gallery", "configuration", "environment"]
    text = text_of(html)
    assert "resnet18 trained with simclr on cats.csv; no step is logged yet." in text
    assert "Nothing has been logged yet." in text
    assert f"Not evaluated yet: run polysense evaluate {run.name}." in text
    assert "environment.json is missing" in text


def test_without_an_evaluation_the_headline_falls_back_on_the_online_probe(run: Path) -> None:
    lines = [{"step": 0, "knn": 20.04}, {"step": 100, "knn": 41.5, "loss": 1.0}]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    text = text_of(written(run))
    assert "Online kNN went from 20.0 % to 41.5 %; it has not been compared" in text


@pytest.mark.parametrize("folder", ["empty", "absent"])
def test_not_a_run_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolysenseError, match=rf"{folder} is not a run folder \(no config.yaml\): give"):
        write_report(tmp_path / folder)
    assert not (tmp_path / folder / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "a: [1", r"config\.yaml cannot be read \(.+\): mend it"),
        ("config.yaml", "- 1", r"config\.yaml must hold names and values, found list"),
        ("evaluation.json", '{"results": ', r"evaluation\.json cannot be read \(.+\): make it again"),
        ("environment.json", "{", r"environment\.json cannot be read \(.+\): delete it"),
    ],
)
def test_broken_files_are_named(run: Path, name: str, content: str, message: str) -> None:
    (run / name).write_text(content)
    with pytest.raises(PolysenseError, match=message) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_page_and_no_draft(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "report.html").write_text("old")

    def fail(source: Path, target: Path) -> None:
        assert Path(source).parent == run  # the same file system, so that replacing is one step
        assert Path(source).read_text("utf-8").rstrip().endswith("</html>")
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(run)
    assert (run / "report.html").read_text() == "old"
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "report.html"]


def test_best_of_each_column_is_marked_and_intervals_are_shown() -> None:
    html = told.evaluation_section(evaluation())
    marked = re.findall(r'<b title="best of the column">([\d.]+)</b>', html)
    assert marked == ["56.1", "61.3", "71.4", "90.2"]
    assert "<small>54.0 to 58.2</small>" in html
    assert html.count('<figure class="bars">') == 4


def test_verdict_is_plain_about_defeats_and_close_calls() -> None:
    results = {
        "pretrained": {"knn_a": 50.0, "knn_b": 50.0, "mse": 0.2},
        "untrained": {"knn_a": 50.0, "knn_b": 49.0, "mse": 0.4},
        "pixels": {"knn_a": 20.0, "knn_b": 30.0, "mse": 0.1},
    }
    intervals = {
        "pretrained": {"knn_b": [48, 52]},
        "untrained": {"knn_b": [47, 51]},
        "pixels": {"knn_b": [28, 32]},
    }
    items = re.findall(r"<li[^>]*>(.*?)</li>", told.verdict(results, intervals))
    assert items == [
        "kNN, a: pretraining does not beat the untrained encoder (50.0 against 50.0).",
        "Mse: pretraining does not beat raw pixels (0.200 against 0.100).",
        "kNN, b: ahead of the untrained encoder (50.0 against 49.0), but the intervals overlap.",
    ]


def test_verdict_of_a_clear_win_names_what_was_beaten() -> None:
    results = {"pretrained": {"knn": 50.0}, "untrained": {"knn": 40.0}}
    assert told.verdict(results, {}) == "<li>Pretraining beats the untrained encoder in every column.</li>"


def test_every_row_but_a_blind_answer_is_a_rival() -> None:
    results = {
        "pretrained": {"knn": 50.0},
        "untrained": {"knn": 40.0},
        "mel statistics": {"knn": 60.0},
        "majority": {"knn": 70.0},
        "chance": {"knn": 80.0},
    }
    items = re.findall(r"<li[^>]*>(.*?)</li>", told.verdict(results, {}))
    assert items == ["kNN: pretraining does not beat mel statistics (50.0 against 60.0)."]


def test_a_column_without_numbers_is_left_out() -> None:
    html = told.evaluation_section(
        {"results": {"pretrained": {"knn": 50.0, "odd": float("nan"), "gone": None}}}
    )
    assert "Odd" not in html
    assert "Gone" not in html
    assert "nan" not in html
