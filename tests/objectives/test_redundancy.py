from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polysense.errors import PolysenseError
from polysense.objectives import BarlowTwins, Objective, VICReg
from tests.objectives.cases import random_views

shapes = pytest.mark.parametrize(("batch", "dimensions"), [(9, 4), (5, 11)])


def vicreg(x: Tensor, y: Tensor) -> Tensor:
    """From the paper's equations (1) to (6), with the authors' code's halves and divisors."""
    n, d = x.shape
    invariance = ((x - y) ** 2).sum() / (n * d)
    variance, covariance = torch.zeros(()), torch.zeros(())
    for view in (x, y):
        matrix = view.T.cov()
        variance = (
            variance + sum(torch.clamp(1 - (matrix[i, i] + 1e-4) ** 0.5, min=0) for i in range(d)) / d / 2
        )
        covariance = covariance + sum(matrix[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return 25 * invariance + 25 * variance + covariance


def barlow(x: Tensor, y: Tensor, off_diagonal: float) -> Tensor:
    normalise = nn.BatchNorm1d(x.shape[1], affine=False, dtype=x.dtype)
    c = normalise(x).T @ normalise(y) / len(x)
    on = ((1 - c.diagonal()) ** 2).sum()
    off = (c[~torch.eye(len(c), dtype=torch.bool)] ** 2).sum()
    return on + off_diagonal * off


def assert_same(objective: Objective, z: Tensor, reference: Tensor, expected: Tensor) -> None:
    loss = objective(z)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(z.grad, reference.grad, rtol=1e-10, atol=1e-12)


@shapes
def test_vicreg_is_the_authors(batch: int, dimensions: int) -> None:
    z, reference = (random_views(2, batch, dimensions).requires_grad_() for _ in range(2))
    assert_same(VICReg(), z, reference, vicreg(reference[0], reference[1]))


def test_vicreg_halves_the_variance_term_of_each_view() -> None:
    collapsed = torch.zeros(2, 4, 3)
    assert VICReg(eps=0.0)(collapsed).item() == pytest.approx(25.0)
    assert VICReg()(collapsed).item() == pytest.approx(25 * 0.99)  # sqrt(1e-4) = 0.01


def test_vicreg_depends_on_scale() -> None:
    z, invariance, covariance = random_views(), VICReg(1, 0, 0), VICReg(0, 0, 1)
    torch.testing.assert_close(invariance(2 * z), 4 * invariance(z))
    torch.testing.assert_close(covariance(2 * z), 16 * covariance(z))


@shapes
def test_barlow_is_the_authors(batch: int, dimensions: int) -> None:
    z, reference = (random_views(2, batch, dimensions).requires_grad_() for _ in range(2))
    assert_same(BarlowTwins(0.0051), z, reference, barlow(reference[0], reference[1], 0.0051))
    torch.testing.assert_close(BarlowTwins()(z), BarlowTwins(0.0051)(z))


def test_barlow_diagonal_reaches_one_for_identical_views() -> None:
    z = random_views(1, 8).expand(2, 8, 4)
    assert BarlowTwins(off_diagonal=0.0, eps=1e-30)(z).item() < 1e-28  # unbiased: 4 * (1/8)^2 = 0.06
    assert BarlowTwins(off_diagonal=0.0)(z).item() < 4 * 1e-7


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scale=st.floats(0.1, 1e3), shift=st.floats(-10, 10), seed=st.integers(0, 1000))
def test_barlow_ignores_scale_and_shift(scale: float, shift: float, seed: int) -> None:
    z, objective = random_views(seed=seed), BarlowTwins(eps=1e-30)
    torch.testing.assert_close(objective(scale * z + shift), objective(z))


@pytest.mark.parametrize("objective", [VICReg(), BarlowTwins()])
def test_many_dimensions_in_float32_agree_with_float64(objective: Objective) -> None:
    z = random_views(2, 64, 512)
    torch.testing.assert_close(objective(z.float()).double(), objective(z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("objective", [VICReg(), BarlowTwins()])
def test_one_view_is_too_few(objective: Objective) -> None:
    message = f"{type(objective).__name__} compares at least 2 views"
    with pytest.raises(PolysenseError, match=message):
        objective(torch.randn(1, 4, 3))
