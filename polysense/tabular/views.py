"""One random view of a whole batch of rows: the settings, and the pass that makes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from polysense.encoders.cells import Cells, Row
from polysense.errors import PolysenseError

_CELLS = ("numbers", "missing", "codes")


@dataclass(frozen=True)
class ViewSettings:
    """What one random view does to a row, in this order. All shares are of the row's columns.

    ``cutmix``: the probability of a column to come from one partner row, the same for all of its columns
    (https://arxiv.org/abs/2106.01342). ``corrupt``: this share of the columns, rounded down, comes from other
    rows, each column from a row of its own (SCARF, https://arxiv.org/abs/2106.15147). ``swap``: the same,
    but for each column with this probability (swap noise). ``noise``: the deviation of Gaussian noise on
    numbers, in theirs. ``hide``: the probability of a column to be missing. ``part``: which of ``parts``
    neighbouring groups of columns is shown, each with ``overlap`` of its own width more on the left (the
    first: on the right; SubTab, https://arxiv.org/abs/2110.04361). ``mixup``: the share of the row in its
    own embedding, the rest is a partner's; 1 is no mixup.

    Other rows are those of the batch, a random sample of the table, so that a column keeps its own
    distribution.

    Raises:
        PolysenseError: naming the setting that is out of its range.

    >>> ViewSettings(corrupt=0.6).mixup
    1.0
    """

    cutmix: float = 0.0
    corrupt: float = 0.0
    swap: float = 0.0
    noise: float = 0.0
    hide: float = 0.0
    part: int | None = None
    parts: int = 4
    overlap: float = 0.75
    mixup: float = 1.0

    def __post_init__(self) -> None:
        for name in ("cutmix", "corrupt", "swap", "hide", "overlap", "mixup"):
            if not 0 <= getattr(self, name) <= 1:
                raise PolysenseError(f"{name} is {getattr(self, name)}; it is a share from 0 to 1")
        if self.noise < 0:
            raise PolysenseError(f"noise is {self.noise}; it must be at least 0")
        if self.parts < 1 or (self.part is not None and not 0 <= self.part < self.parts):
            raise PolysenseError(f"part is {self.part} of {self.parts}; it must be from 0 to below parts")


def make_view(row: Row, cells: Cells, settings: ViewSettings) -> dict[str, Tensor]:
    """A random view of rows; the rows themselves stay as they are.

    >>> cells = Cells(edges=((0.0, 1.0),), levels=(2,), columns=(0, 1))
    >>> row = {"numbers": torch.ones(1, 1), "missing": torch.zeros(1, 1) > 0, "codes": torch.tensor([[2]])}
    >>> make_view(row, cells, ViewSettings(hide=1.0))["codes"]
    tensor([[0]])
    """
    made = {name: row[name] for name in _CELLS}
    rows, columns, device = len(made["codes"]), max(cells.columns) + 1, made["codes"].device
    if settings.cutmix:
        chosen = torch.rand(rows, columns, device=device) < settings.cutmix
        made = replaced(made, cells, chosen, _partners(rows, device)[:, None].expand(-1, columns))
    if settings.corrupt:
        order = torch.rand(rows, columns, device=device).argsort(1)
        made = _swapped(made, cells, order < math.floor(settings.corrupt * columns))
    if settings.swap:
        made = _swapped(made, cells, torch.rand(rows, columns, device=device) < settings.swap)
    if settings.noise:
        numbers = made["numbers"] + settings.noise * torch.randn_like(made["numbers"])
        made["numbers"] = numbers.masked_fill(made["missing"], 0)
    if settings.hide:
        made = hidden(made, cells, torch.rand(rows, columns, device=device) < settings.hide)
    if settings.part is not None:
        shown = part_of(columns, settings.part, settings.parts, settings.overlap)
        outside = torch.tensor([column not in shown for column in range(columns)], device=device)
        made = hidden(made, cells, outside.expand(rows, -1))
    if settings.mixup < 1:
        partner = _partners(rows, device)
        made |= {f"other/{name}": made[name][partner] for name in _CELLS}
        made["share"] = torch.full((rows,), settings.mixup, device=device)
    return made


def replaced(row: Row, cells: Cells, chosen: Tensor, donors: Tensor) -> dict[str, Tensor]:
    """Rows with the ``chosen`` ``[B, columns]`` taken from the rows ``donors`` ``[B, columns]``."""
    chosen, donors = cells.of_columns(chosen), cells.of_columns(donors)
    numbers = slice(None, cells.numbers)
    places = {"numbers": numbers, "missing": numbers, "codes": slice(cells.numbers, None)}
    return {
        name: torch.where(chosen[:, place], row[name].gather(0, donors[:, place]), row[name])
        for name, place in places.items()
    }


def hidden(row: Row, cells: Cells, chosen: Tensor) -> dict[str, Tensor]:
    """Rows with the ``chosen`` ``[B, columns]`` missing."""
    numbers, codes = cells.of_columns(chosen).split([cells.numbers, len(cells.levels)], 1)
    return {
        "numbers": row["numbers"].masked_fill(numbers, 0),
        "missing": row["missing"] | numbers,
        "codes": row["codes"].masked_fill(codes, 0),
    }


def part_of(columns: int, part: int, parts: int, overlap: float) -> range:
    """The columns that one of ``parts`` subsets shows.

    >>> [list(part_of(8, part, 4, 0.5)) for part in range(3)]
    [[0, 1, 2], [1, 2, 3], [3, 4, 5]]
    """
    width = columns / parts
    more = overlap * width
    start, stop = part * width, (part + 1) * width
    start, stop = (start, stop + more) if part == 0 else (start - more, stop)
    return range(math.floor(start), max(math.floor(start) + 1, min(columns, math.floor(stop))))


def _swapped(row: Row, cells: Cells, chosen: Tensor) -> dict[str, Tensor]:
    """Rows with the chosen columns each from a random row of its own."""
    return replaced(row, cells, chosen, torch.randint(len(chosen), chosen.shape, device=chosen.device))


def _partners(rows: int, device: torch.device) -> Tensor:
    """``[B]``: another row for each, all of them in a random circle."""
    circle = torch.randperm(rows, device=device)
    partners = torch.empty_like(circle)
    partners[circle] = circle.roll(1)
    return partners
