"""The ranking of answers is the authors', and knows what is missing and what is the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import AnswerRanking
from tests.objectives.cases import random_views


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a, b, dim=0)


def test_it_is_the_cross_entropy_among_all_answers_and_wrong_answers() -> None:
    a, p, n = random_views(3, batch=5)
    losses = []
    for i in range(5):
        right = torch.stack([20 * cosine(a[i], p[j]) for j in range(5)])
        wrong = torch.stack([20 * cosine(a[i], n[j]) for j in range(5)])
        losses.append(-right[i] + torch.cat([right, wrong]).exp().sum().log())
    torch.testing.assert_close(AnswerRanking()(torch.stack([a, p, n])), torch.stack(losses).mean())


def test_both_ways_is_the_mean_of_the_two() -> None:
    a, p = random_views(2, batch=5)
    one, other = AnswerRanking()(torch.stack([a, p])), AnswerRanking()(torch.stack([p, a]))
    torch.testing.assert_close(AnswerRanking(both_ways=True)(torch.stack([a, p])), (one + other) / 2)


def test_what_is_missing_neither_asks_nor_answers() -> None:
    z = random_views(3, batch=6)
    present = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 1], [1, 1, 1, 0, 1, 1]], dtype=torch.bool)
    whole = AnswerRanking(5.0)(z, present)
    again = z.clone()
    again[~present] = 7.0 * torch.randn_like(again[~present])
    torch.testing.assert_close(AnswerRanking(5.0)(again, present), whole)
    without = AnswerRanking(5.0)(z[:2, :4])
    torch.testing.assert_close(AnswerRanking(5.0)(z[:2, :5], present[:2, :5]), without)


def test_the_same_question_is_not_held_against_itself() -> None:
    z = random_views(2, batch=3)
    z[:, 2] = z[:, 0]  # the third sample is the first again
    same = AnswerRanking()(z, identity=torch.tensor([0, 1, 0]))
    torch.testing.assert_close(same, 2 / 3 * _row(z, 0) + 1 / 3 * _row(z, 1, twice=True))


def _row(z: Tensor, i: int, twice: bool = False) -> Tensor:
    """The loss of one question among the first two answers, the first counted twice."""
    scores = 20 * torch.stack([cosine(z[0, i], z[1, j]) for j in (0, 1, *([0] if twice else []))])
    return -scores[i] + scores.exp().sum().log()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnswerRanking(0.0), "scale is 0.0; cosines are multiplied by it"),
        (lambda: AnswerRanking()(torch.ones(1, 4, 2)), "compares at least 2 views of at least 2 samples"),
        (
            lambda: AnswerRanking()(torch.ones(2, 4, 2), torch.ones(4, dtype=torch.bool)),
            r"present and identity have the shapes \[4\] and \[4\] where the sides are \[2, 4, 2\]",
        ),
    ],
)
def test_what_does_not_fit_is_told(make: object, message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        make()  # type: ignore[operator]
