from __future__ import annotations

import pytest
import torch

from polysense.errors import PolysenseError
from polysense.objectives import FeatureRegression
from tests.objectives.cases import random_views


def test_it_is_the_squared_distance_of_normalised_features() -> None:
    student, teacher = random_views(), random_views(seed=1)
    rows = teacher.reshape(-1, 4)
    terms = []
    for view in range(2):
        for row in range(6):
            target = torch.stack(
                [(teacher[view, row, k] - rows[:, k].mean()) / rows[:, k].std(correction=0) for k in range(4)]
            )
            ours = student[view, row] / student[view, row].norm()
            terms.append((ours - target / target.norm()).square().sum())
    torch.testing.assert_close(
        FeatureRegression()(student, teacher), torch.stack(terms).mean(), rtol=1e-5, atol=0
    )


def test_what_all_samples_share_and_each_dimensions_scale_do_not_matter() -> None:
    student, teacher = random_views(), random_views(seed=1)
    shifted = 100 + teacher * torch.tensor([1.0, 5.0, 0.1, 20.0])
    loss = FeatureRegression()(student, teacher)
    torch.testing.assert_close(FeatureRegression()(student, shifted), loss, rtol=1e-4, atol=0)
    torch.testing.assert_close(FeatureRegression()(3 * student, teacher), loss)


def test_constant_dimensions_are_no_trouble() -> None:
    student = random_views().requires_grad_()
    FeatureRegression()(student, torch.ones(2, 6, 4)).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_tokens_on_other_grids_are_refused() -> None:
    with pytest.raises(PolysenseError, match="where their grids differ, leave tokens at 0"):
        FeatureRegression()(torch.ones(1, 2, 16, 4), torch.ones(1, 2, 9, 4))
