"""Every recipe on real pictures: it learns, does not collapse, and resumes to the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import polysense
from polysense.encoders.base import Encoder
from polysense.evaluation.features import embed_all
from polysense.evaluation.judge import judge
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.rank import feature_spread
from polysense.training.checkpoints import Checkpoints

MEAN = {"encoder_options": {"pool": 1}}  # the places that "small" keeps are a strong start untrained
# what predicts each hidden token from its own output is read off the mean of them, by a linear probe
TOKENS: dict[str, Any] = {
    "encoder": "vit_nano",
    "lr": 0.004,
    "encoder_options": {
        "width": 64, "heads": 2, "depth": 2, "patch": 8,
        "global_pool": "avg", "class_token": False, "fc_norm": False,
    },
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "simclr": MEAN,
    "moco_v2": {"steps": 60, "options": {"hidden": 256}, **MEAN},
    "moco_v3": {"steps": 40, "options": {"hidden": 256}, **MEAN},
    "nnclr": {"steps": 40, "options": {"hidden": 256}, **MEAN},
    "directclr": {"steps": 45, **MEAN},
    "supcon": {"steps": 40, **MEAN},
    "byol": {"options": {"momentum": 0.9}, **MEAN},  # a teacher for runs of a minute
    "simsiam": MEAN,
    "vicreg": MEAN,
    "barlow_twins": MEAN,
    "wmse": MEAN,
    "lejepa": {"steps": 30, "options": {"slices": 64}, **MEAN},
    "densecl": {"steps": 45, "options": {"hidden": 256, "queue": 512}, **MEAN},
    "deep_infomax": {"options": {"out": 256}, **MEAN},
    "vicregl": {"steps": 40, "options": {"hidden": 256, "out": 256, "local_out": 128}, **MEAN},
    "dino": {"options": {"prototypes": 256}, **MEAN},
    # in so few steps only sharp codes of easy crops come to mean anything
    "swav": {
        "options": {"prototypes": 256, "hidden": 256, "epsilon": 0.02, "queue": 0},
        "views": {"scale": (0.3, 1.0), "local": {"scale": (0.15, 0.4)}},
        **MEAN,
    },
    # the first epoch, 29 steps, only fills the bank
    "deepcluster_v2": {"steps": 65, "options": {"prototypes": 512, "hidden": 256}, **MEAN},
    "mae": {
        "encoder": "vit_nano",
        "steps": 300,
        "encoder_options": {"depth": 2, "patch": 8},
        "options": {"decoder_width": 64, "decoder_depth": 1, "decoder_heads": 4},
    },
    "simmim": {"options": {"mask_unit": 1}, **TOKENS},
    "beit": {"options": {"prototypes": 256}, **TOKENS},
    "maskfeat": {"clip": 1.0, **TOKENS},
    "ijepa": {
        **TOKENS,
        "size": 24,
        "steps": 75,
        "lr": 0.003,
        "weight_decay": 0.0,
        "warmup": 0.3,
        "encoder_options": {**TOKENS["encoder_options"], "depth": 1, "patch": 4},
        "options": {"predictor_width": 64, "predictor_depth": 1, "predictor_heads": 4, "momentum": 0.9},
    },
    "image_gpt": {"encoder": "pixel_gpt_nano", "steps": 45, "encoder_options": {"side": 8, "depth": 2}},
}


METRIC = {
    "mae": "recall_at_1",  # in so short a time it tells single pictures apart better, not yet their groups
    **dict.fromkeys(["simmim", "beit", "maskfeat", "ijepa"], "linear"),  # as their papers probe them
}
VIT = {"encoder": "vit_nano", "encoder_options": {"depth": 1, "patch": 4}}
SMALL: dict[str, dict[str, Any]] = {
    "deepcluster_v2": {"options": {"prototypes": 8}},
    "mae": {**VIT, "options": {"decoder_width": 64, "decoder_depth": 1, "decoder_heads": 4}},
    "beit": {**VIT, "options": {"prototypes": 16, "frozen_after": 0.7}},
    "ibot": {**VIT, "options": {"hidden": 16, "bottleneck": 16}},
    "dinov2": {**VIT, "options": {"hidden": 16, "bottleneck": 16}},
    "data2vec": {**VIT, "options": {"layers": 1}},
    "msn": {**VIT, "options": {"hidden": 16, "out": 16}},
    "ijepa": {**VIT, "options": {"predictor_width": 16, "predictor_depth": 1, "predictor_heads": 2}},
}


class KilledError(Exception):
    pass


@pytest.mark.parametrize("method", SETTINGS)
def test_it_learns_and_does_not_collapse(method: str, tmp_path: Path) -> None:
    run = polysense.pretrain(
        "builtin:emoji",
        method=method,
        batch_size=128,
        judge=False,
        accelerator="cpu",
        out=tmp_path,
        **{"steps": 60, **SETTINGS[method]},
    )
    assert run is not None
    dataset = run.modality.read("builtin:emoji")
    torch.manual_seed(0)
    untrained: Encoder = run.modality.encoder(
        SETTINGS[method].get("encoder", "small"), **SETTINGS[method].get("encoder_options", {})
    )
    features = {
        name: embed_all(encoder, run.modality, dataset)
        for name, encoder in {"pretrained": run.encoder, "untrained": untrained}.items()
    }
    found = judge(features, dataset, Protocol(("group",), "code", ("vendor", "twemoji"), ("vendor", "noto")))
    metric = METRIC.get(method, "knn")
    gained = found.results["pretrained"][metric] - found.results["untrained"][metric]
    assert gained > 1.5, found.results
    assert feature_spread(features["pretrained"]) > 0.2
    assert found.results["pretrained"]["rankme"] > 5


@pytest.mark.parametrize(
    "method",
    [
        "moco_v2",
        "moco_v3",
        "nnclr",
        "dino",
        "swav",
        "deepcluster_v2",
        "densecl",
        "mae",
        "image_gpt",
        "beit",
        "ijepa",
        "ibot",
        "dinov2",
        "data2vec",
        "msn",
    ],
)
def test_a_killed_run_resumes_to_the_same_weights(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = torch.randint(0, 255, (48, 3, 16, 16), dtype=torch.uint8).numpy()
    small = {**SMALL.get(method, {}), "steps": 8}

    def pretrain(out: Path) -> None:
        polysense.pretrain(
            pictures, method=method, size=16, batch_size=16, checkpoint_steps=3, judge=False,
            accelerator="cpu", out=out, **small,
        )  # fmt: skip

    pretrain(tmp_path / "whole")
    original = Checkpoints.on_train_batch_end

    def killed(self: Checkpoints, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if trainer.global_step == 5:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", killed)
        with pytest.raises(KilledError):
            pretrain(tmp_path / "cut")
    polysense.resume(tmp_path / "cut", data=pictures)
    whole = load_file(tmp_path / "whole" / "weights.safetensors")
    cut = load_file(tmp_path / "cut" / "weights.safetensors")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
