"""The teacher: a slow copy of the student, whose outputs are the student's targets."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from polysense.encoders.schedule import cosine, linear
from polysense.errors import PolysenseError, unknown

SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": lambda first, final, progress: first,
}


class Teacher(nn.Module):
    """Exponential moving average of the student's modules (Mean Teacher, MoCo, BYOL, DINO).

    At each ``update`` every parameter becomes ``momentum * own + (1 - momentum) * student``, and every
    buffer (BatchNorm's statistics) a copy of the student's. ``momentum`` goes from its first value to
    ``final`` by the schedule, a step at a time (``at``): "cosine" in BYOL and DINO, "linear" in
    I-JEPA, "constant" in MoCo.

    The copies keep to the train or eval mode they are given, as BYOL and DINO do it: there the teacher
    trains too, so BatchNorm normalises by the batch at hand and not by its running statistics. They
    hold no gradients, and the student is not registered here a second time.

    https://arxiv.org/abs/1703.01780, https://arxiv.org/abs/2006.07733

    >>> student = nn.Linear(2, 2)
    >>> teacher = Teacher(momentum=0.9, schedule="constant").follow({"image": student})
    >>> before = teacher["image"].weight.clone()
    >>> nn.init.zeros_(student.weight).requires_grad
    True
    >>> teacher.update()
    >>> torch.allclose(teacher["image"].weight, 0.9 * before)
    True
    """

    def __init__(
        self,
        momentum: float = 0.996,
        final: float = 1.0,
        schedule: Literal["cosine", "linear", "constant"] = "cosine",
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise unknown("schedule", schedule, SCHEDULES)
        for name, value in {"momentum": momentum, "final": final}.items():
            if not 0 <= value <= 1:
                raise PolysenseError(f"the teacher's {name} is {value}; choose a number from 0 to 1")
        self.first, self.final, self.schedule = momentum, final, schedule
        self.momentum = momentum
        self.copies = nn.ModuleDict()
        # A plain dict: nn.Module would register the students as its own, in state_dict and parameters().
        self._students: dict[str, nn.Module] = {}

    def follow(self, modules: Mapping[str, nn.Module]) -> Teacher:
        """Start as a copy of the student's modules, and follow them from now on."""
        self._students = dict(modules)
        self.copies = nn.ModuleDict(copy.deepcopy(self._students)).requires_grad_(False)
        return self

    def __getitem__(self, name: str) -> nn.Module:
        """The teacher's copy of the student's module of that name."""
        return self.copies[name]

    def at(self, progress: float) -> None:
        """Set the momentum for this step: ``progress`` is steps done over all steps."""
        self.momentum = SCHEDULES[self.schedule](self.first, self.final, progress)

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the student by ``1 - momentum``; call it after every step of the optimiser.

        Raises ``PolysenseError`` for parameters in 16 bits, where so small a move rounds to none.
        """
        student = nn.ModuleDict(self._students)  # walks shared parameters once, as for the copies
        for own, live in _grouped(self.copies.parameters(), student.parameters()):
            if own[0].is_floating_point() and own[0].itemsize < 4:
                raise PolysenseError(
                    f"the teacher cannot average {own[0].dtype} parameters, whose rounding swallows its "
                    "small steps; train with precision 'bf16-mixed' or '16-mixed', which keep them in float32"
                )
            torch._foreach_lerp_(own, live, 1 - self.momentum)
        for own, live in _grouped(self.copies.buffers(), student.buffers()):
            torch._foreach_copy_(own, live)


class FrozenTeacher(Teacher):
    """A teacher that has learned elsewhere and stays as it is, always in eval mode.

    ``towers`` has an encoder per modality, ``heads`` what the objective compares with, per branch.

    >>> teacher = FrozenTeacher({"image": nn.BatchNorm1d(2)}, {"match": nn.Identity()}).train()
    >>> teacher["towers"]["image"].training
    False
    """

    def __init__(self, towers: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__(momentum=1.0)
        copies = {"towers": nn.ModuleDict(towers), "heads": nn.ModuleDict(heads)}
        self.copies = nn.ModuleDict(copies).requires_grad_(False)
        self.train(False)

    def follow(self, modules: Mapping[str, nn.Module]) -> FrozenTeacher:
        """Follow nobody."""
        return self

    def update(self) -> None:
        """Stay."""

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Remain in eval mode, whatever the student does."""
        super().train(False)
        return self


def _grouped(own: Iterable[Tensor], live: Iterable[Tensor]) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
    """Pairs in lists of one device and data type: what the fused operations need to be fast."""
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]]
    groups = defaultdict(lambda: ([], []))
    for mine, theirs in zip(own, live, strict=True):
        mine_list, theirs_list = groups[mine.device, mine.dtype]
        mine_list.append(mine)
        theirs_list.append(theirs)
    return groups.values()
