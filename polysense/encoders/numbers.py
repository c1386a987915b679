"""Embeddings of a table's numbers: a vector for each, by its own linear layer, its bins or its waves."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from polysense.encoders.cells import Cells, PerCell, padded_edges
from polysense.errors import unknown


class LinearNumbers(nn.Module):
    """Each number times a vector, and another added (FT-Transformer, https://arxiv.org/abs/2106.11959).

    >>> LinearNumbers(Cells(((0.0, 1.0),), (), (0,)), 8)(torch.zeros(2, 1)).shape
    torch.Size([2, 1, 8])
    """

    def __init__(self, cells: Cells, width: int) -> None:
        super().__init__()
        self.linear = PerCell(cells.numbers, 1, width)

    def forward(self, numbers: Tensor) -> Tensor:
        """``[B, N, width]`` of ``[B, N]``."""
        embedded: Tensor = self.linear(numbers[..., None])
        return embedded


class PiecewiseLinear(nn.Module):
    """A number by how far it fills each of its bins, added to its linear embedding.

    In the bin with edges a and b the number x counts ``(x - a) / (b - a)``, between 0 and 1; below the
    first edge and above the last it goes on. The bins' weights start at 0, so that the whole starts as
    linear. https://arxiv.org/abs/2203.05556 (in its authors' package, version B)

    >>> PiecewiseLinear(Cells(((0.0, 1.0, 3.0),), (), (0,)), 8).fill(torch.tensor([[2.0]]))
    tensor([[[1.0000, 0.5000]]])
    """

    start: Tensor
    length: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, cells: Cells, width: int) -> None:
        super().__init__()
        edges = padded_edges(cells)
        bins = edges.shape[1] - 1
        place = torch.arange(bins)
        last = torch.tensor([[len(each) - 2] for each in cells.edges]).reshape(-1, 1)
        within = place <= last
        self.register_buffer("start", torch.where(within, edges[:, :-1], 0.0), persistent=False)
        self.register_buffer("length", torch.where(within, edges.diff(), 1.0), persistent=False)
        least = torch.where(place == 0, -torch.inf, 0.0).expand_as(within)
        most = torch.where(place == last, torch.inf, within.float())  # bins that are not there stay empty
        self.register_buffer("least", torch.where(within, least, 0.0), persistent=False)
        self.register_buffer("most", most, persistent=False)
        self.linear = LinearNumbers(cells, width)
        self.bins = PerCell(cells.numbers, bins, width, bias=False)
        nn.init.zeros_(self.bins.weight)

    def fill(self, numbers: Tensor) -> Tensor:
        """``[B, N, bins]``: how far each bin is filled."""
        share = (numbers[..., None] - self.start) / self.length
        return share.maximum(self.least).minimum(self.most)

    def forward(self, numbers: Tensor) -> Tensor:
        """``[B, N, width]`` of ``[B, N]``."""
        embedded: Tensor = self.linear(numbers) + self.bins(self.fill(numbers))
        return embedded


class Periodic(nn.Module):
    """A number as waves of learned frequencies, then linear, then ReLU (PLR).

    Frequencies start normal with a deviation of ``sigma``, the one value that is worth tuning (from 0.01 to
    1), cut at three deviations. https://arxiv.org/abs/2203.05556

    >>> Periodic(Cells(((0.0, 1.0),), (), (0,)), 24)(torch.zeros(2, 1)).shape
    torch.Size([2, 1, 24])
    """

    def __init__(self, cells: Cells, width: int, frequencies: int = 48, sigma: float = 0.01) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.empty(cells.numbers, frequencies))
        nn.init.trunc_normal_(self.frequencies, std=sigma, a=-3 * sigma, b=3 * sigma)
        self.linear = PerCell(cells.numbers, 2 * frequencies, width)

    def forward(self, numbers: Tensor) -> Tensor:
        """``[B, N, width]`` of ``[B, N]``."""
        angles = 2 * math.pi * self.frequencies * numbers[..., None]
        embedded: Tensor = self.linear(torch.cat([angles.cos(), angles.sin()], -1)).relu()
        return embedded


EMBEDDINGS = {"linear": LinearNumbers, "ple": PiecewiseLinear, "plr": Periodic}
"""What ``numbers=`` of an encoder may be."""


def embed_numbers(how: str, cells: Cells, width: int) -> nn.Module:
    """The embedding of that name: from ``[B, N]`` to ``[B, N, width]``.

    Raises:
        PolysenseError: for an unknown name.
    """
    if how not in EMBEDDINGS:
        raise unknown("embedding of numbers", how, EMBEDDINGS)
    made: nn.Module = EMBEDDINGS[how](cells, width)
    return made
