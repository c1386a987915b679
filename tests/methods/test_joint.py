"""Joint recipes: which parts are matched, what is frozen, drawn, masked and learned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import polysense
from polysense.encoders.captioner import Captioner
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.scaling import Circumstances, scaled_options
from polysense.methods.table import find
from polysense.modalities.base import View, ViewPlan
from polysense.modalities.builtin import builtin
from polysense.modalities.pairs.modality import Paired
from tests.toys import CellEncoder, RowEncoder

PUBLISHED = {
    "clip": {"scale": 1 / 0.07},
    "align": {"temperature": 1.0, "label_smoothing": 0.1},
    "siglip": {"scale": 10.0, "bias": -10.0},
    "lit": {"locked": "image"},
    "slip": {"image_weight": 1.0, "temperature": 0.1, "hidden": 4096, "out": 256},
    "coca": {"caption_weight": 2.0, "contrast_weight": 1.0},
    "pair": {"hub": None},
    "clap": {"scale": 1 / 0.07},
}


def towers(*parts: str, captioner: bool = False) -> Towers:
    torch.manual_seed(0)
    writes = Captioner(32, vocabulary=11, length=8, width=16, depth=1, heads=2) if captioner else None
    return Towers({part: RowEncoder(4) for part in parts}, dim=8, captioner=writes)


def view(part: str, seed: int, present: Tensor | None = None, rows: int = 6) -> View:
    return View(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)), part, present=present)


def clip_loss(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """As the paper's pseudocode has it."""
    logits = scale * functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).T
    labels = torch.arange(len(a))
    return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2


def projected(encoder: Towers, view: View) -> Tensor:
    made: Tensor = encoder.heads[view.modality](encoder.towers[view.modality](view.data))
    return made


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    recipe = find(name)
    assert {option: recipe.published[option] for option in PUBLISHED[name]} == PUBLISHED[name]
    assert recipe.modalities == ("pair",)


def test_clip_is_the_papers() -> None:
    encoder, views = towers("image", "text"), [view("image", 1), view("text", 2)]
    method = find("clip").build(encoder, "pair")
    expected = clip_loss(*(projected(encoder, one) for one in views), 1 / 0.07)
    torch.testing.assert_close(method(views).loss, expected)


def test_clap_has_a_scale_for_either_way() -> None:
    encoder, views = towers("audio", "text"), [view("audio", 1), view("text", 2)]
    method = find("clap").build(encoder, "pair")
    scales = {name: branch.objective.logit_scale for name, branch in method.branches.items()}  # type: ignore[union-attr]
    assert scales["audio_to_text"] is encoder.logit_scale is not scales["text_to_audio"]
    with torch.no_grad():
        scales["audio_to_text"].fill_(math.log(5))
        scales["text_to_audio"].fill_(math.log(2))
    sounds, texts = (functional.normalize(projected(encoder, one), dim=1) for one in views)
    labels = torch.arange(len(sounds))
    of_sounds = functional.cross_entropy(5 * sounds @ texts.T, labels)
    of_texts = functional.cross_entropy(2 * texts @ sounds.T, labels)
    torch.testing.assert_close(method(views).loss, (of_sounds + of_texts) / 2)


def test_clap_joins_sounds_and_texts_where_no_part_is_named() -> None:
    assert find("clap").parts == ("audio", "text")
    assert find("clip").parts == ()


def test_align_divides_by_its_temperature_and_siglip_starts_at_its_bias() -> None:
    encoder = towers("image", "text")
    find("align").build(encoder, "pair", temperature=0.5)
    assert encoder.logit_scale.exp().item() == pytest.approx(2)
    find("siglip").build(encoder, "pair")
    assert (encoder.logit_scale.item(), encoder.logit_bias.item()) == (pytest.approx(math.log(10)), -10)


def test_siglips_bias_follows_the_batch() -> None:
    published = find("siglip").published
    assert scaled_options(published, Circumstances(batch=128)) == {"bias": -4.85}
    assert scaled_options(published, Circumstances(batch=32768)) == {}


def test_parameters_of_another_loss_are_not_in_the_method() -> None:
    encoder = towers("image", "text")
    inside = {id(parameter) for parameter in find("clip").build(encoder, "pair").parameters()}
    assert id(encoder.logit_scale) in inside
    assert id(encoder.logit_bias) not in inside  # distributed training waits for the gradient of all it has
    assert id(encoder.logit_bias) in {id(p) for p in find("siglip").build(encoder, "pair").parameters()}


def test_three_parts_make_three_matches_and_a_hub_two() -> None:
    encoder = towers("image", "text", "sound")
    views = [view(part, seed) for seed, part in enumerate(encoder.towers)]
    method = find("pair").build(encoder, "pair")
    assert set(method.branches) == {"image_text", "image_sound", "text_sound"}
    made = {one.modality: projected(encoder, one) for one in views}
    couples = [("image", "text"), ("image", "sound"), ("text", "sound")]
    expected = torch.stack([clip_loss(made[a], made[b], 1 / 0.07) for a, b in couples]).mean()
    torch.testing.assert_close(method(views).loss, expected)
    assert set(find("pair").build(encoder, "pair", hub="text").branches) == {"image_text", "text_sound"}
    with pytest.raises(PolysenseError, match="unknown part 'imgae'; did you mean 'image'"):
        find("pair").build(encoder, "pair", hub="imgae")


def test_samples_that_lack_a_part_take_no_part_in_its_matches() -> None:
    encoder = towers("image", "text", "sound").eval()
    there = torch.tensor([True, True, False, True, False, True])
    also = torch.tensor([True, False, True, True, True, True])
    views = [view("image", 1, there), view("text", 2), view("sound", 3, also)]
    outcome = find("pair").build(encoder, "pair").eval()(views)
    made = [projected(encoder, one) for one in views]
    expected = {
        "image_text": clip_loss(made[0][there], made[1][there], 1 / 0.07),
        "image_sound": clip_loss(made[0][there & also], made[2][there & also], 1 / 0.07),
    }
    for name, loss in expected.items():
        torch.testing.assert_close(outcome.parts[name], loss / 3)


def test_samples_of_one_thing_are_not_held_against_each_other() -> None:
    encoder = towers("image", "text").eval()
    method, views = find("clip").build(encoder, "pair").eval(), [view("image", 1), view("text", 1)]
    identity = torch.tensor([0, 0, 1, 2, 3, 4])
    a, b = (functional.normalize(projected(encoder, one), dim=1) for one in views)
    logits = a @ b.T / 0.07
    logits[0, 1] = logits[1, 0] = -1e9
    labels = torch.arange(6)
    expected = (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(method(views, {"identity": identity}).loss, expected)


def test_lit_leaves_the_locked_tower_and_its_statistics_alone() -> None:
    encoder = towers("image", "text")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    method = find("lit").build(encoder, "pair").train()
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.1)
    method([view("image", 1), view("text", 2)]).loss.backward()
    optimiser.step()
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("towers.image") for name in changed)
    assert any(name.startswith("towers.text") for name in changed)
    assert any(name.startswith("heads.image") for name in changed)
    assert "towers.text.trunk.1.running_mean" in changed


def test_slip_compares_the_later_views_before_the_projection() -> None:
    encoder = towers("image", "text")
    views = [view("image", 1), view("image", 2), view("image", 3), view("text", 4)]
    outcome = find("slip").build(encoder, "pair", hidden=16, out=8)(views)
    assert set(outcome.parts) == {"image_text", "image_alone"}
    other = [*views[:1], view("image", 5), view("image", 6), views[3]]
    again = find("slip").build(towers("image", "text"), "pair", hidden=16, out=8).eval()
    one, two = again(views), again(other)
    torch.testing.assert_close(one.parts["image_text"], two.parts["image_text"])
    assert not torch.allclose(one.parts["image_alone"], two.parts["image_alone"])
    missing = [View(v.data, v.modality, present=torch.ones(6, dtype=torch.bool)) for v in views]
    with pytest.raises(PolysenseError, match="every sample's views of 'image', which some samples lack"):
        again(missing)


def test_slip_sees_one_whole_and_two_altered_pictures() -> None:
    fitted = Paired(size=16)._plan_of(find("slip").views, "image")
    assert (fitted.globals_, fitted.strength) == (3, "strong")
    whole, *altered = fitted.options["image"]["views"]
    assert (whole["jitter"], whole["scale"]) == (0.0, (0.5, 1.0))
    assert [one["scale"] for one in altered] == [(0.08, 1.0)] * 2
    assert Paired(size=16)._plan_of(find("slip").views, "text").globals_ == 1


def coca_method() -> tuple[Towers, Method]:
    encoder = towers("image", "text", captioner=True)
    encoder.towers["image"] = CellEncoder(4)
    encoder.towers["text"] = Words()
    return encoder, find("coca").build(encoder, "pair")


class Words(RowEncoder):
    """Reads the ids of a text as if they were numbers."""

    def __init__(self) -> None:
        super().__init__(5)

    def forward(self, data: Any, mask: Tensor | None = None) -> Any:
        return super().forward(data["ids"].float())


def test_coca_predicts_each_word_that_is_there() -> None:
    encoder, method = coca_method()
    ids = torch.tensor([[1, 5, 6, 2, 0], [1, 7, 2, 0, 0], [1, 8, 9, 3, 2]])
    words = {"ids": ids, "attended": ids > 0}
    there = torch.tensor([True, True, False])
    pictures = view("image", 1, there, rows=3)
    outcome = method.eval()([pictures, View(words, "text")])
    assert encoder.captioner is not None
    logits = encoder.captioner(encoder.towers["image"](pictures.data), ids[:, :-1])
    asked = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    losses = [functional.cross_entropy(logits[i, t], ids[i, t + 1]) for i, t in asked]
    torch.testing.assert_close(outcome.parts["caption"], 2 * torch.stack(losses).mean())


def test_coca_asks_for_a_captioner() -> None:
    with pytest.raises(PolysenseError, match="coca writes captions, and there is no captioner behind these"):
        find("coca").build(towers("image", "text"), "pair")


def test_clip_finds_the_names_of_pictures_in_another_style(tmp_path: Path) -> None:
    emoji = builtin("emoji")
    emoji = emoji[emoji["subgroup"].isin(["face-smiling", "food-fruit", "animal-mammal", "heart"])]
    ours, theirs = (emoji[emoji["vendor"] == vendor] for vendor in ("noto", "twemoji"))
    run = polysense.pretrain(
        ours.reset_index(drop=True),
        method="clip",
        towers={"image": "small", "text": "text_nano"},
        reading={"columns": {"text": "name"}},
        modality_options={"parts": {"image": {"size": 16}, "text": {"length": 16, "vocabulary": 1024}}},
        out=tmp_path / "run",
        batch_size=48,
        steps=25,
        judge=False,
    )
    assert run is not None
    loaded = polysense.load(run.path)
    pictures = loaded.embed([{"image": image} for image in theirs["image"]])
    names = loaded.embed([{"text": name} for name in theirs["name"]])
    similarity = pictures @ names.T
    rank = (similarity > similarity.diag()[:, None]).sum(1)
    recall, chance = (rank < 5).float().mean().item(), 5 / len(theirs)
    assert recall > 4 * chance, (recall, chance)
    assert torch.equal(pictures, run.embed([{"image": image} for image in theirs["image"]]))


def test_views_of_clip_show_almost_all_of_a_picture() -> None:
    plan = find("clip").views
    assert isinstance(plan, ViewPlan)
    assert plan.globals_ == 1
    assert plan.options["image"] == {"scale": (0.9, 1.0), "flip": 0.0}
