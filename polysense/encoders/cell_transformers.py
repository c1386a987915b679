"""Transformers with a token for each cell of a table's row: FT-Transformer, SAINT, and one that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded
from polysense.encoders.cells import CellHead, Cells, Row, RowEncoder, check_positive, mixed
from polysense.encoders.numbers import embed_numbers
from polysense.errors import PolysenseError, unknown


class CellTokens(nn.Module):
    """A token for each cell: ``[B, T, width]``; numbers by their embedding, levels and gaps by vectors."""

    offsets: Tensor

    def __init__(self, cells: Cells, width: int, numbers: str) -> None:
        super().__init__()
        self.numbers = embed_numbers(numbers, cells, width)
        self.gaps = nn.Parameter(0.02 * torch.randn(cells.numbers, width))
        self.levels = nn.Embedding(cells.offsets[-1], width)
        nn.init.uniform_(self.levels.weight, -(width**-0.5), width**-0.5)
        self.columns = nn.Parameter(0.02 * torch.randn(len(cells), width))
        self.register_buffer("offsets", torch.tensor(cells.offsets[:-1], dtype=torch.long), persistent=False)

    def forward(self, row: Row) -> Tensor:
        """The tokens of rows, without what tells columns apart."""
        numbers = torch.where(row["missing"][..., None], self.gaps, self.numbers(row["numbers"]))
        return torch.cat([numbers, self.levels(row["codes"] + self.offsets).to(numbers.dtype)], 1)


class GatedBlock(nn.Module):
    """Attention, then a gated MLP, each behind a norm and added to what came in.

    ``gate`` is ReLU in FT-Transformer (ReGLU) and GELU in SAINT (GEGLU). ``first`` leaves out the first
    norm, as FT-Transformer does in its first block.

    >>> GatedBlock(8, 2, hidden=10)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int,
        head_width: int | None = None,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        gate: Callable[[Tensor], Tensor] = functional.relu,
        first: bool = False,
    ) -> None:
        super().__init__()
        if head_width is None and width % heads:
            raise PolysenseError(f"{heads} heads cannot share a width of {width}; choose one they divide")
        inner = heads * (head_width or width // heads)
        self.heads, self.gate, self.attention_dropout = heads, gate, attention_dropout
        self.norm1 = nn.Identity() if first else nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * inner), nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, width]`` of ``[B, T, width]``."""
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        read = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        x = x + self.project(read.transpose(1, 2).flatten(2))
        value, gate = self.widen(self.norm2(x)).chunk(2, -1)
        changed: Tensor = x + self.narrow(self.drop(value * self.gate(gate)))
        return changed


class FTTransformer(RowEncoder):
    """A transformer over cells (https://arxiv.org/abs/2106.11959), which can hide them.

    ``pooled`` is the CLS token, or with ``pool="mean"`` the mean of all others. After
    :meth:`learn_mask_token` a learned vector stands where a cell is hidden.

    >>> cells = Cells(edges=((0.0, 1.0),), levels=(2,), columns=(0, 1))
    >>> row = cells.blank(2)
    >>> FTTransformer(cells, width=16, depth=1, heads=2)(row).tokens.shape
    torch.Size([2, 2, 16])
    """

    has_tokens = True

    def __init__(
        self,
        cells: Cells,
        *,
        width: int = 192,
        depth: int = 3,
        heads: int = 8,
        numbers: str = "linear",
        attention_dropout: float = 0.2,
        dropout: float = 0.1,
        pool: Literal["cls", "mean"] = "cls",
    ) -> None:
        super().__init__(cells)
        check_positive(width=width, depth=depth, heads=heads)
        if pool not in ("cls", "mean"):
            raise unknown("pool", str(pool), ["cls", "mean"])
        self.dim, self.pool = width, pool
        self.embed = CellTokens(cells, width, numbers)
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.mask_token: nn.Parameter | None = None
        self.trunk = self._blocks(depth, heads, attention_dropout, dropout)
        self.norm = nn.LayerNorm(width)

    def _blocks(self, depth: int, heads: int, attention_dropout: float, dropout: float) -> nn.Sequential:
        hidden = self.dim * 4 // 3
        drops: Any = {"attention_dropout": attention_dropout, "dropout": dropout}
        return nn.Sequential(
            *(
                GatedBlock(self.dim, heads, hidden=hidden, first=not number, **drops)
                for number in range(depth)
            )
        )

    def forward(self, data: Row, mask: Tensor | None = None) -> Encoded:
        """Encode rows; ``mask`` is ``[B, T]``, True at the cells to hide."""
        tokens = mixed(self.embed, data)
        if mask is not None:
            if self.mask_token is None:
                raise self.cannot_hide()
            tokens = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        tokens = tokens + self.embed.columns
        cls = self.cls.to(tokens.dtype).expand(len(tokens), 1, -1)
        tokens = self.norm(self.trunk(torch.cat([cls, tokens], 1)))
        pooled = tokens[:, 0] if self.pool == "cls" else tokens[:, 1:].mean(1)
        return Encoded(pooled, tokens[:, 1:], self.grid(data), mask)

    def grid(self, data: Any) -> tuple[int]:
        """The cells in a line: numbers, then categories."""
        return (len(self.cells),)

    @property
    def token_dim(self) -> int:
        """The width of a cell's token, that of the pooled embedding."""
        return self.dim

    def learn_mask_token(self) -> None:
        """From now on put a learned vector where a cell is hidden."""
        self.mask_token = nn.Parameter(0.02 * torch.randn(self.dim))

    def settle(self) -> None:
        """Put away the mask token."""
        self.mask_token = None


class CellTransformer(FTTransformer):
    """The transformer that answers for every cell: ``predict`` gives the logits of all its classes.

    The answer belongs to the encoder, and so does the mask token: a run of it fills gaps and draws rows.
    Classes are those of :attr:`.Cells.classes`. ``pooled`` is the mean of the cells' tokens.

    >>> cells = Cells(edges=((0.0, 1.0),), levels=(2,), columns=(0, 1))
    >>> row = cells.blank(2)
    >>> encoder = CellTransformer(cells, width=16, depth=1, heads=2)
    >>> encoder.predict(encoder(row, torch.tensor([[False, True]] * 2))).shape
    torch.Size([2, 2, 3])
    """

    def __init__(
        self, cells: Cells, *, width: int = 64, depth: int = 3, heads: int = 4, numbers: str = "ple"
    ) -> None:
        super().__init__(
            cells,
            width=width,
            depth=depth,
            heads=heads,
            numbers=numbers,
            attention_dropout=0.0,
            dropout=0.0,
            pool="mean",
        )
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.predict = CellHead(self, cells.classes)

    def learn_mask_token(self) -> None:
        """It has one from the start."""

    def settle(self) -> None:
        """Nothing to put away: the mask token is how it is asked."""


class RowAttention(nn.Module):
    """Rows attend to rows, each as one long token: all of the batch in training, to itself alone otherwise.

    So what is made of a row later does not depend on the rows beside it. The authors' own code lets the
    batch decide then, too.
    """

    def __init__(self, cells: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        whole = cells * width
        self.block = GatedBlock(
            whole,
            heads,
            head_width=64,
            hidden=whole,
            attention_dropout=dropout,
            dropout=dropout,
            gate=functional.gelu,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, width]`` of ``[B, T, width]``."""
        rows = x.flatten(1)
        together = self.block(rows[None])[0] if self.training else self.block(rows[:, None])[:, 0]
        read: Tensor = together.reshape(x.shape)
        return read


class Saint(FTTransformer):
    """Attention over the cells of a row, then over the rows of the batch, in turn.

    https://arxiv.org/abs/2106.01342, in the shape that its authors' code gives it with row attention: one
    pair of blocks, 4 heads. Give the two views of a row apart (mixup sees to that), for rows of one call
    see each other in training.

    >>> cells = Cells(edges=((0.0, 1.0),), levels=(2,), columns=(0, 1))
    >>> row = cells.blank(2)
    >>> Saint(cells)(row).pooled.shape
    torch.Size([2, 32])
    """

    def __init__(
        self,
        cells: Cells,
        *,
        width: int = 32,
        depth: int = 1,
        heads: int = 4,
        numbers: str = "linear",
        dropout: float = 0.1,
    ) -> None:
        super().__init__(
            cells,
            width=width,
            depth=depth,
            heads=heads,
            numbers=numbers,
            attention_dropout=dropout,
            dropout=dropout,
        )

    def _blocks(self, depth: int, heads: int, attention_dropout: float, dropout: float) -> nn.Sequential:
        drops: Any = {"attention_dropout": attention_dropout, "dropout": dropout}
        blocks: list[nn.Module] = []
        for _ in range(depth):
            blocks.append(GatedBlock(self.dim, heads, hidden=4 * self.dim, gate=functional.gelu, **drops))
            blocks.append(RowAttention(len(self.cells) + 1, self.dim, heads, dropout))
        return nn.Sequential(*blocks)
