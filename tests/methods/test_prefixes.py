"""Matryoshka embeddings: prefixes are compared as the whole is, in whatever compares embeddings."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polysense
from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.teacher import FrozenTeacher
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.joint import clip
from polysense.methods.prefixes import compare_prefixes
from polysense.methods.table import find
from polysense.modalities.base import View
from polysense.objectives import NTXent, PairContrast
from tests.toys import RowEncoder

DIM = 8
SIZES = {"hidden": 16, "out": 6, "prototypes": 8, "bottleneck": 4, "queue": 16}


def method(name: str, *widths: int) -> Method:
    torch.manual_seed(0)
    encoder = RowEncoder(4, DIM)
    options = {option: SIZES[option] for option in find(name).published if option in SIZES}
    built = find(name).build(encoder, "table", **options)
    compare_prefixes(built, encoder, widths)
    return built


def views() -> list[View]:
    torch.manual_seed(1)
    return [View(torch.randn(8, 4), "table") for _ in range(2)]


def cut(encoded: Encoded, width: int) -> Encoded:
    zeros = torch.zeros(len(encoded.pooled), DIM - width)
    return Encoded(torch.cat([encoded.pooled[:, :width], zeros], 1))


def test_the_head_reads_the_prefix_and_the_losses_add_up() -> None:
    built = method("simclr", 4, 2).eval()
    outcome = built(views())
    assert list(outcome.parts) == ["match", "match_4", "match_2"]
    head: Any = built.branches["match"].head
    for width in (4, 2):
        z = torch.stack([head(cut(one, width)) for one in outcome.seen.student])
        temperature = find("simclr").published["temperature"]
        torch.testing.assert_close(outcome.parts[f"match_{width}"], NTXent(temperature)(z))
    torch.testing.assert_close(outcome.loss, torch.stack(list(outcome.parts.values())).sum())


def test_of_towers_their_shared_space_is_cut() -> None:
    torch.manual_seed(0)
    encoders: dict[str, Encoder] = {"left": RowEncoder(4, DIM), "right": RowEncoder(3, DIM)}
    towers = Towers(encoders, dim=6)
    built = clip(towers)
    compare_prefixes(built, towers, [2])
    parts = [View(torch.randn(8, 4), "left"), View(torch.randn(8, 3), "right")]
    outcome = built.eval()(parts)
    a, b = (towers.of(view.modality)(view.data).pooled[:, :2] for view in parts)
    torch.testing.assert_close(outcome.parts["left_right_2"], PairContrast(towers.logit_scale)(a, b))
    outcome.loss.backward()
    assert towers.logit_scale.grad is not None


@pytest.mark.parametrize("name", ["byol", "moco_v2", "dino", "vicreg", "nnclr", "swav", "simsiam"])
def test_whatever_compares_embeddings_learns_and_its_teacher_follows(name: str) -> None:
    built, plain = method(name, 4), method(name)
    assert sum(p.numel() for p in built.parameters()) == sum(p.numel() for p in plain.parameters())
    optimiser = torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        built.at(0.5)
        loss = built(views()).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        built.after_step()
    assert loss.isfinite()
    again = method(name, 4)
    again.load_state_dict(copy.deepcopy(built.state_dict()))
    torch.manual_seed(2)
    expected = built(views()).loss
    torch.manual_seed(2)
    torch.testing.assert_close(again(views()).loss, expected)


def test_each_width_has_a_queue_of_its_own() -> None:
    built = method("moco_v2", 4)
    built(views())
    buffers = [dict(branch.objective.named_buffers()) for branch in built.branches.values()]  # type: ignore[union-attr]
    assert buffers[0].keys() == buffers[1].keys()
    assert any(not torch.equal(tensor, buffers[1][name]) for name, tensor in buffers[0].items())


def test_the_target_of_a_frozen_teacher_stays_whole() -> None:
    built, other = method("byol"), RowEncoder(4, 5)
    built.teacher = FrozenTeacher({"table": other}, {"match": nn.Identity()})
    compare_prefixes(built, built.towers["table"], [4])  # type: ignore[arg-type]
    heads: Any = built.teacher["heads"]
    assert heads["match_4"] is heads["match"]


@pytest.mark.parametrize(
    ("name", "widths", "message"),
    [
        ("simclr", [8], "a prefix of 8 dimensions of an embedding of 8 is none; choose 1 to 7"),
        ("simclr", [0], "a prefix of 0 dimensions"),
        (
            "inverse_dynamics",
            [4],
            "compares no embeddings of whole samples, of which prefixes could be trained",
        ),
    ],
)
def test_what_is_no_prefix(name: str, widths: list[int], message: str) -> None:
    with pytest.raises(PolysenseError, match=re.escape(message)):
        method(name, *widths)


def test_a_run_with_prefixes_is_resumed_and_loaded(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    how: dict[str, Any] = {"size": 16, "batch_size": 8, "steps": 2, "judge": False, "method": "byol"}
    run = polysense.pretrain(pictures, out=tmp_path, matryoshka=[16, 64], **how)
    assert run is not None
    assert run.config["matryoshka"] == [16, 64]
    again = polysense.resume(tmp_path, data=pictures)
    assert again is not None
    embedded: Tensor = polysense.load(tmp_path).embed(pictures[0])
    torch.testing.assert_close(again.embed(pictures[0]), embedded)
