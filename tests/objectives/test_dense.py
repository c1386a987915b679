from __future__ import annotations

import io
import math

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import DenseMoCo, LocalVICReg
from polysense.objectives.cross_view import MoCo


def rows(*shape: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def densecl(query: Tensor, key: Tensor, query_features: Tensor, key_features: Tensor, queue: Tensor) -> float:
    """One direction of the paper's dense loss, place by place, at the published temperature."""
    terms = []
    for sample in range(len(query)):
        for p, q in enumerate(query[sample]):
            alike = [cosine(query_features[sample, p], other) for other in key_features[sample]]
            match = key[sample, alike.index(max(alike))]
            logits = [cosine(q, match) / 0.2] + [float(q @ other / q.norm()) / 0.2 for other in queue]
            terms.append(-logits[0] + math.log(sum(map(math.exp, logits))))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("teachers", [1, 2])
def test_dense_moco_is_the_authors_over_two_steps(teachers: int) -> None:
    objective = DenseMoCo(dim=4, queue=7).double()
    for step in range(2):
        student, teacher = rows(2, 3, 5, 4, seed=step), rows(teachers, 3, 5, 4, seed=step + 9)
        features = rows(2, 3, 5, 6, seed=step + 20), rows(teachers, 3, 5, 6, seed=step + 30)
        queue = objective.queue.keys.clone()
        expected = [
            densecl(student[1 - t], teacher[t], features[0][1 - t], features[1][t], queue)
            for t in range(teachers)
        ]
        loss = objective(student, teacher, *features)
        assert loss.item() == pytest.approx(sum(expected) / teachers, rel=1e-12)
        pooled = teacher.mean(2)
        latest = (pooled / pooled.norm(dim=-1, keepdim=True)).flatten(0, 1)
        held = torch.cdist(latest, objective.queue.keys).amin(1)
        assert held.max() < 1e-12  # the means of the teacher's places are the next step's negatives


def test_dense_moco_of_one_place_is_moco() -> None:
    student, teacher = rows(2, 6, 1, 4), rows(2, 6, 1, 4, seed=1)
    torch.manual_seed(0)
    dense = DenseMoCo(dim=4, queue=8).double()
    torch.manual_seed(0)
    whole = MoCo(dim=4, queue=8).double()
    expected = whole(student.squeeze(2), teacher.squeeze(2))
    torch.testing.assert_close(dense(student, teacher, student, teacher), expected)
    assert torch.equal(dense.queue.keys, whole.queue.keys)


def test_dense_moco_ignores_the_scale_of_everything_and_teaches_the_student_alone() -> None:
    objective = DenseMoCo(dim=4, queue=8).double().eval()
    tensors = [rows(2, 3, 5, 4, seed=seed).requires_grad_() for seed in range(4)]
    loss = objective(*tensors)
    torch.testing.assert_close(objective(*(7 * tensor for tensor in tensors)), loss)
    loss.backward()
    assert tensors[0].grad is not None
    assert all(tensor.grad is None for tensor in tensors[1:])


def test_dense_moco_queue_survives_save_and_load_and_rests_in_evaluation() -> None:
    trained, resumed, file = DenseMoCo(4, 8), DenseMoCo(4, 8), io.BytesIO()
    tensors = [rows(2, 3, 5, 4, seed=seed).float() for seed in range(4)]
    before = trained.queue.keys.clone()
    trained.eval()(*tensors)
    assert torch.equal(trained.queue.keys, before)
    trained.train()(*tensors)
    assert not torch.equal(trained.queue.keys, before)
    torch.save(trained.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file))
    assert torch.equal(resumed.eval()(*tensors), trained.eval()(*tensors))


def vicreg(x: Tensor, y: Tensor) -> float:
    """25/25/1 of matched places ``[B, M, K]``, statistics over the samples at each place."""
    samples, places, width = x.shape
    total = 25 * float((x - y).square().mean())
    for m in range(places):
        for side in (x[:, m], y[:, m]):
            deviations = (side - side.mean(0)).square().sum(0) / (samples - 1)
            total += 25 * float((1 - (deviations + 1e-4).sqrt()).clamp_min(0).mean()) / 2 / places
            centred = side - side.mean(0)
            covariance = centred.T @ centred / (samples - 1)
            off = covariance - covariance.diag().diag()
            total += float(off.square().sum()) / width / places
    return total


def matched(a: Tensor, b: Tensor, where_a: Tensor, where_b: Tensor, count: int) -> tuple[Tensor, Tensor]:
    mine, theirs = [], []
    for one, other, here, there in zip(a, b, where_a, where_b, strict=True):
        nearest = []
        for p in range(len(one)):
            distances = [float((here[p] - place).norm()) for place in there]
            nearest.append((min(distances), p, distances.index(min(distances))))
        chosen = sorted((p, q) for _, p, q in sorted(nearest)[:count])
        mine.append(torch.stack([one[p] for p, _ in chosen]))
        theirs.append(torch.stack([other[q] for _, q in chosen]))
    return torch.stack(mine), torch.stack(theirs)


@pytest.mark.parametrize("views", [2, 3])
def test_local_vicreg_is_the_authors(views: int) -> None:
    z, places = rows(views, 5, 7, 4), rows(views, 5, 7, 2, seed=1)
    terms = []
    for a in range(views):
        for b in range(views):
            if a != b:
                alike = vicreg(*matched(z[a], z[b], z[a], z[b], 7))
                near = vicreg(*matched(z[a], z[b], places[a], places[b], 3))
                terms.append(alike + near)
    loss = LocalVICReg(share=20 / 49)(z, places)  # 2.86 of 7 places
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-10)


@pytest.mark.parametrize(("side", "published"), [(7, 20), (3, 4)])
def test_the_share_is_the_published_numbers_of_matches(side: int, published: int) -> None:
    assert round(LocalVICReg().share * side**2) == published


def test_local_vicreg_teaches_both_views_through_their_matches() -> None:
    z = rows(2, 4, 6, 3).requires_grad_()
    LocalVICReg(variance=0.0, covariance=0.0)(z, rows(2, 4, 6, 2)).backward()
    assert z.grad is not None
    assert (z.grad.abs().sum((1, 2, 3)) > 0).all()


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(PolysenseError, match="at least 2 views"):
        LocalVICReg()(torch.ones(1, 4, 6, 3), torch.ones(1, 4, 6, 2))
    with pytest.raises(PolysenseError, match=r"\[2, 4, 6, 3\] and \[2, 4, 5, 2\]"):
        LocalVICReg()(torch.ones(2, 4, 6, 3), torch.ones(2, 4, 5, 2))
    with pytest.raises(PolysenseError, match="share of places to match is 0"):
        LocalVICReg(share=0.0)
    with pytest.raises(PolysenseError, match=r"\[views, samples, places, dimensions\]"):
        DenseMoCo(3)(*[torch.ones(2, 4, 3)] * 4)
    with pytest.raises(PolysenseError, match="at least 2 views"):
        DenseMoCo(3)(*[torch.ones(1, 4, 6, 3)] * 4)
