"""Towers that are trained in part: frozen, by low-rank adapters, with rates by layer, in less memory."""

from __future__ import annotations

import builtins
import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polysense.encoders import build
from polysense.encoders.adapters import (
    Tuning,
    checkpoint_blocks,
    freeze,
    layerwise_rates,
    merge_lora,
    with_lora,
)
from polysense.encoders.base import Encoder
from polysense.encoders.clip import Clip
from polysense.encoders.clip_models import clip_towers
from polysense.encoders.module import ModuleEncoder
from polysense.encoders.text import build_text
from polysense.errors import PolysenseError
from polysense.methods.optimisation import Optimisation
from polysense.training.optimisers import apply_schedule, make_optimiser

pytest.importorskip("peft")
pytest.importorskip("open_clip")


def pictures() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def texts() -> dict[str, Tensor]:
    ids = torch.tensor([[2, 17, 8, 3], [2, 5, 3, 0], [2, 9, 10, 3], [2, 7, 3, 0]])
    return {"ids": ids, "attended": ids != 0}


def clip(name: str = "clip_nano") -> Clip:
    torch.manual_seed(0)
    return clip_towers(name, vocabulary=64, length=8, pad=0, end=3)


def vit() -> Encoder:
    torch.manual_seed(0)
    return build("vit_nano", size=32, depth=2)


def text_tower() -> Encoder:
    torch.manual_seed(0)
    return build_text("text_nano", vocabulary=64, length=8, depth=2, dropout=0.0)


def bert() -> Encoder:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=64, **shape, **still))
    return build_text(model, vocabulary=64, length=8)


CASES: dict[str, Callable[[], tuple[Encoder, Any]]] = {
    "open_clip's picture tower": lambda: (clip().image, pictures()),
    "open_clip's text tower": lambda: (clip().text, texts()),
    "SigLIP's picture tower": lambda: (clip("siglip_nano").image, pictures()),
    "a ViT of timm": lambda: (vit(), pictures()),
    "a model of transformers": lambda: (bert(), texts()),
    "a text transformer": lambda: (text_tower(), texts()),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def learn(tower: Encoder, data: Any, steps: int = 3) -> None:
    trained = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        tower(data).pooled.square().mean().backward()
        optimiser.step()


@cases
def test_lora_starts_where_the_tower_is_and_leaves_plain_weights(case: Callable[[], Any]) -> None:
    tower, data = case()
    plain, before = {k: v.clone() for k, v in tower.state_dict().items()}, tower(data).pooled.detach()
    with_lora(tower, rank=4)
    torch.testing.assert_close(tower(data).pooled, before)
    trained = {name for name, parameter in tower.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert sum(tower.get_parameter(name).numel() for name in trained) < 0.2 * sum(
        tensor.numel() for tensor in plain.values()
    )
    learn(tower, data)
    learned = tower(data).pooled.detach()
    assert (learned - before).abs().max() > 1e-2
    merge_lora(tower)
    torch.testing.assert_close(tower(data).pooled, learned, rtol=1e-4, atol=1e-5)
    state = tower.state_dict()
    assert state.keys() == plain.keys()
    change = state["trunk." + _first_matrix(state)] - plain["trunk." + _first_matrix(state)]
    assert torch.linalg.matrix_rank(change, atol=1e-4) == 4
    fresh, _ = case()
    fresh.load_state_dict(state)  # without peft
    torch.testing.assert_close(fresh(data).pooled, learned, rtol=1e-4, atol=1e-5)


def _first_matrix(state: dict[str, Tensor]) -> str:
    return next(
        name.removeprefix("trunk.")
        for name in state
        if re.search(r"(blocks\.0\.mlp\.(c_fc|fc1|0)|layer\.0\.intermediate\.dense)\.weight", name)
    )


def test_a_resumed_run_finds_its_adapters() -> None:
    tower = with_lora(clip().image)
    learn(tower, pictures(), steps=1)
    again = with_lora(clip().image)
    again.load_state_dict(tower.state_dict())
    torch.testing.assert_close(again(pictures()).pooled, tower(pictures()).pooled)


def test_merging_without_adapters_changes_nothing() -> None:
    towers = clip()
    before = {name: tensor.clone() for name, tensor in towers.state_dict().items()}
    merge_lora(towers)
    assert all(torch.equal(tensor, before[name]) for name, tensor in towers.state_dict().items())


def test_wrong_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolysenseError, match="rank 0 change nothing; give 1 or more"):
        with_lora(clip().image, rank=0)
    with pytest.raises(
        PolysenseError, match="SmallConvNet has no linear or attention layers to put low-rank"
    ):
        with_lora(build("small", size=32))
    found = builtins.__import__

    def without_peft(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "peft":
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.delitem(__import__("sys").modules, "peft")
    monkeypatch.setattr(builtins, "__import__", without_peft)
    monkeypatch.setattr("importlib.import_module", without_peft)
    with pytest.raises(PolysenseError, match=re.escape("pip install 'polysense[peft]'")):
        with_lora(clip().image)


def test_what_is_frozen_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 8, 3))
    frozen, other = ModuleEncoder(net, dim=8), ModuleEncoder(nn.Conv2d(3, 8, 3), dim=8)
    freeze(frozen)
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    method = nn.ModuleDict({"left": frozen, "right": other}).train()
    one, two = frozen(pictures()).pooled, frozen(pictures()).pooled
    torch.testing.assert_close(one, two)  # no dropout
    assert not one.requires_grad
    assert method["right"].training
    optimiser = make_optimiser(method, Optimisation("adamw", lr=0.1, weight_decay=0.1), 256)
    (other(pictures()).pooled - one).square().mean().backward()
    optimiser.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.state_dict().items())


def test_a_part_is_frozen_in_the_teachers_copy_too() -> None:
    tower = ModuleEncoder(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)), dim=8)
    Tuning(freeze=["1"]).apply(tower)
    copied = copy.deepcopy(tower).train()
    assert [part.training for part in copied.trunk] == [True, False, True]  # type: ignore[union-attr]


def test_of_towers_each_that_learns_is_tuned() -> None:
    towers = clip()
    Tuning(freeze=["image"], lora=2, layer_decay=0.5, gradient_checkpointing=True).apply(towers)
    learning = {name for name, parameter in towers.named_parameters() if parameter.requires_grad}
    of_text = {name for name in learning if name.startswith("towers.text.")}
    assert all("lora_" in name for name in of_text)
    assert learning - of_text == {"heads.image.1.weight", "heads.text.1.weight", "logit_scale", "logit_bias"}
    scales = {getattr(towers.get_parameter(name), "lr_scale", 1.0) for name in of_text}
    assert scales == {0.5, 1.0}
    assert towers.text.trunk.transformer.grad_checkpointing
    assert not towers.image.trunk.transformer.grad_checkpointing


def test_adapters_beside_all_that_learns_and_nothing_frozen() -> None:
    tower = build("vit_nano", size=32, depth=2)
    Tuning(freeze=["blocks.0.attn", "pos_embed"], lora=2).apply(tower)
    adapted = {
        name.partition(".lora_A")[0] for name, _ in tower.trunk.named_parameters() if ".lora_A" in name
    }
    mlps = {f"blocks.{block}.mlp.{layer}" for block in (0, 1) for layer in ("fc1", "fc2")}
    assert adapted == mlps | {"blocks.1.attn.qkv", "blocks.1.attn.proj"}


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (
            Tuning(freeze=["block.0"]),
            "unknown part of the encoder to freeze 'block.0'; did you mean 'blocks.0'",
        ),
        (
            Tuning(freeze=["patch_embed", "blocks", "norm", "pos_embed", "cls_token"]),
            "without patch_embed, blocks, norm, pos_embed, cls_token nothing of the encoder learns",
        ),
    ],
)
def test_wrong_tuning(tuning: Tuning, message: str) -> None:
    with pytest.raises(PolysenseError, match=re.escape(message)):
        tuning.apply(vit())


@cases
def test_checkpointing_gives_the_same_gradients(case: Callable[[], Any]) -> None:
    gradients = []
    for checkpointed in (False, True):
        tower, data = case()
        if checkpointed:
            checkpoint_blocks(tower)
        tower.train()(data).pooled.square().mean().backward()
        gradients.append({n: p.grad for n, p in tower.named_parameters() if p.grad is not None})
    plain, again = gradients
    assert plain.keys() == again.keys()
    assert all(torch.allclose(plain[name], again[name], atol=1e-7) for name in plain)


def test_what_offers_no_checkpointing() -> None:
    with pytest.raises(PolysenseError, match="the encoder Conv2d is no stack of equal blocks; choose"):
        checkpoint_blocks(ModuleEncoder(nn.Conv2d(3, 8, 3), dim=8))
    with pytest.raises(PolysenseError, match="DLA offers no gradient checkpointing; choose another encoder"):
        checkpoint_blocks(build("dla46_c", size=32))


def test_lower_layers_learn_the_slower() -> None:
    towers = clip()
    layerwise_rates(towers.text, 0.5)
    scales = {name: p.lr_scale for name, p in towers.text.trunk.named_parameters()}  # type: ignore[attr-defined]
    assert scales["token_embedding.weight"] == scales["positional_embedding"] == 0.25
    assert scales["transformer.resblocks.0.mlp.c_fc.bias"] == 0.5
    assert scales["transformer.resblocks.1.ln_1.weight"] == scales["ln_final.weight"] == 1.0


def test_the_optimiser_follows_the_layers_rates_on_its_schedule() -> None:
    towers = clip()
    layerwise_rates(towers.text, 0.5)
    how = Optimisation("adamw", lr=0.1, weight_decay=0.3, warmup=0.5)
    optimiser = make_optimiser(towers, how, 256)
    for progress, rate in ((0.25, 0.05), (0.5, 0.1), (0.75, 0.05)):
        assert apply_schedule(optimiser, how, 256, progress) == pytest.approx(rate)
        found = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
        assert found[id(towers.text.trunk.token_embedding.weight)] == pytest.approx(0.25 * rate)
        assert found[id(towers.text.trunk.ln_final.bias)] == pytest.approx(rate)
        assert found[id(towers.logit_scale)] == pytest.approx(rate)
    assert len(found) == len(list(towers.parameters()))


def test_what_does_not_decay() -> None:
    """Biases, norms, logit scale and bias, and the class token; also where rates differ by layer."""
    towers = clip()
    layerwise_rates(towers.image, 0.9)
    optimiser = make_optimiser(towers, Optimisation("adamw", lr=0.1, weight_decay=0.3), 256)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    spared = {name for name, parameter in towers.named_parameters() if decay[id(parameter)] == 0.0}
    kinds = {re.sub(r".*\.(?=\w+\.\w+$)|\d+", "", name) for name in spared}
    assert {"logit_scale", "logit_bias", "ln_final.weight", "ln_post.bias", "c_fc.bias"} <= kinds
    for name, parameter in towers.named_parameters():
        matrix = parameter.ndim > 1
        assert decay[id(parameter)] == (0.3 if matrix else 0.0), name


@pytest.mark.parametrize(
    ("tower", "decay", "message"),
    [
        (lambda: build("vit_nano", size=32), 0.0, "rates decay by 0.0 from layer to layer; choose a number"),
        (lambda: build("vit_nano", size=32), 1.1, "choose a number above 0, up to 1"),
        (lambda: build("resnet18", size=32), 0.9, "the encoder ResNet is no stack of equal blocks"),
    ],
)
def test_wrong_rates(tower: Callable[[], Encoder], decay: float, message: str) -> None:
    with pytest.raises(PolysenseError, match=re.escape(message)):
        layerwise_rates(tower(), decay)
