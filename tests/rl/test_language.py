from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import polysense
from polysense.errors import PolysenseError
from polysense.rl.language import Sentences, bag_of_words, sentence_embedder
from polysense.rl.trajectories import Trajectories, Writer, read_trajectories
from tests.rl.toys import SIDE, counted

COLOURS = ["red", "green", "blue"]


def told_folder(folder: Path, episodes: int = 15) -> Path:
    """A square that moves to the place that its instruction names; the first episode has none."""
    about = {"shape": [1, SIDE, SIDE], "actions": None}
    with Writer(folder, about) as writer:
        for number in range(episodes):
            frames = np.zeros((6, 1, SIDE, SIDE), np.uint8)
            for t in range(6):
                frames[t, 0, 2 * t : 2 * t + 8, 10 * (number % 3) : 10 * (number % 3) + 8] = 255
            writer.append(frames, {"mission": f"go to {COLOURS[number % 3]}" if number else ""})
    return folder


def test_sentences_are_embedded_once_and_none_is_none() -> None:
    said = pd.Series(["b b", None, "a", " ", "b b"])
    sentences = Sentences.of(said, "bag_of_words")
    assert sentences is not None
    assert (sentences.texts, sentences.which.tolist()) == (["a", "b b"], [1, -1, 0, -1, 1])
    known = sentences.known(np.array([4, 1, 2]))
    assert known["instruction"].tolist() == [1, -1, 0]
    torch.testing.assert_close(known["sentence"][[0, 2]], bag_of_words(["b b", "a"]))
    assert not known["sentence"][1].any()
    assert Sentences.of(pd.Series([None, ""]), "bag_of_words") is None


def test_a_bag_of_words_counts_words_and_not_their_order() -> None:
    first, second, third = bag_of_words(["Open the door, the red one", "the red one: open the door", "jump"])
    torch.testing.assert_close(first, second)
    assert float(first @ third) == 0
    assert float(first.norm()) == pytest.approx(1)


def test_a_run_on_texts_embeds_missions(tmp_path: Path) -> None:
    texts = [f"go to {colour} {n}" for colour in COLOURS for n in range(6)]
    run = polysense.pretrain(
        texts, modality="text", method="simcse", out=tmp_path / "texts", batch_size=8, steps=2, judge=False
    )
    assert run is not None
    found = read_trajectories(told_folder(tmp_path / "frames"), text=str(tmp_path / "texts"))
    assert found.sentences is not None
    assert found.sentence_dim == run.encoder.dim
    torch.testing.assert_close(found.sentences.embeddings, run.embed(found.sentences.texts))
    assert read_trajectories(found).sentences is found.sentences  # as pretrain reads what is in memory


@pytest.mark.parametrize("method", ["r3m", "liv"])
def test_clips_with_instructions_train_a_run_that_is_judged_by_them(tmp_path: Path, method: str) -> None:
    run = polysense.pretrain(
        told_folder(tmp_path / "frames"),
        modality="state",
        method=method,
        out=tmp_path / "run",
        batch_size=16,
        steps=2,
        judge=False,
    )
    assert run is not None
    assert run.config["options"]["sentence_dim"] == 256
    steps = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert any("language" in name for step in steps for name in step)
    results = polysense.evaluate(run)["results"]
    assert results["PCA of pixels"]["recall_instruction_at_1"] == 100.0
    assert "recall_instruction_at_1" in results["pretrained"]


def test_without_instructions_liv_is_refused_and_r3m_goes_without(tmp_path: Path) -> None:
    silent = counted((6,) * 6)
    with pytest.raises(PolysenseError, match="learns from instructions, which the data do not tell"):
        polysense.pretrain(silent, modality="state", method="liv", out=tmp_path / "a", steps=1, batch_size=4)
    run = polysense.pretrain(
        silent, modality="state", method="r3m", out=tmp_path / "b", steps=1, batch_size=4, judge=False
    )
    assert run is not None
    assert run.config["options"]["sentence_dim"] == 0


@pytest.mark.parametrize(
    ("spec", "words"),
    [("nowhere", "no encoder of sentences 'nowhere'"), ("frames", "no encoder of sentences 'frames'")],
)
def test_what_embeds_no_sentences_is_told(spec: str, words: str) -> None:
    with pytest.raises(PolysenseError, match=words):
        sentence_embedder(spec)


def test_a_run_on_something_else_embeds_no_sentences(tmp_path: Path) -> None:
    polysense.pretrain(
        counted((6,) * 6),
        modality="state",
        method="vip",
        out=tmp_path / "run",
        steps=1,
        batch_size=4,
        judge=False,
    )
    with pytest.raises(PolysenseError, match="reads 'state', not texts"):
        sentence_embedder(str(tmp_path / "run"))


def test_trajectories_keep_their_sentences_and_label() -> None:
    seen = counted()
    table = seen.table.assign(mission="stay")
    found = read_trajectories(Trajectories(seen.frames, table, seen.about), label="mission")
    assert (found.label, found.sentence_dim, seen.sentence_dim) == ("mission", 256, 0)
