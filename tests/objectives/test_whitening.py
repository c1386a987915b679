from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import WMSE
from polysense.objectives.distributed import rank
from tests.objectives.cases import random_views
from tests.processes import run_in_processes


def whiten(x: Tensor, shrink: float) -> Tensor:
    covariance = (1 - shrink) * x.T.cov() + shrink * torch.eye(x.shape[1], dtype=x.dtype)
    return (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T


def wmse(views: Tensor, deals: list[list[Tensor]], shrink: float = 0.0) -> Tensor:
    """From the paper's equations (3) to (5), by samples; ``deals``: the sub-batches of each iteration."""
    terms = []
    for sub_batches in deals:
        for part in sub_batches:
            whitened = [whiten(view[part], shrink) for view in views]
            for a in range(len(views)):
                for b in range(a + 1, len(views)):
                    for x, y in zip(whitened[a], whitened[b], strict=True):
                        terms.append((x / x.norm() - y / y.norm()).square().sum())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize("shrink", [0.0, 0.3])
def test_it_is_the_authors(views: int, shrink: float) -> None:
    z, reference = (random_views(views, 9).requires_grad_() for _ in range(2))
    loss, expected = WMSE(shrink=shrink)(z), wmse(reference, [[torch.arange(9)]], shrink)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(z.grad, reference.grad)


def test_sub_batches_are_dealt_anew_in_each_iteration() -> None:
    z = random_views(2, 24)
    torch.manual_seed(5)
    deals = [list(torch.rand(24).argsort().split(8)) for _ in range(3)]
    torch.manual_seed(5)
    torch.testing.assert_close(WMSE(sub_batch=8, iterations=3)(z), wmse(z, deals))


def test_an_uneven_batch_is_dealt_into_larger_sub_batches_and_the_rest_sits_out() -> None:
    z = random_views(2, 23)
    torch.manual_seed(5)
    order = torch.rand(23).argsort()
    torch.manual_seed(5)
    torch.testing.assert_close(WMSE(sub_batch=8)(z), wmse(z, [[order[:11], order[11:22]]]))


def test_whitened_dimensions_are_uncorrelated_and_of_unit_variance() -> None:
    whitened = WMSE()._whiten(random_views(1, 30)[0])
    torch.testing.assert_close(whitened.T.cov(), torch.eye(4, dtype=torch.float64))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scale=st.floats(0.01, 100), shift=st.floats(-10, 10), seed=st.integers(0, 1000))
def test_it_ignores_scale_and_shift(scale: float, shift: float, seed: int) -> None:
    z = random_views(batch=12, seed=seed)
    torch.testing.assert_close(WMSE()(scale * z + shift), WMSE()(z))


def own_deal() -> dict[str, Tensor]:
    """On a share of the batch, every process having seeded its generator in its own way."""
    z = random_views(2, 16)[:, 8 * rank() : 8 * rank() + 8]
    torch.manual_seed(rank())
    loss = WMSE(sub_batch=8)(z)
    smallest, largest = loss.clone(), loss.clone()
    dist.all_reduce(smallest, dist.ReduceOp.MIN)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return {"loss": loss, "spread": largest - smallest}


def test_processes_with_seeds_of_their_own_deal_alike() -> None:
    draws = []
    for seed in range(2):
        torch.manual_seed(seed)
        draws.append(torch.rand(16))
    order = torch.stack(draws).mean(0).argsort()
    expected = wmse(random_views(2, 16), [[order[:8], order[8:]]])
    for share in run_in_processes(own_deal):
        assert share["spread"] == 0
        torch.testing.assert_close(share["loss"], expected)


def test_no_more_samples_than_dimensions() -> None:
    with pytest.raises(PolysenseError, match="whitens 4 dimensions over 4 samples, and needs more samples"):
        WMSE()(random_views(2, 4))
    assert WMSE(shrink=0.1)(random_views(2, 4)).isfinite()


def test_collapsed_embeddings_are_named() -> None:
    z = random_views(2, 8)
    z[..., 0] = 3.0
    with pytest.raises(PolysenseError, match="do not fill their dimensions; lower out"):
        WMSE()(z)


def test_nonsense_sub_batches() -> None:
    with pytest.raises(PolysenseError, match="sub-batches of 1 in 1 iterations"):
        WMSE(sub_batch=1)
