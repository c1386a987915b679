"""The engine: a method encodes every view once and adds up its weighted branches.

There is one :class:`Method` class. What makes SimCLR, DINO or MAE out of it is which branches a
recipe gives it; see :mod:`polysense.methods.table`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.teacher import Teacher
from polysense.modalities.base import Tensors, View, first_tensor
from polysense.objectives.base import Objective

log = logging.getLogger("polysense")

Masker = Callable[[View, Encoder], View]
"""Hides some of a view's tokens from the student; the teacher always sees the whole view."""


class Encodings(Sequence[Encoded]):
    """What the student made of the views, by their places; those that no branch asked for are not there."""

    def __init__(self, made: Mapping[int, Encoded], count: int) -> None:
        self._made, self._places = made, range(count)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Encoded: ...
    @overload
    def __getitem__(self, place: slice) -> list[Encoded]: ...
    def __getitem__(self, place: int | slice) -> Encoded | list[Encoded]:
        """That of one view or of several; a LookupError where it was not asked for."""
        if isinstance(place, slice):
            return [self[one] for one in self._places[place]]
        if self._places[place] not in self._made:
            raise LookupError(f"no branch asks the student for view {place}, see Reads.of_student")
        return self._made[self._places[place]]


@dataclass(frozen=True)
class Seen:
    """What one step has seen: the views, and what student and teacher made of each of them.

    ``student`` lacks the views that no branch asked for; ``teacher`` holds None there. ``known`` is what
    the batch knows of its samples besides their content (``index``, ``label``, an action, …), ``[B, ...]``
    each.
    """

    views: list[View]
    student: Sequence[Encoded]
    teacher: list[Encoded | None]
    known: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The scalar loss of one step, its weighted parts by branch, and what was seen on the way."""

    loss: Tensor
    parts: dict[str, Tensor]
    seen: Seen


class Reads:
    """Which views a branch reads, against which targets; by default all of the student's."""

    def of_student(self, view: View) -> bool:
        """Whether the student has to encode this view for the branch."""
        return True

    def of_teacher(self, view: View) -> bool:
        """Whether the teacher has to."""
        return False

    def compares_embeddings(self) -> bool:
        """Whether the branch compares embeddings of whole samples, of which prefixes compare as well."""
        return False

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """The tensors that go into the branch's objective."""
        raise NotImplementedError


class Branch(nn.Module):
    """A head, an objective, and which views they read.

    ``head`` maps :class:`~polysense.encoders.base.Encoded` to ``[B, K]`` or ``[B, T, K]``; a
    ``nn.ModuleDict`` holds one head per modality. The teacher, where there is one, has a moving copy
    of the head. ``predictor`` maps tensors to tensors and belongs to the student alone (BYOL).
    """

    def __init__(
        self,
        head: nn.Module,
        objective: Objective,
        reads: Reads,
        *,
        predictor: nn.Module | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.head = head
        self.objective = objective
        self.reads = reads
        self.predictor = predictor if predictor is not None else nn.Identity()
        self.weight = weight

    def project(self, encoded: Sequence[Encoded], views: Sequence[View]) -> Tensor:
        """The student's views through head and predictor: ``[V, B, K]``."""
        embedded = embed(self.head, encoded, views)
        predicted: Tensor = self.predictor(embedded.flatten(0, 1))
        return predicted.reshape(*embedded.shape[:2], *predicted.shape[1:])

    def forward(self, seen: Seen, teacher_head: nn.Module | None = None) -> Tensor:
        """The branch's weighted loss."""
        loss: Tensor = self.objective(*self.reads(self, seen, teacher_head))
        return self.weight * loss


def embed(head: nn.Module, encoded: Sequence[Encoded], views: Sequence[View]) -> Tensor:
    """Pass views through a head, in one call per modality: ``[V, B, K]``."""
    if isinstance(head, nn.ModuleDict):
        return torch.stack([head[view.modality](one) for one, view in zip(encoded, views, strict=True)])
    together: Tensor = head(Encoded.join(encoded))
    return together.reshape(len(encoded), -1, *together.shape[1:])


def encode(towers: nn.ModuleDict, views: Sequence[View], chunk: int | None = None) -> list[Encoded]:
    """Encode every view once: views of equal shape go through their tower together.

    With ``chunk`` that many rows go through it at a time, and again in the backward pass, so that the
    activations of one chunk alone are in memory (GradCache, https://arxiv.org/abs/2101.06983).
    """
    groups: dict[object, list[int]] = defaultdict(list)
    for place, view in enumerate(views):
        groups[(view.modality, _shape(view.data), view.mask is None)].append(place)
    encoded: dict[int, Encoded] = {}
    for places in groups.values():
        members = [views[place] for place in places]
        masks = [view.mask for view in members if view.mask is not None]
        sizes = [len(first_tensor(view.data)) for view in members]
        together = _encode_rows(
            towers[members[0].modality],
            _concatenate([view.data for view in members]),
            torch.cat(masks) if masks else None,
            chunk,
        )
        encoded.update(zip(places, together.split(sizes), strict=True))
    return [encoded[place] for place in range(len(views))]


def _encode_rows(tower: nn.Module, data: Tensors, mask: Tensor | None, chunk: int | None) -> Encoded:
    rows = len(first_tensor(data))
    if chunk is None or chunk >= rows:
        whole: Encoded = tower(data, mask)
        return whole
    parts = [slice(start, start + chunk) for start in range(0, rows, chunk)]
    return Encoded.join(
        [
            checkpoint(  # replays the random numbers of dropout
                tower, _rows(data, part), None if mask is None else mask[part], use_reentrant=False
            )
            for part in parts
        ]
    )


class Method(nn.Module):
    """One self-supervised method: towers, weighted branches and, where there is one, a teacher.

    Args:
        towers: an encoder per modality.
        branches: what is compared with what, by name.
        teacher: a moving average of towers and heads; it encodes the views that branches ask for.
        masker: hides tokens of the student's views.

    ``forward(views)`` gives the loss; ``at(progress)`` is called before each step and sets whatever
    follows a schedule; ``after_step()`` is called after each optimiser step and moves the teacher.
    ``chunk`` is how many rows towers encode at a time, see :func:`encode`; None is all at once.
    """

    def __init__(
        self,
        towers: Mapping[str, Encoder],
        branches: Mapping[str, Branch],
        *,
        teacher: Teacher | None = None,
        masker: Masker | None = None,
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(towers)
        self.branches = nn.ModuleDict(branches)
        self.teacher = teacher
        self.masker = masker
        self.chunk: int | None = None
        if teacher is not None:
            heads = nn.ModuleDict({name: branch.head for name, branch in branches.items()})
            teacher.follow({"towers": self.towers, "heads": heads})

    def forward(self, views: Sequence[View], known: Mapping[str, Tensor] | None = None) -> Outcome:
        """Encode every view once and add up the branches; for ``known`` see :class:`Seen`."""
        seen = self.look(views, known)
        heads = self.teacher["heads"] if self.teacher is not None else None
        parts: dict[str, Tensor] = {
            name: branch(seen, heads[name] if isinstance(heads, nn.ModuleDict) else None)
            for name, branch in self.branches.items()
        }
        return Outcome(torch.stack(list(parts.values())).sum(), parts, seen)

    def look(self, views: Sequence[View], known: Mapping[str, Tensor] | None = None) -> Seen:
        """Let student and teacher encode those views that a branch asks them for."""
        masked = [self._mask(view) for view in views]
        places = _asked(masked, [read.of_student for read in self._reads()])
        student = dict(zip(places, encode(self.towers, [masked[p] for p in places], self.chunk), strict=True))
        teacher: list[Encoded | None] = [None] * len(masked)
        if self.teacher is not None:
            places = _asked(masked, [read.of_teacher for read in self._reads()])
            whole = [replace(masked[place], mask=None) for place in places]
            towers = self.teacher["towers"]
            assert isinstance(towers, nn.ModuleDict)
            with torch.no_grad():
                for place, one in zip(places, encode(towers, whole, self.chunk), strict=True):
                    teacher[place] = one
        return Seen(masked, Encodings(student, len(masked)), teacher, known or {})

    def _reads(self) -> list[Reads]:
        return [branch.reads for branch in self.branches.values()]  # type: ignore[misc]

    def _mask(self, view: View) -> View:
        tower = self.towers[view.modality]
        assert isinstance(tower, Encoder)
        return self.masker(view, tower) if self.masker is not None else view

    def encode_in_chunks(self, rows: int) -> None:
        """From now on let towers encode so many rows at a time, and again in the backward pass.

        The loss is still that of the whole batch, and so are its gradients: what decides how large a batch
        fits into memory is the size of a chunk. Warns where batch norm makes it another method.
        """
        self.chunk = rows
        for name, module in self.towers.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                log.warning(
                    f"batch norm ({name}) sees chunks of {rows} and not the batch, so the gradients are not"
                    " those of the whole batch; choose an encoder with layer norm, such as a ViT"
                )
                break

    def at(self, progress: float) -> None:
        """Set every schedule to a share of training in [0, 1]."""
        for module in self._others_with("at"):
            module.at(progress)

    def after_step(self) -> None:
        """Move the teacher after an optimiser step, and let objectives keep their parameters in bounds."""
        for module in self._others_with("after_step"):
            module.after_step()
        if self.teacher is not None:
            self.teacher.update()

    def _others_with(self, hook: str) -> list[Any]:
        """The modules inside this one that have a method of that name."""
        return [m for m in self.modules() if m is not self and callable(getattr(m, hook, None))]


def _asked(views: Sequence[View], asks: Sequence[Callable[[View], bool]]) -> list[int]:
    """The places of the views that any branch asks for."""
    return [place for place, view in enumerate(views) if any(ask(view) for ask in asks)]


def _shape(data: Tensors) -> object:
    if isinstance(data, Tensor):
        return tuple(data.shape)
    return tuple(sorted((name, tuple(tensor.shape)) for name, tensor in data.items()))


def _rows(data: Tensors, part: slice) -> Tensors:
    if isinstance(data, Tensor):
        return data[part]
    return {name: tensor[part] for name, tensor in data.items()}


def _concatenate(parts: Sequence[Tensors]) -> Tensors:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}  # type: ignore[index]
