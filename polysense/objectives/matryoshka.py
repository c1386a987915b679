"""Any objective, asked of prefixes of the dimensions too."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective


class Matryoshka(Objective):
    """The sum of an objective over prefixes of the dimensions (https://arxiv.org/abs/2205.13147).

    ::

        loss = sum over widths w of objective(z[..., :w])

    so that an embedding that is cut short still serves. An objective that normalises does so behind the
    cut. Only embeddings are cut, tensors as wide as the first one; masks and classes are handed on. The
    objective must not hold a state of one width, such as a queue or prototypes.

    Args:
        objective: what is asked of each prefix.
        widths: how many dimensions; the whole is asked in any case, lest the last dimensions stay untrained.

    Raises:
        PolysenseError: for widths that are none, or wider than the embeddings.

    >>> import torch
    >>> from polysense.objectives.contrastive import NTXent
    >>> views = torch.eye(4).expand(2, 4, 4)
    >>> both, whole = Matryoshka(NTXent(), [2])(views), NTXent()(views)
    >>> torch.isclose(both, whole + NTXent()(views[..., :2]))
    tensor(True)
    """

    def __init__(self, objective: Objective, widths: Sequence[int]) -> None:
        super().__init__()
        if any(width < 1 for width in widths):
            raise PolysenseError(f"the widths are {list(widths)}; give numbers of dimensions from 1 on")
        self.objective, self.widths = objective, sorted(set(widths))

    def forward(self, z: Tensor, *others: Tensor) -> Tensor:
        """The loss of ``z[..., K]`` and whatever else the objective takes."""
        whole = z.shape[-1]
        if self.widths and self.widths[-1] > whole:
            raise PolysenseError(
                f"no prefix of {whole} dimensions has {self.widths[-1]}; choose widths up to {whole}"
            )
        total: Tensor = self.objective(z, *others)
        for width in self.widths:
            if width < whole:
                total = total + self.objective(*(_cut(each, whole, width) for each in (z, *others)))
        return total


def _cut(tensor: Tensor, whole: int, width: int) -> Tensor:
    embeds = tensor.is_floating_point() and tensor.ndim > 1 and tensor.shape[-1] == whole
    return tensor[..., :width] if embeds else tensor
