"""The types that carry data from the user's source to the towers. Nothing here knows what a picture is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, runtime_checkable

import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError

Tensors = Tensor | dict[str, Tensor]
"""One tensor, or several under names; the first dimension of each is the batch."""


def to_device(data: Tensors, device: torch.device | str) -> Tensors:
    """Move a tensor, or every tensor of a dict, to a device."""
    if isinstance(data, Tensor):
        return data.to(device, non_blocking=True)
    return {name: tensor.to(device, non_blocking=True) for name, tensor in data.items()}


def first_tensor(data: Tensors) -> Tensor:
    """The tensor, or the first of several: it tells how many samples there are, and on which device."""
    return data if isinstance(data, Tensor) else next(iter(data.values()))


@dataclass(frozen=True)
class Batch:
    """Samples as tensors of one shape, before any view is made of them.

    ``data``: ``[B, ...]`` as stored (for pictures unsigned bytes), ``index``: ``[B]``, the samples'
    places in their dataset, by which labels and names are looked up. ``known``: what else the dataset
    knows of its samples and an objective may use (an action, a reward), ``[B, ...]`` each.
    """

    data: Tensors
    index: Tensor
    known: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        known = to_device(dict(self.known), device)
        assert isinstance(known, dict)
        return Batch(to_device(self.data, device), self.index.to(device, non_blocking=True), known)


@dataclass(frozen=True)
class View:
    """One view of a batch, ready for a tower.

    ``data``: ``[B, ...]`` on the training device. ``modality``: the tower that reads it ("image",
    "text", …). ``kind``: "global", "local" (multi-crop), "next" (in time), …. ``mask``: ``[B, T]``,
    True at the tokens hidden from the encoder. ``asked``: ``[B, M, T]``, the hidden tokens that are to
    be predicted, in M groups, where they are not all that is hidden (I-JEPA). ``present``: ``[B]``,
    False where this sample lacks the modality. ``region``: ``[B, 2, G]``, the part of the sample that
    the view shows, its start and extent along each axis of the token grid as shares of the sample; a
    mirrored view runs backwards, with a negative extent. See :meth:`places`.
    """

    data: Tensors
    modality: str
    kind: str = "global"
    mask: Tensor | None = None
    present: Tensor | None = None
    asked: Tensor | None = None
    region: Tensor | None = None

    def hide(self, mask: Tensor, asked: Tensor | None = None) -> View:
        """The same view with the tokens under ``mask`` hidden from the encoder."""
        return replace(self, mask=mask, asked=asked)

    def places(self, grid: tuple[int, ...]) -> Tensor:
        """``[B, T, G]``: where in the sample the centres of the view's tokens lie, as shares of it.

        >>> view = View(torch.zeros(1, 2), "sound", region=torch.tensor([[[0.5], [0.5]]]))
        >>> view.places((2,))
        tensor([[[0.6250],
                 [0.8750]]])

        Raises:
            PolysenseError: when the view does not know which part of the sample it shows.
        """
        if self.region is None:
            raise PolysenseError(
                f"this method needs to know where in a sample its views lie, and those of {self.modality!r}"
                " do not say (a rotated picture has no upright place): use views without rotation"
            )
        centres = [(torch.arange(side, device=self.region.device) + 0.5) / side for side in grid]
        tokens = torch.stack([axis.flatten() for axis in torch.meshgrid(*centres, indexing="ij")], 1)
        start, extent = self.region[:, :1], self.region[:, 1:]
        return start + tokens * extent


@dataclass(frozen=True)
class ViewPlan:
    """Which views a recipe asks for, in words that every modality understands.

    ``globals_``: how many views of the whole sample; ``locals_``: how many of a small part of it
    (multi-crop). ``strength``: "strong" where views are to be matched, "weak" where hidden parts are
    to be predicted. ``options``: settings for one modality by its name, as in
    ``{"image": {"scale": (0.08, 1.0)}}``. ``parts``: for samples of several modalities, the plans of those
    that are to be seen otherwise.
    """

    globals_: int = 2
    locals_: int = 0
    strength: str = "strong"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parts: Mapping[str, ViewPlan] = field(default_factory=dict)


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

    One whose samples differ in length may also have ``lengths(dataset, views) -> [N]``, the steps of each
    sample's plain view or, with ``views``, of its random ones: then batches hold samples of like length.
    None is for all alike, or not known.

    A modality is configured once (size, normalisation, view plan) and can be rebuilt from
    ``settings()``, a plain dict that goes into the run folder's ``config.yaml``.
    """

    name: str
    """The tower that reads its views: "image", "text", "table", …"""
    raw_name: str
    """What its raw input is called as a baseline: "pixels", "bag of words", …"""
    default_encoder: str
    """The small encoder that is trained where none is named."""

    def read(self, source: Any, **reading: Any) -> Dataset:
        """The user's data as samples, decoded once; unreadable ones are reported and skipped."""
        ...

    def fit(self, dataset: Any, plan: ViewPlan) -> Modality:
        """The same modality making the views of ``plan``, with what it has to know of the data it will
        train on: their statistics, a tokenizer, a schema."""
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

    def attachments(self) -> dict[str, str]:
        """What rebuilds it and is too long for settings (a vocabulary): texts by the names of their files."""
        ...

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], attachments: Mapping[str, str]) -> Self:
        """The modality that gave these settings and attachments."""
        ...


def sample_lengths(modality: Modality, dataset: Dataset, *, views: bool = False) -> Tensor | None:
    """``[samples]``: the steps of each sample's plain view, or with ``views`` of its random ones.

    None where the modality does not tell (it has no ``lengths(dataset, views)``), or all are alike.
    """
    tell = getattr(modality, "lengths", None)
    told = None if tell is None else tell(dataset, views)
    if told is None or not (told != told[:1]).any():
        return None
    return torch.as_tensor(told)
