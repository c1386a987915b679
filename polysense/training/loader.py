"""Batches by step: which samples a step sees depends on nothing but the seed and the step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from polysense.modalities.base import Batch, Dataset, Modality

POOL = 64
"""Batches whose samples are sorted by length together: few lengths in each, and who is in it still chance."""


class StepSampler(Sampler[list[int]]):
    """The samples of every (micro-)batch from ``start`` on, without end.

    Each epoch is a new permutation; its incomplete last batch is left out. Because step s can be
    computed without the steps before it, a resumed run goes on where the killed one stood. Every
    process takes its own slice of each batch.

    With ``lengths`` ``[samples]`` a batch holds samples of like length, so that little of it is padding:
    the permutation is cut into pools of :data:`POOL` batches, each pool sorted, and the batches shuffled.
    """

    def __init__(
        self,
        samples: int,
        batch: int,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        lengths: Tensor | None = None,
    ) -> None:
        self.samples, self.batch, self.seed, self.start = samples, batch, seed, start
        self.rank, self.world, self.lengths = rank, world, lengths

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch = max(1, self.samples // self.batch)
        step = self.start
        while True:
            epoch, first = divmod(step, per_epoch)
            order = self.permutation(epoch)
            for place in range(first, per_epoch):
                batch = order[place * self.batch : (place + 1) * self.batch]
                yield batch[self.rank :: self.world].tolist()
                step += 1

    def permutation(self, epoch: int) -> Tensor:
        """The order of the samples in an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(self.samples, generator=generator)
        if self.lengths is None:
            return order
        whole = order[: self.samples // self.batch * self.batch]  # chance, not length, says who is left out
        pools = whole.split(POOL * self.batch)
        by_length = torch.cat([pool[self.lengths[pool].argsort(stable=True)] for pool in pools])
        batches = by_length.view(-1, self.batch)
        return batches[torch.randperm(len(batches), generator=generator)].flatten()


def padding_share(lengths: Tensor, order: Tensor, batch: int) -> float:
    """The share of padding in batches of samples in that order, each as wide as its longest sample.

    >>> padding_share(torch.tensor([1, 2, 1, 2]), torch.tensor([0, 1, 2, 3]), batch=2)
    0.25
    """
    batches = lengths[order][: len(order) // batch * batch].view(-1, batch)
    return 1 - float(batches.sum()) / float(batch * batches.amax(1).sum())


class _Collate:
    """Collation as an object, so that worker processes can receive it."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality

    def __call__(self, samples: Any) -> Batch:
        return self.modality.collate(samples)


def make_loader(
    dataset: Dataset, modality: Modality, sampler: StepSampler, *, workers: int = 0
) -> DataLoader[Batch]:
    """A loader of :class:`Batch` that asks the dataset for whole batches at once."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=_Collate(modality),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
