from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import DINO, Distillation, NegativeCosine
from tests.objectives.cases import random_views


def teachers(views: int = 2) -> Tensor:
    return random_views(views, seed=1)


def byol(prediction: Tensor, target: Tensor) -> Tensor:
    cosine = (prediction * target).sum(1) / (prediction.norm(dim=1) * target.norm(dim=1))
    return (2 - 2 * cosine).mean()


def test_cosine_is_byols_sum_of_both_directions() -> None:
    student, teacher = random_views(), teachers()
    expected = byol(student[0], teacher[1]) + byol(student[1], teacher[0])
    torch.testing.assert_close(NegativeCosine()(student, teacher), expected)


def test_cosine_with_more_student_views_is_their_mean_for_each_teacher_view() -> None:
    student, teacher = random_views(3), teachers()
    expected = (byol(student[1], teacher[0]) + byol(student[2], teacher[0])) / 2
    expected = expected + (byol(student[0], teacher[1]) + byol(student[2], teacher[1])) / 2
    torch.testing.assert_close(NegativeCosine()(student, teacher), expected)


def test_a_view_is_compared_with_itself_on_request() -> None:
    student, teacher = random_views(1), teachers(1)
    torch.testing.assert_close(
        NegativeCosine(skip_same=False)(student, teacher), byol(student[0], teacher[0])
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_cosine_ignores_scale(scale: float, seed: int) -> None:
    student, teacher = random_views(seed=seed), teachers()
    torch.testing.assert_close(NegativeCosine()(scale * student, teacher), NegativeCosine()(student, teacher))


def dino(student: Tensor, teacher: Tensor, centre: Tensor, teacher_temperature: float) -> Tensor:
    terms = []
    for t in range(len(teacher)):
        for v in range(len(student)):
            if t != v:
                logits = (teacher[t] - centre) / teacher_temperature
                target = logits.exp() / logits.exp().sum(1, keepdim=True)
                scores = student[v] / 0.1
                log_p = scores - scores.exp().sum(1, keepdim=True).log()
                terms.append(-(target * log_p).sum(1).mean())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("views", [2, 5])
def test_dino_is_the_authors_over_two_steps(views: int) -> None:
    objective, centre = DINO(4).double(), torch.zeros(4, dtype=torch.float64)
    for seed in range(2):
        student, teacher = random_views(views, seed=seed), random_views(2, seed=seed + 7)
        loss = objective(student, teacher)  # with the centre as it was before this batch
        torch.testing.assert_close(loss, dino(student, teacher, centre, 0.04))
        centre = 0.9 * centre + 0.1 * teacher.reshape(-1, 4).mean(0)
        torch.testing.assert_close(objective.centre, centre)


def test_dino_leaves_the_centre_alone_in_evaluation() -> None:
    objective = DINO(4).eval()
    objective(random_views(), teachers())
    assert torch.equal(objective.centre, torch.zeros(4))


def test_dino_centre_survives_save_and_load() -> None:
    trained, resumed, file = DINO(4), DINO(4), io.BytesIO()
    trained(random_views().float(), teachers().float())
    torch.save(trained.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file))
    assert trained.centre.abs().min() > 0
    assert torch.equal(resumed.centre, trained.centre)


def test_dino_uniform_collapse_costs_the_logarithm_of_prototypes() -> None:
    student = torch.full((3, 4, 50), 7.0)
    assert DINO(50)(student, random_views(2, 4, 50).float()).item() == pytest.approx(math.log(50))


def test_dino_teacher_temperature_rises_linearly() -> None:
    objective = DINO(4, teacher_temperature=0.07, warmup_teacher_temperature=0.04, warmup=0.3)
    temperatures = []
    for progress in (0.0, 0.15, 0.3, 1.0):
        objective.at(progress)
        temperatures.append(objective.teacher_temperature)
    assert temperatures == pytest.approx([0.04, 0.055, 0.07, 0.07])
    objective.eval().double().at(0.15)
    student, teacher = random_views(), teachers()
    expected = dino(student, teacher, torch.zeros(4, dtype=torch.float64), 0.055)
    torch.testing.assert_close(objective(student, teacher), expected)


@pytest.mark.parametrize("objective", [NegativeCosine(), DINO(4)])
def test_teacher_gets_no_gradient(objective: Distillation) -> None:
    student, teacher = random_views().requires_grad_(), teachers().requires_grad_()
    objective(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((2, 4, 3), (3, 4, 3), r"no more of the teacher's, but got shapes \[2, 4, 3\] and \[3, 4, 3\]"),
        ((2, 4, 3), (2, 5, 3), r"\[2, 4, 3\] and \[2, 5, 3\]"),
        ((4, 3), (4, 3), r"\[views, samples, dimensions\]"),
        ((1, 4, 3), (1, 4, 3), "at least 2 views or set skip_same=False"),
    ],
)
def test_shapes_that_do_not_fit(student: tuple[int, ...], teacher: tuple[int, ...], message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        NegativeCosine()(torch.ones(student), torch.ones(teacher))


def test_dino_with_a_head_of_another_width() -> None:
    with pytest.raises(PolysenseError, match="made for 5 prototypes, but the head gives 4"):
        DINO(5)(random_views(), teachers())
