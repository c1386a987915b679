"""What holds for every objective: gradients, order of samples, mixed precision, several processes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polysense.objectives.distributed import rank, world_size
from tests.objectives.cases import CASES, K, random_views
from tests.processes import run_in_processes

every = pytest.mark.parametrize("name", CASES)


@every
@pytest.mark.parametrize("views", [2, 3])
def test_gradients_are_those_of_finite_differences(name: str, views: int) -> None:
    z, *targets = CASES[name].inputs(random_views(views))
    objective = CASES[name].make().double().eval()
    assert torch.autograd.gradcheck(lambda z: objective(z, *targets), (z.requires_grad_(),))


@every
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data(), batch=st.integers(2, 9), views=st.integers(2, 4), seed=st.integers(0, 1000))
def test_order_of_samples_is_irrelevant(
    name: str, data: st.DataObject, batch: int, views: int, seed: int
) -> None:
    z = random_views(views, batch, seed=seed)
    order = data.draw(st.permutations(range(batch)))
    torch.testing.assert_close(CASES[name].loss(z[:, order]), CASES[name].loss(z))


@every
def test_autocast_changes_nothing(name: str) -> None:
    z = random_views(3, 8).float()
    expected = CASES[name].loss(z)
    with torch.autocast("cpu", torch.bfloat16):
        loss = CASES[name].loss(z)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@every
def test_half_precision_inputs_are_reduced_in_float32(name: str) -> None:
    case = CASES[name]
    z = random_views(2, 8).bfloat16().requires_grad_()
    inputs = [x.detach() if i else x for i, x in enumerate(case.inputs(z))]
    loss = case.make().eval()(*inputs)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, case.make().eval()(*[x.float() if x.is_floating_point() else x for x in inputs]))
    torch.testing.assert_close(loss.double(), case.loss(random_views(2, 8)), rtol=0.03, atol=0.03)
    assert z.grad is not None
    assert z.grad.dtype == torch.bfloat16
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", ["ntxent", "vicreg", "barlow"])
def test_three_views_are_the_mean_over_pairs(name: str) -> None:
    z, loss = random_views(3), CASES[name].loss
    pairs = [loss(z[[a, b]]) for a, b in [(0, 1), (0, 2), (1, 2)]]
    torch.testing.assert_close(loss(z), torch.stack(pairs).mean())


def step(part: slice) -> dict[str, dict[str, Tensor]]:
    """One training step of a linear layer on a part of the batch: loss, gradients, state left behind."""
    results = {}
    for name, case in CASES.items():
        torch.manual_seed(0)
        layer = nn.Linear(5, K, dtype=torch.float64)
        objective = case.make().double()
        loss = objective(*case.inputs(layer(random_views(3, 8, 5)[:, part])))
        loss.backward()
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None
        if world_size() > 1:  # what DistributedDataParallel does, without its seconds of imports
            for parameter in layer.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= world_size()
        results[name] = {
            "loss": loss.detach(),
            "weight": layer.weight.grad,
            "bias": layer.bias.grad,
            **objective.state_dict(),
        }
    return results


def step_on_a_share() -> dict[str, dict[str, Tensor]]:
    return step(slice(4 * rank(), 4 * rank() + 4))


@pytest.fixture(scope="module")
def shares() -> list[dict[str, dict[str, Tensor]]]:
    return run_in_processes(step_on_a_share)


@every
def test_two_processes_equal_one(name: str, shares: list[dict[str, dict[str, Tensor]]]) -> None:
    whole = step(slice(None))[name]
    assert whole["weight"].abs().max() > 1e-3
    for share in shares:
        torch.testing.assert_close(share[name], whole, rtol=1e-10, atol=1e-12)
