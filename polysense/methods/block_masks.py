"""Maskers that hide rectangles of a picture's tokens, drawn for the whole batch at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError
from polysense.modalities.base import View, first_tensor

Range = tuple[float, float]

BLOCKS = 10
"""So many blocks a picture are drawn; those after the share to hide is reached are not used."""


@dataclass(frozen=True)
class BlockMask:
    """Hide a share of the tokens in blocks, equally many tokens in every sample (BEiT).

    Blocks come one after the other until the share is hidden; the last is cut to fit. Their area is
    uniform between ``smallest`` and the whole share, their aspect ratio log-uniform in ``aspect``.

    https://arxiv.org/abs/2106.08254

    Raises:
        PolysenseError: when the share would hide all tokens or none, or the tokens lie on no plane.
    """

    ratio: float
    smallest: float = 16 / 196
    aspect: Range = (0.3, 1 / 0.3)

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask."""
        pictures, grid = _on_a_plane(view, encoder)
        tokens = math.prod(grid)
        hidden = round(tokens * self.ratio)
        check_share(self.ratio, hidden, tokens)
        counts = torch.full((len(pictures),), hidden, device=pictures.device)
        return view.hide(blocks_mask(grid, counts, self.smallest, self.aspect))


def check_share(ratio: float, hidden: int, total: int, what: str = "tokens") -> None:
    """Raise PolysenseError unless a mask ratio hides some of ``total`` and leaves some."""
    if not 0 < hidden < total:
        raise PolysenseError(
            f"a mask ratio of {ratio} hides {hidden} of {total} {what}; choose a ratio that hides some and"
            " leaves some, or a smaller patch"
        )


def blocks_mask(
    grid: tuple[int, int], counts: Tensor, smallest: float = 16 / 196, aspect: Range = (0.3, 1 / 0.3)
) -> Tensor:
    """``[B, T]``: True at ``counts[B]`` tokens of each sample, in blocks as :class:`BlockMask` draws them.

    >>> blocks_mask((8, 8), torch.tensor([25, 0])).sum(1)
    tensor([25,  0])
    """
    device, tokens = counts.device, math.prod(grid)
    least = min(1.0, smallest * tokens)
    uniform = torch.rand(2, len(counts), BLOCKS, device=device)
    area = least + uniform[0] * (counts[:, None] - least).clamp_min(0)
    ratio = torch.exp(math.log(aspect[0]) + uniform[1] * math.log(aspect[1] / aspect[0]))
    covered = _place(grid, (area * ratio).sqrt(), (area / ratio).sqrt())
    # each token's turn is that of the first block that covers it, in a block row by row from either end
    turn = BLOCKS + torch.rand(len(counts), tokens, device=device)
    row_by_row = torch.arange(tokens, device=device) / tokens
    upwards = torch.rand(len(counts), 1, device=device) < 0.5
    row_by_row = torch.where(upwards, row_by_row.flip(0), row_by_row)
    for number in reversed(range(BLOCKS)):
        turn = torch.where(covered[:, number], number + row_by_row, turn)
    return turn.argsort(1).argsort(1) < counts[:, None]


@dataclass(frozen=True)
class ContextAndTargets:
    """Show one large block without the target blocks in it, and ask for the targets (I-JEPA).

    The blocks of a batch share one size for the targets, ``targets`` of them in each sample, and one
    for the context, so that every sample is asked for as many tokens. Where samples are left with
    different contexts, random tokens are dropped down to the smallest one, yet never below ``least`` tokens:
    such a sample keeps tokens that were cut off, those beside the context block before those under a target.

    https://arxiv.org/abs/2301.08243

    Raises:
        PolysenseError: when the tokens lie on no plane or are too few.
    """

    targets: int = 4
    target_scale: Range = (0.15, 0.2)
    target_aspect: Range = (0.75, 1.5)
    context_scale: Range = (0.85, 1.0)
    least: int = 10

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask and the tokens that are asked for."""
        pictures, grid = _on_a_plane(view, encoder)
        batch, device, tokens = len(pictures), pictures.device, math.prod(grid)
        if min(grid) < 3:
            raise PolysenseError(
                f"a grid of {grid[0]}×{grid[1]} tokens is too small for a context and targets; choose a"
                " smaller patch or larger pictures"
            )
        like = torch.ones(batch, 1, device=device)
        asked = self._block(grid, like.expand(-1, self.targets), self.target_scale, self.target_aspect)
        context = self._block(grid, like, self.context_scale, (1.0, 1.0))[:, 0]
        cut_off = (~context).float() + 2 * asked.any(1)
        fewest = int((cut_off == 0).sum(1).min())
        visible = max(fewest, min(self.least, tokens // 4))
        order = (cut_off + torch.rand(batch, tokens, device=device)).argsort(1).argsort(1)
        return view.hide(order >= visible, asked)

    def _block(self, grid: tuple[int, int], like: Tensor, scale: Range, aspect: Range) -> Tensor:
        """``[B, M, T]`` blocks of one size, drawn once, each somewhere else."""
        share, ratio = (low + float(torch.rand(())) * (high - low) for low, high in (scale, aspect))
        area = math.prod(grid) * share
        return _place(grid, like * math.sqrt(area * ratio), like * math.sqrt(area / ratio))


def _place(grid: tuple[int, int], heights: Tensor, widths: Tensor) -> Tensor:
    """``[B, M, T]``: True inside blocks of these sizes ``[B, M]`` in tokens, each at a random place."""
    inside = []
    for side, lengths in zip(grid, (heights, widths), strict=True):
        extent = lengths.round().clamp(1, side)
        start = (torch.rand(extent.shape, device=extent.device) * (side - extent + 1)).floor()
        offset = torch.arange(side, device=extent.device) - start[..., None]
        inside.append((offset >= 0) & (offset < extent[..., None]))
    return (inside[0][..., :, None] & inside[1][..., None, :]).flatten(2)


def _on_a_plane(view: View, encoder: Encoder) -> tuple[Tensor, tuple[int, int]]:
    """The view's data, and the grid of its tokens."""
    data = first_tensor(view.data)
    grid = encoder.grid(view.data)
    if len(grid) != 2:
        raise PolysenseError(
            f"blocks are hidden from tokens that lie on a plane, but those of {view.modality!r} lie on"
            f" {len(grid)} dimensions; choose a method that hides tokens one by one, such as 'mae'"
        )
    return data, (grid[0], grid[1])
