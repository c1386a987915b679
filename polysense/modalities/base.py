"""The types that carry data from the user's source to the towers. Nothing here knows what a picture is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polysense.encoders.base import Encoder

Tensors = Tensor | dict[str, Tensor]
"""One tensor, or several under names; the first dimension of each is the batch."""


def to_device(data: Tensors, device: torch.device | str) -> Tensors:
    """Move a tensor, or every tensor of a dict, to a device."""
    if isinstance(data, Tensor):
        return data.to(device, non_blocking=True)
    return {name: tensor.to(device, non_blocking=True) for name, tensor in data.items()}


@dataclass(frozen=True)
class Batch:
    """Samples as tensors of one shape, before any view is made of them.

    ``data``: ``[B, ...]`` as stored (for pictures unsigned bytes), ``index``: ``[B]``, the samples'
    places in their dataset, by which labels and names are looked up.
    """

    data: Tensors
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(to_device(self.data, device), self.index.to(device, non_blocking=True))


@dataclass(frozen=True)
class View:
    """One view of a batch, ready for a tower.

    ``data``: ``[B, ...]`` on the training device. ``modality``: the tower that reads it ("image",
    "text", …). ``kind``: "global", "local" (multi-crop), "next" (in time), …. ``mask``: ``[B, T]``,
    True at the tokens hidden from the encoder. ``present``: ``[B]``, False where this sample lacks
    the modality.
    """

    data: Tensors
    modality: str
    kind: str = "global"
    mask: Tensor | None = None
    present: Tensor | None = None

    def hide(self, mask: Tensor) -> View:
        """The same view with the tokens under ``mask`` hidden from the encoder."""
        return replace(self, mask=mask)


@dataclass(frozen=True)
class ViewPlan:
    """Which views a recipe asks for, in words that every modality understands.

    ``globals_``: how many views of the whole sample; ``locals_``: how many of a small part of it
    (multi-crop). ``strength``: "strong" where views are to be matched, "weak" where hidden parts are
    to be predicted. ``options``: settings for one modality by its name, as in
    ``{"image": {"scale": (0.08, 1.0)}}``.
    """

    globals_: int = 2
    locals_: int = 0
    strength: str = "strong"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@runtime_checkable
class Dataset(Protocol):
    """The user's samples, decoded once.

    ``table`` has one row per sample and holds what is known of it besides its content: ``name`` (a
    file name, a row name) always, and any label columns. ``label`` names the column that holds the
    class, ``identity`` the column whose equal values mark samples of the same thing; either may be
    None. ``evaluation`` is how results on the data are measured, where there is an agreed way, as plain
    values of :class:`~polysense.evaluation.protocol.Protocol`. ``__getitems__`` fetches many samples at
    once in whatever form the modality's ``collate`` takes.
    """

    table: pd.DataFrame
    label: str | None
    identity: str | None
    evaluation: Mapping[str, Any] | None

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> Any: ...


class Modality(Protocol):
    """How one kind of data is read, collated, and turned into views.

    A modality is configured once (size, normalisation, view plan) and can be rebuilt from
    ``settings()``, a plain dict that goes into the run folder's ``config.yaml``.
    """

    name: str
    """The tower that reads its views: "image", "text", "table", …"""
    raw_name: str
    """What its raw input is called as a baseline: "pixels", "bag of words", …"""

    def read(self, source: Any, **reading: Any) -> Dataset:
        """The user's data as samples, decoded once; unreadable ones are reported and skipped."""
        ...

    def batch(self, items: Sequence[Any]) -> Batch:
        """A batch straight from a few items in memory, for embedding."""
        ...

    def collate(self, samples: Any) -> Batch:
        """What ``Dataset.__getitems__`` returned, as tensors of one shape."""
        ...

    def views(self, batch: Batch) -> list[View]:
        """Random views of a batch, made on its device with torch's global random numbers."""
        ...

    def plain(self, batch: Batch) -> View:
        """The one deterministic view of a batch, for evaluation and embedding."""
        ...

    def raw(self, batch: Batch) -> Tensor:
        """``[B, F]``: the plain input itself as features, the humble baseline of every probe."""
        ...

    def show(self, view: View) -> NDArray[Any]:
        """What a person looks at: pictures ``[B, h, w, 3]`` in bytes, or a line of text per sample."""
        ...

    def encoder(self, spec: str | nn.Module, **options: Any) -> Encoder:
        """Build the tower that reads this modality's views, by name or from the user's own module."""
        ...

    def settings(self) -> dict[str, Any]:
        """What rebuilds this modality: plain values for ``config.yaml``."""
        ...
