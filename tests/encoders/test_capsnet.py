"""Capsules: the routing against loops over capsules, and the net as an encoder like the others."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polysense.encoders import build
from polysense.encoders.capsnet import CapsNet, dynamic_routing, em_routing, squash
from polysense.errors import PolysenseError
from polysense.methods.table import find


def squashed(vector: list[float]) -> list[float]:
    square = sum(x * x for x in vector)
    return [square / (1 + square) * x / math.sqrt(square) for x in vector]


def shares(logits: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def dynamic_by_hand(votes: list, iterations: int) -> list[list[float]]:
    """One sample's ``votes[j][i][d]``, routed as Sabour et al. write it, capsule by capsule."""
    routed, lower, width = len(votes), len(votes[0]), len(votes[0][0])
    logits = [[0.0] * routed for _ in range(lower)]
    for iteration in range(iterations):
        share = [shares(row) for row in logits]
        capsules = [
            squashed([sum(share[i][j] * votes[j][i][d] for i in range(lower)) for d in range(width)])
            for j in range(routed)
        ]
        if iteration < iterations - 1:
            for i in range(lower):
                for j in range(routed):
                    logits[i][j] += sum(votes[j][i][d] * capsules[j][d] for d in range(width))
    return capsules


def em_by_hand(votes, active, spread, threshold, iterations, final) -> tuple[list, list]:
    """One sample's EM routing as Hinton et al. write it: densities, not their logarithms."""
    routed, lower, width = len(votes), len(votes[0]), len(votes[0][0])
    assigned = [[1 / routed] * routed for _ in range(lower)]
    for iteration in range(iterations):
        mean, variance, activation = [], [], []
        for j in range(routed):
            weights = [assigned[i][j] * active[i] for i in range(lower)]
            total = sum(weights)
            mu = [sum(w * votes[j][i][d] for i, w in enumerate(weights)) / total for d in range(width)]
            var = [
                sum(w * (votes[j][i][d] - mu[d]) ** 2 for i, w in enumerate(weights)) / total + 1e-4
                for d in range(width)
            ]
            cost = sum((spread[j] + math.log(math.sqrt(v))) * total for v in var)
            heat = final * (1 - 0.95 ** (iteration + 1))
            mean.append(mu)
            variance.append(var)
            activation.append(1 / (1 + math.exp(-heat * (threshold[j] - cost))))
        for i in range(lower):
            density = [
                activation[j]
                * math.prod(
                    math.exp(-((votes[j][i][d] - mean[j][d]) ** 2) / (2 * variance[j][d]))
                    / math.sqrt(2 * math.pi * variance[j][d])
                    for d in range(width)
                )
                for j in range(routed)
            ]
            assigned[i] = [one / sum(density) for one in density]
    return mean, activation


def random_votes(batch: int = 2, routed: int = 3, lower: int = 5, width: int = 4) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(batch, routed, lower, width, dtype=torch.float64)


def test_squash_keeps_the_direction_and_brings_the_length_below_one() -> None:
    vectors = 5 * torch.randn(6, 4, dtype=torch.float64)
    expected = [squashed(vector) for vector in vectors.tolist()]
    torch.testing.assert_close(squash(vectors), torch.tensor(expected, dtype=torch.float64))
    zero = torch.zeros(1, 4, requires_grad=True)
    squash(zero).sum().backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_dynamic_routing_equals_loops_over_capsules(iterations: int) -> None:
    votes = random_votes()
    expected = [dynamic_by_hand(sample, iterations) for sample in votes.tolist()]
    found = dynamic_routing(votes, iterations)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_em_routing_equals_loops_over_capsules(iterations: int) -> None:
    votes = random_votes()
    active = torch.rand(2, 5, dtype=torch.float64)
    spread, threshold = torch.randn(2, 3, dtype=torch.float64)
    poses, activations = em_routing(votes, active, spread, threshold, iterations, 0.7)
    for row in range(2):
        sample = votes[row].tolist(), active[row].tolist()
        mean, activation = em_by_hand(*sample, spread.tolist(), threshold.tolist(), iterations, 0.7)
        torch.testing.assert_close(poses[row], torch.tensor(mean, dtype=torch.float64), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(
            activations[row], torch.tensor(activation, dtype=torch.float64), rtol=1e-6, atol=1e-7
        )


def test_votes_that_agree_win_the_routing() -> None:
    """Half of the lower capsules agree on capsule 0, none on capsule 1."""
    votes = random_votes(batch=1, routed=2, lower=8)
    votes[0, 0, :4] = torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    lengths = dynamic_routing(votes).norm(dim=-1)[0]
    assert lengths[0] > lengths[1]
    zeros = torch.zeros(2, dtype=torch.float64)
    before, after = (
        em_routing(votes, torch.ones(1, 8, dtype=torch.float64), zeros, zeros, iterations)[0][0, 0]
        for iterations in (1, 4)
    )
    agreed = votes[0, 0, 0]
    assert (after - agreed).norm() < (before - agreed).norm()


@pytest.mark.parametrize("routing", ["dynamic", "em"])
def test_an_encoder_like_the_others(routing: str) -> None:
    encoder = build("capsnet", channels=4, size=32, routing=routing, capsules=24, pose=6)
    assert encoder.dim == 24
    for size in (28, 32, 64):  # crops of other sizes, as in multi-crop
        encoded = encoder(torch.randn(3, 4, size, size))
        assert encoded.tokens is not None
        assert (encoded.pooled.shape, encoded.tokens.shape, encoded.grid) == ((3, 24), (3, 24, 6), None)
    if routing == "dynamic":
        torch.testing.assert_close(encoded.tokens.norm(dim=-1), encoded.pooled)
    assert encoded.pooled.min() >= 0
    assert encoded.pooled.max() < 1
    encoded.pooled.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(torch.randn(3, 4, 32, 32)).pooled.dtype == torch.float32


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PolysenseError, match="unknown routing 'dynamo'; did you mean 'dynamic'"):
        build("capsnet", routing="dynamo")
    with pytest.raises(PolysenseError, match="capsule net's pose is 0; use at least 1"):
        build("capsnet", pose=0)
    with pytest.raises(PolysenseError, match="has no option 'capsule'"):
        build("capsnet", capsule=3)
    encoder = build("capsnet")
    with pytest.raises(PolysenseError, match=r"CapsNet (cannot hide tokens|has no places)"):
        find("mae").build(encoder, "image")
    with pytest.raises(PolysenseError, match="CapsNet cannot hide tokens"):
        encoder(torch.zeros(1, 3, 32, 32), torch.zeros(1, 64, dtype=torch.bool))
    with pytest.raises(PolysenseError, match="no places on a grid"):
        _ = encoder.token_dim


def test_it_is_about_as_large_as_a_small_net() -> None:
    assert sum(parameter.numel() for parameter in CapsNet().parameters()) < 750_000
