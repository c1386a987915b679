"""What the contrastive recipes are made of, beyond their published values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polysense.encoders.base import Encoded
from polysense.encoders.vit import build as build_vit
from polysense.errors import PolysenseError
from polysense.methods.contrastive import FirstDimensions
from polysense.methods.engine import Branch, Method
from polysense.methods.scaling import Circumstances, scaled_options
from polysense.methods.table import find
from polysense.modalities.base import View
from tests.toys import RowEncoder


def make(name: str, **options: object) -> Method:
    torch.manual_seed(0)
    return find(name).build(RowEncoder(8), "table", **options)


def match(method: Method) -> Branch:
    branch = method.branches["match"]
    assert isinstance(branch, Branch)
    return branch


def views() -> list[View]:
    return [View(torch.randn(6, 8), "table") for _ in range(2)]


def kinds(module: nn.Module) -> list[str]:
    return [type(part).__name__ for part in module.modules() if not list(part.children())]


def test_moco_v2_has_a_teacher_of_constant_momentum_and_a_projector_without_norm() -> None:
    method = make("moco_v2", queue=16)
    method.at(0.9)
    assert method.teacher is not None
    assert method.teacher.momentum == 0.999
    assert kinds(match(method).head) == ["Linear", "ReLU", "Linear"]
    assert kinds(match(method).predictor) == ["Identity"]


def test_moco_v3_ends_in_a_norm_without_weights_and_has_no_biases() -> None:
    method = make("moco_v3", hidden=32, out=8)
    branch = match(method)
    layer, last = ["Linear", "BatchNorm1d", "ReLU"], ["Linear", "BatchNorm1d"]
    assert kinds(branch.head) == 2 * layer + last
    assert kinds(branch.predictor) == layer + last
    for part in (branch.head, branch.predictor):
        norms = [one for one in part.modules() if isinstance(one, nn.BatchNorm1d)]
        assert [one.affine for one in norms] == [True] * (len(norms) - 1) + [False]
        assert all(one.bias is None for one in part.modules() if isinstance(one, nn.Linear))
    method.at(1.0)
    assert method.teacher is not None
    assert method.teacher.momentum == 1.0


@pytest.mark.parametrize("freeze", [True, False])
def test_moco_v3_keeps_the_patch_projection_of_a_vit_as_it_was_drawn(freeze: bool) -> None:
    encoder = build_vit("vit_nano", channels=3, size=16, depth=1)
    find("moco_v3").build(encoder, "image", hidden=8, out=8, freeze_patches=freeze)
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    stem = {name for name, _ in encoder.named_parameters() if "patch_embed" in name}
    assert stem <= frozen if freeze else not stem & frozen


def test_nnclr_remembers_the_projections_of_the_first_view() -> None:
    method = make("nnclr", hidden=16, out=4, queue=6)
    seen = views()
    branch = match(method)
    outcome = method(seen)
    outcome.loss.backward()
    together = branch.head(Encoded.join(outcome.seen.student))
    first = nn.functional.normalize(together[:6], dim=1)
    torch.testing.assert_close(branch.objective.queue.keys, first)
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_nnclrs_predictor_is_twice_as_wide_as_its_projector() -> None:
    predictor = match(make("nnclr", queue=6)).predictor
    assert [(one.in_features, one.out_features) for one in predictor if isinstance(one, nn.Linear)] == [
        (256, 4096),
        (4096, 256),
    ]


@pytest.mark.parametrize("name", ["moco_v2", "nnclr"])
def test_queues_follow_the_data(name: str) -> None:
    published = find(name).published
    assert scaled_options(published, Circumstances(samples=3822))["queue"] == 1024
    assert "queue" not in scaled_options(published, Circumstances(samples=1_281_167))


def test_directclr_reads_the_first_dimensions_alone() -> None:
    method = make("directclr", share=0.25)
    outcome = method(views())
    outcome.loss.backward()
    last = method.towers["table"].trunk[-1]
    assert last.weight.grad[:8].abs().min() > 0
    assert last.weight.grad[8:].abs().max() == 0
    assert not list(match(method).head.parameters())


def test_directclr_takes_360_of_2048() -> None:
    encoder = RowEncoder(8, dim=2048)
    method = find("directclr").build(encoder, "table")
    assert match(method).head(Encoded(torch.zeros(1, 2048))).shape == (1, 360)


def test_the_first_dimensions_come_in_order() -> None:
    pooled = torch.randn(2, 5)
    assert torch.equal(FirstDimensions(3)(Encoded(pooled)), pooled[:, :3])


@pytest.mark.parametrize(("share", "dimensions"), [(1.5, 48), (0.001, 0), (-1.0, -32)])
def test_directclr_refuses_more_dimensions_than_there_are_or_none(share: float, dimensions: int) -> None:
    message = f"a share of {share} makes {dimensions} of the encoder's 32 dimensions; choose one above 0"
    with pytest.raises(PolysenseError, match=message):
        make("directclr", share=share)


def test_supcon_hands_the_labels_to_its_objective() -> None:
    method, seen = make("supcon", hidden=16, out=4), views()
    labels = torch.tensor([0, 0, 1, 1, -1, -1])
    unknown = torch.full((6,), -1)
    with_labels = method(seen, {"label": labels}).loss
    without = method(seen, {"label": unknown}).loss
    assert with_labels.isfinite()
    assert not torch.isclose(with_labels, without)


def test_supcon_needs_labels() -> None:
    assert find("supcon").labels
    with pytest.raises(PolysenseError, match="learns from the label of every sample, which the data do not"):
        make("supcon", hidden=16, out=4)(views())
