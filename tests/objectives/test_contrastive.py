from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives import NTXent, contrastive, info_nce
from tests.objectives.cases import random_views


def simclr(z: Tensor, temperature: float) -> Tensor:
    """Row by row from the paper's equation (1), the two views' means added."""
    both = torch.cat([z[0], z[1]])
    both = both / both.norm(dim=1, keepdim=True)
    n = z.shape[1]
    rows = []
    for i in range(2 * n):
        scores = [both[i] @ both[j] / temperature for j in range(2 * n)]
        others = torch.stack([scores[j] for j in range(2 * n) if j != i])
        rows.append(-scores[(i + n) % (2 * n)] + others.exp().sum().log())
    return torch.stack(rows[:n]).mean() + torch.stack(rows[n:]).mean()


@pytest.mark.parametrize("chunk", [1, 37, 2**20])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_and_gradient_are_the_authors(
    chunk: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "_CHUNK", chunk)
    z, reference = (random_views(2, 7).requires_grad_() for _ in range(2))
    loss, expected = NTXent(temperature)(z), simclr(reference, temperature)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(z.grad, reference.grad, rtol=1e-12, atol=1e-12)


def test_default_temperature_is_the_papers() -> None:
    z = random_views()
    torch.testing.assert_close(NTXent()(z), simclr(z, 0.1))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_only_directions_count(scale: float, seed: int) -> None:
    z = random_views(3, seed=seed)
    torch.testing.assert_close(NTXent()(scale * z), NTXent()(z))


def test_indistinguishable_samples_are_chance() -> None:
    loss = NTXent()(torch.ones(2, 8, 3))
    assert loss.item() == pytest.approx(2 * math.log(15))


def test_low_temperature_is_finite_where_probabilities_underflow() -> None:
    z = torch.tensor([[[1.0, 0], [-1, 0]], [[-1, 0], [1, 0]]], requires_grad=True)  # partners are opposite
    loss = NTXent(temperature=0.005)(z)
    loss.backward()
    assert loss.item() == pytest.approx(2 * 400, rel=1e-4)
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_info_nce_of_two_sets_is_cross_entropy() -> None:
    a, b = (random_views(2, 9)[0].requires_grad_(), random_views(2, 9)[1].requires_grad_())
    partner = torch.tensor([8, 0, 1, 3, 2, 2, 5, 7, 4])
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, partner), (a, b))
    torch.testing.assert_close(info_nce(a, b, partner), F.cross_entropy(a @ b.T, partner))


def test_second_derivative_is_refused() -> None:
    z = random_views().requires_grad_()
    with pytest.raises(PolysenseError, match="differentiated once only"):
        torch.autograd.grad(NTXent()(z), z, create_graph=True)


@pytest.mark.parametrize("shape", [(1, 4, 8), (2, 1, 8), (4, 8)])
def test_too_little_to_compare(shape: tuple[int, ...]) -> None:
    message = rf"NTXent compares at least 2 views of at least 2 samples.*got shape \[{shape[0]}, {shape[1]}"
    with pytest.raises(PolysenseError, match=message):
        NTXent()(torch.randn(shape))


MEMORY = """
import torch
from pathlib import Path
from polysense.objectives import NTXent

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

torch.set_num_threads(1)
z = torch.randn(2, 4096, 128, requires_grad=True)
NTXent()(z[:, :8]).backward()
before = resident("VmRSS")
NTXent()(z).backward()
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_far_below_one_matrix_of_similarities() -> None:
    # not ru_maxrss, which a child process inherits from its parent: it would hide everything here
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    kilobytes, matrix = int(run.stdout), 8192**2 * 4 / 1024
    assert 1000 < kilobytes < matrix / 2
