from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import NNCLR, Distillation, InfoNCE, MoCo, MoCoV3
from tests.objectives.cases import random_views

SIZE = 7  # no multiple of the batch of 6


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


def pick(query: Tensor, keys: list[Tensor], right: int, temperature: float) -> Tensor:
    """The cross-entropy of picking a key by cosine."""
    scores = torch.stack([unit(query) @ unit(key) / temperature for key in keys])
    return scores.exp().sum().log() - scores[right]


def one_way(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    return torch.stack([pick(q, list(keys), i, temperature) for i, q in enumerate(queries)]).mean()


def teachers(views: int = 2, seed: int = 1) -> Tensor:
    return random_views(views, seed=seed)


def test_info_nce_is_directclrs_mean_of_both_directions() -> None:
    z, reference = (random_views().requires_grad_() for _ in range(2))
    loss = InfoNCE(0.1)(z)
    expected = (one_way(reference[0], reference[1], 0.1) + one_way(reference[1], reference[0], 0.1)) / 2
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(z.grad, reference.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_moco_v3_is_the_authors(temperature: float) -> None:
    student, reference = (random_views().requires_grad_() for _ in range(2))
    teacher = teachers()
    loss = MoCoV3(temperature)(student, teacher)
    both = one_way(reference[0], teacher[1], temperature) + one_way(reference[1], teacher[0], temperature)
    expected = 2 * temperature * both
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(student.grad, reference.grad, rtol=1e-10, atol=1e-12)


def start(objective: MoCo | NNCLR) -> list[Tensor]:
    """The queue it begins with, of unit length in double precision."""
    objective.queue.keys.copy_(torch.stack([unit(key) for key in objective.queue.keys]))
    return list(objective.queue.keys.clone())


def moco(queries: Tensor, keys: Tensor, queue: list[Tensor], temperature: float) -> Tensor:
    rows = [pick(q, [k, *queue], 0, temperature) for q, k in zip(queries, keys, strict=True)]
    return torch.stack(rows).mean()


@pytest.mark.parametrize("views", [1, 2])
def test_moco_is_the_authors_over_three_steps(views: int) -> None:
    """With one teacher view it is the paper's own; with two the mean of both directions."""
    objective = MoCo(4, SIZE, 0.2).double()
    queue = start(objective)
    for seed in range(3):
        student, reference = (random_views(seed=seed).requires_grad_() for _ in range(2))
        teacher = teachers(views, seed + 7)
        loss = objective(student, teacher)  # with the queue as it was before this batch
        ways = [moco(reference[1 - t], teacher[t], queue, 0.2) for t in range(views)]
        expected = torch.stack(ways).mean()
        loss.backward()
        expected.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(student.grad, reference.grad, rtol=1e-9, atol=1e-12)
        queue = [*queue, *map(unit, teacher.flatten(0, 1))][-SIZE:]
        ring = objective.queue.keys.roll(-int(objective.queue.position), 0)
        torch.testing.assert_close(ring, torch.stack(queue))


def test_nnclr_is_the_papers_over_three_steps() -> None:
    objective = NNCLR(4, SIZE, 0.1).double()
    queue = start(objective)
    for seed in range(3):
        predicted, reference = (random_views(seed=seed).requires_grad_() for _ in range(2))
        projected = teachers(2, seed + 7)
        loss = objective(predicted, projected)
        near = [
            torch.stack([max(queue, key=lambda key: float(key @ unit(z))) for z in view])
            for view in projected
        ]
        expected = (one_way(near[0], reference[1], 0.1) + one_way(near[1], reference[0], 0.1)) / 2
        loss.backward()
        expected.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(predicted.grad, reference.grad, rtol=1e-9, atol=1e-12)
        queue = [*queue, *map(unit, projected[0])][-SIZE:]
        ring = objective.queue.keys.roll(-int(objective.queue.position), 0)
        torch.testing.assert_close(ring, torch.stack(queue))


WITH_TARGETS: list[Callable[[], Distillation]] = [
    lambda: MoCo(4, SIZE),
    lambda: MoCoV3(),
    lambda: NNCLR(4, SIZE),
]
every = pytest.mark.parametrize("make", WITH_TARGETS)


@every
def test_targets_get_no_gradient(make: Callable[[], Distillation]) -> None:
    student, teacher = random_views().requires_grad_(), teachers().requires_grad_()
    make()(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().max() > 0


@every
def test_state_stands_still_in_evaluation(make: Callable[[], Distillation]) -> None:
    objective = make().eval()
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    objective(random_views(), teachers())
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())


@every
@settings(max_examples=15, deadline=None, derandomize=True)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_only_directions_count(make: Callable[[], Distillation], scale: float, seed: int) -> None:
    objective = make().double().eval()
    student, teacher = random_views(seed=seed), teachers()
    torch.testing.assert_close(objective(scale * student, teacher / scale), objective(student, teacher))


@every
def test_a_lone_view_has_nothing_to_be_compared_with(make: Callable[[], Distillation]) -> None:
    with pytest.raises(PolysenseError, match="got one view and does not compare a view with itself"):
        make()(random_views(1), teachers(1))


@pytest.mark.parametrize("make", [lambda: MoCo(5, SIZE), lambda: NNCLR(5, SIZE)])
def test_a_queue_of_another_width_is_refused(make: Callable[[], Distillation]) -> None:
    with pytest.raises(PolysenseError, match="the queue holds keys of 5 dimensions"):
        make()(random_views(), teachers())


def test_more_student_views_are_the_mean_for_each_teacher_view() -> None:
    student, teacher = random_views(3), teachers()
    first = (one_way(student[1], teacher[0], 0.2) + one_way(student[2], teacher[0], 0.2)) / 2
    second = (one_way(student[0], teacher[1], 0.2) + one_way(student[2], teacher[1], 0.2)) / 2
    torch.testing.assert_close(MoCoV3(0.2)(student, teacher), 0.4 * (first + second))


def test_indistinguishable_samples_are_chance() -> None:
    same = torch.ones(2, 8, 3)
    assert InfoNCE()(same).item() == pytest.approx(math.log(8), rel=1e-5)
    assert MoCoV3(0.2)(same, same).item() == pytest.approx(2 * 0.4 * math.log(8), rel=1e-5)
    objective = MoCo(3, 16)
    objective.queue.push(torch.nn.functional.normalize(torch.ones(16, 3), dim=1))
    assert objective(same, same).item() == pytest.approx(math.log(17), rel=1e-5)


def test_low_temperature_is_finite_where_exponentials_overflow() -> None:
    student = random_views().float().requires_grad_()
    loss = MoCo(4, SIZE, temperature=0.002)(student, -student)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 4, 8), (2, 1, 8), (4, 8)])
def test_too_little_to_compare(shape: tuple[int, ...]) -> None:
    with pytest.raises(PolysenseError, match="InfoNCE compares at least 2 views of at least 2 samples"):
        InfoNCE()(torch.randn(shape))
