"""Optimisers from a recipe's plain values: AdamW, SGD, LARS and LAMB, with warm-up and cosine per step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

from polysense.encoders.schedule import cosine
from polysense.errors import unknown
from polysense.methods.optimisation import Optimisation

OPTIMISERS = ("adamw", "sgd", "lars", "lamb")


class LayerWise(torch.optim.Optimizer):
    """Moves one layer's parameters after the other, each by its own gradient alone."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError


class LARS(LayerWise):
    """Layer-wise adaptive rate scaling: SGD whose step in each layer follows the norm of its weights.

    Parameters in groups with ``adapt=False`` (biases, norms) take plain momentum steps. From
    https://arxiv.org/abs/1708.03888, in the form that SimCLR, BYOL and Barlow Twins use.

    >>> weight = nn.Parameter(torch.ones(2, 2))
    >>> optimiser = LARS([weight], lr=1.0, trust=0.1, momentum=0.0)
    >>> weight.sum().backward()
    >>> optimiser.step()  # moves by lr * trust * |w| / |g|
    >>> round(weight[0, 0].item(), 4)
    0.9
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapt: bool = True,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust": trust,
                "adapt": adapt,
            },
        )

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if group["adapt"]:
            gradient = gradient * _trust(parameter, gradient, group["trust"])
        state = self.state[parameter]
        velocity = state.setdefault("momentum", torch.zeros_like(parameter))
        velocity.mul_(group["momentum"]).add_(gradient)
        parameter.add_(velocity, alpha=-group["lr"])


class LAMB(LayerWise):
    """Adam whose step in each layer is as long as the layer's weights times the rate.

    ::

        update = mean / (sqrt(square) + eps) + weight_decay * w
        w = w - lr * |w| / |update| * update

    ``mean`` and ``square`` are Adam's moments of the gradient with their bias corrected. Parameters in groups
    with ``adapt=False`` (biases, norms) take the update times the rate. https://arxiv.org/abs/1904.00962

    >>> weight = nn.Parameter(torch.ones(2, 2))
    >>> optimiser = LAMB([weight], lr=0.1)
    >>> weight.sum().backward()
    >>> optimiser.step()  # moves by lr * |w|
    >>> round(weight[0, 0].item(), 4)
    0.9
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        adapt: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": adapt}
        super().__init__(params, defaults)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state["step"] += 1
        first, second = group["betas"]
        mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first ** state["step"])
        square = state["square"].lerp_(gradient.square(), 1 - second) / (1 - second ** state["step"])
        update = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * parameter
        ratio = _trust(parameter, update) if group["adapt"] else 1.0
        parameter.sub_(group["lr"] * ratio * update)


def _trust(weight: Tensor, step: Tensor, share: float = 1.0) -> Tensor:
    """By what to multiply a step to make it a share of the weight's length; 1 where either is zero."""
    length, steps = weight.norm(), step.norm()
    return torch.where((length > 0) & (steps > 0), share * length / steps, torch.ones_like(length))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels with weight decay; biases, norms and other one-dimensional ones without.

    Parameters with an attribute ``lr_scale`` (:func:`~polysense.encoders.adapters.layerwise_rates`) have
    groups of their own, whose rate is that part of the others'.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups[getattr(parameter, "lr_scale", 1.0), parameter.ndim > 1].append(parameter)
    return [
        {"params": same, "weight_decay": decays * weight_decay, "decays": decays, "lr_scale": scale}
        for (scale, decays), same in sorted(groups.items(), reverse=True)
    ]


def make_optimiser(module: nn.Module, how: Optimisation, batch: int) -> torch.optim.Optimizer:
    """The optimiser that ``how`` describes, at its rate for this batch size.

    Raises:
        PolysenseError: for an unknown optimiser's name.
    """
    rate = how.rate(batch)
    groups = [
        {**group, "lr": rate * group["lr_scale"]} for group in parameter_groups(module, how.weight_decay)
    ]
    if how.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=how.betas)
    if how.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=how.momentum)
    adapted = [{**group, "adapt": group["decays"]} for group in groups]
    if how.name == "lars":
        return LARS(adapted, lr=rate, momentum=how.momentum)
    if how.name == "lamb":
        return LAMB(adapted, lr=rate, betas=how.betas)
    raise unknown("optimiser", how.name, OPTIMISERS)


def apply_schedule(optimiser: torch.optim.Optimizer, how: Optimisation, batch: int, progress: float) -> float:
    """Set rate and weight decay for a share of training; linear warm-up, then a cosine to zero."""
    peak = how.rate(batch)
    if progress < how.warmup:
        rate = peak * progress / how.warmup
    else:
        rate = cosine(peak, 0.0, (progress - how.warmup) / max(1e-9, 1.0 - how.warmup))
    for group in optimiser.param_groups:
        group["lr"] = rate * group["lr_scale"]
        if group.get("decays") and how.final_weight_decay is not None:
            group["weight_decay"] = cosine(how.weight_decay, how.final_weight_decay, progress)
    return rate
