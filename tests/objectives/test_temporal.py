from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import (
    VIP,
    ActionPrediction,
    DotInfoNCE,
    FrameOrder,
    InstructionContrast,
    LatentPrediction,
    Sparsity,
)
from tests.objectives.cases import random_views

CLIPS = 5


def frames(count: int) -> Tensor:
    return random_views(count, CLIPS)


def compare(loss: Tensor, expected: Tensor, z: Tensor, reference: Tensor) -> None:
    """Loss and gradient; the authors' epsilon of 1e-8 is left out here."""
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(z.grad, reference.grad, rtol=1e-6, atol=1e-7)


def test_curls_bilinear_loss_is_the_authors() -> None:
    """Their logits are ``a W k^T`` less each row's maximum, the diagonal is right."""
    torch.manual_seed(0)
    anchor, keys = random_views(2, CLIPS)
    w = torch.rand(4, 4, dtype=torch.float64, requires_grad=True)
    again = w.detach().clone().requires_grad_()
    logits = anchor @ (again @ keys.T)
    logits = logits - logits.max(1)[0][:, None]
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(CLIPS))
    compare(DotInfoNCE()((anchor @ w)[None], keys[None]), expected, w, again)


def test_a_query_without_a_key_does_not_count_but_its_key_remains_a_negative() -> None:
    queries, keys = random_views(2, 4)
    present = torch.tensor([True, False, True, True])
    rows = [(queries[i] @ keys.T).logsumexp(0) - queries[i] @ keys[i] for i in (0, 2, 3)]
    loss = DotInfoNCE()(queries[None], keys[None], present[None])
    torch.testing.assert_close(loss, torch.stack(rows).mean())


def test_nothing_present_is_no_loss_and_no_nan() -> None:
    queries = random_views(1, 4).requires_grad_()
    loss = DotInfoNCE()(queries, queries, torch.zeros(1, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert queries.grad is not None
    assert not queries.grad.any()


def test_latent_prediction_is_the_squared_distance_of_unit_vectors() -> None:
    predicted, reference = (frames(3).requires_grad_() for _ in range(2))
    target = random_views(3, CLIPS, seed=1)
    present = torch.arange(3)[:, None] + torch.arange(CLIPS) < 5
    total = torch.zeros((), dtype=torch.float64)
    for k, b in present.nonzero().tolist():
        p, t = reference[k, b], target[k, b]
        total = total + ((p / p.norm() - t / t.norm()) ** 2).sum()
    compare(LatentPrediction()(predicted, target, present), total / present.sum(), predicted, reference)


def test_vip_is_the_authors_with_every_other_clip_as_negative() -> None:
    z, reference = (frames(4).requires_grad_() for _ in range(2))
    now, after, first, goal = reference

    def value(a: Tensor, b: Tensor) -> Tensor:
        return -((a - b) ** 2).sum(-1).sqrt()

    def term(now: Tensor, after: Tensor, goal: Tensor) -> Tensor:
        return torch.exp(-(-1 + 0.98 * value(after, goal) - value(now, goal))).mean().log()

    shuffles = [torch.arange(CLIPS).roll(shift) for shift in range(1, CLIPS)]
    others = term(
        torch.cat([now[shuffle] for shuffle in shuffles]),
        torch.cat([after[shuffle] for shuffle in shuffles]),
        goal.repeat(len(shuffles), 1),
    )
    expected = 0.02 * -value(first, goal).mean() + term(now, after, goal) + others
    compare(VIP()(z), expected, z, reference)


def test_livs_value_is_the_authors_where_there_is_a_goal() -> None:
    """Cosines over 1 - gamma; without goals, frames still stand against the others' goals."""
    z, reference = (frames(4).requires_grad_() for _ in range(2))
    present = torch.tensor([True, True, False, True, True])
    now, after, first, goal = reference
    rows = present.nonzero()[:, 0].tolist()

    def value(a: Tensor, b: Tensor) -> Tensor:
        return torch.nn.functional.cosine_similarity(a, b, dim=-1) / 0.1

    def advantage(frame: int, target: int) -> Tensor:
        return torch.exp(-(-1 + 0.9 * value(after[frame], goal[target]) - value(now[frame], goal[target])))

    own = torch.stack([advantage(row, row) for row in rows]).mean().log()
    others = torch.stack([advantage(i, j) for j in rows for i in range(CLIPS) if i != j]).mean().log()
    expected = 0.1 * -value(first, goal)[present].mean() + own + others
    compare(VIP(0.9, cosine=True)(z, present), expected, z, reference)
    assert VIP()(z, torch.zeros(CLIPS, dtype=torch.bool)).item() == 0


def test_r3ms_language_contrast_is_the_authors_over_the_clips_with_instructions() -> None:
    torch.manual_seed(0)
    right = torch.randn(3, CLIPS, dtype=torch.float64, requires_grad=True)
    wrong = torch.randn(3, 4, CLIPS, dtype=torch.float64)
    reference = right.detach().clone().requires_grad_()
    told = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    each = -torch.log(torch.exp(reference) / (torch.exp(reference) + torch.exp(wrong).sum(1)))
    loss = InstructionContrast()(right, wrong, told.bool())
    compare(loss, (each.mean(0) * told).sum() / told.sum(), right, reference)
    with pytest.raises(PolysenseError, match=r"scores \[P, B\] with \[P, N, B\], but got shapes \[3, 5\]"):
        InstructionContrast()(right, wrong[:2])


def test_r3ms_time_contrast_is_the_authors_with_every_other_clip_as_negative() -> None:
    z, reference = (frames(3).requires_grad_() for _ in range(2))
    es1, es0, es2 = reference

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-((a - b) ** 2).sum(-1).sqrt())

    far, shuffles = similarity(es2, es0), [torch.arange(CLIPS).roll(shift) for shift in range(1, CLIPS)]
    late = sum(similarity(es2, es2[shuffle]) for shuffle in shuffles)
    early = sum(similarity(es0, es0[shuffle]) for shuffle in shuffles)
    first = similarity(es2, es1) / (far + similarity(es2, es1) + late)
    second = similarity(es1, es0) / (similarity(es1, es0) + far + early)
    expected = ((-first.log() - second.log()) / 2).mean()
    compare(FrameOrder(negatives=CLIPS - 1)(z), expected, z, reference)


def test_sparsity_is_the_mean_norm_of_all_embeddings() -> None:
    z = frames(5)
    expected = [
        0.1 * sum(map(abs, row)) + 3 * sum(x * x for x in row) ** 0.5 for row in z.flatten(0, 1).tolist()
    ]
    torch.testing.assert_close(Sparsity(0.1, 3.0)(z), torch.tensor(expected, dtype=torch.float64).mean())


def test_an_action_past_an_episodes_end_does_not_count() -> None:
    predicted = torch.randn(3, 2)
    action, present = torch.tensor([1, -1, 0]), torch.tensor([True, False, True])
    expected = torch.nn.functional.cross_entropy(predicted[[0, 2]], torch.tensor([1, 0]))
    torch.testing.assert_close(ActionPrediction()(predicted, action, present), expected)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda: DotInfoNCE()(torch.zeros(1, 3, 2), torch.zeros(2, 3, 2)), "DotInfoNCE compares pairs"),
        (lambda: VIP()(torch.zeros(3, 3, 2)), "VIP reads 4 frames of at least 2 clips"),
        (lambda: FrameOrder()(torch.zeros(3, 1, 2)), "FrameOrder reads 3 frames of at least 2 clips"),
        (lambda: ActionPrediction()(torch.zeros(2, 3), torch.tensor([0, 3])), "made for 3 actions.*number 3"),
        (
            lambda: ActionPrediction()(torch.zeros(2, 3), torch.zeros(2, 1)),
            "made for 3 actions.*of 1 numbers",
        ),
    ],
)
def test_what_does_not_fit_is_told(loss: object, words: str) -> None:
    with pytest.raises(PolysenseError, match=words):
        loss()  # type: ignore[operator]
