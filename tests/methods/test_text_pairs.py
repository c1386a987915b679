"""Recipes for texts that belong together: published values, the loss, and that they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import polysense
from polysense.encoders.text import build_text
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.table import find
from polysense.modalities.base import View
from polysense.objectives import AnswerRanking

PUBLISHED: dict[str, dict[str, Any]] = {
    "mnrl": {"scale": 20.0, "both_ways": False},
    "simcse_supervised": {"temperature": 0.05},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    assert find(name).published == PUBLISHED[name]
    assert find(name).modalities == ("text_pair",)


def view(kind: str, width: int, seed: int, present: torch.Tensor | None = None) -> View:
    ids = torch.randint(5, 50, (6, width), generator=torch.Generator().manual_seed(seed))
    return View(
        {"ids": ids, "attended": torch.ones_like(ids, dtype=torch.bool)}, "text_pair", kind, present=present
    )


def method(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    encoder = build_text("text_nano", vocabulary=50, length=16, width=16, depth=1, heads=2)
    return find(name).build(encoder, "text_pair", **options).eval()


def test_the_loss_is_the_ranking_of_the_pooled_parts() -> None:
    present = torch.tensor([True, True, False, True, True, True])
    views = [view("a", 7, 0), view("b", 4, 1), view("c", 5, 2, present)]
    whole = method("simcse_supervised", temperature=0.1)
    tower = whole.towers["text_pair"]
    z = torch.stack([tower(each.data).pooled for each in views])
    there = torch.stack([torch.ones_like(present), torch.ones_like(present), present])
    torch.testing.assert_close(whole(views).loss, AnswerRanking(10.0)(z, there))
    identity = torch.tensor([0, 1, 2, 0, 4, 5])
    same = AnswerRanking(10.0)(z, there, identity)
    torch.testing.assert_close(whole(views, {"identity": identity}).loss, same)
    assert not torch.isclose(whole(views).loss, same)


def test_encoding_in_chunks_has_the_gradients_of_the_whole_batch() -> None:
    views = [view("a", 7, 0), view("b", 4, 1)]
    gradients = []
    for chunk in (None, 2):
        whole = method("mnrl", both_ways=True)
        whole.chunk = chunk
        whole(views).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in whole.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1])


def opposites() -> pd.DataFrame:
    """The answer says in other words what the premise says; the wrong answer says the opposite."""
    things = ["apple", "boat", "house", "bird", "lamp", "tree", "fish", "road"]
    words = {
        "big": ("large", "tiny"),
        "hot": ("warm", "icy"),
        "fast": ("quick", "slow"),
        "new": ("fresh", "ancient"),
    }
    rows = [
        (f"the {thing} is {word}", f"a {same} {thing}", f"a {other} {thing}")
        for thing in things
        for word, (same, other) in words.items()
    ]
    return pd.DataFrame(rows, columns=["premise", "entailment", "contradiction"])


def test_partners_are_found_after_training_and_the_run_is_a_text_encoder(tmp_path: Path) -> None:
    frame = opposites()
    run = polysense.pretrain(
        frame,
        method="mnrl",
        encoder="text_nano",
        encoder_options={"width": 32, "depth": 1, "heads": 2},
        modality_options={"parts": list(frame.columns), "text": {"length": 16, "vocabulary": 512}},
        lr=5e-3,
        batch_size=32,
        steps=25,
        out=tmp_path / "run",
        judge=False,
    )
    assert run is not None
    found = polysense.evaluate(run, frame)["results"]
    assert found["pretrained"]["recall_premise_to_entailment_at_1"] > 80
    assert found["untrained"]["recall_premise_to_entailment_at_1"] < 50
    assert found["chance"]["recall_premise_to_entailment_at_1"] == pytest.approx(100 / 32, abs=0.01)
    assert "bag of words" in found
    sides = [
        frame[["premise", side]].set_axis(["a", "b"], axis=1).assign(gold=gold)
        for side, gold in (("entailment", 1.0), ("contradiction", 0.0))
    ]
    scored = polysense.evaluate(run, pd.concat(sides), parts="a,b", score="gold")["results"]
    assert scored["pretrained"]["spearman"] > 70 > scored["untrained"]["spearman"]
    again = polysense.load(run.path)
    assert torch.equal(again.embed(["a big boat"]), run.embed(["a big boat"]))


def test_methods_for_views_of_one_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PolysenseError, match="simclr compares views of one text, not texts that belong together"
    ):
        polysense.pretrain(opposites(), modality="text_pair", method="simclr", out=tmp_path / "run", steps=1)
