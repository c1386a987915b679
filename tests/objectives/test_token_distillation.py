from __future__ import annotations

import io
import math

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import DINO, IBOT, KoLeo
from tests.objectives.cases import random_views

HIDDEN = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])


def scores(seed: int = 0) -> Tensor:
    """``[3, 3, 4]``: three samples of three tokens."""
    return random_views(3, 3, seed=seed)


def soft(row: Tensor) -> Tensor:
    return row.exp() / row.exp().sum()


def ibot(student: Tensor, teacher: Tensor, centre: Tensor, temperature: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for b in range(3):
        terms = [
            -(soft((teacher[b, t] - centre) / temperature) * soft(student[b, t] / 0.1).log()).sum()
            for t in range(3)
            if HIDDEN[b, t]
        ]
        if terms:
            total = total + torch.stack(terms).mean()
    return total / 3


def test_ibot_is_the_authors_over_two_steps() -> None:
    objective, centre = IBOT(DINO(4)).double(), torch.zeros(4, dtype=torch.float64)
    for seed in range(2):
        student, teacher = scores(seed), scores(seed + 7)
        loss = objective(student[HIDDEN], teacher[HIDDEN], HIDDEN)
        torch.testing.assert_close(loss, ibot(student, teacher, centre, 0.04))
        centre = 0.9 * centre + 0.1 * teacher[HIDDEN].mean(0)
        torch.testing.assert_close(objective.dino.centre, centre)


def balanced(teacher: Tensor, temperature: float) -> Tensor:
    q = (teacher / temperature).exp().T  # prototypes x samples
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / q.shape[0]
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def test_sinkhorn_targets_are_dinov2s() -> None:
    student, teacher = scores(), scores(7)
    objective = IBOT(DINO(4, teacher_temperature=0.07, warmup=0.0, sinkhorn_iterations=3)).double()
    targets = balanced(teacher[HIDDEN], 0.07)
    terms = [
        -(target * soft(row / 0.1).log()).sum() for target, row in zip(targets, student[HIDDEN], strict=True)
    ]
    expected = (terms[0] / 2 + terms[1] / 2 + terms[2]) / 3
    torch.testing.assert_close(objective(student[HIDDEN], teacher[HIDDEN], HIDDEN), expected)


def test_dino_balances_both_teacher_views_together() -> None:
    student, teacher = random_views(3), random_views(2, seed=1)
    targets = balanced(teacher.reshape(-1, 4), 0.04).reshape(2, 6, 4)
    terms = [
        -(targets[t, b] * soft(student[v, b] / 0.1).log()).sum()
        for t in range(2)
        for v in range(3)
        for b in range(6)
        if t != v
    ]
    objective = DINO(4, sinkhorn_iterations=3).double()
    torch.testing.assert_close(objective(student, teacher), torch.stack(terms).mean())
    assert torch.equal(objective.centre, torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("iterations", [0, 3])
def test_nothing_hidden_is_no_loss_and_leaves_the_centre(iterations: int) -> None:
    objective = IBOT(DINO(4, sinkhorn_iterations=iterations))
    objective.dino.centre += 1
    none = torch.zeros(0, 4, requires_grad=True)
    loss = objective(none, none.detach(), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(objective.dino.centre, torch.ones(4))


def test_centre_survives_save_and_load_and_rests_in_evaluation() -> None:
    trained, resumed, file = IBOT(DINO(4)), IBOT(DINO(4)), io.BytesIO()
    inputs = scores().float()[HIDDEN], scores(1).float()[HIDDEN], HIDDEN
    trained(*inputs)
    torch.save(trained.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file))
    assert trained.dino.centre.abs().min() > 0
    assert torch.equal(resumed.dino.centre, trained.dino.centre)
    resumed.eval()(*inputs)
    assert torch.equal(resumed.dino.centre, trained.dino.centre)


def test_patch_temperature_follows_its_schedule() -> None:
    objective = IBOT(DINO(4, teacher_temperature=0.07)).double().eval()
    student, teacher = scores(), scores(7)
    for module in objective.modules():  # as the engine does before each step
        if hasattr(module, "at"):
            module.at(0.15)
    loss = objective(student[HIDDEN], teacher[HIDDEN], HIDDEN)
    torch.testing.assert_close(loss, ibot(student, teacher, torch.zeros(4).double(), 0.055))


def test_ibot_with_a_head_of_another_width() -> None:
    with pytest.raises(PolysenseError, match=r"3 hidden tokens for 5 prototypes, but got \[3, 4\]"):
        IBOT(DINO(5))(scores()[HIDDEN], scores()[HIDDEN], HIDDEN)


def test_koleo_is_the_authors() -> None:
    z, terms = random_views(2, 7), []
    for view in z:
        unit = [row / row.norm() for row in view]
        for i, row in enumerate(unit):
            terms.append(-min((row - other).norm() for j, other in enumerate(unit) if i != j).log())
    expected = torch.stack(terms).sum() / 7  # a sum over views of means over samples
    torch.testing.assert_close(KoLeo()(z), expected)


def test_koleo_ignores_scale() -> None:
    z = random_views()
    torch.testing.assert_close(KoLeo()(7 * z), KoLeo()(z))


def test_koleo_of_copies_is_finite_in_value_and_gradient() -> None:
    z = torch.ones(1, 3, 4, requires_grad=True)
    loss = KoLeo()(z)
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_koleo_of_one_sample() -> None:
    with pytest.raises(PolysenseError, match="at least 2 samples"):
        KoLeo()(torch.ones(2, 1, 4))


def test_uniform_answers_cost_the_logarithm_of_prototypes() -> None:
    whole = torch.ones(1, 3, dtype=torch.bool)
    loss = IBOT(DINO(50))(torch.zeros(3, 50), torch.randn(3, 50), whole)
    assert loss.item() == pytest.approx(math.log(50), rel=1e-5)
