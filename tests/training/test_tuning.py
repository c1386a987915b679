"""Encoders that are trained in part, through the front door: what learns, what is kept, what resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

import polysense
from polysense.deployment.folder import read_weights
from polysense.deployment.joint_export import export_open_clip
from polysense.deployment.run import build_encoder
from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError
from polysense.training.module import Pretraining

pytest.importorskip("peft")
open_clip = pytest.importorskip("open_clip")

VIT: dict[str, Any] = {"encoder": "vit_nano", "encoder_options": {"depth": 2}}
SMALL: dict[str, Any] = {"batch_size": 8, "steps": 3, "lr": 1e-2, "judge": False, "accelerator": "cpu"}


def pictures() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)


def pretrain(out: Path, **options: Any) -> polysense.Run:
    run = polysense.pretrain(pictures(), out=out, **{**SMALL, **VIT, **options})
    assert run is not None
    return run


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pairs")
    for number, picture in enumerate(pictures()):
        Image.fromarray(picture).save(folder / f"{number}.png")
    rows = [{"image": f"{number}.png", "caption": f"picture {number}"} for number in range(24)]
    pd.DataFrame(rows).to_csv(folder / "pairs.csv", index=False)
    return str(folder / "pairs.csv")


def joint(data: str, out: Path, **options: Any) -> polysense.Run:
    how: dict[str, Any] = {"modality": "pair", "method": "clip", "encoder": "clip_nano", "size": 32}
    run = polysense.pretrain(data, out=out, **{**SMALL, **how, **options})
    assert run is not None
    return run


def first(run: polysense.Run) -> Encoder:
    """The encoder as it was drawn."""
    return build_encoder(run.config, run.modality)


def changed(run: polysense.Run) -> set[str]:
    """The names of the weights that training has moved."""
    before = first(run).state_dict()
    return {
        name for name, tensor in run.encoder.state_dict().items() if not torch.equal(tensor, before[name])
    }


def same(one: Path, other: Path) -> bool:
    a, b = read_weights(one), read_weights(other)
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


class KilledError(Exception):
    pass


def kill_in_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    whole = Pretraining.training_step

    def training_step(self: Pretraining, batch: Any, batch_idx: int) -> Tensor:
        if self.trainer.global_step == step:
            raise KilledError
        return whole(self, batch, batch_idx)

    monkeypatch.setattr(Pretraining, "training_step", training_step)


TAUGHT: dict[str, Any] = {"lora": 2, "method": "byol", "options": {"hidden": 32, "out": 16}}
TUNED: dict[str, dict[str, Any]] = {
    "lora and a teacher": TAUGHT,
    "all": {"freeze": "patch_embed,blocks.0.attn", "lora": 2, "layer_decay": 0.5},
}


@pytest.mark.parametrize("how", TUNED.values(), ids=TUNED)
def test_a_killed_run_finds_its_adapters_again(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pretrain(tmp_path / "whole", **how)
    with monkeypatch.context() as killing:
        kill_in_step(killing, 2)
        with pytest.raises(KilledError):
            pretrain(tmp_path / "cut", checkpoint_steps=1, **how)
    polysense.resume(tmp_path / "cut", data=pictures())
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert changed(run) <= {name for name in first(run).state_dict() if "weight" in name}
    assert all(parameter.requires_grad for parameter in run.encoder.parameters())
    torch.testing.assert_close(
        polysense.load(tmp_path / "cut").embed(pictures()[0]), run.embed(pictures()[0])
    )


def test_what_is_frozen_is_kept_as_it_was(tmp_path: Path) -> None:
    moved = changed(pretrain(tmp_path, freeze="pos_embed,blocks.0"))
    assert {name.removeprefix("trunk.").partition(".")[0] for name in moved} == {
        "cls_token",
        "patch_embed",
        "blocks",
        "norm",
    }
    assert not any(name.startswith("trunk.blocks.0.") for name in moved)


def test_a_frozen_tower_and_adapters_in_the_other(pairs: str, tmp_path: Path) -> None:
    run = joint(pairs, tmp_path / "run", freeze="image", lora=2)
    moved = changed(run)
    assert {name for name in moved if name.startswith("towers.")} <= {
        name for name in moved if name.startswith("towers.text.trunk.transformer.resblocks.")
    }
    assert {"heads.image.1.weight", "logit_scale"} <= moved
    words = ["picture 3", "picture 11"]
    export_open_clip(polysense.load(run.path), tmp_path / "exported")
    model = open_clip.create_model(f"local-dir:{tmp_path / 'exported'}").eval()
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'exported'}")(words)
    with torch.no_grad():
        theirs = model.encode_text(ids, normalize=True)
    torch.testing.assert_close(theirs, run.part("text").embed(words), rtol=0, atol=1e-5)


def test_lower_layers_move_less(tmp_path: Path) -> None:
    """The first step of SGD moves a weight by its rate times its gradient."""
    moves = []
    for name, decay in (("flat", 1.0), ("graded", 0.25)):
        run = pretrain(tmp_path / name, layer_decay=decay, optimiser="sgd", warmup=0.0, steps=1, clip=1e9)
        before = first(run).state_dict()
        moves.append({key: tensor - before[key] for key, tensor in run.encoder.state_dict().items()})
    flat, graded = moves
    for key, part in {"patch_embed.proj": 1 / 16, "blocks.0.mlp.fc1": 1 / 4, "blocks.1.mlp.fc1": 1}.items():
        name = f"trunk.{key}.weight"
        assert flat[name].abs().max() > 1e-6
        torch.testing.assert_close(graded[name], part * flat[name], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("how", [{}, TAUGHT])
def test_checkpointed_runs_are_the_same(how: dict[str, Any], tmp_path: Path) -> None:
    plain = pretrain(tmp_path / "plain", **how).encoder.state_dict()
    again = pretrain(tmp_path / "again", gradient_checkpointing=True, **how).encoder.state_dict()
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, msg=name)


def test_checkpointed_towers_are_the_same(pairs: str, tmp_path: Path) -> None:
    plain = joint(pairs, tmp_path / "plain", lora=2).encoder.state_dict()
    again = joint(pairs, tmp_path / "again", lora=2, gradient_checkpointing=True).encoder.state_dict()
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, msg=name)


def test_what_cannot_be_tuned_is_told_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match="SmallConvNet has no linear or attention layers"):
        pretrain(tmp_path / "run", lora=2, encoder="small", encoder_options={})
    with pytest.raises(PolysenseError, match="unknown part of the encoder to freeze 'imge'"):
        pretrain(tmp_path / "run", freeze="imge")
    assert not (tmp_path / "run").exists()
