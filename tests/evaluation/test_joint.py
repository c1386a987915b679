"""Do parts find each other, and classes by their names: on towers of which the right answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.evaluation.joint import CHANCE, class_vectors, judge_joint
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.verdict import verdict
from polysense.modalities.pairs.dataset import Members, Pairs
from polysense.modalities.pairs.modality import Paired
from polysense.modalities.text.modality import Text
from polysense.modalities.vision.modality import Vision

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


class MeanColour(Encoder):
    """The mean of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.trunk = 3, nn.Identity()

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        return Encoded(data.mean((2, 3)))


class ColourWords(Encoder):
    """The colour that a text names, however it goes on."""

    def __init__(self, text: Text, colours: dict[str, tuple[int, int, int]]) -> None:
        super().__init__()
        self.dim, self.trunk = 3, nn.Identity()
        table = torch.zeros(text.tokenizer.size, 3)
        for name, colour in colours.items():
            for token in text.tokenizer.encode([name], 8)[0][0].tolist():
                if token not in text.tokenizer.special:
                    table[token] = torch.tensor(colour) / 255
        self.table = nn.Parameter(table)

    def forward(self, data: Any, mask: Tensor | None = None) -> Encoded:
        return Encoded(self.table[data["ids"]].sum(1))


class Pooled(nn.Module):
    def forward(self, encoded: Encoded) -> Tensor:
        return encoded.pooled


@pytest.fixture(scope="module")
def stage() -> tuple[Paired, Pairs, Towers]:
    names = list(COLOURS)
    pictures = np.stack([np.full((8, 8, 3), COLOURS[name], np.uint8) for name in names])
    image, text = Vision(size=8), Text(length=8, tokenizer="wordpiece", vocabulary=512)
    texts = text.read(names * 3)
    text = text.fit(texts)
    pairs = Pairs.of({"image": image.read(pictures), "text": text.read(names)})
    pairs.table["colour"], pairs.label = names, "colour"
    paired = Paired({"image": image, "text": text})
    heads = {"image": Pooled(), "text": Pooled()}
    return paired, pairs, Towers({"image": MeanColour(), "text": ColourWords(text, COLOURS)}, heads, dim=3)


def test_right_towers_find_everything(stage: tuple[Paired, Pairs, Towers]) -> None:
    modality, pairs, towers = stage
    found = judge_joint({"pretrained": towers}, modality, pairs)
    assert found.results["pretrained"]["recall_image_to_text_at_1"] == 100
    assert found.results["pretrained"]["recall_text_to_image_at_1"] == 100
    assert found.results["pretrained"]["zeroshot_image"] == 100
    assert found.results[CHANCE] == {
        **{
            f"recall_{way}_at_{k}": min(100.0, 25.0 * k) if k == 1 else pytest.approx(100 * (1 - 0.75**k))
            for way in ("image_to_text", "text_to_image")
            for k in (1, 5, 10)
        },
        "zeroshot_image": 25.0,
    }


def test_words_for_other_colours_find_the_wrong_pictures(stage: tuple[Paired, Pairs, Towers]) -> None:
    modality, pairs, _ = stage
    names = list(COLOURS)
    turned = dict(zip(names, [COLOURS[name] for name in names[1:] + names[:1]], strict=True))
    text = modality.part("text")
    assert isinstance(text, Text)
    heads = {"image": Pooled(), "text": Pooled()}
    wrong = Towers({"image": MeanColour(), "text": ColourWords(text, turned)}, heads, dim=3)
    found = judge_joint({"pretrained": wrong}, modality, pairs).results["pretrained"]
    assert (
        found["recall_image_to_text_at_1"]
        == found["recall_text_to_image_at_1"]
        == found["zeroshot_image"]
        == 0
    )


def test_samples_of_one_identity_answer_for_each_other(stage: tuple[Paired, Pairs, Towers]) -> None:
    modality, pairs, towers = stage
    same = Pairs(pairs.parts, pairs.members, pairs.table.assign(thing=["a", "a", "b", "c"]), identity="thing")
    chance = judge_joint({"pretrained": towers}, modality, same).results[CHANCE]
    assert chance["recall_image_to_text_at_1"] == pytest.approx(100 * (2 * 0.5 + 2 * 0.25) / 4)


def test_each_language_is_judged_among_its_own(stage: tuple[Paired, Pairs, Towers]) -> None:
    modality, _, towers = stage
    names = list(COLOURS)
    english, wrong = [f"{name} {name}" for name in names], names[1:] + names[:1]
    frame = pd.DataFrame(
        {
            "image": [np.full((8, 8, 3), COLOURS[name], np.uint8) for name in names],
            "text": [list(both) for both in zip(english, wrong, strict=True)],
        }
    )
    read = modality.read(frame)
    read.parts["text"].table["language"] = ["en", "xx"] * 4
    read.table["colour"], read.label = names, "colour"
    found = judge_joint({"pretrained": towers}, modality, read)
    own = found.results["pretrained"]
    for way in ("image_to_text", "text_to_image"):
        assert own[f"recall_{way}_at_1_in_en"] == 100
        assert own[f"recall_{way}_at_1_in_xx"] == 0
        assert found.results[CHANCE][f"recall_{way}_at_1_in_xx"] == 25
    assert own["recall_text_to_image_at_1"] == 50
    assert own["zeroshot_image_in_en"] == 100
    assert found.results[CHANCE]["zeroshot_image_in_xx"] == 25
    assert found.intervals["pretrained"]["recall_text_to_image_at_1"] == (12.5, 87.5)
    assert "en 4, xx 4" in found.notes[1]


def test_rows_of_no_sample_neither_ask_nor_answer(stage: tuple[Paired, Pairs, Towers]) -> None:
    modality, pairs, towers = stage
    whole = judge_joint({"pretrained": towers}, modality, pairs)
    members = {part: Members(of.rows[:3], of.starts[:4]) for part, of in pairs.members.items()}
    fewer = Pairs(pairs.parts, members, pairs.table.iloc[:3], "colour")
    found = judge_joint({"pretrained": towers}, modality, fewer)
    assert found.results["pretrained"] == whole.results["pretrained"]
    assert found.results[CHANCE]["recall_image_to_text_at_1"] == pytest.approx(100 / 3)
    assert found.results[CHANCE]["recall_text_to_image_at_5"] == pytest.approx(100 * (1 - (2 / 3) ** 5))


def test_the_verdict_takes_pairs_by_itself(stage: tuple[Paired, Pairs, Towers]) -> None:
    modality, pairs, towers = stage
    _, content = verdict({"pretrained": towers}, modality, pairs, Protocol())
    assert content["results"]["pretrained"]["recall_image_to_text_at_1"] == 100
    assert "trained on" in content["notes"][0]


def test_a_class_is_the_mean_of_its_prompts() -> None:
    said: list[str] = []

    def embed(texts: list[str]) -> Tensor:
        said.extend(texts)
        return torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [4.0, 0.0]])

    vectors = class_vectors(embed, ["Golden_Retriever", "cat"], ["{}", "a {}"])
    assert said == ["golden retriever", "a golden retriever", "cat", "a cat"]
    assert torch.allclose(vectors, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ("classes", "templates", "said"),
    [
        (["cat"], ["{}"], "two or more different names"),
        (["cat", "Cat"], ["{}"], "two or more different names"),
        (["cat", "dog"], ["a picture"], r"no single \{\}"),
        (["cat", "dog"], ["{} or {}"], r"no single \{\}"),
    ],
)
def test_what_is_refused(classes: list[str], templates: list[str], said: str) -> None:
    with pytest.raises(PolysenseError, match=said):
        class_vectors(lambda texts: torch.ones(len(texts), 2), classes, templates)
