"""What the peers' methods are put together from, whatever library the parts are from.

Each module beside this one imports its library and has two tables by our recipes' names:
``LOSSES[method](options)`` is a function of what our objective takes; ``STEPS[method](encoder, options,
loss)`` is a :class:`Model`. The options are our recipe's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Views = Sequence[Tensor]
Options = dict[str, Any]
Loss = Callable[..., Tensor]


class Model(nn.Module):
    """Parts of a method, how a step's loss is wired from them, and what follows the optimiser's step."""

    def __init__(self, wiring: Loss, *parts: nn.Module, after: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.wiring, self.parts, self.after_step = wiring, nn.ModuleList(parts), after

    def forward(self, views: Views) -> Tensor:
        return self.wiring(views)


class Embedder(nn.Module):
    """Our encoder as a peer sees any encoder: pictures in, one embedding for each out, through a head."""

    def __init__(self, encoder: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head if head is not None else nn.Identity()

    def forward(self, pictures: Tensor) -> Tensor:
        embedded: Tensor = self.head(self.encoder(pictures).pooled)
        return embedded


def pair(criterion: Loss, **options: Any) -> Loss:
    """``criterion`` of the two views of each sample."""
    return lambda z: criterion(z[0], z[1], **options)


def joined(criterion: Loss) -> Loss:
    """``criterion`` of the two views in one batch."""
    return lambda z: criterion(torch.cat([z[0], z[1]]))


def swapped(criterion: Loss) -> Loss:
    """``criterion`` of each of two student views with the teacher's other view, the mean of both."""
    return lambda student, teacher: (
        (criterion(student[0], teacher[1].detach()) + criterion(student[1], teacher[0].detach())) / 2
    )


def matching(encoder: nn.Module, head: nn.Module | None, loss: Loss) -> Model:
    """A step in which the student's views meet each other."""
    student = Embedder(encoder, head)
    return Model(lambda views: loss([student(view) for view in views]), student)


def predicting(encoder: nn.Module, head: nn.Module, predictor: nn.Module, loss: Loss) -> Model:
    """A step in which what the student predicts from its views meets its own projections."""
    student = Embedder(encoder, head)

    def wiring(views: Views) -> Tensor:
        projected = [student(view) for view in views]
        return loss([predictor(each) for each in projected], projected)

    return Model(wiring, student, predictor)
