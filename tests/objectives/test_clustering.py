from __future__ import annotations

import io
import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import DeepClusterV2, Objective, SwAV
from polysense.objectives.distributed import rank, world_size
from tests.objectives.cases import K, random_views
from tests.processes import run_in_processes


def unit(x: Tensor) -> Tensor:
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length


def saved_and_loaded(objective: Objective, fresh: Objective) -> Objective:
    file = io.BytesIO()
    torch.save(objective.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file))
    return fresh


# SwAV


def make_swav(queue: int = 5, **options: float) -> SwAV:
    torch.manual_seed(1)
    schedule = {"queue_from": 0.0, "frozen_until": 0.0, **options}
    return SwAV(7, K, 0.1, 0.3, queue=queue, **schedule).double()  # type: ignore[arg-type]


def balanced(scores: Tensor, epsilon: float) -> Tensor:
    q = (scores / epsilon).exp()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q


def authors_swav(z: Tensor, prototypes: Tensor, queues: list[Tensor] | None) -> Tensor:
    """Crop by crop: codes of the two whole crops, each predicted by all the others."""
    z, prototypes = unit(z), unit(prototypes)
    loss = z.new_zeros(())
    for crop in range(2):
        known = z[crop].detach()
        if queues is not None:
            known = torch.cat([queues[crop], known])
        code = balanced(known @ prototypes.detach().T, 0.3)[-z.shape[1] :]
        others = [v for v in range(len(z)) if v != crop]
        for v in others:
            p = (z[v] @ prototypes.T / 0.1).exp()
            p = p / p.sum(1, keepdim=True)
            loss = loss - (code * p.log()).sum(1).mean() / len(others)
    return loss / 2


@pytest.mark.parametrize("views", [2, 5])
def test_swav_is_the_authors_with_a_queue_once_it_is_full(views: int) -> None:
    objective, seen = make_swav(queue=5), [torch.zeros(0, K, dtype=torch.float64)] * 2
    for seed in range(4):
        z = random_views(views, 3, seed=seed).requires_grad_()
        full = len(seen[0]) >= 5
        expected = authors_swav(z, objective.prototypes, [one[:5] for one in seen] if full else None)
        loss = objective(z, z[:2].detach())
        torch.testing.assert_close(loss, expected)
        inputs = (z, objective.prototypes)
        gradients = torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs)
        torch.testing.assert_close(*gradients)
        seen = [torch.cat([unit(z[t].detach()), seen[t]]) for t in range(2)]
    torch.testing.assert_close(objective.queue, torch.stack(seen)[:, :5])


def test_swav_compares_directions_only() -> None:
    z = random_views(3)
    expected = make_swav()(z, z[:2])
    objective = make_swav()
    objective.prototypes.data *= 5
    torch.testing.assert_close(objective(100 * z, z[:2]), expected)


def test_swav_queue_starts_late_and_stands_still_in_evaluation() -> None:
    z, objective = random_views(), make_swav(queue_from=0.5)
    objective.at(0.4)
    objective(z, z)
    assert not objective.queue.any()
    objective.at(0.5)
    objective.eval()(z, z)
    assert not objective.queue.any()
    objective.train()(z, z)
    assert objective.queue.all()


def test_swav_prototypes_are_frozen_first() -> None:
    z, objective = random_views(), make_swav(frozen_until=0.1)
    for progress, moves in ((0.0, False), (0.09, False), (0.1, True)):
        objective.zero_grad()
        objective.at(progress)
        objective(z, z).backward()
        assert objective.prototypes.grad is not None  # distributed training waits for it
        assert bool(objective.prototypes.grad.any()) == moves


def test_swav_queue_survives_save_and_load() -> None:
    z, objective = random_views(), make_swav()
    objective(z, z)
    resumed = saved_and_loaded(objective, make_swav())
    assert torch.equal(resumed(z, z), objective(z, z))


def test_swav_uniform_answers_cost_the_logarithm_of_prototypes() -> None:
    objective = make_swav()
    objective.prototypes.data[:] = 1.0
    assert objective(random_views(), random_views()).item() == pytest.approx(math.log(7))


@pytest.mark.parametrize(
    ("student", "teacher"), [((3, 6, K), (1, 6, K)), ((3, 6, K + 1), (2, 6, K + 1)), ((2, 6, K), (2, 5, K))]
)
def test_swav_with_shapes_that_do_not_fit(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(
        PolysenseError, match=r"SwAV (was made for 2 whole views in 4|compares student views)"
    ):
        make_swav()(torch.ones(student, dtype=torch.float64), torch.ones(teacher, dtype=torch.float64))


# DeepCluster-v2

SAMPLES = 10


def make_deepcluster() -> DeepClusterV2:
    return DeepClusterV2(SAMPLES, clusters=3, dim=K).double()


def authors_deepcluster(z: Tensor, centroids: Tensor, assignment: Tensor, index: Tensor) -> Tensor:
    """Head by head, cross-entropy over all crops; a target of -1 is left out."""
    loss = z.new_zeros(())
    for head in range(len(centroids)):
        rows = []
        for view in unit(z):
            for row, sample in zip(view, index.tolist(), strict=True):
                if (target := int(assignment[head, sample])) >= 0:
                    scores = torch.stack([row @ centroid for centroid in centroids[head]]) / 0.1
                    rows.append(scores.exp().sum().log() - scores[target])
        loss = loss + torch.stack(rows).mean() / len(centroids)
    return loss


def epoch(objective: DeepClusterV2, seed: int, samples: int = SAMPLES) -> list[Tensor]:
    """The losses of one epoch in batches of 2; views of a sample resemble one another."""
    z, order = random_views(3, SAMPLES, seed=seed), torch.randperm(samples)
    return [objective(z[:, places], z[:2, places], places) for places in order.split(2)]


def test_deepcluster_first_fills_the_bank() -> None:
    objective = make_deepcluster()
    z = random_views(3, SAMPLES).requires_grad_()
    index = torch.randperm(SAMPLES)
    loss = objective(z, z[:2], index)
    loss.backward()
    assert loss == 0
    assert z.grad is not None
    assert not z.grad.any()
    torch.testing.assert_close(objective.bank[:, index], unit(z[:2].detach()))
    assert (objective.assignment == -1).all()


def test_deepcluster_clusters_once_an_epoch_each_time_another_view() -> None:
    objective = make_deepcluster()
    epoch(objective, 0)
    bank = objective.bank.clone()
    before = objective.centroids.clone()
    epoch(objective, 1)
    centroids, assignment = objective.centroids.clone(), objective.assignment
    assert not torch.equal(centroids, before)
    for head, view in enumerate((0, 1, 0)):  # every sample is with the centroid it is nearest to,
        nearest = (bank[view] @ centroids[head].T).argmax(1)
        assert torch.equal(assignment[head], nearest)
        for cluster in range(3):  # and each centroid is the direction of its samples
            members = bank[view][assignment[head] == cluster]
            torch.testing.assert_close(centroids[head, cluster], unit(members.mean(0)))
    epoch(objective, 2)
    assert not torch.equal(objective.centroids, centroids)


def test_deepcluster_is_the_authors() -> None:
    objective = make_deepcluster()
    epoch(objective, 0)
    losses = epoch(objective, 1)
    assert min(losses) > 0
    index = torch.tensor([3, 1, 4, 8])
    z = random_views(5, 4, seed=3).requires_grad_()
    objective.assignment[:, 4] = -1
    expected = authors_deepcluster(z, objective.centroids, objective.assignment, index)
    loss = objective.eval()(z, z[:2], index)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(expected, z))


def test_deepcluster_leaves_unseen_samples_out() -> None:
    objective = make_deepcluster()
    for seed in range(3):
        epoch(objective, seed, samples=8)  # the sampler leaves out the incomplete last batch
    assert (objective.assignment[:, :8] >= 0).all()
    assert (objective.assignment[:, 8:] == -1).all()
    assert not objective.bank[:, 8:].any()


def test_deepcluster_changes_nothing_in_evaluation() -> None:
    objective = make_deepcluster()
    epoch(objective, 0)
    before = {name: buffer.clone() for name, buffer in objective.state_dict().items()}
    epoch(objective.eval(), 1)
    assert all(torch.equal(objective.state_dict()[name], buffer) for name, buffer in before.items())


def test_deepcluster_memory_survives_save_and_load() -> None:
    objective = make_deepcluster()
    epoch(objective, 0)
    resumed = saved_and_loaded(objective, make_deepcluster())
    answers = []
    for one in (objective, resumed):
        torch.manual_seed(0)
        answers.append(torch.stack(epoch(one, 1)))  # type: ignore[arg-type]
    assert torch.equal(*answers)
    assert answers[0].all()


def test_deepcluster_with_more_clusters_than_samples() -> None:
    with pytest.raises(PolysenseError, match="5 samples cannot fall into 6 clusters"):
        DeepClusterV2(5, clusters=6)


@pytest.mark.parametrize(
    ("shape", "whole", "index"), [((3, 2, K), 2, [0, 10]), ((3, 2, K), 1, [0, 1]), ((3, 2, 5), 2, [0, 1])]
)
def test_deepcluster_with_another_data_set(shape: tuple[int, ...], whole: int, index: list[int]) -> None:
    z = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(PolysenseError, match="made for 10 samples with 2 whole views in 4"):
        make_deepcluster()(z, z[:whole], torch.tensor(index))


# both, over processes


def three_steps() -> dict[str, Tensor]:
    """Losses, prototype gradients and buffers after three steps, each process on its share."""
    found: dict[str, Tensor] = {}
    swav, deepcluster = make_swav(), DeepClusterV2(8, clusters=8, dim=K).double()
    share = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    for seed in range(3):
        z, index = random_views(3, 8, seed=seed)[:, share], torch.arange(8).roll(seed)[share]
        swav.zero_grad()
        loss = swav(z, z[:2])
        loss.backward()
        gradient = swav.prototypes.grad
        assert gradient is not None
        if world_size() > 1:
            dist.all_reduce(gradient)
        found |= {f"swav {seed}": loss.detach(), f"gradient {seed}": gradient / world_size()}
        torch.manual_seed(rank())  # processes draw different numbers, the first one's clusters hold
        found[f"deepcluster {seed}"] = deepcluster(z, z[:2], index)
    deepcluster.assignment[:, :3] = -1  # unknown to one process alone
    found["deepcluster"] = deepcluster.eval()(z, z[:2], torch.arange(8)[share])
    return found | {**swav.state_dict(), **deepcluster.state_dict()}


def test_two_processes_equal_one() -> None:
    whole = three_steps()
    assert whole["deepcluster"] > 0
    for share in run_in_processes(three_steps):
        torch.testing.assert_close(share, whole, rtol=1e-10, atol=1e-12)
