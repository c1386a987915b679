"""Encoders of a table's rows by name, and the simplest: an MLP on all cells at once."""

from __future__ import annotations

import inspect
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.cell_transformers import CellTransformer, FTTransformer, Saint
from polysense.encoders.cells import Cells, Row, RowEncoder, check_positive, mixed
from polysense.encoders.numbers import embed_numbers
from polysense.encoders.probe import in_eval_mode
from polysense.errors import PolysenseError, unknown

_NUMBER_WIDTH = {"ple": 12, "plr": 24}
"""How wide a number's embedding is in an MLP, as published."""


class MLPEncoder(RowEncoder):
    """An MLP on the numbers, on which of them are missing, and on the categories as one-hot vectors.

    ``numbers`` says how numbers go in: "linear" as they are, or as "ple" or "plr". With ``every_layer`` the
    embedding is all hidden activations side by side, and not only the last.

    >>> cells = Cells(edges=((0.0, 1.0),), levels=(2,), columns=(0, 1))
    >>> row = cells.blank(2)
    >>> MLPEncoder(cells, width=8, depth=2)(row).pooled.shape
    torch.Size([2, 8])
    """

    trunk: nn.ModuleList

    def __init__(
        self,
        cells: Cells,
        *,
        width: int = 256,
        depth: int = 4,
        numbers: str = "linear",
        every_layer: bool = False,
    ) -> None:
        super().__init__(cells)
        check_positive(width=width, depth=depth)
        self.width, self.every_layer = width, every_layer
        self.dim = width * depth if every_layer else width
        each = _NUMBER_WIDTH.get(numbers, 0)
        self.embed = None if numbers == "linear" else embed_numbers(numbers, cells, each)
        inputs = cells.width + each * cells.numbers
        sizes = [inputs] + [width] * depth
        self.trunk = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes))

    def forward(self, data: Row, mask: Tensor | None = None) -> Encoded:
        """Encode rows; see :data:`.Row`."""
        if mask is not None:
            raise self.cannot_hide()
        hidden, layers = mixed(self._inputs, data), []
        for layer in self.trunk:
            hidden = layer(hidden)
            layers.append(hidden)
        return Encoded(torch.cat(layers, 1) if self.every_layer else hidden)

    def _inputs(self, row: Row) -> Tensor:
        flat = self.cells.flat(row)
        if self.embed is None:
            return flat
        return torch.cat([flat, self.embed(row["numbers"]).flatten(1)], 1)


class Plain(RowEncoder):
    """Your own module on the flat cells ``[B, F]``, see :meth:`.Cells.flat`; it gives ``[B, D]``."""

    def __init__(self, cells: Cells, trunk: nn.Module) -> None:
        super().__init__(cells)
        self.trunk = trunk
        try:
            made = in_eval_mode(trunk, torch.zeros(2, cells.width))
        except (RuntimeError, TypeError, ValueError) as error:
            raise PolysenseError(
                f"your encoder {type(trunk).__name__} does not take rows of {cells.width} cells"
                f" [B, {cells.width}]: {str(error).splitlines()[0]}"
            ) from error
        if not isinstance(made, Tensor) or made.ndim != 2:
            raise PolysenseError(f"your encoder {type(trunk).__name__} must give one vector per row, [B, D]")
        self.dim = made.shape[1]

    def forward(self, data: Row, mask: Tensor | None = None) -> Encoded:
        """Encode rows."""
        if mask is not None:
            raise self.cannot_hide()
        return Encoded(self.trunk(mixed(self.cells.flat, data)))


_MADE: dict[str, tuple[type[RowEncoder], dict[str, Any]]] = {
    "table_mlp": (MLPEncoder, {}),
    "table_mlp_wide": (MLPEncoder, {"width": 1500, "depth": 3, "every_layer": True}),
    "ft_transformer": (FTTransformer, {}),
    "ft_nano": (FTTransformer, {"width": 32, "depth": 2, "heads": 4}),
    "cell_transformer": (CellTransformer, {}),
    "saint": (Saint, {}),
}


def list_encoders() -> list[tuple[str, str]]:
    """The encoders for tables: names with a line on each.

    >>> list_encoders()[0][0]
    'table_mlp'
    """
    return [
        ("table_mlp", "MLP of four layers of 256; for tables"),
        ("table_mlp_wide", "MLP of three layers of 1,500, all of them the embedding; for tables"),
        ("ft_transformer", "FT-Transformer of width 192, depth 3; can hide cells; for tables"),
        ("ft_nano", "the same of width 32, depth 2; for tables"),
        (
            "cell_transformer",
            "transformer of width 64, depth 3, that also answers for every cell; for tables",
        ),
        ("saint", "attention over cells and over rows, width 32; for tables"),
    ]


def build(spec: str | nn.Module, *, cells: Cells, **options: Any) -> Encoder:
    """Build an encoder of rows with these cells, by name or from your own module.

    Names: "table_mlp" (four layers of 256), "table_mlp_wide" (three of 1,500, all of them the embedding),
    "ft_transformer", "ft_nano", "cell_transformer" (for masked_cells: it also answers for every cell),
    "saint"; options are those of their classes. A module of yours reads the flat cells ``[B, F]``.

    >>> build("ft_nano", cells=Cells(edges=((0.0, 1.0),), levels=(2,), columns=(0, 1))).dim
    32

    Raises:
        PolysenseError: for an unknown name or option, and a module that does not fit.
    """
    if isinstance(spec, nn.Module):
        if options:
            raise PolysenseError(
                f"your own encoder {type(spec).__name__} comes as it is; leave out"
                f" {', '.join(sorted(options))}"
            )
        return spec if isinstance(spec, Encoder) else Plain(cells, spec)
    if spec not in _MADE:
        raise unknown("encoder of tables", spec, _MADE)
    maker, preset = _MADE[spec]
    known = list(inspect.signature(maker).parameters)[1:]
    for option in options:
        if option not in known:
            raise unknown(f"option of the encoder {spec!r}", option, known)
    return maker(cells, **{**preset, **options})
