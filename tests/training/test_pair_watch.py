"""What goes wrong where parts are matched is told once, in words, and only when it lasts."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from polysense.encoders.base import Encoded
from polysense.encoders.towers import Towers
from polysense.methods.engine import Method
from polysense.methods.optimisation import Optimisation
from polysense.methods.table import find
from polysense.modalities.base import Batch, View
from polysense.training.budget import Budget
from polysense.training.module import Pretraining
from polysense.training.pair_watch import PairWatch
from tests.toys import RowEncoder, ToyTable

STEPS = 12


class Flat(RowEncoder):
    """Sees the same in all samples."""

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        return Encoded(1.0 + 1e-3 * super().forward(data).pooled)


class Deaf(RowEncoder):
    """Whose parameters have no part in what it gives."""

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        return Encoded(super().forward(data).pooled.detach())


def method(image: type[RowEncoder] = RowEncoder, name: str = "clip") -> Method:
    torch.manual_seed(0)
    return find(name).build(Towers({"image": image(4), "text": RowEncoder(4)}, dim=8), "pair")


def watch(method: Method, *, lr: float, related: bool = True) -> None:
    """Train for some steps and look at every second one; warn of what is seen three times in a row."""
    modality: Any = ToyTable()
    module = Pretraining(method, modality, Optimisation("adamw", lr=lr), Budget(steps=STEPS), batch=16)
    watcher, optimiser = PairWatch(every=2, patience=3), torch.optim.Adam(method.parameters(), lr=lr)
    trainer: Any = SimpleNamespace(
        global_step=0, accumulate_grad_batches=1, world_size=1, is_global_zero=True, loggers=[]
    )
    data = torch.randn(16, 4)
    for step in range(STEPS):
        other = data if related else torch.randn(16, 4)
        module.outcome = method([View(data, "image"), View(other, "text")])
        optimiser.zero_grad()
        module.outcome.loss.backward()
        watcher.on_before_optimizer_step(trainer, module, optimiser)
        optimiser.step()
        method.after_step()
        trainer.global_step += 1
        watcher.on_train_batch_end(trainer, module, None, Batch(data, torch.arange(16)), step)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_nothing_is_said_of_training_that_goes_well(caplog: pytest.LogCaptureFixture) -> None:
    watch(method(), lr=0.01)
    assert warnings(caplog) == []


def test_a_tower_without_gradient(caplog: pytest.LogCaptureFixture) -> None:
    watch(method(Deaf), lr=0.01)
    (told,) = warnings(caplog)
    assert told.startswith("the tower 'image' gets no gradient")
    assert told.endswith("(for 6 steps, to step 6)")


def test_a_tower_that_is_frozen_on_purpose_is_fine(caplog: pytest.LogCaptureFixture) -> None:
    watch(method(name="lit"), lr=0.01)
    assert warnings(caplog) == []


def test_a_part_that_collapsed(caplog: pytest.LogCaptureFixture) -> None:
    watch(method(Flat), lr=1e-6)
    assert any(
        told.startswith("the embeddings of 'image' collapsed (spread 0.00") for told in warnings(caplog)
    )


def test_a_scale_at_its_largest(caplog: pytest.LogCaptureFixture) -> None:
    trained = method()
    scale = trained.branches["image_text"].objective.logit_scale  # type: ignore[union-attr]
    with torch.no_grad():
        scale.fill_(9.0)  # type: ignore[operator]
    watch(trained, lr=1e-6)
    assert any("the logit scale is at its largest, 100" in told for told in warnings(caplog))


def test_a_loss_that_is_still_chance(caplog: pytest.LogCaptureFixture) -> None:
    trained = method()
    scale = trained.branches["image_text"].objective.logit_scale  # type: ignore[union-attr]
    with torch.no_grad():
        scale.zero_()  # type: ignore[operator]
    watch(trained, lr=1e-6, related=False)
    (told,) = warnings(caplog)
    assert "and chance is ln 16 = 2.77: check that the pairs belong together" in told
