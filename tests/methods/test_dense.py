"""The recipes that compare places: their branches, their refusals, their state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polysense.encoders import build
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.table import find
from polysense.modalities.base import View
from polysense.objectives import DonskerVaradhan, JensenShannon, LocalInfoNCE, LocalVICReg, VICReg
from tests.toys import RowEncoder

SMALL = {
    "densecl": {"hidden": 16, "out": 8, "queue": 32},
    "deep_infomax": {"out": 16},
    "vicregl": {"hidden": 16, "out": 16, "local_hidden": 16, "local_out": 16},
}


def built(name: str, encoder: str = "small", **options: object) -> Method:
    torch.manual_seed(0)
    return find(name).build(build(encoder, channels=3, size=16), "image", **{**SMALL[name], **options})


def views(name: str, samples: int = 4) -> list[View]:
    region = torch.rand(samples, 2, 2)
    return [
        View(torch.randn(samples, 3, 16, 16), "image", region=region)
        for _ in range(find(name).views.globals_)
    ]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("encoder", ["small", "vit_nano", "resnet18"])
def test_every_part_learns_with_conv_nets_and_vits(name: str, encoder: str) -> None:
    method = built(name, encoder)
    method(views(name)).loss.backward()
    assert not [part for part, p in method.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", SMALL)
def test_an_encoder_without_places_is_refused_when_built(name: str) -> None:
    encoder = RowEncoder(8)
    encoder.trunk = nn.Linear(8, 32)
    with pytest.raises(PolysenseError, match="Linear has no places on a grid to compare; choose a conv net"):
        find(name).build(encoder, "table", **SMALL[name])


def test_densecl_weighs_whole_and_places_and_fills_two_queues() -> None:
    method = built("densecl", dense_weight=0.3)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items() if "queue.keys" in name}
    outcome = method(views("densecl"))
    assert [method.branches[name].weight for name in ("global", "dense")] == [0.7, 0.3]
    torch.testing.assert_close(outcome.loss, outcome.parts["global"] + outcome.parts["dense"])
    changed = [name for name, old in before.items() if not torch.equal(method.state_dict()[name], old)]
    assert len(changed) == 2
    assert method.teacher is not None
    method.at(0.9)
    assert method.teacher.momentum == 0.999  # MoCo's is constant


@pytest.mark.parametrize(
    ("estimator", "objective"), [("jsd", JensenShannon), ("infonce", LocalInfoNCE), ("dv", DonskerVaradhan)]
)
def test_deep_infomax_takes_any_estimator(estimator: str, objective: type) -> None:
    method = built("deep_infomax", estimator=estimator)
    assert type(method.branches["match"].objective) is objective
    assert method(views("deep_infomax")).loss.isfinite()


def test_deep_infomax_names_the_nearest_estimator() -> None:
    with pytest.raises(PolysenseError, match="unknown estimator 'jds'; did you mean 'jsd'"):
        built("deep_infomax", estimator="jds")


def test_vicregl_weighs_whole_and_places_and_averages_the_covariance_over_views() -> None:
    method = built("vicregl")
    whole, local = (method.branches[name] for name in ("global", "local"))
    assert [branch.weight for branch in (whole, local)] == [0.75, 0.25]
    assert isinstance(whole.objective, VICReg)
    assert isinstance(local.objective, LocalVICReg)
    assert whole.objective.covariance == local.objective.regularise.covariance == 0.5
    assert (whole.objective.variance, local.objective.invariance) == (25.0, 25.0)


def test_vicregl_needs_to_know_where_its_views_lie() -> None:
    with pytest.raises(PolysenseError, match="use views without rotation"):
        built("vicregl")([View(torch.randn(4, 3, 16, 16), "image") for _ in range(2)])
