from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import trim_mean

from polysense.errors import PolysenseError
from polysense.rl import Curve, draw_curves, learning_curve
from polysense.rl.curves import interquartile_mean


@pytest.mark.parametrize("seeds", [1, 4, 5, 10])
def test_the_interquartile_mean_is_rliables(seeds: int) -> None:
    returns = np.random.default_rng(0).normal(size=(seeds, 6))
    np.testing.assert_allclose(interquartile_mean(returns), trim_mean(returns, 0.25, axis=0))


def test_the_interval_holds_what_bootstrapping_seeds_gives() -> None:
    returns = np.random.default_rng(1).normal(size=(5, 2))
    low, high = Curve([1, 2], returns).interval()
    rng = np.random.default_rng(9)
    means = [trim_mean(returns[rng.integers(5, size=5)], 0.25, axis=0) for _ in range(1000)]
    np.testing.assert_allclose(low, np.quantile(means, 0.025, axis=0), atol=0.15)
    np.testing.assert_allclose(high, np.quantile(means, 0.975, axis=0), atol=0.15)
    again, _ = Curve([1, 2], returns).interval()
    np.testing.assert_array_equal(low, again)
    assert Curve([1, 2], returns).final()["low"] == low[-1]


def test_a_curve_looks_back_over_the_last_episodes() -> None:
    episodes = [(10 * n, float(n)) for n in range(1, 6)]
    found = learning_curve(episodes, [5, 10, 35, 100], window=2)
    np.testing.assert_array_equal(found, [np.nan, 1.0, 2.5, 4.5])


def test_the_picture_has_a_line_a_band_and_a_name_for_each(tmp_path: Path) -> None:
    curves = {
        "PCA <64>": Curve([100, 200, 300], [[np.nan, 20, 40], [np.nan, 30, 60]]),
        "untrained": Curve([100, 200, 300], [[10, 20, 41], [12, 22, 59]]),
    }
    path = draw_curves(curves, tmp_path / "curves.svg", title="CartPole", ylabel="return")
    picture = ElementTree.parse(path).getroot()
    tags = [each.tag.split("}")[1] for each in picture.iter()]
    assert tags.count("polyline") == tags.count("polygon") == 2
    texts = {each.text: float(each.get("y") or 0) for each in picture.iter() if each.tag.endswith("text")}
    assert {"CartPole", "PCA <64> 50", "untrained 50"} <= set(texts)
    assert abs(texts["PCA <64> 50"] - texts["untrained 50"]) >= 15  # side by side they could not be read
    for line in (each for each in picture.iter() if each.tag.endswith("polyline")):
        assert "nan" not in (line.get("points") or "")


def test_bad_input_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match=r"returns \[seeds, points\] .* not \[3\] for \[3\]"):
        Curve([1, 2, 3], [1.0, 2.0, 3.0])
    with pytest.raises(PolysenseError, match="1 to 8 curves, not 0"):
        draw_curves({}, tmp_path / "none.svg")
