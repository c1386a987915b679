"""What is to be predicted where a token was hidden: gradients' directions, or words of a vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoder
from polysense.encoders.heads import mlp
from polysense.encoders.schedule import cosine
from polysense.encoders.vit import ViTEncoder, patchify
from polysense.errors import PolysenseError
from polysense.methods.engine import Branch, Reads, Seen
from polysense.modalities.base import View
from polysense.objectives.distributed import gather, mean_over_processes, world_size
from polysense.objectives.kmeans import nearest
from polysense.objectives.reconstruction import DiscreteAutoencoding

Tokenise = Callable[[Any], Tensor]
"""From a view's data to one target per token."""


@torch.no_grad()
def hog(pictures: Tensor, cell: int = 8, bins: int = 9) -> Tensor:
    """Histograms of oriented gradients as MaskFeat takes them: ``[B, C·bins, H/cell, W/cell]``.

    In every channel each pixel of a ``cell`` × ``cell`` square votes with the length of its Sobel gradient
    for the direction of it, one of ``bins`` over half a turn; each histogram is scaled to length 1.
    Pictures are mirrored at their edges.

    https://arxiv.org/abs/2112.09133

    >>> ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    >>> hog(ramp, cell=8)[0, :, 0, 0].nonzero().flatten()
    tensor([4])

    Raises PolysenseError for pictures that are not whole cells.
    """
    batch, channels, height, width = pictures.shape
    if height % cell or width % cell or min(height, width) < 2:
        raise PolysenseError(
            f"pictures of {height}×{width} pixels cannot be cut into cells of {cell}; choose a cell that"
            " divides them"
        )
    padded = functional.pad(pictures, (1, 1, 1, 1), mode="reflect")
    across, down = padded[..., :-2] - padded[..., 2:], padded[..., :-2, :] - padded[..., 2:, :]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    direction = (torch.atan2(across, down) / math.pi * bins).floor().long() % bins
    rows, columns = (torch.arange(side, device=pictures.device) // cell for side in (height, width))
    place = rows[:, None] * (width // cell) + columns
    cells = (height // cell) * (width // cell)
    votes = pictures.new_zeros(batch, channels, bins * cells)
    votes.scatter_add_(2, (direction * cells + place).flatten(2), torch.hypot(across, down).flatten(2))
    histograms = functional.normalize(votes.unflatten(2, (bins, cells)), dim=2)
    return histograms.reshape(batch, channels * bins, height // cell, width // cell)


def hog_targets(encoder: Encoder, cell: int = 8, bins: int = 9) -> tuple[Tokenise, int]:
    """What cuts pictures into the HOG features of an encoder's patches, and how many a patch has.

    Where cells of ``cell`` pixels do not fit into the patch (small pictures), they are as large as fits.

    Raises:
        PolysenseError: for an encoder that does not read pictures in patches.
    """
    if not isinstance(encoder, ViTEncoder):
        raise PolysenseError(
            f"{type(encoder).__name__} does not cut pictures into patches, whose gradients are to be"
            " predicted; choose a ViT, such as 'vit_nano'"
        )
    height, width = encoder.trunk.patch_embed.feat_ratio(as_scalar=False)
    cell = math.gcd(cell, height, width)
    values = encoder.token_values // cell**2 * bins  # channels x cells x bins
    return partial(_hog_tokens, cell=cell, bins=bins, cells=(height // cell, width // cell)), values


def _hog_tokens(pictures: Tensor, cell: int, bins: int, cells: tuple[int, int]) -> Tensor:
    return patchify(hog(pictures, cell, bins), cells)


class KMeansTokens(nn.Module):
    """A vocabulary of means of raw tokens: each token becomes the number of the nearest, ``[B, T]``.

    It learns by mini-batch k-means on what it is given in training mode, until ``frozen_after`` of training
    is done: each word is the mean of all tokens it was ever nearest to, and words that never were start
    anew at random tokens. Processes learn one vocabulary.

    https://dl.acm.org/doi/10.1145/1772690.1772862 (Sculley, Web-scale k-means clustering)

    Args:
        cut: cuts data into raw tokens ``[B, T, values]``, as an encoder's ``tokenise`` does.
        values: the width of a raw token.
        size: how many words.

    >>> tokens = KMeansTokens(lambda rows: rows[..., None], values=1, size=2)
    >>> tokens(torch.tensor([[0.0, 0.1, 9.0, 9.1]])).shape
    torch.Size([1, 4])
    """

    words: Tensor
    counts: Tensor

    def __init__(self, cut: Tokenise, values: int, size: int, frozen_after: float = 0.1) -> None:
        super().__init__()
        self.cut, self.frozen_after = cut, frozen_after
        self.learning = True
        self.register_buffer("words", torch.zeros(size, values))
        self.register_buffer("counts", torch.zeros(size))

    def at(self, progress: float) -> None:
        """Learn or rest: ``progress`` is steps done over all steps."""
        self.learning = progress < self.frozen_after

    @torch.no_grad()
    def forward(self, data: Any) -> Tensor:
        """The number of each token of the data, ``[B, T]``."""
        tokens = self.cut(data).to(self.words.dtype)
        with torch.autocast(tokens.device.type, enabled=False):
            if self.training and self.learning:
                self._learn(tokens.flatten(0, 1))
            return nearest(tokens.flatten(0, 1), self.words).view(tokens.shape[:2])

    def _learn(self, tokens: Tensor) -> None:
        size = len(self.words)
        drawn = torch.randint(len(tokens), (math.ceil(size / world_size()),), device=tokens.device)
        fresh = gather(tokens[drawn])[:size]
        self.words.copy_(torch.where(self.counts[:, None] > 0, self.words, fresh))
        number = nearest(tokens, self.words)
        counts = number.bincount(minlength=size).to(tokens.dtype)
        moves = torch.zeros_like(self.words).index_add_(0, number, tokens - self.words[number])
        counts, moves = (world_size() * mean_over_processes(each) for each in (counts, moves))
        self.counts += counts
        self.words += moves / self.counts.clamp_min(1)[:, None]


class DiscreteVAE(nn.Module):
    """A vocabulary that a small discrete autoencoder of raw tokens learns beside the method, ``[B, T]``.

    An MLP gives each raw token's chances of being each word; a sample of them, softened by Gumbel noise,
    must tell a second MLP what the token was. The softening falls from 1 to 1/16 over training.

    https://arxiv.org/abs/2102.12092, https://arxiv.org/abs/1611.01144

    Args:
        cut, values, size: as for :class:`KMeansTokens`.
        hidden: width of the MLPs.

    >>> tokens = DiscreteVAE(lambda rows: rows[..., None], values=1, size=16)
    >>> tokens(torch.zeros(2, 4)).shape, [tensor.shape for tensor in tokens.autoencode(torch.zeros(2, 4))]
    (torch.Size([2, 4]), [torch.Size([2, 4, 1]), torch.Size([2, 4, 1]), torch.Size([2, 4, 16])])
    """

    def __init__(self, cut: Tokenise, values: int, size: int, hidden: int = 256) -> None:
        super().__init__()
        self.cut = cut
        self.encode = mlp(values, hidden, size, layers=3, norm="none", activation=nn.GELU)
        self.decode = mlp(size, hidden, values, layers=3, norm="none", activation=nn.GELU)
        self.at(0.0)

    def at(self, progress: float) -> None:
        """Set the temperature of the softened sample."""
        self.temperature = cosine(1.0, 1 / 16, progress)

    @torch.no_grad()
    def forward(self, data: Any) -> Tensor:
        """The likeliest word of each token of the data, ``[B, T]``."""
        words: Tensor = self.encode(self.cut(data)).argmax(-1)
        return words

    def autoencode(self, data: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Raw tokens told from their words ``[B, T, values]``, the raw tokens, and the words' logits."""
        tokens = self.cut(data)
        logits = self.encode(tokens)
        chosen = functional.gumbel_softmax(logits.float(), self.temperature, dim=-1)
        return self.decode(chosen), tokens, logits

    def branch(self) -> Branch:
        """The branch that trains it."""
        return Branch(nn.Identity(), DiscreteAutoencoding(), Autoencoded(self))


class Autoencoded(nn.Module, Reads):
    """What a discrete autoencoder makes of every view: decoded tokens, raw tokens, logits."""

    def __init__(self, autoencoder: DiscreteVAE) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def of_student(self, view: View) -> bool:
        """None is needed."""
        return False

    def forward(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Autoencode the views, their batches one behind the other."""
        made = [self.autoencoder.autoencode(view.data) for view in seen.views]
        return tuple(torch.cat(parts) for parts in zip(*made, strict=True))
