"""SIGReg: embeddings that are normally distributed whichever way one looks at them. And LeJEPA, on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective, check_views
from polysense.objectives.distributed import mean_over_processes, world_size

_CHUNK = 2**17  # complex values worked on at once: they fit a processor's cache


class SIGReg(Objective):
    """Sketched isotropic Gaussian regularisation (https://arxiv.org/abs/2511.08544).

    The N embeddings of a view, those of all processes, are projected on ``slices`` random directions.
    Along each, Epps and Pulley's test compares their characteristic function with the standard normal's,
    at ``knots`` points from 0 to ``reach`` by the trapezoidal rule, doubled for the negative half::

        test = N * 2 * integral of |mean over samples of exp(i t x) - exp(-t^2 / 2)|^2 * exp(-t^2 / 2) dt
        loss = mean of test over slices and views

    Each call draws new directions, the same ones on all processes. Memory grows with samples times
    slices. Differentiable once.

    >>> collapsed, normal = torch.zeros(2, 100, 8), torch.randn(2, 100, 8)
    >>> bool(SIGReg()(collapsed) > 10 * SIGReg()(normal))
    True

    Raises PolysenseError for fewer than 2 views or 2 samples, and for less than 1 slice or 2 knots.
    """

    def __init__(self, slices: int = 1024, knots: int = 17, reach: float = 3.0) -> None:
        super().__init__()
        if slices < 1 or knots < 2:
            raise PolysenseError(
                f"SIGReg cannot test {slices} slices at {knots} knots; use at least 1 slice and 2 knots"
            )
        self.slices, self.knots, self.spacing = slices, knots, reach / (knots - 1)

    def forward(self, z: Tensor) -> Tensor:
        """The loss of ``z``, ``[V, B, K]``: V views of B samples, not normalised."""
        check_views(self, z)
        # the mean of the processes' normal draws points in an evenly random direction too, the same for all
        drawn = mean_over_processes(torch.randn(z.shape[-1], self.slices, device=z.device))
        projected = z @ F.normalize(drawn.to(z.dtype), dim=0)
        real, imaginary = mean_over_processes(_Characteristic.apply(projected, self.spacing, self.knots))
        points = self.spacing * torch.arange(1, self.knots, device=z.device, dtype=z.dtype)
        normal = (-(points**2) / 2).exp()
        apart = (real - normal).square() + imaginary.square()  # at t = 0 both functions are 1
        weights = 2 * self.spacing * normal
        weights[-1] /= 2
        loss: Tensor = z.shape[1] * world_size() * (apart @ weights).mean()
        return loss


class LeJEPA(Objective):
    """Prediction and SIGReg in balance (https://arxiv.org/abs/2511.08544).

    Each view's embedding shall be the mean of the global views' embeddings of the same sample, while
    the embeddings of each view are normally distributed, see :class:`SIGReg`::

        loss = (1 - regularisation) * mean (view - mean of global views)^2 + regularisation * SIGReg

    Both sides get gradients: there is no teacher, no predictor and nothing is held back.

    >>> views = torch.randn(3, 100, 8)
    >>> LeJEPA(regularisation=0.0)(views, views[:2]).shape
    torch.Size([])

    Raises PolysenseError for fewer than 2 views or 2 samples, or global views that do not fit.
    """

    def __init__(
        self, regularisation: float = 0.05, slices: int = 1024, knots: int = 17, reach: float = 3.0
    ) -> None:
        super().__init__()
        self.regularisation = regularisation
        self.gaussian = SIGReg(slices, knots, reach)

    def forward(self, z: Tensor, whole: Tensor) -> Tensor:
        """The loss of all views ``z[V, B, K]``, of which ``whole[G, B, K]`` are global."""
        if whole.ndim != 3 or not len(whole) or whole.shape[1:] != z.shape[1:]:
            raise PolysenseError(
                f"LeJEPA predicts the mean of global views [views, samples, dimensions], but got shapes "
                f"{list(z.shape)} and {list(whole.shape)}; ask for at least 1 global view"
            )
        distance = mean_over_processes((z - whole.mean(0)).square().mean())
        loss: Tensor = (1 - self.regularisation) * distance + self.regularisation * self.gaussian(z)
        return loss


class _Characteristic(torch.autograd.Function):
    """``[2, V, S, T]``: real and imaginary part of the mean of ``exp(i t x)`` over the B of ``x[V, B, S]``.

    T is at 1 to ``knots`` - 1 times ``spacing``. As these are powers of one number, each costs a
    multiplication instead of a sine and a cosine, and the gradient is a polynomial in it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, spacing: float, knots: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.spacing = spacing
        parts = []
        for part in x.split(_width(x), dim=2):
            turn = _turn(part, spacing)
            power, means = turn, [turn.mean(1)]
            for _ in range(2, knots):
                power = power * turn
                means.append(power.mean(1))
            parts.append(torch.view_as_real(torch.stack(means, -1)))
        return torch.cat(parts, 1).movedim(-1, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise PolysenseError("SIGReg can be differentiated once only; do not ask for create_graph=True")
        (x,) = ctx.saved_tensors
        real, imaginary = grads[0]
        points = ctx.spacing * torch.arange(1, real.shape[-1] + 1, device=x.device, dtype=x.dtype)
        # d cos(t x) = -t sin(t x) and d sin(t x) = t cos(t x): the real part of t (b + i a) exp(i t x)
        factors = torch.complex(imaginary * points, real * points)[:, None] / x.shape[1]
        parts, width = [], _width(x)
        for part, factor in zip(x.split(width, dim=2), factors.split(width, dim=2), strict=True):
            turn = _turn(part, ctx.spacing)
            total = factor[..., -1] * turn
            for each in reversed(factor[..., :-1].unbind(-1)):
                total = (total + each) * turn
            parts.append(total.real)
        return torch.cat(parts, 2), None, None


def _turn(x: Tensor, spacing: float) -> Tensor:
    """``exp(i spacing x)``."""
    angle = spacing * x
    return torch.complex(angle.cos(), angle.sin())


def _width(x: Tensor) -> int:
    """How many slices to work on at once."""
    return max(1, _CHUNK // max(1, x.shape[0] * x.shape[1]))
