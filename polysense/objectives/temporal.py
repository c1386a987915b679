"""Objectives across time: what follows a moment, how far off a goal is, in which order frames came."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distributed import gather, mean_over_processes, rank


class DotInfoNCE(Objective):
    """Pick the right key out of the batch by a plain dot product: no unit length, no temperature.

    For N keys k, gathered from all processes, and queries q::

        loss = mean of (-q_i . k_i + log sum over j of exp q_i . k_j) over i

    With ``q = W z`` it is CURL's bilinear contrast (https://arxiv.org/abs/2004.04136), with
    ``q = W (z + mlp(z))`` that of ATC (https://arxiv.org/abs/2009.08319). A query whose key is absent does
    not count; the keys themselves remain as negatives. The keys get no gradient.

    >>> DotInfoNCE()(torch.zeros(1, 8, 3), torch.ones(1, 8, 3)).exp().round()  # chance
    tensor(8.)

    Raises PolysenseError where the shapes do not fit.
    """

    def forward(self, queries: Tensor, keys: Tensor, present: Tensor | None = None) -> Tensor:
        """The loss of ``queries`` and ``keys[P, B, K]``; ``present[P, B]`` is False without a key."""
        _check_pairs(self, queries, keys)
        logits = queries @ gather(keys.detach(), dim=1).mT
        partner = torch.arange(queries.shape[1], device=queries.device) + rank() * queries.shape[1]
        losses = F.cross_entropy(logits.flatten(0, 1), partner.repeat(len(queries)), reduction="none")
        return mean_of_present(losses, present)


class LatentPrediction(Objective):
    """How far predicted embeddings point from those that came (https://arxiv.org/abs/2007.05929).

    The mean of ``2 - 2 cos(predicted, target)`` over all steps that are present. (The authors count absent
    steps as zeros in the mean.) The targets get no gradient.

    >>> predicted = torch.eye(3).expand(2, 3, 3)
    >>> LatentPrediction()(predicted, -predicted)
    tensor(4.)

    Raises PolysenseError where the shapes do not fit.
    """

    def forward(self, predicted: Tensor, target: Tensor, present: Tensor | None = None) -> Tensor:
        """The loss of ``predicted`` and ``target[P, B, K]``; ``present[P, B]`` is False past an end."""
        _check_pairs(self, predicted, target)
        return mean_of_present(2 - 2 * F.cosine_similarity(predicted, target.detach(), dim=-1), present)


class VIP(Objective):
    """Value-implicit pretraining: nearness to the goal as a value function (https://arxiv.org/abs/2210.00030).

    With ``V(o) = -|z(o) - z(goal)|``, a reward of -1 a step, and N clips gathered from all processes::

        A    = 1 - discount V(next) + V(now)
        loss = (1 - discount) mean(-V(first)) + log mean exp A + log mean exp A of others' frames

    The second mean runs over the frames of all other clips against this one's goal; the authors draw three
    of them. It is the logarithm of a mean over the batch, so batches cannot be worked through in parts.

    Args:
        discount: of the value a step later.
        cosine: ``V(o) = cos(z(o), z(goal)) / (1 - discount)`` instead (LIV, https://arxiv.org/abs/2306.00958).

    >>> frames = torch.zeros(4, 2, 3)  # all alike: A is 1 everywhere
    >>> VIP()(frames)
    tensor(2.)

    Raises PolysenseError for other than four frames, or less than two clips.
    """

    def __init__(self, discount: float = 0.98, *, cosine: bool = False) -> None:
        super().__init__()
        self.discount, self.cosine = discount, cosine

    def forward(self, z: Tensor, present: Tensor | None = None) -> Tensor:
        """The loss of ``z[4, B, K]``: now, next, first and goal; ``present[B]`` is False without a goal."""
        z = gather(z, dim=1)
        _check_frames(self, z, 4)
        now, after, first, goal = z
        there = torch.ones_like(goal[:, 0], dtype=torch.bool) if present is None else gather(present)
        if not bool(there.any()):
            return z.sum() * 0
        advantage = 1 - self.discount * self._values(after, goal) + self._values(now, goal)
        own = torch.eye(len(goal), dtype=torch.bool, device=z.device)
        start = -self._values(first, goal).diagonal()[there].mean()
        value: Tensor = (1 - self.discount) * start
        return value + _log_mean_exp(advantage[own & there]) + _log_mean_exp(advantage[~own & there])

    def _values(self, frames: Tensor, goals: Tensor) -> Tensor:
        """``[N, N]``: of each frame for each goal."""
        if self.cosine:
            return F.normalize(frames, dim=-1) @ F.normalize(goals, dim=-1).T / (1 - self.discount)
        return -_distances(frames, goals)


class FrameOrder(Objective):
    """R3M's time contrast: frames nearby in time are nearer than those further off and other clips'.

    With ``s(a, b) = -|z(a) - z(b)|`` for three frames of a clip, earlier, now and later, the mean of both
    directions::

        -log exp s(later, now)   / (exp s(later, now)   + exp s(later, earlier) + negatives of later)
        -log exp s(now, earlier) / (exp s(now, earlier) + exp s(later, earlier) + negatives of earlier)

    The negatives are ``exp s`` to the same frame of the other clips, of all processes: their mean times
    ``negatives``, where the authors draw so many. https://arxiv.org/abs/2203.12601

    >>> FrameOrder()(torch.zeros(3, 4, 2)).exp()  # one right among five alike
    tensor(5.)

    Raises PolysenseError for other than three frames, or less than two clips.
    """

    def __init__(self, negatives: int = 3) -> None:
        super().__init__()
        self.negatives = negatives

    def forward(self, z: Tensor) -> Tensor:
        """The loss of ``z[3, B, K]``: now, earlier and later."""
        z = gather(z, dim=1)
        _check_frames(self, z, 3)
        now, earlier, later = z
        far = -torch.linalg.vector_norm(later - earlier, dim=-1)
        losses = []
        for end in (later, earlier):
            near = -torch.linalg.vector_norm(now - end, dim=-1)
            crowd = torch.stack([near, far, self._other_clips(end)])
            losses.append((crowd.logsumexp(0) - near).mean())
        return torch.stack(losses).mean()

    def _other_clips(self, frames: Tensor) -> Tensor:
        """``[N]``: the logarithm of the mean of ``exp s`` to the other clips, times ``negatives``."""
        own = torch.eye(len(frames), dtype=torch.bool, device=frames.device)
        similarity = (-_distances(frames, frames)).masked_fill(own, -torch.inf)
        return similarity.logsumexp(1) + math.log(self.negatives / (len(frames) - 1))


class InstructionContrast(Objective):
    """R3M's language alignment: what fulfils an instruction scores above what does not.

    For scores of P right and, for each of them, N wrong pairs of frames, the mean over all samples with an
    instruction, and over P, of::

        -log exp right / (exp right + sum of exp wrong)

    (The authors count samples without one as zeros in the mean.) https://arxiv.org/abs/2203.12601

    >>> InstructionContrast()(torch.zeros(3, 2), torch.zeros(3, 4, 2)).exp()  # one right among five alike
    tensor(5.)

    Raises PolysenseError where the shapes do not fit.
    """

    def forward(self, right: Tensor, wrong: Tensor, present: Tensor | None = None) -> Tensor:
        """The loss of ``right[P, B]`` and ``wrong[P, N, B]``; ``present[B]`` is False without instruction."""
        if right.ndim != 2 or wrong.ndim != 3 or wrong[:, 0].shape != right.shape:
            raise PolysenseError(
                f"{type(self).__name__} compares scores [P, B] with [P, N, B], but got shapes"
                f" {list(right.shape)} and {list(wrong.shape)}; check what the branch reads"
            )
        losses = torch.cat([right[:, None], wrong], 1).logsumexp(1) - right
        return mean_of_present(losses.mean(0), present)


class Sparsity(Objective):
    """Keeps embeddings short and sparse: ``l1 * mean |z|_1 + l2 * mean |z|_2`` (R3M, VIP).

    >>> Sparsity(l1=1.0, l2=1.0)(torch.tensor([[[3.0, 4.0]]]))
    tensor(12.)
    """

    def __init__(self, l1: float = 1e-5, l2: float = 1e-5) -> None:
        super().__init__()
        self.l1, self.l2 = l1, l2

    def forward(self, z: Tensor) -> Tensor:
        """The penalty of ``z[..., K]``."""
        norms = [torch.linalg.vector_norm(z, ord=order, dim=-1).mean() for order in (1, 2)]
        return mean_over_processes(self.l1 * norms[0] + self.l2 * norms[1])


class ActionPrediction(Objective):
    """Which action led from one moment to the next: cross-entropy, or squared error of continuous ones.

    >>> ActionPrediction()(torch.zeros(2, 3), torch.tensor([0, 2])).exp().round()  # chance
    tensor(3.)
    >>> ActionPrediction()(torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]))
    tensor(5.)

    Raises PolysenseError for an action that the prediction has no place for.
    """

    def forward(self, predicted: Tensor, action: Tensor, present: Tensor | None = None) -> Tensor:
        """The loss of ``predicted[B, A]`` and ``action``, ``[B]`` integers or ``[B, A]``."""
        if action.is_floating_point():
            if action.shape != predicted.shape:
                raise unfit_actions(predicted.shape[-1], f"of {action.shape[-1]} numbers")
            return mean_of_present((predicted - action).square().mean(-1), present)
        if int(action.max()) >= predicted.shape[-1]:
            raise unfit_actions(predicted.shape[-1], f"number {int(action.max())}")
        losses = F.cross_entropy(predicted, action.clamp_min(0), reduction="none")
        return mean_of_present(losses, present)


def mean_of_present(losses: Tensor, present: Tensor | None) -> Tensor:
    """The mean of ``losses`` where ``present``, over all processes; 0 where nothing is."""
    if present is None:
        return mean_over_processes(losses.mean())
    weight = present.reshape(losses.shape).to(losses.dtype)
    count = mean_over_processes(weight.sum())
    return mean_over_processes((losses * weight).sum()) / count.clamp_min(1e-6)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """``[N, N]`` Euclidean distances, exact near 0, where the quick way is not."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _log_mean_exp(x: Tensor) -> Tensor:
    return x.logsumexp(0) - math.log(len(x))


def _check_pairs(objective: Objective, a: Tensor, b: Tensor) -> None:
    if a.ndim != 3 or a.shape != b.shape:
        raise PolysenseError(
            f"{type(objective).__name__} compares pairs stacked as [pairs, samples, dimensions], but got"
            f" shapes {list(a.shape)} and {list(b.shape)}; check which views the teacher reads"
        )


def _check_frames(objective: Objective, z: Tensor, frames: int) -> None:
    if z.ndim != 3 or len(z) != frames or z.shape[1] < 2:
        raise PolysenseError(
            f"{type(objective).__name__} reads {frames} frames of at least 2 clips, stacked as [frames,"
            f" clips, dimensions], but got shape {list(z.shape)}; check the views and the batch size"
        )


def unfit_actions(places: int, found: str) -> PolysenseError:
    """The error for an action that a method has no place for."""
    return PolysenseError(
        f"the method was made for {places} actions, but the data hold one {found}; set the option actions to"
        " what the data have"
    )
