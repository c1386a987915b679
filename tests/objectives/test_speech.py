"""COLA's and wav2vec 2.0's losses against their formulas, written out sample by sample in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import BilinearContrast, FutureContrast, QuantisedContrast
from polysense.objectives.speech import _unused


def test_the_bilinear_contrast_is_colas() -> None:
    torch.manual_seed(0)
    objective = BilinearContrast(5).double()
    a, p = z = torch.randn(2, 6, 5, dtype=torch.float64)
    total = 0.0
    for i in range(6):
        scores = torch.stack([a[i] @ objective.similarity @ p[j] for j in range(6)])
        total = total - (scores[i] - torch.log(sum(score.exp() for score in scores)))  # type: ignore[arg-type]
    torch.testing.assert_close(objective(z), total / 6)


def test_it_runs_from_the_anchor_alone_and_trains_both_sides() -> None:
    torch.manual_seed(0)
    objective = BilinearContrast(5)
    z = torch.randn(2, 6, 5, requires_grad=True)
    objective(z).backward()
    assert z.grad is not None
    assert z.grad.abs().amax((1, 2)).min() > 0
    assert not torch.isclose(objective(z), objective(z.flip(0)))


def authors(context: Tensor, target: Tensor, hidden: list[int], drawn: list[list[int]]) -> Tensor:
    """The authors' contrast of one clip: cross-entropy among the target and those drawn for each frame."""
    losses = []
    for i, negatives in zip(hidden, drawn, strict=True):
        others = [target[j] for j in negatives if not torch.equal(target[j], target[i])]
        scores = torch.stack([torch.cosine_similarity(context[i], q, dim=0) for q in [target[i], *others]])
        losses.append(-(scores / 0.1).log_softmax(0)[0])
    return torch.stack(losses)


def sound() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    context = torch.randn(2, 12, 4, dtype=torch.float64)
    mask = torch.rand(2, 12) < 0.6
    return context, torch.randn(2, 12, 4, dtype=torch.float64), mask


def even(mask: Tensor) -> Tensor:
    return torch.full((*mask.shape, 2, 8), 1 / 8, dtype=torch.float64)


def test_with_every_other_frame_as_negative_it_is_the_authors() -> None:
    context, target, mask = sound()
    target[0, mask[0].nonzero()[:2, 0]] = target[0, 0].clone()  # two frames of the same words
    mask[1] = mask[0]
    hidden = mask[0].nonzero()[:, 0].tolist()
    drawn = [[j for j in hidden if j != i] for i in hidden]
    expected = torch.cat([authors(context[clip], target[clip], hidden, drawn) for clip in (0, 1)]).mean()
    objective = QuantisedContrast(0.1, negatives=len(hidden) - 1)
    torch.testing.assert_close(objective(context, target, mask, even(mask)), expected)


def test_drawn_negatives_come_to_the_same_on_average() -> None:
    context, target, mask = (each[:1] for each in sound())
    hidden = mask[0].nonzero()[:, 0].tolist()
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for i in hidden:
        others = [j for j in hidden if j != i]
        chosen = torch.randint(len(others), (400,), generator=generator).tolist()
        drawn.append([others[j] for j in chosen])
    sampled = authors(context[0], target[0], hidden, drawn).mean()
    ours = QuantisedContrast(0.1, negatives=400)(context, target, mask, even(mask))
    torch.testing.assert_close(ours, sampled, rtol=0.02, atol=0)


def test_what_is_not_hidden_has_no_part() -> None:
    context, target, mask = sound()
    objective = QuantisedContrast()
    before = objective(context, target, mask, even(mask))
    context[~mask], target[~mask] = 7.0, 9.0
    torch.testing.assert_close(objective(context, target, mask, even(mask)), before)


def test_diversity_is_the_authors() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 2, 5, dtype=torch.float64)
    mask = torch.rand(3, 7) < 0.5
    p = logits.softmax(-1)[mask].mean(0)
    perplexity = torch.exp(-(p * (p + 1e-7).log()).sum(-1)).sum()
    torch.testing.assert_close(_unused(logits.softmax(-1), mask), (10 - perplexity) / 10, atol=1e-5, rtol=0)
    context, target = torch.zeros(3, 7, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[[0]]
    target = target.expand(3, 7, 4)  # all of the same words: nothing to contrast with
    loss = QuantisedContrast(weight=0.3)(context, target, mask, logits.softmax(-1))
    torch.testing.assert_close(loss, 0.3 * (10 - perplexity) / 10, atol=1e-5, rtol=0)


def test_a_collapsed_codebook_costs_all_but_one_word_of_each() -> None:
    one = torch.zeros(1, 3, 2, 8)
    one[..., 0] = 1
    assert float(_unused(one, torch.ones(1, 3, dtype=torch.bool))) == pytest.approx(1 - 2 / 16)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(PolysenseError, match="QuantisedContrast takes contexts and targets of one shape"):
        QuantisedContrast()(
            torch.zeros(1, 2, 3), torch.zeros(1, 2, 4), torch.ones(1, 2), torch.zeros(1, 2, 1, 1)
        )
    with pytest.raises(PolysenseError, match="BilinearContrast compares at least 2 views"):
        BilinearContrast(3)(torch.zeros(1, 4, 3))


def test_the_future_is_told_apart_as_in_the_papers_formula() -> None:
    torch.manual_seed(0)
    clips, total, steps = 3, 6, 2
    frames = torch.randn(clips, total, 4, dtype=torch.float64)
    places = [(c, u) for c in range(clips) for u in range(total)]
    predicted = torch.randn(clips, total, steps, 4, dtype=torch.float64)
    losses = []
    for b in range(clips):
        for t in range(total - steps):
            for k in range(1, steps + 1):
                score = {place: (predicted[b, t, k - 1] @ frames[place]).exp() for place in places}
                others = [score[b, u] for u in range(total)] + [score[c, t + k] for c in range(3) if c != b]
                losses.append(-(score[b, t + k] / sum(others)).log())
    torch.testing.assert_close(FutureContrast()(predicted, frames), torch.stack(losses).mean())


def test_the_future_that_is_known_costs_nothing() -> None:
    frames = 30 * torch.eye(6).view(2, 3, 6)
    predicted = frames.roll(-1, 1)[:, :, None]  # the one step ahead
    assert FutureContrast()(predicted, frames) < 1e-4
    assert FutureContrast()(frames[:, :, None], frames) > 100  # the frame itself is not the next


def test_a_future_beyond_the_clip_is_told() -> None:
    with pytest.raises(PolysenseError, match="more of them than steps, but got"):
        FutureContrast()(torch.zeros(2, 3, 3, 4), torch.zeros(2, 3, 4))
