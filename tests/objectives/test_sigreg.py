from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import LeJEPA, SIGReg, sigreg
from polysense.objectives.distributed import rank
from tests.objectives.cases import random_views
from tests.processes import run_in_processes


def directions(slices: int, dimensions: int = 4, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(dimensions, slices).double()


def epps_pulley(x: Tensor, knots: int, reach: float) -> Tensor:
    """The test of one view along one direction, by the trapezoidal rule over both halves."""
    t = torch.linspace(-reach, reach, 2 * knots - 1, dtype=x.dtype)
    normal = torch.exp(-(t**2) / 2)
    empirical = torch.stack([torch.exp(1j * each * x).mean() for each in t])
    return len(x) * torch.trapezoid((empirical - normal).abs() ** 2 * normal, t)


def sigreg_naive(z: Tensor, drawn: Tensor, knots: int = 17, reach: float = 3.0) -> Tensor:
    tests = [epps_pulley(view @ (d / d.norm()), knots, reach) for view in z for d in drawn.T]
    return torch.stack(tests).mean()


@pytest.mark.parametrize("views", [2, 5])
@pytest.mark.parametrize(("knots", "reach"), [(17, 3.0), (6, 5.0), (2, 1.0)])
def test_it_is_the_authors(views: int, knots: int, reach: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sigreg, "_CHUNK", 60)  # several parts, the last one shorter
    z, reference = (random_views(views, 7).requires_grad_() for _ in range(2))
    expected = sigreg_naive(reference, directions(7), knots, reach)
    torch.manual_seed(0)
    loss = SIGReg(7, knots, reach)(z)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(z.grad, reference.grad)


def test_each_call_draws_other_directions() -> None:
    z, objective = random_views(), SIGReg(3)
    assert objective(z) != objective(z)


def test_a_normal_distribution_scores_low_and_any_other_high() -> None:
    torch.manual_seed(0)
    normal = torch.randn(2, 2000, 16)
    loss = SIGReg()(normal)
    # what the statistic is on average for N normal samples: the integral of w(t) (1 - exp(-t^2))
    expected = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    assert loss.item() == pytest.approx(expected, rel=0.15)
    for other in (torch.zeros_like(normal), 2 * normal, normal + 1, normal[..., :1].expand_as(normal)):
        assert SIGReg()(other) > 20 * loss


def test_float32_agrees_with_float64() -> None:
    z = 3 * torch.randn(2, 64, 32, dtype=torch.float64)
    losses = []
    for each in (z, z.float()):
        torch.manual_seed(0)
        losses.append(SIGReg()(each).double())
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


def test_it_is_differentiable_once() -> None:
    z = random_views().requires_grad_()
    with pytest.raises(PolysenseError, match="differentiated once only"):
        torch.autograd.grad(SIGReg(3)(z), z, create_graph=True)


def lejepa(z: Tensor, globals_: int, drawn: Tensor, regularisation: float) -> Tensor:
    distances = []
    for view in z:
        for sample, each in enumerate(view):
            centre = sum(z[g, sample] for g in range(globals_)) / globals_
            distances.append(((each - centre) ** 2).mean())
    return (1 - regularisation) * torch.stack(distances).mean() + regularisation * sigreg_naive(z, drawn)


@pytest.mark.parametrize(("views", "globals_"), [(2, 2), (5, 2), (3, 1)])
def test_lejepa_is_the_authors(views: int, globals_: int) -> None:
    z, reference = (random_views(views).requires_grad_() for _ in range(2))
    expected = lejepa(reference, globals_, directions(6), 0.05)
    torch.manual_seed(0)
    loss = LeJEPA(slices=6)(z, z[:globals_])
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(z.grad, reference.grad)


def own_directions() -> dict[str, Tensor]:
    """On a share of the batch, every process having seeded its generator in its own way."""
    z = random_views(2, 8)[:, 4 * rank() : 4 * rank() + 4]
    torch.manual_seed(rank())
    loss = SIGReg(slices=6)(z)
    smallest, largest = loss.clone(), loss.clone()
    dist.all_reduce(smallest, dist.ReduceOp.MIN)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return {"loss": loss, "spread": largest - smallest}


def test_processes_with_seeds_of_their_own_draw_alike() -> None:
    drawn = directions(6, seed=0) + directions(6, seed=1)
    expected = sigreg_naive(random_views(2, 8), drawn)
    for share in run_in_processes(own_directions):
        assert share["spread"] == 0
        torch.testing.assert_close(share["loss"], expected)


def test_no_global_view() -> None:
    with pytest.raises(PolysenseError, match="ask for at least 1 global view"):
        LeJEPA()(random_views(), random_views()[:0])


@pytest.mark.parametrize(("slices", "knots"), [(0, 17), (8, 1)])
def test_nonsense_settings(slices: int, knots: int) -> None:
    with pytest.raises(PolysenseError, match=f"cannot test {slices} slices at {knots} knots"):
        SIGReg(slices, knots)
