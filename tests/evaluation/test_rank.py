from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.evaluation import alpha_req, feature_spread, rankme


def by_singular_values(features: Tensor) -> float:
    singular = torch.linalg.svdvals(features.double())
    share = singular / singular.sum() + 1e-7
    return math.exp(-(share * share.log()).sum())


@pytest.mark.parametrize("shape", [(1500, 64), (64, 1500), (400, 400)])
@pytest.mark.parametrize("decay", [0.0, 0.05, 0.3])
def test_rankme_is_what_the_singular_values_say(shape: tuple[int, int], decay: float) -> None:
    torch.manual_seed(0)
    features = torch.randn(shape) * torch.exp(-decay * torch.arange(shape[1]))
    assert rankme(features) == pytest.approx(by_singular_values(features), rel=1e-4)


def test_rankme_of_known_ranks() -> None:
    torch.manual_seed(0)
    line = torch.randn(200, 1) @ torch.randn(1, 32)
    plane = torch.linalg.qr(torch.randn(200, 3)).Q @ torch.linalg.qr(torch.randn(32, 3)).Q.T
    assert rankme(line) == pytest.approx(1, abs=1e-3)
    assert rankme(plane) == pytest.approx(3, abs=1e-3)
    assert rankme(1000 * plane) == pytest.approx(rankme(plane))
    assert rankme(torch.zeros(10, 4)) == pytest.approx(1, abs=1e-3)
    assert rankme(torch.eye(8, dtype=torch.bfloat16)) == pytest.approx(8, abs=1e-3)


def test_spread_of_random_and_of_collapsed_features() -> None:
    torch.manual_seed(0)
    features = torch.randn(2000, 64)
    assert feature_spread(features) == pytest.approx(1, abs=0.02)
    assert feature_spread(100 * features) == pytest.approx(feature_spread(features))
    collapsed = torch.ones(64) + 1e-3 * features
    assert feature_spread(collapsed) < 0.01


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_is_the_slope_of_the_spectrum(alpha: float) -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(300, 20, dtype=torch.float64)).Q
    basis = torch.cat([basis, -basis])  # centred
    features = basis * torch.arange(1, 21) ** (-alpha / 2) + 5
    assert alpha_req(features) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize("bad", [torch.zeros(0, 4), torch.zeros(4), torch.full((2, 2), torch.inf)])
def test_says_what_is_wrong(bad: Tensor) -> None:
    with pytest.raises(PolysenseError, match=r"shape \[N, D\]|NaN or infinite"):
        rankme(bad)


def test_a_spectrum_of_one_direction_has_no_slope() -> None:
    with pytest.raises(PolysenseError, match="no slope"):
        alpha_req(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
