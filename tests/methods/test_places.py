"""Which tokens the branches read, and what the heads make of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded
from polysense.encoders.teacher import Teacher
from polysense.errors import PolysenseError
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.places import (
    LocalGlobal,
    ShortcutMLP,
    SummaryAndTokens,
    TeacherTokens,
    TokenHead,
    TokensInPlace,
)
from polysense.modalities.base import View
from polysense.objectives.base import Objective
from tests.toys import CellEncoder

KINDS = ("local", "global", "global")


class Remember(Objective):
    def forward(self, *tensors: Tensor) -> Tensor:
        self.tensors = tensors
        return tensors[0].sum()


def seen_by(reads: Reads, head: nn.Module, teacher: Teacher | None = None) -> tuple[Seen, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    objective = Remember()
    method = Method({"table": CellEncoder(4, 6)}, {"match": Branch(head, objective, reads)}, teacher=teacher)
    region = torch.tensor([[[0.5], [0.5]]]).expand(3, 2, 1)
    views = [View(torch.randn(3, 4), "table", kind, region=region) for kind in KINDS]
    return method.eval()(views).seen, objective.tensors


def test_a_token_head_sees_each_token_alone() -> None:
    head = TokenHead(nn.Linear(6, 2))
    encoded = Encoded(torch.randn(3, 6), torch.randn(3, 4, 6), (4,))
    assert encoded.tokens is not None
    torch.testing.assert_close(head(encoded), head.module(encoded.tokens))
    with pytest.raises(PolysenseError, match="no tokens on a grid to compare; choose a conv net or a ViT"):
        head(Encoded(torch.randn(3, 6)))


@pytest.mark.parametrize(("dim", "out"), [(6, 9), (9, 6)])
def test_the_shortcut_starts_as_a_noisy_copy(dim: int, out: int) -> None:
    weight = ShortcutMLP(dim, out).shortcut.weight
    noise = (weight - torch.eye(out, dim)).abs()
    assert 0 < noise.max() <= 0.01


def test_tokens_against_the_summary_of_the_same_view() -> None:
    head = SummaryAndTokens(nn.Linear(6, 2), nn.Linear(6, 2))
    seen, (tokens, summary) = seen_by(LocalGlobal(), head)
    for place, view in enumerate((1, 2)):  # the global ones
        torch.testing.assert_close(tokens[place], head.tokens(seen.student[view]))
        torch.testing.assert_close(summary[place], head.summary(seen.student[view].pooled))


def test_tokens_come_with_the_places_of_their_own_view() -> None:
    head = TokenHead(nn.Linear(6, 2))
    seen, (tokens, places) = seen_by(TokensInPlace(), head)
    assert tokens.shape == (2, 3, 4, 2)
    torch.testing.assert_close(tokens[1], head(seen.student[2]))
    torch.testing.assert_close(places[1, 0, :, 0], torch.tensor([0.5625, 0.6875, 0.8125, 0.9375]))


def test_the_teachers_tokens_are_matched_by_what_the_encoders_saw() -> None:
    head = TokenHead(nn.Linear(6, 2))
    seen, (student, teacher, student_features, teacher_features) = seen_by(
        TeacherTokens(), head, Teacher(0.9)
    )
    torch.testing.assert_close(student[0], head(seen.student[1]))
    torch.testing.assert_close(teacher, student)  # a fresh teacher equals its student
    torch.testing.assert_close(student_features[1], seen.student[2].tokens)
    assert seen.teacher[0] is None
    assert seen.teacher[2] is not None
    torch.testing.assert_close(teacher_features[1], seen.teacher[2].tokens)
    assert student.requires_grad
    assert not any(part.requires_grad for part in (teacher, student_features, teacher_features))
