from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import kmeans as module
from polysense.objectives.kmeans import kmeans, nearest


def blobs(seed: int = 0) -> tuple[Tensor, Tensor]:
    """60 points around 3 far-off centres, and whose they are."""
    torch.manual_seed(seed)
    centres = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]], dtype=torch.float64)
    whose = torch.arange(60) % 3
    return centres[whose] + 0.1 * torch.randn(60, 3, dtype=torch.float64), whose


def lloyd(x: Tensor, centroids: Tensor, iterations: int) -> Tensor:
    """The textbook's loop; no cluster may run empty."""
    for _ in range(iterations):
        whose = [min(range(len(centroids)), key=lambda k: float((row - centroids[k]).norm())) for row in x]
        members = [[row for row, k in zip(x, whose, strict=True) if k == wanted] for wanted in range(4)]
        centroids = torch.stack([torch.stack(rows).mean(0) for rows in members])
    return centroids


def test_it_is_the_textbooks_loop() -> None:
    torch.manual_seed(3)
    x = torch.randn(50, 2, dtype=torch.float64)
    torch.manual_seed(0)
    start = x[torch.randperm(50)[:4]]
    for iterations in (1, 3):
        torch.manual_seed(0)
        centroids, assignment = kmeans(x, 4, iterations)
        torch.testing.assert_close(centroids, lloyd(x, start, iterations))
        assert torch.equal(assignment, torch.cdist(x, centroids).argmin(1))
        assert torch.equal(assignment, nearest(x, centroids))


@pytest.mark.parametrize("spherical", [False, True])
def test_blobs_are_found(spherical: bool) -> None:
    x, whose = blobs()
    scale = torch.rand(60, 1, dtype=torch.float64) + 0.1 if spherical else 1.0
    torch.manual_seed(1)
    centroids, assignment = kmeans(x * scale, 3, spherical=spherical)
    pairs = {(int(a), int(b)) for a, b in zip(assignment, whose, strict=True)}
    assert len(pairs) == 3
    if spherical:
        torch.testing.assert_close(centroids.norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_an_empty_cluster_starts_anew_far_off() -> None:
    x = torch.tensor([[0.0], [0.0], [0.0], [0.0], [0.0], [5.0], [9.0]])
    for seed in range(10):  # most of the time both others start at the same place
        torch.manual_seed(seed)
        centroids, _ = kmeans(x, 3)
        assert centroids.flatten().sort().values.tolist() == [0.0, 5.0, 9.0]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = blobs()
    torch.manual_seed(0)
    whole = kmeans(x, 5)
    monkeypatch.setattr(module, "_CHUNK", 7 * 5)
    torch.manual_seed(0)
    for one, other in zip(kmeans(x, 5), whole, strict=True):
        torch.testing.assert_close(one, other)


def test_one_seed_one_answer() -> None:
    x = torch.randn(100, 3)
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        answers.append(kmeans(x, 10)[0])
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


@pytest.mark.parametrize(("shape", "clusters"), [((5, 2), 6), ((5, 2), 0), ((5,), 2)])
def test_clusters_that_the_data_cannot_fill(shape: tuple[int, ...], clusters: int) -> None:
    with pytest.raises(PolysenseError, match="ask for fewer clusters"):
        kmeans(torch.zeros(shape), clusters)
