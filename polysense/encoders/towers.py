"""Several towers with one space for what they see: the encoder of samples that have several parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.captioner import Captioner
from polysense.encoders.heads import Projector
from polysense.errors import PolysenseError, unknown

PRESENT = "present"
"""``PART/present``, ``[B]`` bool: False where a sample lacks the part."""
CHOICES = "choices"
"""``PART/choices``, ``[B, K]``: the rows of the part's data from which a sample's is drawn, -1 for none."""


def flat(part: str, data: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One part's data under names that tell it from the other parts'.

    >>> sorted(flat("text", {"ids": torch.zeros(1, 2), "attended": torch.ones(1, 2)}))
    ['text/attended', 'text/ids']
    """
    if isinstance(data, Tensor):
        return {part: data}
    return {f"{part}/{name}": tensor for name, tensor in data.items()}


def of_part(data: Mapping[str, Tensor], part: str) -> Any:
    """What :func:`flat` was given, without what else is known of the part; None where there is nothing.

    >>> of_part({"image": torch.zeros(1), "text/ids": torch.ones(1)}, "text")
    {'ids': tensor([1.])}
    """
    if part in data:
        return data[part]
    before, beside = f"{part}/", (f"{part}/{PRESENT}", f"{part}/{CHOICES}")
    named = {
        name.removeprefix(before): tensor
        for name, tensor in data.items()
        if name.startswith(before) and name not in beside
    }
    return named or None


class Towers(Encoder):
    """A tower for each part of a sample, and heads into one space where parts can be compared.

    ``pooled`` of a whole sample is the mean of its parts' unit vectors in that space, scaled to length 1;
    parts that it lacks do not count. :meth:`of` is one tower with its head.

    Args:
        towers: an encoder for each part.
        heads: modules from :class:`Encoded` to ``[B, dim]``; for parts without one a linear layer without
            bias, as in CLIP.
        dim: width of the shared space.
        logit_scale: the logarithm of what cosines are multiplied by, where it was learned before.
        logit_bias: what is added to them (SigLIP), where it was learned before.
        captioner: writes texts from pictures (CoCa).

    >>> from polysense.encoders import build
    >>> towers = Towers({"left": build("small", size=16), "right": build("small", size=16)}, dim=8)
    >>> pictures = torch.zeros(2, 3, 16, 16)
    >>> towers({"left": pictures, "right": pictures}).pooled.shape, towers.of("left")(pictures).pooled.shape
    (torch.Size([2, 8]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        towers: Mapping[str, Encoder],
        heads: Mapping[str, nn.Module] | None = None,
        *,
        dim: int = 256,
        logit_scale: float | None = None,
        logit_bias: float = 0.0,
        captioner: Captioner | None = None,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise PolysenseError(f"a shared space of {dim} dimensions holds nothing; give dim of at least 1")
        heads = {
            part: (heads or {}).get(part) or Projector(tower.dim, dim, dim, layers=1, last_bias=False)
            for part, tower in towers.items()
        }
        self.dim = dim
        self.towers, self.heads = nn.ModuleDict(towers), nn.ModuleDict(heads)
        self.captioner = captioner
        self.learned = logit_scale is not None
        scale = math.log(1 / 0.07) if logit_scale is None else logit_scale
        self.logit_scale = nn.Parameter(torch.tensor(float(scale)))
        self.logit_bias = nn.Parameter(torch.tensor(float(logit_bias)))

    @property
    def trunk(self) -> nn.Module:  # type: ignore[override]  # an attribute would be saved twice
        """The towers by the names of their parts."""
        return self.towers

    def start_logits(self, scale: float, bias: float = 0.0) -> None:
        """Let training start with logits ``scale * cosine + bias``, unless these were learned before."""
        if not self.learned:
            with torch.no_grad():
                self.logit_scale.fill_(math.log(scale))
                self.logit_bias.fill_(bias)

    def of(self, part: str) -> Encoder:
        """The tower of one part, whose ``pooled`` is of length 1 in the shared space.

        Raises:
            PolysenseError: when there is no such part.
        """
        if part not in self.towers:
            raise unknown("part", part, self.towers)
        return InSharedSpace(self.towers[part], self.heads[part], self.dim)  # type: ignore[arg-type]

    def forward(self, data: Any, mask: Tensor | None = None) -> Encoded:
        """Encode samples, whose parts lie side by side as :func:`flat` names them.

        Raises:
            PolysenseError: when tokens are to be hidden, or no part is there.
        """
        if mask is not None:
            raise self.cannot_hide()
        units = []
        for part in self.towers:
            there = of_part(data, part)
            if there is not None:
                unit = self.of(part)(there).pooled
                present = data.get(f"{part}/{PRESENT}")
                units.append(unit if present is None else unit * present[:, None])
        if not units:
            raise PolysenseError(f"these samples have none of the parts {', '.join(self.towers)}; give one")
        return Encoded(functional.normalize(torch.stack(units).sum(0), dim=-1))

    def settle(self) -> None:
        """Settle every tower."""
        for tower in self.towers.values():
            tower.settle()  # type: ignore[operator]


class InSharedSpace(Encoder):
    """A tower behind whose ``pooled`` stands a head, scaled to length 1; tokens are the tower's own."""

    def __init__(self, trunk: Encoder, head: nn.Module, dim: int) -> None:
        super().__init__()
        self.trunk, self.head, self.dim = trunk, head, dim

    def forward(self, data: Any, mask: Tensor | None = None) -> Encoded:
        """Encode one part."""
        encoded: Encoded = self.trunk(data, mask)
        pooled = functional.normalize(self.head(encoded).float(), dim=-1)
        return Encoded(pooled, encoded.tokens, encoded.grid, encoded.mask, encoded.layers)
