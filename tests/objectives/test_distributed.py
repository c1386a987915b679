from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.objectives.distributed import gather, mean_over_processes, rank, world_size
from tests.processes import run_in_processes

WEIGHT = torch.arange(12.0).reshape(2, 6)


def exercise() -> dict[str, Tensor | tuple[int, int]]:
    rows = (torch.arange(6.0).reshape(3, 2).T + 10 * rank()).requires_grad_()  # not contiguous
    gathered = gather(rows, dim=1)
    ((1 + rank()) * (WEIGHT * gathered).sum()).backward()

    value = torch.tensor(2.0 + 4 * rank(), requires_grad=True)
    mean = mean_over_processes(value)
    ((1 + rank()) * mean).backward()
    assert rows.grad is not None
    assert value.grad is not None
    return {
        "place": (rank(), world_size()),
        "gathered": gathered.detach(),
        "rows.grad": rows.grad,
        "mean": mean.detach(),
        "value.grad": value.grad,
        "value": value.detach(),
    }


@pytest.fixture(scope="module")
def results() -> list[dict[str, Tensor]]:
    return run_in_processes(exercise)


def test_gather_is_in_order_of_rank(results: list[dict[str, Tensor]]) -> None:
    assert [result["place"] for result in results] == [(0, 2), (1, 2)]
    for result in results:
        assert result["gathered"].tolist() == [[0, 2, 4, 10, 12, 14], [1, 3, 5, 11, 13, 15]]


def test_gather_sums_the_gradients_of_all_processes(results: list[dict[str, Tensor]]) -> None:
    for place, result in enumerate(results):
        assert torch.equal(result["rows.grad"], 3 * WEIGHT[:, 3 * place : 3 * place + 3])


def test_mean_over_processes_and_its_gradient(results: list[dict[str, Tensor]]) -> None:
    for place, result in enumerate(results):
        assert result["mean"] == 4.0
        assert result["value.grad"] == 1.5  # (1 + 2) / 2: each process's loss reaches every value
        assert result["value"] == 2.0 + 4 * place  # the input is left alone


def test_one_process_is_left_alone() -> None:
    x = torch.ones(2, requires_grad=True)
    assert gather(x) is x
    assert mean_over_processes(x) is x
    assert (rank(), world_size()) == (0, 1)
