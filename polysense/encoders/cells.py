"""What the rows of a table hold, as tensors, and what the encoders of rows have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.errors import PolysenseError

Row = Mapping[str, Tensor]
"""``numbers`` ``[B, N]``, 0 where missing; ``missing`` ``[B, N]``; ``codes`` ``[B, C]``, levels from 1, 0
where missing. Where ``share`` ``[B]`` is there too, it is the row's own share in its embedding; the rest is
that of another row, whose cells are ``other/numbers`` and so on."""


@dataclass(frozen=True)
class Cells:
    """The cells of a row: first numbers, then categories; T of them.

    ``edges``: for each number the edges of its bins, in rising order, at least 2. ``levels``: for each
    category how many levels it has. ``columns``: for each cell the number of the column that it stands for;
    a column may have several (a date its hour and weekday), which are only hidden or replaced together.

    >>> Cells(edges=((-1.0, 0.0, 1.0),), levels=(3,), columns=(0, 1)).classes
    (3, 4)
    """

    edges: tuple[tuple[float, ...], ...]
    levels: tuple[int, ...]
    columns: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def numbers(self) -> int:
        """How many of the cells are numbers."""
        return len(self.edges)

    @property
    def classes(self) -> tuple[int, ...]:
        """How many classes a cell has: its bins or levels, and class 0 for missing."""
        return (*map(len, self.edges), *(count + 1 for count in self.levels))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each category's levels begin, when those of all lie one behind the other."""
        return tuple(accumulate((count + 1 for count in self.levels), initial=0))

    @property
    def width(self) -> int:
        """The width of :meth:`flat`."""
        return 2 * self.numbers + self.offsets[-1]

    def blank(self, rows: int, device: torch.device | None = None) -> dict[str, Tensor]:
        """Rows of which nothing is known."""
        return {
            "numbers": torch.zeros(rows, self.numbers, device=device),
            "missing": torch.ones(rows, self.numbers, dtype=torch.bool, device=device),
            "codes": torch.zeros(rows, len(self.levels), dtype=torch.long, device=device),
        }

    def flat(self, row: Row) -> Tensor:
        """``[B, width]``: numbers, which of them are missing, and each category's one-hot vector."""
        codes = row["codes"]
        places = codes + torch.tensor(self.offsets[:-1], device=codes.device, dtype=codes.dtype)
        hot = row["numbers"].new_zeros(len(codes), self.offsets[-1]).scatter_(1, places, 1)
        return torch.cat([row["numbers"], row["missing"].to(hot.dtype), hot], 1)

    def known(self, row: Row) -> Tensor:
        """``[B, T]``: False at the cells that are missing."""
        return torch.cat([~row["missing"], row["codes"] > 0], 1)

    def differ(self, one: Row, other: Row) -> Tensor:
        """``[B, T]``: the cells in which two rows differ."""
        numbers = (one["numbers"] != other["numbers"]) | (one["missing"] != other["missing"])
        return torch.cat([numbers, one["codes"] != other["codes"]], 1)

    def of_columns(self, chosen: Tensor) -> Tensor:
        """``[B, T]`` for the cells of what is ``[B, columns]`` for columns."""
        return chosen[:, list(self.columns)]


class RowEncoder(Encoder):
    """An encoder of a table's rows: it knows their cells.

    ``edges`` ``[N, E]`` are those of the cells, infinite behind the last. ``has_tokens``: whether there is
    a token for each cell.
    """

    edges: Tensor
    has_tokens = False

    def __init__(self, cells: Cells) -> None:
        super().__init__()
        self.cells = cells
        self.register_buffer("edges", padded_edges(cells), persistent=False)

    def tokenise(self, data: Row) -> Tensor:
        """``[B, T]``: the class of each cell, a number's bin or a level, from 1; 0 where it is missing."""
        inner = self.edges[:, 1:].clone()
        inner[torch.arange(len(inner)), [len(edges) - 2 for edges in self.cells.edges]] = torch.inf
        bins = 1 + (data["numbers"][..., None] >= inner).sum(-1)
        return torch.cat([bins.masked_fill(data["missing"], 0), data["codes"]], 1)

    @property
    def token_dim(self) -> int:
        """The width of the cells' tokens.

        Raises:
            PolysenseError: here, and in every encoder without tokens.
        """
        raise PolysenseError(
            f"the encoder {type(self).__name__} has no token for each cell; choose 'ft_nano' or 'saint'"
        )

    def cannot_hide(self) -> PolysenseError:
        """The error for a method that asks of cells what this encoder does not know."""
        return PolysenseError(
            f"the encoder {type(self).__name__} cannot hide cells in the way of this method; for tables"
            " choose the method masked_cells, with 'cell_transformer' or 'ft_nano'"
        )


def padded_edges(cells: Cells) -> Tensor:
    """``[N, E]``: the edges of all numbers, infinite behind the last of each."""
    most = max(map(len, cells.edges), default=2)
    return torch.tensor([[*edges, *[torch.inf] * (most - len(edges))] for edges in cells.edges]).reshape(
        -1, most
    )


def mixed(embed: Callable[[Row], Tensor], row: Row) -> Tensor:
    """What ``embed`` makes of a row, mixed with the other row's where the row has one (mixup)."""
    own = embed(row)
    if "share" not in row:
        return own
    other = embed({name: row[f"other/{name}"] for name in ("numbers", "missing", "codes")})
    return torch.lerp(other, own, row["share"].to(own.dtype).reshape(-1, *[1] * (own.ndim - 1)))


class PerCell(nn.Module):
    """A linear layer of its own for each of T cells: ``[B, T, inputs]`` to ``[B, T, outputs]``.

    >>> PerCell(3, 4, 8)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, cells: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(1, inputs))
        self.weight = nn.Parameter(torch.empty(cells, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(cells, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Each cell through its layer."""
        mapped = torch.einsum("bti,tio->bto", x, self.weight)
        return mapped if self.bias is None else mapped + self.bias


class CellHead(nn.Module):
    """Answers for some cells in a row: ``[B, cells, answers]`` from their tokens, or from the pooled row.

    ``answers``: how many each cell gives; behind fewer than the most lie logits of minus infinity.
    ``first``: the first of the cells. Each cell has a linear layer of its own.

    >>> cells = Cells(edges=((0.0, 1.0),), levels=(2,), columns=(0, 1))
    >>> class Eight(RowEncoder):
    ...     dim = 8
    >>> CellHead(Eight(cells), (2, 3))(Encoded(torch.zeros(1, 8)))[0, 0].isinf()
    tensor([False, False,  True])
    """

    unused: Tensor

    def __init__(self, encoder: RowEncoder, answers: tuple[int, ...], first: int = 0) -> None:
        super().__init__()
        self.count, self.first, most = len(answers), first, max(answers)
        self.on_tokens = encoder.has_tokens
        # of an MLP that gives all its layers the last alone decodes
        self.width = encoder.token_dim if self.on_tokens else getattr(encoder, "width", encoder.dim)
        self.layer = (
            PerCell(self.count, self.width, most)
            if self.on_tokens
            else nn.Sequential(nn.Linear(self.width, self.count * most), nn.Unflatten(1, (self.count, most)))
        )
        unused = torch.arange(most) >= torch.tensor(answers)[:, None]
        self.register_buffer("unused", unused, persistent=False)

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, cells, answers]``."""
        if self.on_tokens:
            assert encoded.tokens is not None
            read = encoded.tokens[:, self.first : self.first + self.count]
        else:
            read = encoded.pooled[:, -self.width :]
        answered: Tensor = self.layer(read)
        return answered.masked_fill(self.unused, -torch.inf)


def check_positive(**sizes: int) -> None:
    """Raise PolysenseError for a size of an encoder that is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise PolysenseError(f"the encoder's {name} is {value}; use at least 1")
