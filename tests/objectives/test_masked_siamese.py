from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import MSN
from tests.objectives.cases import random_views


def assignment(rows: Tensor, prototypes: Tensor) -> Tensor:
    """Soft nearest neighbours at temperature 0.1, one row after the other."""
    answers = []
    for row in rows:
        cosines = torch.stack([(row @ p) / row.norm() / p.norm() for p in prototypes])
        answers.append((cosines / 0.1).exp() / (cosines / 0.1).exp().sum())
    return torch.stack(answers)


def balanced(p: Tensor) -> Tensor:
    q = p.T / p.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / q.shape[0]
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


@pytest.mark.parametrize("iterations", [0, 3])
@pytest.mark.parametrize("views", [2, 4])
def test_it_is_the_authors_with_each_whole_view_as_target(views: int, iterations: int) -> None:
    objective = MSN(5, 4, sinkhorn_iterations=iterations).double()
    prototypes = objective.prototypes.detach()
    student, teacher = random_views(views), random_views(2, seed=1)
    anchors = [assignment(view, prototypes) for view in student]
    terms = []
    for t in range(2):
        sharp = assignment(teacher[t], prototypes) ** 4  # sharpened at 0.25: a temperature of 0.025
        target = sharp / sharp.sum(1, keepdim=True)
        if iterations:
            target = balanced(target)
        terms += [-(target * anchors[v].log()).sum(1).mean() for v in range(views) if v != t]
    mean = torch.cat(anchors).mean(0)
    expected = torch.stack(terms).mean() + (mean * mean.log()).sum() + math.log(5)
    torch.testing.assert_close(objective(student, teacher), expected)


def test_one_prototype_for_all_costs_the_whole_entropy() -> None:
    objective = MSN(5, 4, temperature=0.01, sinkhorn_iterations=0, entropy_weight=3.0)
    same = objective.prototypes.detach()[2].expand(2, 6, 4)
    assert objective(same, same).item() == pytest.approx(3 * math.log(5), abs=1e-2)


def test_scale_is_ignored() -> None:
    objective, student, teacher = MSN(5, 4).double(), random_views(), random_views(seed=1)
    torch.testing.assert_close(objective(9 * student, 0.1 * teacher), objective(student, teacher))


def test_prototypes_learn_from_the_student_alone() -> None:
    objective = MSN(5, 4, entropy_weight=0.0).double()
    teacher = random_views(seed=1).requires_grad_()
    objective(random_views(), teacher).backward()
    assert teacher.grad is None
    assert objective.prototypes.grad is not None
    assert objective.prototypes.grad.abs().max() > 1e-3


def test_another_width() -> None:
    with pytest.raises(PolysenseError, match="have 7 dimensions, but the projector gives 4"):
        MSN(5, 7)(random_views(), random_views())
