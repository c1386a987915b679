from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives.distributed import rank
from polysense.objectives.sinkhorn import sinkhorn
from tests.processes import run_in_processes


def scores(batch: int = 6, prototypes: int = 4, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.rand(batch, prototypes, dtype=torch.float64) * 2 - 1


def authors(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """In plain probabilities, one prototype and one sample after the other."""
    q = (scores / epsilon).exp().T
    q = q / q.sum()
    for _ in range(iterations):
        for k in range(len(q)):
            q[k] = q[k] / q[k].sum() / len(q)
        for b in range(q.shape[1]):
            q[:, b] = q[:, b] / q[:, b].sum() / q.shape[1]
    return (q * q.shape[1]).T


@pytest.mark.parametrize("iterations", [1, 3])
def test_it_is_the_authors(iterations: int) -> None:
    torch.testing.assert_close(sinkhorn(scores(), 0.05, iterations), authors(scores(), 0.05, iterations))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 9), prototypes=st.integers(1, 9), shift=st.floats(-100, 100), seed=st.integers(0, 99)
)
def test_rows_sum_to_one_and_columns_are_equally_full(
    batch: int, prototypes: int, shift: float, seed: int
) -> None:
    x = scores(batch, prototypes, seed)
    assigned = sinkhorn(x, 0.5, iterations=300)
    torch.testing.assert_close(assigned.sum(1), torch.ones(batch, dtype=torch.float64))
    torch.testing.assert_close(
        assigned.sum(0), torch.full((prototypes,), batch / prototypes, dtype=torch.float64)
    )
    torch.testing.assert_close(sinkhorn(x + shift, 0.5, iterations=300), assigned)


def test_scores_that_would_overflow() -> None:
    assert sinkhorn(1000 * scores().float(), 0.05).isfinite().all()


def test_it_leaves_the_scores_alone_and_has_no_gradient() -> None:
    x = scores().requires_grad_()
    assert not sinkhorn(x, 0.05).requires_grad
    assert torch.equal(x.detach(), scores())


def assignments_of_a_share() -> Tensor:
    return sinkhorn(scores().split([4, 2])[rank()], 0.05)


def test_processes_with_unequal_shares_balance_together() -> None:
    shares = run_in_processes(assignments_of_a_share)
    torch.testing.assert_close(torch.cat(shares), sinkhorn(scores(), 0.05))


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.0, 3), (0.05, 0)])
def test_impossible_settings(epsilon: float, iterations: int) -> None:
    with pytest.raises(PolysenseError, match="choose a positive epsilon"):
        sinkhorn(scores(), epsilon, iterations)
