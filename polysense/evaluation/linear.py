"""The linear probe: how well a hyperplane for each class separates frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.evaluation.protocol import held_out_rows


class _Weights(NamedTuple):
    weight: Tensor  # [C, D]
    bias: Tensor  # [C]


class LinearProbe:
    """Multinomial logistic regression, solved by a second-order method instead of trained for epochs.

    Features are standardised with the statistics of the training part. The loss is the mean
    cross-entropy plus ``weight_decay / 2 · ‖W‖²``, minimised over the full batch by L-BFGS. The weight
    decay is chosen on a held-out slice of the training part, from strong to weak, each solution the
    next one's start, until the held-out loss rises; then all is fitted again with the best. The same
    data give the same probe.

    Args:
        weight_decays: the values to choose from.
        held_out: the share of each class in the slice that chooses.
        max_iterations: of L-BFGS, for each weight decay.
        seed: of the choice of the slice; the global random state is left alone.

    After ``fit``: ``classes`` ``[C]``, ``weight_decay`` (the chosen one).

    >>> features = torch.tensor([[0.0], [0.1], [0.2], [0.9], [1.0], [1.1]])
    >>> probe = LinearProbe().fit(features, torch.tensor([3, 3, 3, 5, 5, 5]))
    >>> probe.predict(torch.tensor([[0.15], [0.95]]))
    tensor([3, 5])
    """

    classes: Tensor
    weight_decay: float

    def __init__(
        self,
        *,
        weight_decays: Sequence[float] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
        held_out: float = 0.2,
        max_iterations: int = 100,
        seed: int = 0,
    ) -> None:
        if not weight_decays or min(weight_decays) <= 0:
            raise PolysenseError(
                f"weight_decays must be one or more values above 0, not {list(weight_decays)}"
            )
        self.weight_decays = sorted(weight_decays, reverse=True)
        self.held_out = held_out
        self.max_iterations = max_iterations
        self.seed = seed
        self._weights: _Weights | None = None

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor) -> Self:
        """Fit to ``[N, D]`` features and their ``[N]`` integer classes.

        Raises:
            PolysenseError: for lengths that differ, features that are not finite, or a single class.
        """
        if len(features) != len(labels):
            raise PolysenseError(f"{len(features)} rows of features need as many labels, not {len(labels)}")
        if not features.isfinite().all():
            raise PolysenseError("the linear probe's features hold NaN or infinite values; check the encoder")
        self.classes, targets = torch.unique(labels, return_inverse=True)
        if len(self.classes) < 2:
            raise PolysenseError("the linear probe needs at least two classes to tell apart, not one")
        self._standardise_as(features)
        features = self._standardise(features)
        with torch.autocast(features.device.type, enabled=False):
            self.weight_decay = self._choose(features, targets)
            self._weights = self._solve(features, targets, self.weight_decay)
        return self

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """The class of each row of ``[M, D]`` features, ``[M]``."""
        if self._weights is None:
            raise PolysenseError("the linear probe predicts nothing before it is fitted: call fit first")
        if features.shape[-1] != len(self._mean):
            raise PolysenseError(
                f"the linear probe was fitted to {len(self._mean)} features, not {features.shape[-1]}"
            )
        with torch.autocast(features.device.type, enabled=False):
            return self.classes[_logits(self._standardise(features), self._weights).argmax(dim=1)]

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """The share of rows whose class is predicted rightly, 0 to 1."""
        return (self.predict(features) == labels).double().mean().item()

    def _standardise_as(self, features: Tensor) -> None:
        features = features if features.dtype == torch.float64 else features.float()
        self._mean = features.mean(dim=0)
        std = features.std(dim=0, correction=0)
        # A constant feature has no more than rounding error left: dividing by it would blow that up.
        self._std = std.where(std > 1e-6 * self._mean.abs(), torch.inf)

    def _standardise(self, features: Tensor) -> Tensor:
        return (features.to(self._mean.dtype) - self._mean) / self._std

    def _choose(self, features: Tensor, targets: Tensor) -> float:
        """The weight decay with the lowest loss on the held-out slice."""
        held_out = torch.from_numpy(held_out_rows(targets.cpu().numpy(), self.held_out, self.seed))
        held_out = held_out.to(features.device)
        if len(self.weight_decays) == 1 or not held_out.any():
            return self.weight_decays[len(self.weight_decays) // 2]
        train, train_targets = features[~held_out], targets[~held_out]
        best, lowest = self.weight_decays[0], float("inf")
        weights: _Weights | None = None
        for weight_decay in self.weight_decays:
            weights = self._solve(train, train_targets, weight_decay, weights)
            logits = _logits(features[held_out], weights)
            loss = F.cross_entropy(logits, targets[held_out]).item()
            if loss > lowest:
                break
            best, lowest = weight_decay, loss
        return best

    def _solve(
        self, features: Tensor, targets: Tensor, weight_decay: float, start: _Weights | None = None
    ) -> _Weights:
        """Minimise the loss, whose gradient is written out: no graph, and it works in inference mode."""
        classes = len(self.classes)
        if start is None:
            weight, bias = features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)
        else:
            weight, bias = start.weight.clone(), start.bias.clone()
        wanted = F.one_hot(targets, classes).to(features.dtype)
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=self.max_iterations,
            tolerance_grad=1e-4,
            tolerance_change=1e-5,
            line_search_fn="strong_wolfe",
        )

        def loss_and_gradient() -> Tensor:
            log_probability = F.linear(features, weight, bias).log_softmax(dim=1)
            error = (log_probability.exp() - wanted) / len(features)
            weight.grad = error.T @ features + weight_decay * weight
            bias.grad = error.sum(dim=0)
            penalty = weight_decay / 2 * weight.square().sum()
            return penalty - (log_probability * wanted).sum() / len(features)

        solver.step(loss_and_gradient)
        return _Weights(weight, bias)


def _logits(features: Tensor, weights: _Weights) -> Tensor:
    return F.linear(features, weights.weight, weights.bias)
