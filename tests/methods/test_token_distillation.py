"""What the recipes wire: which tokens are hidden, what is compared with what, and who is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from polysense.encoders import build
from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.maskers import Only, RandomMask, SomeBlocks
from polysense.methods.reads import global_views
from polysense.methods.table import find
from polysense.modalities.base import View

SMALL = {"hidden": 8, "bottleneck": 8, "prototypes": 16}
OPTIONS = {
    "ibot": SMALL,
    "dinov2": SMALL,
    "data2vec": {"layers": 2},
    "msn": {"hidden": 8, "out": 8, "prototypes": 16},
}


def vit() -> Encoder:
    torch.manual_seed(0)
    return build("vit_nano", size=32, depth=2, patch=8, width=32, heads=2)


def views() -> list[View]:
    torch.manual_seed(1)
    large = [View(torch.randn(6, 3, 32, 32), "image") for _ in range(2)]
    return [*large, View(torch.randn(6, 3, 16, 16), "image", "local")]


def method(name: str) -> Method:
    torch.manual_seed(2)
    return find(name).build(vit(), **OPTIONS[name])


def test_blocks_are_hidden_from_half_of_the_samples() -> None:
    torch.manual_seed(0)
    view = SomeBlocks(0.1, 0.5)(View(torch.zeros(4000, 3, 32, 32), "image"), vit())
    assert view.mask is not None
    hidden = view.mask.sum(1)
    assert (hidden == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    shares = hidden[hidden > 0] / 16
    assert 1 / 16 <= shares.min() <= 0.1
    assert 0.4 <= shares.max() <= 0.5
    assert shares.mean().item() == pytest.approx(0.3 - 0.5 / 16, abs=0.02)  # rounded down


def test_hidden_tokens_lie_in_blocks() -> None:
    torch.manual_seed(0)
    view = View(torch.zeros(200, 3, 64, 64), "image")
    encoder = build("vit_nano", size=64, patch=8)
    blocks, scattered = (
        masker(view, encoder).mask for masker in (SomeBlocks(0.3, 0.3, 1.0), RandomMask(0.3))
    )

    def neighbours(mask: Tensor | None) -> float:
        assert mask is not None
        plane = mask.view(-1, 8, 8)
        return (plane[:, 1:] & plane[:, :-1]).sum().item() / plane.sum().item()

    assert neighbours(blocks) > 2 * neighbours(scattered)


def test_only_the_selected_views_are_masked() -> None:
    large, _, local = views()
    masker = Only(global_views, RandomMask(0.5))
    assert masker(large, vit()).mask is not None
    assert masker(local, vit()) is local


@pytest.mark.parametrize("shares", [(0.5, 0.1), (0.1, 1.0), (-0.1, 0.5), (0.1, 0.5, 0.0)])
def test_shares_that_hide_nothing_sensible(shares: tuple[float, ...]) -> None:
    with pytest.raises(PolysenseError, match="choose least and most in order"):
        SomeBlocks(*shares)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_parameter_that_learns_gets_a_gradient(name: str) -> None:
    whole = method(name)
    whole.at(0.5)
    plan = find(name).views
    whole(views()[: plan.globals_ + min(plan.locals_, 1)]).loss.backward()
    without = [
        key
        for key, parameter in whole.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []
    assert whole.teacher is not None
    assert all(parameter.grad is None for parameter in whole.teacher.parameters())


@pytest.mark.parametrize("name", OPTIONS)
def test_a_conv_net_is_refused_when_the_recipe_is_built(name: str) -> None:
    with pytest.raises(PolysenseError, match="cannot hide tokens; choose a ViT"):
        find(name).build(build("small", size=32))


def test_more_layers_than_the_encoder_has() -> None:
    with pytest.raises(PolysenseError, match="has 2 blocks and cannot keep 6"):
        find("data2vec").build(vit())


def test_ibot_shares_its_head_and_the_teachers_stays_shared() -> None:
    whole = method("ibot")
    assert whole.branches["match"].head is whole.branches["patches"].head
    assert whole.teacher is not None
    heads = whole.teacher["heads"]
    assert heads["match"] is heads["patches"]


def test_dinov2_has_a_head_each_and_no_centre_that_moves() -> None:
    whole = method("dinov2")
    assert whole.branches["match"].head is not whole.branches["patches"].head
    whole(views())
    assert all(buffer.abs().max() == 0 for name, buffer in whole.named_buffers() if "centre" in name)


def test_ibots_two_centres_move_apart() -> None:
    whole = method("ibot")
    whole(views())
    centres = [buffer for name, buffer in whole.named_buffers() if "centre" in name]
    assert len(centres) == 2
    assert not torch.equal(*centres)


def test_data2vec_predicts_the_mean_of_standardised_layers_where_tokens_were_hidden() -> None:
    whole = method("data2vec").eval()
    seen = whole.look(views()[:1])
    student, teacher, mask = seen.student[0], seen.teacher[0], seen.views[0].mask
    assert teacher is not None
    assert teacher.layers is not None
    assert student.tokens is not None
    assert mask is not None
    layers = teacher.layers
    variance, mean = torch.var_mean(layers, dim=-1, keepdim=True, correction=0)
    standard = (layers - mean) / (variance + 1e-5).sqrt()
    target = standard.mean(1)[mask]
    predicted = whole.branches["predict"].predictor(student.tokens[mask])
    error = (predicted - target).abs()
    expected = torch.where(error < 2, error.square() / 4, error - 1).mean()
    torch.testing.assert_close(whole.branches["predict"](seen, whole.teacher["heads"]["predict"]), expected)


def test_the_teacher_sees_what_is_hidden_from_the_student() -> None:
    whole = method("data2vec").eval()
    seen = whole.look(views()[:1])
    plain = whole.teacher["towers"]["image"](views()[0].data)
    assert seen.teacher[0] is not None
    torch.testing.assert_close(seen.teacher[0].tokens, plain.tokens)
    assert not torch.allclose(seen.student[0].tokens, plain.tokens)


def test_simsiam_is_the_papers_loss_plus_one() -> None:
    torch.manual_seed(0)
    whole = find("simsiam").build(build("small", size=32, pool=1), hidden=16, out=16, predictor_hidden=4)
    large = views()[:2]
    branch = whole.branches["match"]
    z = torch.stack([encoded.pooled for encoded in whole.look(large).student])
    z = branch.head.mlp(z.flatten(0, 1))
    p = branch.predictor(z)
    z1, z2, p1, p2 = z[:6], z[6:], p[:6], p[6:]
    expected = -sum(functional.cosine_similarity(a, b).mean() for a, b in ((p1, z2), (p2, z1))) / 2
    torch.testing.assert_close(whole(large).loss, 1 + expected)


def test_simsiam_stops_the_gradient_at_the_projection() -> None:
    torch.manual_seed(0)
    whole = find("simsiam").build(build("small", size=32, pool=1), hidden=16, out=16, predictor_hidden=4)
    branch = whole.branches["match"]
    for parameter in branch.predictor.parameters():
        torch.nn.init.zeros_(parameter)  # whatever still moves the projector came through the targets
    whole(views()[:2]).loss.backward()
    assert all(parameter.grad.abs().max() == 0 for parameter in branch.head.parameters())


def test_dinov2s_temperature_and_momentum_move_each_step() -> None:
    whole = method("dinov2")
    objective = whole.branches["patches"].objective.dino
    whole.at(0.15)
    assert objective.teacher_temperature == pytest.approx(0.055)
    assert whole.teacher is not None
    assert 0.992 < whole.teacher.momentum < 1
