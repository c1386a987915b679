"""Learning from an encoder that has learned elsewhere, by its name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

import polysense
from polysense.encoders import build, foreign
from polysense.encoders.base import Encoder
from polysense.encoders.foreign import Translated
from polysense.encoders.module import ModuleEncoder
from polysense.errors import PolysenseError
from polysense.methods.table import find
from polysense.modalities.base import View
from polysense.modalities.vision.modality import Vision
from polysense.teachers import trained
from polysense.training.checkpoints import Checkpoints
from tests.toys import RowEncoder, ToyTable

VISION = Vision(size=16, mean=[0.2, 0.3, 0.4], std=[0.5, 0.5, 0.5])
PICTURES = np.random.default_rng(0).integers(0, 255, (48, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    polysense.pretrain(PICTURES, size=24, batch_size=16, steps=3, judge=False, accelerator="cpu", out=folder)
    return folder


def distil(out: Path, teacher: Any, **more: Any) -> Any:
    return polysense.pretrain(
        PICTURES, method="distill", size=16, batch_size=16, steps=6, checkpoint_steps=2, judge=False,
        accelerator="cpu", out=out, options={"teacher": teacher, "hidden": 16, **more},
    )  # fmt: skip


def test_a_run_teaches_another_whose_config_names_it(teacher_run: Path, tmp_path: Path) -> None:
    run = distil(tmp_path, str(teacher_run))
    assert run.config["options"]["teacher"] == str(teacher_run)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["options"]["teacher"] == str(teacher_run)
    assert not any("teacher" in name for name in load_file(tmp_path / "weights.safetensors"))


def test_a_runs_encoder_reads_pictures_as_that_run_did(teacher_run: Path) -> None:
    original = polysense.load(teacher_run)
    batch = VISION.batch(list(PICTURES[:4]))
    taught = trained(str(teacher_run), VISION).eval()
    pictures = VISION.plain(batch).data
    assert isinstance(pictures, Tensor)
    raw = pictures * 0.5 + torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    larger = nn.functional.interpolate(raw, (24, 24), mode="bilinear", antialias=True)
    own = original.modality.settings()
    mean, std = (torch.tensor(own[name]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(taught(pictures).pooled, original.encoder((larger - mean) / std).pooled)


def test_the_teacher_rests_while_the_student_trains() -> None:
    teacher = build("small", size=32, pool=1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    method = find("distill").build(build("small", size=32), teacher=teacher, hidden=8).train()
    views = [View(torch.randn(6, 3, 32, 32), "image")]
    method(views).loss.backward()
    method.after_step()
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_a_student_comes_to_give_its_teachers_features() -> None:
    torch.manual_seed(0)
    teacher, student = (build("small", size=32, pool=1) for _ in range(2))
    method = find("distill").build(student, teacher=teacher, hidden=64, layers=2)
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(40):
        pictures = nn.functional.interpolate(torch.rand(64, 3, 4, 4), (32, 32), mode="bilinear")
        loss = method([View(pictures, "image")]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses


def test_tokens_are_compared_on_request_where_grids_agree() -> None:
    teacher, views = build("vit_nano", size=32, depth=1, patch=8), [View(torch.randn(4, 3, 32, 32), "image")]
    same = build("vit_nano", size=32, depth=1, patch=8, width=32, heads=2)
    method = find("distill").build(same, teacher=teacher, hidden=8, tokens=0.5)
    assert set(method(views).parts) == {"match", "tokens"}
    finer = find("distill").build(build("vit_nano", size=32, depth=1, patch=4), teacher=teacher, tokens=0.5)
    with pytest.raises(PolysenseError, match="leave tokens at 0"):
        finer(views)


def test_any_modality_can_be_distilled() -> None:
    method = find("distill").build(RowEncoder(8), "table", teacher=RowEncoder(8, dim=12), hidden=8)
    assert method([View(torch.randn(6, 8), "table")]).loss > 0


def test_no_teacher_is_told_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match="needs a teacher: name one with the option teacher"):
        distil(tmp_path, None)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnt18", "unknown encoder 'resnt18'; did you mean 'resnet18'"),
        ("small", "no pretrained weights of 'small'"),
        (nn.Linear(2, 2), "given by its name, not as a Linear"),
        ("open_clip:ViT-B-32", r"pip install 'polysense\[open_clip\]'|names no weights"),
        ("transformers:some/where", r"pip install 'polysense\[transformers\]'|cannot be had"),
    ],
)
def test_teachers_that_cannot_be_had(spec: Any, message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        trained(spec, VISION)


def test_a_name_is_no_teacher_for_table_rows() -> None:
    with pytest.raises(PolysenseError, match="'resnet18' is no run folder"):
        trained("resnet18", ToyTable())


def test_a_run_on_pictures_is_no_teacher_for_table_rows(teacher_run: Path) -> None:
    with pytest.raises(PolysenseError, match="reads 'image' and this one 'table'"):
        trained(str(teacher_run), ToyTable())


def test_published_weights_come_behind_their_size_and_normalisation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def without_download(spec: str, **options: Any) -> Encoder:
        asked.update(options)
        return build(spec)

    monkeypatch.setattr("polysense.encoders.vision.build", without_download)
    encoder = trained("resnet10t", VISION)
    assert isinstance(encoder, Translated)
    assert asked == {"pretrained": True}
    about = encoder.trunk.pretrained_cfg
    assert encoder.size == about["input_size"][-1]
    mean, std = (torch.tensor(about[name]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(encoder.scale * 0.7 + encoder.shift, (0.7 * 0.5 + _mean() - mean) / std)


def _mean() -> Tensor:
    return torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)


def test_channels_that_do_not_fit() -> None:
    inner = ModuleEncoder(nn.Flatten(), dim=12)
    with pytest.raises(PolysenseError, match="pictures of 3 channels and these have 2"):
        Translated(inner, 2, given=([0.0] * 2, [1.0] * 2), wanted=([0.5] * 3, [0.5] * 3))


class FakeTransformer(nn.Module):
    """A class token, a register and patches of 8 pixels, as transformers gives them."""

    config = SimpleNamespace(patch_size=8, hidden_size=5)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        patches = nn.functional.avg_pool2d(pixel_values, 8).mean(1).flatten(1)[..., None].expand(-1, -1, 5)
        class_and_register = torch.tensor([[9.0], [8.0]]).expand(len(patches), 2, 5)
        return SimpleNamespace(last_hidden_state=torch.cat([class_and_register, patches], 1))


def test_transformers_tokens_are_parted_from_class_and_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = SimpleNamespace(
        crop_size={"height": 32, "width": 32}, image_mean=[0.0] * 3, image_std=[1.0] * 3
    )
    library = SimpleNamespace(
        AutoModel=SimpleNamespace(from_pretrained=lambda name: FakeTransformer()),
        AutoImageProcessor=SimpleNamespace(from_pretrained=lambda name: processor),
    )
    monkeypatch.setitem(sys.modules, "transformers", library)
    encoder = foreign.from_transformers("some/where", ([0.0] * 3, [1.0] * 3))
    encoded = encoder(torch.ones(2, 3, 16, 16))
    assert (encoder.size, encoder.dim, encoded.grid) == (32, 5, (4, 4))
    assert encoded.pooled.unique().tolist() == [9.0]
    assert encoded.tokens is not None
    assert encoded.tokens.shape == (2, 16, 5)
    torch.testing.assert_close(encoded.tokens, torch.ones(2, 16, 5))


class KilledError(Exception):
    pass


def test_a_killed_distillation_resumes_to_the_same_weights(
    teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distil(tmp_path / "whole", str(teacher_run))
    original = Checkpoints.on_train_batch_end

    def killed(self: Checkpoints, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if trainer.global_step == 3:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", killed)
        with pytest.raises(KilledError):
            distil(tmp_path / "cut", str(teacher_run))
    polysense.resume(tmp_path / "cut", data=PICTURES)
    whole, cut = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
