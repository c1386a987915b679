"""Samples of several parts: collated, viewed, rebuilt, and given towers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.modalities import make, rebuild
from polysense.modalities.base import ViewPlan
from polysense.modalities.pairs.dataset import Pairs
from polysense.modalities.pairs.modality import Paired
from polysense.modalities.text.modality import Text
from polysense.modalities.vision.modality import Vision

WORDS = ["red", "green", "blue", "white", "black", "pink"]


def picture(value: int) -> Any:
    return np.full((10, 10, 3), value, np.uint8)


def pairs() -> Pairs:
    """Six pictures with a caption each."""
    images = Vision(size=8).read(np.stack([picture(i) for i in range(6)]))
    return Pairs.of({"image": images, "text": Text().read([f"the {word} one" for word in WORDS])})


def with_two_captions() -> Pairs:
    frame = pd.DataFrame(
        {"image": [picture(10), picture(20)], "text": [["the first", "number one"], ["second"]]}
    )
    return Paired(size=8).read(frame)


@pytest.fixture
def paired() -> Paired:
    return Paired(size=8).fit(pairs())


def test_views_are_those_of_the_parts_under_the_parts_names(paired: Paired) -> None:
    plan = ViewPlan(parts={"image": ViewPlan(globals_=3)}, globals_=1)
    fitted = paired.fit(pairs(), plan)
    views = fitted.views(fitted.collate(pairs().__getitems__([0, 3])))
    assert [view.modality for view in views] == ["image"] * 3 + ["text"]
    assert views[0].data.shape == (2, 3, 8, 8)
    assert fitted.show(views[3]).tolist() == ["the red one", "the white one"]


def test_view_settings_are_given_by_part(paired: Paired) -> None:
    plan = ViewPlan(
        1, options={"image": {"flip": 0.5}, "pair": {"image": {"flip": 0.0, "scale": (1.0, 1.0)}}}
    )
    settings = paired.fit(pairs(), plan).part("image").settings()["plan"]
    assert settings["options"] == {"flip": 0.0, "scale": [1.0, 1.0]}
    with pytest.raises(PolysenseError, match="unknown part with view settings 'imgae'; did you mean 'image'"):
        paired.fit(pairs(), ViewPlan(options={"pair": {"imgae": {}}}))


def test_of_several_captions_one_is_drawn_for_each_step() -> None:
    data = with_two_captions()
    fitted = Paired(size=8).fit(data, ViewPlan(globals_=1))
    batch = fitted.collate(data.__getitems__([1, 0, 0]))
    torch.manual_seed(0)
    drawn = [tuple(fitted.show(fitted.views(batch)[1])) for _ in range(60)]
    assert {first for first, _, _ in drawn} == {"second"}
    assert {second for _, second, _ in drawn} == {"the first", "number one"}
    assert 0.3 < np.mean([second == "the first" for _, second, _ in drawn]) < 0.7
    assert any(second != third for _, second, third in drawn)
    words = fitted.part("text").show(fitted.part("text").plain(fitted.batch_of(batch, "text")))
    assert words.tolist() == ["second", "the first", "the first"]


def test_a_missing_part_is_marked_and_its_place_kept() -> None:
    images = Vision(size=8).read(picture(9)[None])
    texts = Text().read(["one", "two"])
    data = Pairs.of({"image": images, "text": texts}, {"image": [False, True]})
    fitted = Paired(size=8).fit(data, ViewPlan(globals_=1))
    image, text = fitted.views(fitted.collate(data.__getitems__([0, 1])))
    assert image.present is not None
    assert image.present.tolist() == [False, True]
    assert len(image.data) == 2
    assert text.present is None
    raw = fitted.raw(fitted.collate(data.__getitems__([0, 1])))
    assert not raw[0, : 3 * 64].any()
    assert raw[0, 3 * 64 :].any()


def test_it_is_rebuilt_from_settings_and_attachments(paired: Paired) -> None:
    assert list(paired.attachments()) == ["text.tokenizer.json"]
    again = rebuild("pair", paired.settings(), paired.attachments())
    batch = paired.collate(pairs().__getitems__([0, 1]))
    first, second = paired.plain(batch).data, again.plain(batch).data
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {"image", "text/ids", "text/attended"} == set(first)


def test_samples_in_memory_may_lack_parts(paired: Paired) -> None:
    torch.manual_seed(0)
    towers = paired.encoder("small+text_nano", dim=16).eval()
    both = [{"image": picture(200), "text": "the red one"}]
    alone = [{"image": picture(200)}, {"text": "the red one"}]
    image, text = towers(paired.plain(paired.batch(alone)).data).pooled
    together = towers(paired.plain(paired.batch(both)).data).pooled[0]
    torch.testing.assert_close(image, towers(paired.plain(paired.batch(alone[:1])).data).pooled[0])
    torch.testing.assert_close(together, nn.functional.normalize(image + text, dim=0))
    with pytest.raises(PolysenseError, match="sample 1 of the list is a str; give a mapping from parts"):
        paired.batch([both[0], "red"])
    with pytest.raises(PolysenseError, match="unknown part 'txt'; did you mean 'text'"):
        paired.batch([{"txt": "red"}])


def test_parts_may_be_of_one_modality_under_different_names() -> None:
    paired = make(
        "pair", {"parts": {"photo": {"modality": "image", "size": 8}, "sketch": {"modality": "image"}}}
    )
    assert paired.default_encoder == "small+small"
    assert [part.settings()["size"] for part in paired.parts.values()] == [8, 32]  # type: ignore[attr-defined]


def test_encoders_by_part_or_in_order(paired: Paired) -> None:
    torch.manual_seed(0)
    towers = paired.encoder({"text": "text_nano"}, dim=16, image={"pool": 1})
    assert isinstance(towers, Towers)
    assert (towers.towers["image"].dim, towers.towers["text"].dim, towers.dim) == (64, 128, 16)
    writing = paired.encoder("small+text_nano+captioner", captioner={"width": 32})
    assert isinstance(writing, Towers)
    assert writing.captioner is not None
    assert writing.captioner.words.weight.shape == (paired.part("text").tokenizer.size, 32)  # type: ignore[attr-defined]
    assert paired.encoder(towers) is towers


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("small", {}, "'small' does not name an encoder for each of the parts image, text"),
        (nn.Linear(1, 1), {}, "the module Linear does not name an encoder for each"),
        ({"img": "small"}, {}, "unknown part with an encoder 'img'; did you mean 'image'"),
        ("small+text_nano", {"words": {}}, "unknown part with encoder options 'words'"),
        ("small+text_nan", {}, "unknown encoder 'text_nan'"),
        ("small+text_nano", {"dim": 0}, "a shared space of 0 dimensions holds nothing"),
    ],
)
def test_towers_that_there_are_not(paired: Paired, spec: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        paired.encoder(spec, **options)


def test_parts_that_there_cannot_be() -> None:
    with pytest.raises(PolysenseError, match="a pair has two parts or more"):
        Paired({"image": {}})
    with pytest.raises(PolysenseError, match="'a/b' cannot be the name of a part"):
        Paired({"a/b": Vision(), "text": {}})
    with pytest.raises(PolysenseError, match="unknown modality 'imag'; did you mean 'image'"):
        Paired({"imag": {}, "text": {}})
    with pytest.raises(PolysenseError, match="the data have the parts"):
        Paired({"photo": {"modality": "image"}, "text": {}}).read(pairs())
