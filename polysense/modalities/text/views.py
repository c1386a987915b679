"""Random views of texts, made on whole batches of ids on whatever device they are on.

What edits a text may change its meaning: by default nothing is edited, and two views of a text differ in
the encoder's dropout alone (SimCSE, https://arxiv.org/abs/2104.08821).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.modalities.text.tokenizer import Tokenizer

Words = tuple[Tensor, Tensor]
"""``ids`` int64 and ``attended`` bool, ``[B, T]`` both."""


@dataclass(frozen=True)
class ViewSettings:
    """What is done to a text, in this order; never to the tokens at its start and end.

    ``adjacent``: the global views of a text are spans of it that follow each other, cut at random places, and
    what follows is done to these; where the first view says so, all do. ``crop``: the least and the greatest
    share of the tokens, of which one run is kept. ``delete``: the probability that a token is left out; one
    is kept at least (TSDAE takes 0.6, on words, https://arxiv.org/abs/2104.06979). ``shuffle``: each token
    moves by fewer places than this (https://arxiv.org/abs/1711.00043). ``mask``: the probability that a token
    is hidden behind the mask.

    Raises:
        PolysenseError: for a value out of range.
    """

    adjacent: bool = False
    crop: tuple[float, float] = (1.0, 1.0)
    delete: float = 0.0
    shuffle: int = 0
    mask: float = 0.0

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise PolysenseError(
                f"crop is {self.crop}; give the least and greatest share kept, as in (0.3, 0.8)"
            )
        for name in ("delete", "mask"):
            if not 0 <= getattr(self, name) < 1:
                raise PolysenseError(f"{name} is {getattr(self, name)}; give a probability from 0 to below 1")
        if self.shuffle < 0:
            raise PolysenseError(f"shuffle is {self.shuffle}; give a number of places, 0 for none")


class RandomView:
    """Makes views of texts by its settings, with torch's global random numbers.

    >>> tokenizer = Tokenizer.train(["red green blue"])
    >>> view = RandomView(ViewSettings(crop=(0.5, 0.5)), tokenizer)
    >>> ids, attended, _ = tokenizer.encode(["rrrrrr"], length=64)
    >>> ids.shape, view(ids, attended)[0].shape
    (torch.Size([1, 9]), torch.Size([1, 6]))
    """

    def __init__(self, settings: ViewSettings, tokenizer: Tokenizer) -> None:
        self.settings, self.tokenizer = settings, tokenizer
        self.mask = tokenizer.mask if settings.mask else None

    def __call__(self, ids: Tensor, attended: Tensor) -> Words:
        """A view of texts ``ids[B, T]``, ``attended[B, T]``; it is as wide as its longest text."""
        settings = self.settings
        if settings.crop != (1.0, 1.0):
            ids, attended = self._keep(ids, attended, self._cropped(self.tokenizer.inner(ids, attended)))
        if settings.delete:
            ids, attended = self._keep(ids, attended, self._undeleted(self.tokenizer.inner(ids, attended)))
        if settings.shuffle > 1:
            ids = self._shuffled(ids, self.tokenizer.inner(ids, attended))
        if self.mask is not None:
            hidden = torch.rand(ids.shape, device=ids.device) < settings.mask
            ids = ids.masked_fill(hidden & self.tokenizer.inner(ids, attended), self.mask)
        return ids, attended

    def spans(self, ids: Tensor, attended: Tensor, count: int) -> list[Words]:
        """Texts cut into ``count`` spans that follow each other; those too short to cut are each span."""
        inner = self.tokenizer.inner(ids, attended)
        total, place = inner.sum(1, keepdim=True), inner.cumsum(1) - 1
        cuts = (
            torch.arange(1, count, device=ids.device)
            + torch.rand(len(ids), count - 1, device=ids.device)
            - 0.5
        )
        ends = torch.cat([0 * total, (cuts / count * total).round().long(), total], 1)
        parts = [inner & (place >= ends[:, [i]]) & (place < ends[:, [i + 1]]) for i in range(count)]
        return [self._keep(ids, attended, torch.where(total < 2 * count, inner, part)) for part in parts]

    def _keep(self, ids: Tensor, attended: Tensor, kept: Tensor) -> Words:
        """Leave out the inner tokens that are not ``kept``, and close the gaps."""
        kept = kept | (attended & ~self.tokenizer.inner(ids, attended))
        counts = kept.sum(1, keepdim=True)
        order = (~kept).int().argsort(dim=1, stable=True)[:, : max(1, int(counts.max()))]
        attended = torch.arange(order.shape[1], device=ids.device) < counts
        return ids.gather(1, order).masked_fill(~attended, self.tokenizer.pad), attended

    def _cropped(self, inner: Tensor) -> Tensor:
        low, high = self.settings.crop
        share, start = torch.rand(2, len(inner), 1, device=inner.device)
        count = inner.sum(1, keepdim=True)
        length = ((low + (high - low) * share) * count).round().clamp(min=1)
        first = (start * (count - length + 1)).floor()
        place = inner.cumsum(1) - 1
        kept: Tensor = inner & (place >= first) & (place < first + length)
        return kept

    def _undeleted(self, inner: Tensor) -> Tensor:
        drawn = torch.rand(inner.shape, device=inner.device).masked_fill(~inner, -1)
        return inner & ((drawn >= self.settings.delete) | (drawn == drawn.amax(1, keepdim=True)))

    def _shuffled(self, ids: Tensor, inner: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        moved = places + self.settings.shuffle * torch.rand(ids.shape, device=ids.device)
        behind = ids.shape[1] + self.settings.shuffle + places  # where the others line up, in their order
        source = torch.where(inner, moved, behind).argsort(dim=1)
        target = (~inner).int().argsort(dim=1, stable=True)
        return ids.scatter(1, target, ids.gather(1, source))
