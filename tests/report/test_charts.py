"""Reading the log and drawing it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from polysense.report import charts


def log_of(folder: Path, *lines: object) -> charts.Log:
    path = folder / "metrics.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return charts.read_log(path)


def points(html: str, kind: str) -> list[list[float]]:
    """The coordinates of the first line of a kind (raw or line)."""
    found = re.search(rf'<polyline class="{kind} c0" points="([^"]*)"', html)
    assert found, kind
    return [[float(number) for number in pair.split(",")] for pair in found[1].split()]


def test_a_line_cut_off_by_a_kill_is_skipped_and_noted(tmp_path: Path) -> None:
    log = log_of(tmp_path, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, '{"step": 3, "lo')
    assert log.series("loss").to_dict() == {1: 2.0, 2: 1.0}
    assert log.skipped == 1
    assert "1 line of metrics.jsonl could not be read" in charts.curves(log)


@pytest.mark.parametrize(
    "line", ["[1]", "3", "null", '{"loss": 1}', '{"step": "x"}', '{"step": null}', "\x00\x00"]
)
def test_lines_that_are_no_measurement_are_skipped(tmp_path: Path, line: str) -> None:
    log = log_of(tmp_path, {"step": 1, "loss": 2.0}, line)
    assert (len(log.frame), log.skipped) == (1, 1)


def test_steps_written_twice_by_a_resumed_run_count_once(tmp_path: Path) -> None:
    log = log_of(
        tmp_path, *({"step": step, "loss": loss} for step, loss in ((1, 5), (2, 4), (3, 9), (2, 3), (3, 2)))
    )
    assert log.series("loss").to_dict() == {1: 5.0, 2: 3.0, 3: 2.0}


def test_time_is_added_up_when_the_clock_began_again(tmp_path: Path) -> None:
    log = log_of(tmp_path, *({"step": step, "seconds": at} for step, at in enumerate((5.0, 10.0, 2.0, 6.0))))
    assert log.seconds == 16.0
    assert charts.read_log(tmp_path / "absent").seconds == 0.0


def test_a_loss_that_is_not_finite_is_noted_and_not_drawn(tmp_path: Path) -> None:
    log = log_of(
        tmp_path, {"step": 1, "loss": 2.0}, '{"step": 2, "loss": NaN}', '{"step": 3, "loss": Infinity}'
    )
    html = charts.curves(log)
    assert "The loss was not a finite number 2 times." in html
    assert not re.search(r"\bnan\b|\binf\b", html)


def test_warnings_are_marked_in_every_chart_and_told_once(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 1.0, "lr": 0.1} for step in range(5)]
    log = log_of(tmp_path, *lines, *({"step": step, "warning": "collapse & <gone>"} for step in (1, 3)))
    html = charts.curves(log)
    assert html.count('<g class="mark">') == 4
    assert html.count("<b>Steps 1 to 3, 2 times</b> collapse &amp; &lt;gone&gt;</li>") == 1


def test_a_warning_shows_even_before_anything_else_is_logged(tmp_path: Path) -> None:
    assert "<b>Step 7</b> careful" in charts.curves(log_of(tmp_path, {"step": 7, "warning": "careful"}))


def test_each_kind_of_number_has_its_chart(tmp_path: Path) -> None:
    row = {
        "step": 1,
        "loss": 1,
        "loss/a": 1,
        "loss/b": 0,
        "lr": 1,
        "knn": 9,
        "rankme": 3,
        "spread": 1,
        "odd": 4,
    }
    row |= {"samples_per_second": 9, "momentum": 1, "seconds": 1, "epoch": 1}
    shown = charts.panels(log_of(tmp_path, row, {"step": 2, "loss": 1}))
    assert [panel.title for panel in shown] == [
        "Loss", "Online accuracy", "Effective rank", "Spread (0 is collapse)", "Learning rate", "Throughput",
        "Teacher momentum", "odd",
    ]  # fmt: skip
    assert list(shown[0].names.values()) == ["total", "a", "b"]


def test_a_single_branch_is_not_drawn_over_the_total(tmp_path: Path) -> None:
    assert charts.panels(log_of(tmp_path, {"step": 1, "loss": 1, "loss/a": 1}))[0].names == {"loss": "total"}


def test_noise_is_smoothed_and_the_raw_values_stay_visible(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(5, 1, 400)
    html = charts.curves(log_of(tmp_path, *({"step": step, "loss": loss} for step, loss in enumerate(noise))))
    raw, line = np.array(points(html, "raw"))[:, 1], np.array(points(html, "line"))[:, 1]
    assert line.std() < raw.std() / 2
    assert abs(line.mean() - raw.mean()) < 4


def test_a_schedule_is_drawn_as_it_was(tmp_path: Path) -> None:
    html = charts.curves(log_of(tmp_path, *({"step": step, "lr": float(step >= 50)} for step in range(100))))
    assert 'class="raw' not in html
    heights = {y for _, y in points(html, "line")}
    assert len(heights) == 2


def test_thinning_a_long_line_hides_no_spike(tmp_path: Path) -> None:
    losses = np.full(20_000, 1.0) + np.sin(np.arange(20_000)) / 10
    losses[12_345] = 50
    html = charts.curves(
        log_of(tmp_path, *({"step": step, "loss": loss} for step, loss in enumerate(losses)))
    )
    raw = points(html, "raw")
    assert len(raw) <= charts.POINTS
    assert min(y for _, y in raw) < charts.TOP
    assert len(html) < 40_000


def test_points_lie_where_the_axis_says(tmp_path: Path) -> None:
    html = charts.curves(
        log_of(tmp_path, {"step": 0, "knn": 20}, {"step": 50, "knn": 40}, {"step": 100, "knn": 60})
    )
    (x0, y0), (x1, y1), (x2, y2) = points(html, "line")
    assert (x0, x1, x2) == (charts.LEFT, (charts.LEFT + charts.RIGHT) / 2, charts.RIGHT)
    assert y0 > y1 > y2
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    grid = {
        label: float(y)
        for y, label in re.findall(r'class="grid" d="M\d+ ([\d.]+)H\d+"/><text[^>]*>(\d+)</text>', html)
    }
    assert grid["40"] == pytest.approx(y1, abs=0.1)


def test_one_step_is_enough_for_a_page(tmp_path: Path) -> None:
    html = charts.curves(log_of(tmp_path, {"step": 5, "loss": 0.0}))
    assert "NaN" not in html
    assert '"series":[[[5.0],[0.0]]]' in html


def test_bars_grow_from_zero_and_reach_as_far_as_asked() -> None:
    html = charts.bars("kNN", [("ours", 50.0, (40.0, 60.0)), ("theirs", 25.0, None)], full=100.0)
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="12"', html)]
    assert widths == [102.0, 51.0]
    assert html.count('class="whisker"') == 1
    assert 'aria-label="kNN: ours 50.0, theirs 25.0"' in html


def test_bars_of_negative_scores_stay_inside() -> None:
    html = charts.bars("R2", [("ours", 0.5, None), ("theirs", -0.5, None)])
    starts = [float(x) for x in re.findall(r'<rect[^>]* x="([\d.]+)"', html)]
    assert starts == [206.0, 104.0]
