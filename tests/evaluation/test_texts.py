"""Texts that belong together or are scored: recall, Spearman's correlation, alignment and uniformity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from polysense.errors import PolysenseError
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.sphere import alignment, mean_cosine, narrow, uniformity
from polysense.evaluation.text_tasks import text_task
from polysense.evaluation.texts import MatchedTexts, ScoredTexts, spearman
from polysense.modalities.pairs.texts import TextPairs
from polysense.modalities.text.modality import Text
from polysense.modalities.vision.modality import Vision


def test_alignment_and_uniformity_against_loops() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 7, 3, dtype=torch.float64)
    x, y = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    assert alignment(a, b) == pytest.approx(
        np.mean([float((p - q).norm() ** 2) for p, q in zip(x, y, strict=True)])
    )
    pairs = [float(torch.exp(-2 * (x[i] - x[j]).norm() ** 2)) for i in range(7) for j in range(i)]
    assert uniformity(a) == pytest.approx(np.log(np.mean(pairs)))
    cosines = [float(x[i] @ x[j]) for i in range(7) for j in range(i)]
    assert mean_cosine(a) == pytest.approx(np.mean(cosines))


def test_features_that_all_point_one_way_are_told() -> None:
    torch.manual_seed(0)
    spread = torch.randn(50, 8)
    assert narrow("pretrained", spread) == []
    (note,) = narrow("pretrained", spread + 5)
    assert "pretrained: different samples have a cosine of 0.9" in note


def test_spearmans_correlation_shares_the_ranks_of_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 40).astype(float), rng.normal(size=40)
    frame = pd.DataFrame({"a": a, "b": b})
    assert spearman(a, b) == pytest.approx(frame.rank().corr().loc["a", "b"])
    assert spearman(np.ones(3), b[:3]) == 0


def directions(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_scored_pairs_are_judged_by_the_order_of_their_cosines() -> None:
    frame = pd.DataFrame(
        {"s1": ["a", "b", "c", "d", "e"], "s2": ["f", "g", "h", None, "i"], "gold": [5.0, 3.0, 0.0, 2.0, 4.5]}
    )
    scored = ScoredTexts.of(frame, ["s1", "s2"], "gold")
    assert list(scored.texts) == ["a", "b", "c", "e", "f", "g", "h", "i"]
    right = directions(0, 0, 0, 0, 10, 60, 120, 30)
    wrong = directions(0, 0, 0, 0, 120, 30, 10, 60)
    judged = scored.judge({"right": right, "wrong": wrong}, Protocol())
    assert judged.results["right"]["spearman"] == pytest.approx(100)
    assert judged.results["wrong"]["spearman"] < 0
    assert judged.results["right"]["alignment"] == pytest.approx(
        alignment(right[[0, 3]], right[[4, 7]])  # the pairs with 5 and 4.5 of 5
    )
    low, high = judged.intervals["right"]["spearman"]
    assert low <= 100 <= high + 1e-6


def test_matched_texts_find_their_partners_or_do_not() -> None:
    frame = pd.DataFrame({"q": ["a", "b", "c"], "a": [["x", "y"], "z", "w"], "wrong": ["u", "v", "t"]})
    matched = MatchedTexts(TextPairs(["q", "a", "wrong"]).read(frame))
    assert list(matched.texts) == ["a", "b", "c", "x", "y", "z", "w"]  # wrong answers are not asked
    right = directions(0, 100, 200, 5, -5, 105, 205)
    judged = matched.judge({"right": right, "none": torch.ones(7, 2)}, Protocol())
    assert (
        judged.results["right"]["recall_q_to_a_at_1"] == judged.results["right"]["recall_a_to_q_at_1"] == 100
    )
    assert judged.results["none"]["recall_q_to_a_at_1"] == 0
    assert judged.results["chance"]["recall_a_to_q_at_1"] == pytest.approx(100 / 3)
    assert judged.results["right"]["alignment"] == pytest.approx(
        alignment(right[[0, 1, 2]], right[[3, 5, 6]])  # of several answers the first
    )
    assert any("none: different samples" in note for note in judged.notes)


def test_what_is_to_be_compared_is_told_by_names_or_found(
    caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    frame = pd.DataFrame(
        {"Sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "score": [1, 2, 3], "x": "t"}
    )
    frame.to_csv(tmp_path / "sts.csv", index=False)
    with caplog.at_level("INFO", "polysense"):
        found = text_task(Text(), str(tmp_path / "sts.csv"), [], None)
    assert isinstance(found, ScoredTexts)
    assert "'Sentence1' and 'sentence2' are compared, and with the scores in 'score'" in caplog.text
    assert isinstance(text_task(Text(), frame, ["x", "sentence2"], None), MatchedTexts)
    assert text_task(Text(), frame[["x"]], [], None) is None
    assert text_task(Text(), ["a", "b"], [], None) is None
    assert text_task(Vision(), frame, [], None) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda frame: text_task(Vision(), frame, ["a", "b"], None),
            "this one is on 'image'; leave out parts",
        ),
        (
            lambda frame: text_task(Text(), frame, [], "n"),
            "do not tell which two columns of texts 'n' is the",
        ),
        (lambda frame: text_task(Text(), frame, ["a", "z"], "n"), "unknown column 'z'"),
        (lambda frame: text_task(Text(), frame, ["a", "b"], "b"), "two columns of texts and one of numbers"),
        (lambda frame: text_task(Text(), frame.head(2), ["a", "b"], "n"), "three pairs or more"),
        (lambda frame: text_task(Text(), frame, ["a", "b"], "same"), "scores that differ"),
    ],
)
def test_what_does_not_fit_is_told(make: Any, message: str) -> None:
    frame = pd.DataFrame({"a": ["p", "q", "r"], "b": ["s", "t", "u"], "n": [1.0, 2.0, 3.0], "same": 1})
    with pytest.raises(PolysenseError, match=message):
        make(frame)
