"""Reads and heads for methods that compare places, the tokens on an encoder's grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded
from polysense.encoders.heads import OnTokens, mlp
from polysense.errors import PolysenseError
from polysense.methods.engine import Branch, Seen
from polysense.methods.reads import EachOther, Select, TeacherViews, global_views


class TokenHead(OnTokens):
    """A module on every token of a grid: ``[B, T, K]``.

    An :func:`~polysense.encoders.heads.mlp` in it is the 1×1 convolutions of DenseCL and VICRegL.

    >>> TokenHead(mlp(8, 32, 16))(Encoded(torch.randn(2, 8), torch.randn(2, 9, 8), (3, 3))).shape
    torch.Size([2, 9, 16])

    Raises:
        PolysenseError: where the encoder gives none.
    """

    def forward(self, encoded: Encoded) -> Tensor:
        """The projection of ``encoded.tokens``."""
        tokens_of(encoded)
        return super().forward(encoded)


class ShortcutMLP(nn.Module):
    """Deep InfoMax's way into the dot product: an MLP of two layers beside a linear shortcut.

    The shortcut starts as a noisy copy of its input, https://arxiv.org/abs/1808.06670.

    >>> ShortcutMLP(8, 32)(torch.randn(4, 8)).shape
    torch.Size([4, 32])
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.mlp = mlp(dim, out, out)
        self.shortcut = nn.Linear(dim, out)
        nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
        with torch.no_grad():
            self.shortcut.weight.fill_diagonal_(1.0)

    def forward(self, embeddings: Tensor) -> Tensor:
        """``[B, out]`` of ``[B, dim]``."""
        projected: Tensor = self.mlp(embeddings) + self.shortcut(embeddings)
        return projected


class SummaryAndTokens(nn.Module):
    """The pooled embedding and the tokens, each through its own module: ``[B, 1 + T, K]``, summary first.

    Raises:
        PolysenseError: where the encoder gives no tokens.
    """

    def __init__(self, summary: nn.Module, each_token: nn.Module) -> None:
        super().__init__()
        self.summary, self.tokens = summary, TokenHead(each_token)

    def forward(self, encoded: Encoded) -> Tensor:
        """Project both."""
        return torch.cat([self.summary(encoded.pooled)[:, None], self.tokens(encoded)], dim=1)


@dataclass(frozen=True)
class LocalGlobal(EachOther):
    """Each view's tokens against its summary (Deep InfoMax), from a :class:`SummaryAndTokens` head.

    Gives the objective tokens ``[V, B, T, K]`` and summaries ``[V, B, K]``.
    """

    student: Select = global_views

    def compares_embeddings(self) -> bool:
        """Those of places."""
        return False

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project the chosen views and part them."""
        (together,) = super().__call__(branch, seen, teacher_head)
        return together[:, :, 1:], together[:, :, 0]


@dataclass(frozen=True)
class TokensInPlace(EachOther):
    """The views' tokens against each other, and where in the sample they lie (VICRegL).

    Gives the objective ``[V, B, T, K]`` from a :class:`TokenHead`, and places ``[V, B, T, G]``.

    Raises:
        PolysenseError: where the views do not know which part of the sample they show.
    """

    student: Select = global_views

    def compares_embeddings(self) -> bool:
        """Those of places."""
        return False

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project the chosen views and find their places."""
        (tokens,) = super().__call__(branch, seen, teacher_head)
        places = [
            view.places(grid)
            for place, view in enumerate(seen.views)
            if self.student(view) and (grid := seen.student[place].grid) is not None
        ]
        return tokens, torch.stack(places)


@dataclass(frozen=True)
class TeacherTokens(TeacherViews):
    """The student's tokens against the teacher's of the same views (DenseCL).

    Gives the objective the projections ``[V, B, T, K]`` of student and teacher from a
    :class:`TokenHead`, and the encoder's own tokens ``[V, B, T, E]`` of both, by which to match them.
    """

    student: Select = global_views

    def compares_embeddings(self) -> bool:
        """Those of places."""
        return False

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project the tokens and add the encoders' own."""
        projected = super().__call__(branch, seen, teacher_head)
        taught = [place for place, view in enumerate(seen.views) if self.teacher(view)]
        student = [tokens_of(seen.student[place]).detach() for place in taught]
        teacher = [tokens_of(one) for place in taught if (one := seen.teacher[place]) is not None]
        return *projected, torch.stack(student), torch.stack(teacher)


def tokens_of(encoded: Encoded) -> Tensor:
    """The tokens ``[B, T, E]``.

    Raises:
        PolysenseError: where the encoder gave none on a grid.
    """
    if encoded.tokens is None or encoded.grid is None:
        raise PolysenseError(
            "this encoder gives no tokens on a grid to compare; choose a conv net or a ViT, such as 'small',"
            " 'resnet18' or 'vit_nano'"
        )
    return encoded.tokens
