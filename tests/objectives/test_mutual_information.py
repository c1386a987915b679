from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import DonskerVaradhan, JensenShannon, LocalInfoNCE, MutualInformation


def tokens_and_summary(views: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    tokens = torch.randn(views, 4, 3, 5, dtype=torch.float64)
    return tokens, torch.randn(views, 4, 5, dtype=torch.float64)


def scores(tokens: Tensor, summary: Tensor) -> tuple[list[float], list[float]]:
    joint: list[float] = []
    mismatched: list[float] = []
    for i, one in enumerate(summary):
        for j, places in enumerate(tokens):
            for place in places:
                (joint if i == j else mismatched).append(float(one @ place))
    return joint, mismatched


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def jensen_shannon(tokens: Tensor, summary: Tensor) -> float:
    joint, mismatched = scores(tokens, summary)
    positive = mean([math.log(2) - math.log(1 + math.exp(-u)) for u in joint])
    negative = mean([math.log(1 + math.exp(-u)) + u - math.log(2) for u in mismatched])
    return negative - positive


def donsker_varadhan(tokens: Tensor, summary: Tensor) -> float:
    joint, mismatched = scores(tokens, summary)
    return math.log(mean([math.exp(u) for u in mismatched])) - mean(joint)


def noise_contrastive(tokens: Tensor, summary: Tensor) -> float:
    terms = []
    for i, one in enumerate(summary):
        others = [float(one @ place) for j, places in enumerate(tokens) if j != i for place in places]
        for place in tokens[i]:
            own = float(one @ place)
            terms.append(-math.log(math.exp(own) / (math.exp(own) + sum(map(math.exp, others)))))
    return mean(terms)


EVERY = [
    (JensenShannon, jensen_shannon),
    (LocalInfoNCE, noise_contrastive),
    (DonskerVaradhan, donsker_varadhan),
]


@pytest.mark.parametrize(("objective", "authors"), EVERY)
def test_each_estimator_is_the_authors(objective: type[MutualInformation], authors: object) -> None:
    assert callable(authors)
    tokens, summary = tokens_and_summary()
    assert objective()(tokens, summary).item() == pytest.approx(authors(tokens[0], summary[0]), rel=1e-12)


@pytest.mark.parametrize("objective", [JensenShannon, LocalInfoNCE, DonskerVaradhan])
def test_views_are_averaged_and_places_may_change_order(objective: type[MutualInformation]) -> None:
    tokens, summary = tokens_and_summary(2)
    each = [objective()(tokens[[v]], summary[[v]]) for v in range(2)]
    torch.testing.assert_close(objective()(tokens, summary), torch.stack(each).mean())
    torch.testing.assert_close(objective()(tokens[:, :, [2, 0, 1]], summary), objective()(tokens, summary))


@pytest.mark.parametrize("objective", [JensenShannon, LocalInfoNCE, DonskerVaradhan])
def test_large_scores_neither_overflow_nor_lose_the_gradient(objective: type[MutualInformation]) -> None:
    tokens, summary = (200 * part.float() for part in tokens_and_summary())
    loss = objective()(tokens.requires_grad_(), summary)
    loss.backward()
    assert loss.isfinite()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()
    assert tokens.grad.abs().max() > 0


def test_scores_that_tell_every_sample_reach_the_best_loss_and_dv_has_none() -> None:
    tokens = 30 * torch.eye(8)[None, :, None]
    summary = 2 * torch.eye(8)[None] - 1  # scores 30 with its own place and -30 with all others
    assert JensenShannon()(tokens, summary).item() == pytest.approx(-2 * math.log(2))
    assert LocalInfoNCE()(tokens, summary).item() == pytest.approx(0.0)
    assert DonskerVaradhan()(tokens, summary).item() == pytest.approx(-60)


@pytest.mark.parametrize(
    ("tokens", "summary", "told"),
    [
        ((1, 4, 3, 5), (1, 4, 6), r"got \[1, 4, 3, 5\] and \[1, 4, 6\]"),
        ((4, 3, 5), (4, 5), r"places \[views, samples, places, dimensions\]"),
        ((1, 1, 3, 5), (1, 1, 5), "at least 2 samples"),
    ],
)
def test_shapes_that_do_not_fit(tokens: tuple[int, ...], summary: tuple[int, ...], told: str) -> None:
    with pytest.raises(PolysenseError, match=told):
        JensenShannon()(torch.ones(tokens), torch.ones(summary))
