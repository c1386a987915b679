"""Budget, order of samples, optimisers and schedules."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from polysense.errors import PolysenseError
from polysense.methods.optimisation import Optimisation
from polysense.training.budget import Budget, parse_time
from polysense.training.loader import StepSampler
from polysense.training.module import _mix
from polysense.training.optimisers import LARS, apply_schedule, make_optimiser


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("3min", 180), ("1.5h", 5400), ("00:03:00", 180), ("02:30", 150), (2, 120), ("1d", 86400)],
)
def test_times(text: str | float, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["soon", "3 fortnights", "", "0s", "1:2:3:4"])
def test_bad_times(text: str) -> None:
    with pytest.raises(PolysenseError, match=r"cannot read the time|leaves nothing"):
        parse_time(text)


def test_two_budgets_are_refused() -> None:
    with pytest.raises(PolysenseError, match="state one budget, not steps and epochs"):
        Budget.of(samples=10, batch=2, steps=3, epochs=2)


def test_the_automatic_budget_follows_the_data() -> None:
    assert Budget.of(samples=100, batch=50).steps == 400  # 200 epochs at most
    assert Budget.of(samples=1_000_000, batch=1000).steps == 10_000  # 10 epochs at least
    steps = Budget.of(samples=3822, batch=256).steps
    assert steps is not None
    assert steps * 256 == pytest.approx(500_000, rel=0.1)


def test_progress() -> None:
    assert Budget(steps=10).progress(5, 1e9) == 0.5
    assert Budget(seconds=10).progress(10**9, 2.5) == 0.25
    assert Budget(seconds=10).progress(0, 11) == 1.0


def test_a_step_sees_the_same_samples_however_it_was_reached() -> None:
    whole = list(itertools.islice(StepSampler(10, 3, seed=4), 9))
    for start in range(9):
        assert next(iter(StepSampler(10, 3, seed=4, start=start))) == whole[start]


def test_an_epoch_sees_no_sample_twice_and_epochs_differ() -> None:
    batches = list(itertools.islice(StepSampler(12, 4, seed=0), 6))
    first, second = [*itertools.chain(*batches[:3])], [*itertools.chain(*batches[3:])]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_processes_share_a_batch_without_overlap() -> None:
    whole = next(iter(StepSampler(20, 8, seed=1)))
    parts = [next(iter(StepSampler(20, 8, seed=1, rank=rank, world=2))) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(whole)


def test_seeds_differ_by_each_number() -> None:
    seeds = {_mix(*numbers) for numbers in itertools.product(range(4), repeat=4)}
    assert len(seeds) == 256
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_biases_and_norms_do_not_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimiser = make_optimiser(module, Optimisation("adamw", lr=1e-3, weight_decay=0.5), 256)
    decays = {p.ndim: group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert decays == {2: 0.5, 1: 0.0}


def test_warm_up_then_cosine() -> None:
    how = Optimisation("sgd", lr=1.0, per=256, warmup=0.2)
    optimiser = make_optimiser(nn.Linear(2, 2), how, 256)
    rates = [apply_schedule(optimiser, how, 256, progress) for progress in (0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0, 0.5, 1.0, 0.5, 0.0])
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.0)


def test_weight_decay_moves_along_its_own_cosine() -> None:
    how = Optimisation("adamw", lr=1.0, weight_decay=0.04, final_weight_decay=0.4)
    optimiser = make_optimiser(nn.Linear(2, 2), how, 256)
    apply_schedule(optimiser, how, 256, 0.5)
    assert [group["weight_decay"] for group in optimiser.param_groups] == pytest.approx([0.22, 0.0])


def test_lars_follows_its_formula() -> None:
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))
    optimiser = LARS(
        [
            {"params": [weight], "weight_decay": 0.1, "adapt": True},
            {"params": [bias], "adapt": False},
        ],
        lr=0.5,
        momentum=0.9,
    )
    expected_weight, expected_bias = weight.detach().clone(), bias.detach().clone()
    velocity_weight, velocity_bias = torch.zeros(4, 3), torch.zeros(3)
    for _ in range(3):
        weight.grad, bias.grad = torch.randn(4, 3), torch.randn(3)
        slope = weight.grad + 0.1 * expected_weight
        velocity_weight = 0.9 * velocity_weight + slope * (0.001 * expected_weight.norm() / slope.norm())
        velocity_bias = 0.9 * velocity_bias + bias.grad
        expected_weight = expected_weight - 0.5 * velocity_weight
        expected_bias = expected_bias - 0.5 * velocity_bias
        optimiser.step()
    assert torch.allclose(weight, expected_weight, atol=1e-6)
    assert torch.allclose(bias, expected_bias, atol=1e-6)


def test_lamb_follows_its_formula() -> None:
    """The paper's algorithm with plain lists of numbers, three steps, with decay, against ours."""
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.randn(3, 2).double()), nn.Parameter(torch.randn(3).double())
    gradients = [(torch.randn(3, 2).double(), torch.randn(3).double()) for _ in range(3)]
    expected = []
    for place, parameter in enumerate((weight, bias)):
        decay, adapt = (0.1, True) if place == 0 else (0.0, False)
        w = parameter.detach().flatten().tolist()
        m, v = [0.0] * len(w), [0.0] * len(w)
        for t in range(1, 4):
            g = gradients[t - 1][place].flatten().tolist()
            m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
            v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
            u = [
                (a / (1 - 0.9**t)) / ((b / (1 - 0.999**t)) ** 0.5 + 1e-6) + decay * x
                for a, b, x in zip(m, v, w, strict=True)
            ]
            ratio = (sum(x * x for x in w) / sum(x * x for x in u)) ** 0.5 if adapt else 1.0
            w = [x - 0.05 * ratio * y for x, y in zip(w, u, strict=True)]
        expected.append(torch.tensor(w, dtype=torch.float64).reshape(parameter.shape))
    module = nn.ParameterDict({"weight": weight, "bias": bias})
    optimiser = make_optimiser(module, Optimisation("lamb", lr=0.05, weight_decay=0.1), 256)
    for step in gradients:
        weight.grad, bias.grad = step
        optimiser.step()
    torch.testing.assert_close([weight.detach(), bias.detach()], expected)


def test_lars_leaves_a_weight_without_gradient_where_it_is() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)
    LARS([weight], lr=1.0).step()
    assert torch.equal(weight, torch.ones(2, 2))


def test_unknown_optimiser() -> None:
    with pytest.raises(PolysenseError, match="unknown optimiser 'adam'"):
        make_optimiser(nn.Linear(2, 2), Optimisation("adam", lr=1), 2)
