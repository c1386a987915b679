"""Capsules: groups of neurons that vote on what they are parts of, routed to where votes agree."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.convnet import SmallConvNet
from polysense.errors import PolysenseError, unknown

ROUTINGS = ("dynamic", "em")


def squash(vectors: Tensor) -> Tensor:
    """Keep the direction of vectors ``[..., D]`` and bring their lengths n to ``n^2 / (1 + n^2)``, below 1.

    >>> squash(torch.tensor([3.0, 0.0]))
    tensor([0.9000, 0.0000])
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    squashed: Tensor = vectors * (length / (1 + length.square()))
    return squashed


def dynamic_routing(votes: Tensor, iterations: int = 3) -> Tensor:
    """Routing by agreement (https://arxiv.org/abs/1710.09829): votes ``[B, J, I, D]`` to ``[B, J, D]``.

    Capsule i sends a share ``c(j, i) = softmax over j of b(j, i)`` of its vote to each capsule j, which
    becomes ``v(j) = squash(sum over i of c(j, i) * vote(j, i))``; ``b`` starts at 0 and grows by
    ``vote(j, i) . v(j)`` in each iteration. The shares are inference, not weights: no gradient goes
    through them.

    >>> dynamic_routing(torch.ones(1, 2, 3, 4)).shape
    torch.Size([1, 2, 4])
    """
    fixed = votes.detach()
    logits = votes.new_zeros(votes.shape[:3])
    for _ in range(iterations - 1):
        agreed = squash(_weighted_sum(logits.softmax(1), fixed))
        logits = logits + (fixed @ agreed[..., None])[..., 0]
    return squash(_weighted_sum(logits.softmax(1), votes))


def em_routing(
    votes: Tensor,
    activations: Tensor,
    spread_cost: Tensor,
    threshold: Tensor,
    iterations: int = 3,
    inverse_temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Routing by clustering (https://openreview.net/forum?id=HJWLfGWRb): poses ``[B, J, D]`` and activations.

    Each capsule j is a Gaussian fitted to the votes ``[B, J, I, D]`` of capsules i, weighted by their
    ``activations`` ``[B, I]`` and by how likely they are j's. It is active where few nats describe them::

        cost = sum over i of weight(j, i) * sum over d of (spread_cost(j) + log sigma(j, d))
        activation = sigmoid(t * (threshold(j) - cost)),  t = inverse_temperature * (1 - 0.95^iteration)

    ``spread_cost`` and ``threshold`` are learned, ``[J]``; the paper leaves the schedule of t open. As in
    :func:`dynamic_routing`, no gradient goes through the assignment.

    >>> zeros = torch.zeros(2)
    >>> poses, activations = em_routing(torch.ones(1, 2, 3, 4), torch.ones(1, 3), zeros, zeros)
    >>> poses.shape, activations.shape
    (torch.Size([1, 2, 4]), torch.Size([1, 2]))
    """
    assignment = votes.new_full(votes.shape[:3], 1 / votes.shape[1])
    for iteration in range(1, iterations + 1):
        with torch.set_grad_enabled(iteration == iterations and torch.is_grad_enabled()):
            weight = assignment * activations[:, None]
            total = weight.sum(2, keepdim=True) + 1e-8
            pose = _weighted_sum(weight, votes) / total
            squared = (votes - pose[:, :, None]).square()
            variance = _weighted_sum(weight, squared) / total + 1e-4  # votes may agree to the last digit
            cost = (spread_cost[:, None] + 0.5 * variance.log()).sum(2) * total[..., 0]
            logits = inverse_temperature * (1 - 0.95**iteration) * (threshold - cost)
            if iteration < iterations:
                distance = (squared @ variance.reciprocal()[..., None])[..., 0]
                likelihood = -0.5 * (distance + variance.log().sum(2, keepdim=True))
                assignment = (functional.logsigmoid(logits)[..., None] + likelihood).softmax(1)
    return pose, logits.sigmoid()


def _weighted_sum(weight: Tensor, votes: Tensor) -> Tensor:
    """``[B, J, D]``: the sum over i of ``weight[B, J, I]`` times ``votes[B, J, I, D]``."""
    return (weight[:, :, None] @ votes)[:, :, 0]


class CapsNet(nn.Module):
    """A small conv net whose places become primary capsules, routed to ``capsules`` parts of a picture.

    The stem's map is pooled to ``places`` x ``places``; at each place lie ``types`` primary capsules of
    ``pose`` numbers. Every one has its own learned matrix for its vote on every routed capsule.
    Pictures ``[B, channels, H, W]`` become capsules ``[B, capsules, pose]`` and activations
    ``[B, capsules]``: their lengths, or what EM routing found.

    >>> capsules, activations = CapsNet(channels=3)(torch.zeros(2, 3, 32, 32))
    >>> capsules.shape, activations.shape
    (torch.Size([2, 64, 8]), torch.Size([2, 64]))
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        routing: str = "dynamic",
        iterations: int = 3,
        capsules: int = 64,
        pose: int = 8,
        types: int = 8,
        places: int = 4,
        widths: tuple[int, ...] = (32, 64, 128),
    ) -> None:
        super().__init__()
        if routing not in ROUTINGS:
            raise unknown("routing", routing, ROUTINGS)
        sizes = {
            "iterations": iterations,
            "capsules": capsules,
            "pose": pose,
            "types": types,
            "places": places,
        }
        for name, value in sizes.items():
            if value < 1:
                raise PolysenseError(f"the capsule net's {name} is {value}; use at least 1")
        self.routing, self.iterations = routing, iterations
        self.capsules, self.pose, self.places = capsules, pose, places
        self.stem = SmallConvNet(channels, widths, (2,) * len(widths))
        inputs = types * places**2
        # one number more in each primary capsule is its activation
        self.primary = nn.Conv2d(self.stem.dim, types * (pose + (routing == "em")), 3, padding=1)
        # routed sums of equal shares start out about as long as a primary capsule
        scale = capsules / math.sqrt(inputs * pose)
        self.transform = nn.Parameter(scale * torch.randn(inputs, pose, capsules * pose))
        if routing == "em":
            self.spread_cost = nn.Parameter(torch.zeros(capsules))
            self.threshold = nn.Parameter(torch.zeros(capsules))

    def forward(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """Capsules and activations of pictures ``[B, C, H, W]``; routed in full precision."""
        features = functional.adaptive_avg_pool2d(self.primary(self.stem(data)), self.places)
        with torch.autocast(data.device.type, enabled=False):
            places = features.float().flatten(2).transpose(1, 2).unflatten(2, (-1, self._primary_values))
            primary = places.flatten(1, 2)
            if self.routing == "em":
                poses, activations = primary[..., :-1], primary[..., -1].sigmoid()
                votes = self._votes(poses)
                return em_routing(votes, activations, self.spread_cost, self.threshold, self.iterations)
            capsules = dynamic_routing(self._votes(squash(primary)), self.iterations)
            return capsules, torch.linalg.vector_norm(capsules, dim=-1)

    @property
    def _primary_values(self) -> int:
        return self.pose + (self.routing == "em")

    def _votes(self, primary: Tensor) -> Tensor:
        """``[B, capsules, I, pose]``: what each primary capsule ``[B, I, pose]`` makes of each routed one."""
        votes = torch.bmm(primary.transpose(0, 1), self.transform)  # a matrix product for each i
        separate: Tensor = votes.unflatten(2, (self.capsules, self.pose))
        return separate.permute(1, 2, 0, 3).contiguous()


class CapsNetEncoder(Encoder):
    """The capsule net as a tower: its capsules are the tokens, their activations the pooled embedding.

    Capsules lie on no grid and cannot be hidden.

    >>> encoder = build(channels=3, routing="em", capsules=16)
    >>> encoded = encoder(torch.zeros(2, 3, 32, 32))
    >>> encoded.pooled.shape, encoded.tokens.shape
    (torch.Size([2, 16]), torch.Size([2, 16, 8]))
    """

    trunk: CapsNet

    def __init__(self, trunk: CapsNet) -> None:
        super().__init__()
        self.trunk, self.dim = trunk, trunk.capsules

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode pictures ``[B, C, H, W]``."""
        if mask is not None:
            raise self.cannot_hide()
        capsules, activations = self.trunk(data)
        return Encoded(activations, capsules)


def build(*, channels: int, size: int | None = None, **options: Any) -> CapsNetEncoder:
    """A capsule net for pictures of any size; options are those of :class:`CapsNet`."""
    return CapsNetEncoder(CapsNet(channels, **options))
