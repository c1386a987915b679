"""Samples with several parts as a modality: each part is read, collated and seen by its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polysense.encoders.towers import CHOICES, PRESENT, flat, of_part
from polysense.errors import PolysenseError, unknown
from polysense.modalities import make, rebuild
from polysense.modalities.base import Batch, Modality, View, ViewPlan
from polysense.modalities.pairs.building import CAPTIONER, build_towers
from polysense.modalities.pairs.dataset import Pairs, PairSamples

if TYPE_CHECKING:
    from polysense.encoders.base import Encoder


class Paired:
    """Samples with several parts, a picture and its sentence: a :class:`~polysense.modalities.base.Modality`.

    ``Batch.data`` holds every part's data under names like ``image/pixels``, ``image/present`` where samples
    may lack the part, and ``text/choices`` where they may have several, of which each view draws one.

    Args:
        parts: the modality of each part, or the options to make it with, among them ``modality`` where that
            is not the part's name, as in ``{"photo": {"modality": "image", "size": 32}}``. By default
            ``{"image": {}, "text": {}}``.
        size: side of the pictures in parts that do not say.

    Raises:
        PolysenseError: for fewer than two parts, or names and options that there are not.

    >>> from polysense.modalities.vision.modality import Vision
    >>> paired = Paired({"photo": Vision(size=8), "sketch": {"modality": "image", "size": 8}})
    >>> batch = paired.batch([{"photo": torch.zeros(9, 9, 3, dtype=torch.uint8)}])
    >>> {name: tuple(tensor.shape) for name, tensor in paired.plain(batch).data.items()}
    {'photo': (1, 3, 8, 8)}
    """

    name = "pair"
    raw_name = "raw parts"

    def __init__(
        self, parts: Mapping[str, Modality | Mapping[str, Any]] | None = None, size: int | None = None
    ) -> None:
        given = {"image": {}, "text": {}} if parts is None else parts
        if len(given) < 2:
            raise PolysenseError(f"a pair has two parts or more, but only {[*given]} given")
        for part in given:
            if not part.isidentifier() or part in (self.name, CAPTIONER):
                raise PolysenseError(f"{part!r} cannot be the name of a part; use a word, such as 'image'")
        self.parts: dict[str, Modality] = {part: _made(part, how, size) for part, how in given.items()}
        self.default_encoder = "+".join(modality.default_encoder for modality in self.parts.values())

    def part(self, name: str) -> Modality:
        """The modality of one part.

        Raises:
            PolysenseError: when there is no such part.
        """
        if name not in self.parts:
            raise unknown("part", name, self.parts)
        return self.parts[name]

    def read(
        self,
        source: Any,
        *,
        columns: Mapping[str, Any] | None = None,
        label: str | None = None,
        language: str | None = None,
        column: str | None = None,
        max_bad: float = 0.01,
        cache: Path | None = None,
        encoding: str = "utf-8",
    ) -> Pairs:
        """The user's pairs, see :func:`.sources.read_pairs`; :class:`.Pairs` are taken as they are."""
        if column is not None:
            raise PolysenseError(
                "pairs lie in several columns: name one for each part, as in --reading.columns"
                f' \'{{"text": "{column}"}}\''
            )
        if isinstance(source, Pairs):
            if set(source.parts) != set(self.parts):
                raise PolysenseError(
                    f"the data have the parts {[*source.parts]} where {[*self.parts]} were expected"
                )
            return source
        from polysense.modalities.pairs.sources import read_pairs

        return read_pairs(
            source,
            self.parts,
            columns=columns,
            label=label,
            language=language,
            max_bad=max_bad,
            cache=cache,
            encoding=encoding,
        )

    def fit(self, dataset: Pairs, plan: ViewPlan | None = None) -> Paired:
        """The same parts, each fitted to its data and with its share of ``plan``.

        Each part takes the plan's own for its modality, ``plan.parts``, or else the whole plan, and over its
        options those that the plan has for the part, ``plan.options["pair"]``.

        Raises:
            PolysenseError: for view settings of a part that there is not.
        """
        plan = ViewPlan() if plan is None else plan
        for part in plan.options.get(self.name, {}):
            if part not in self.parts:
                raise unknown("part with view settings", part, self.parts)
        return Paired(
            {
                part: modality.fit(dataset.parts[part], self._plan_of(plan, part))
                for part, modality in self.parts.items()
            }
        )

    def _plan_of(self, plan: ViewPlan, part: str) -> ViewPlan:
        name = self.parts[part].name
        own = plan.parts.get(name, plan)
        over = plan.options.get(self.name, {}).get(part, {})
        options = {**own.options.get(name, {}), **over}
        return replace(own, options={name: options}, parts={})

    def batch(self, items: Sequence[Any]) -> Batch:
        """A batch of a few samples, each a mapping from parts to what they hold; parts may be left out.

        Raises:
            PolysenseError: for a sample that is no such mapping, or holds something unreadable.
        """
        for place, item in enumerate(items):
            if not isinstance(item, Mapping) or not item:
                raise PolysenseError(
                    f"sample {place} of the list is a {type(item).__name__}; give a mapping from parts, as in"
                    f" {{{next(iter(self.parts))!r}: …}}, some of which may be left out"
                )
            for part in item:
                self.part(part)
        data: dict[str, Tensor] = {}
        for part, modality in self.parts.items():
            there = torch.tensor([part in item for item in items])
            if there.any():
                only = modality.batch([item[part] for item in items if part in item])
                data |= flat(part, only.data)
                if not there.all():
                    data[f"{part}/{CHOICES}"] = (there.cumsum(0) - 1).clamp(min=0)[:, None]
                    data[f"{part}/{PRESENT}"] = there
        return Batch(data, torch.arange(len(items)))

    def collate(self, samples: PairSamples) -> Batch:
        """Every part's own batch, side by side; ``known["identity"]`` where the data know of it."""
        data: dict[str, Tensor] = {}
        known: dict[str, Tensor] = {} if samples.identity is None else {"identity": samples.identity}
        for part, modality in self.parts.items():
            batch = modality.collate(samples.parts[part])
            data |= flat(part, batch.data)
            known |= {} if part in samples.choices else batch.known
        for what, tensors in {CHOICES: samples.choices, PRESENT: samples.present}.items():
            data.update({f"{part}/{what}": tensor for part, tensor in tensors.items()})
        return Batch(data, samples.index, known)

    def views(self, batch: Batch) -> list[View]:
        """The views of all parts; of several captions each step draws one."""
        made = []
        for part, modality in self.parts.items():
            present = _data(batch).get(f"{part}/{PRESENT}")
            for view in modality.views(self.batch_of(batch, part, draw=True)):
                if present is not None and view.present is not None:
                    present = present & view.present
                there = view.present if present is None else present
                made.append(replace(view, modality=part, present=there))
        return made

    def plain(self, batch: Batch) -> View:
        """Every part's plain view, of several captions the first; data as :func:`~.towers.flat` names it."""
        data: dict[str, Tensor] = {}
        for part, modality in self.parts.items():
            if of_part(_data(batch), part) is not None:
                data |= flat(part, modality.plain(self.batch_of(batch, part)).data)
                if f"{part}/{PRESENT}" in _data(batch):
                    data[f"{part}/{PRESENT}"] = _data(batch)[f"{part}/{PRESENT}"]
        return View(data, self.name)

    def raw(self, batch: Batch) -> Tensor:
        """``[B, F]``: the parts' raw features side by side, 0 for what a sample lacks."""
        made = []
        for part, modality in self.parts.items():
            raw = modality.raw(self.batch_of(batch, part))
            present = _data(batch).get(f"{part}/{PRESENT}")
            made.append(raw if present is None else raw * present[:, None])
        return torch.cat(made, 1)

    def show(self, view: View) -> NDArray[Any]:
        """One part's view as that modality shows it; of whole samples their first part."""
        part = view.modality if view.modality in self.parts else next(iter(self.parts))
        data = view.data if view.modality in self.parts else of_part(_dict(view.data), part)
        modality = self.parts[part]
        return modality.show(replace(view, data=data, modality=modality.name))

    def encoder(
        self,
        spec: str | nn.Module | Mapping[str, str | nn.Module],
        *,
        dim: int = 256,
        pretrained: bool = False,
        **options: Mapping[str, Any],
    ) -> Encoder:
        """Towers for the parts, see :func:`.building.build_towers`."""
        return build_towers(self.parts, spec, dim=dim, pretrained=pretrained, options=options)

    def settings(self) -> dict[str, Any]:
        """Plain values from which, with the attachments, :meth:`from_settings` rebuilds this modality."""
        parts = {
            part: {"modality": modality.name, "settings": modality.settings()}
            for part, modality in self.parts.items()
        }
        return {"parts": parts}

    def attachments(self) -> dict[str, str]:
        """The parts' own, each behind its part's name: ``text.tokenizer.json``."""
        return {
            f"{part}.{file}": text
            for part, modality in self.parts.items()
            for file, text in modality.attachments().items()
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], attachments: Mapping[str, str]) -> Paired:
        """The modality that gave these :meth:`settings` and :meth:`attachments`."""
        parts = {}
        for part, how in settings["parts"].items():
            own = {
                file.removeprefix(f"{part}."): text
                for file, text in attachments.items()
                if file.startswith(f"{part}.")
            }
            parts[part] = rebuild(how["modality"], how["settings"], own)
        return cls(parts)

    def batch_of(self, batch: Batch, part: str, *, draw: bool = False) -> Batch:
        """One part of a batch as its modality knows it; of several choices one at random, or the first."""
        data = of_part(_data(batch), part)
        choices = _data(batch).get(f"{part}/{CHOICES}")
        if choices is None:
            return Batch(data, batch.index, batch.known)
        counts = (choices >= 0).sum(1)
        turn = (torch.rand(counts.shape, device=counts.device) * counts).long() if draw else 0 * counts
        rows = choices.gather(1, turn[:, None])[:, 0]
        if isinstance(data, Tensor):
            return Batch(data[rows], batch.index, batch.known)
        return Batch({name: tensor[rows] for name, tensor in data.items()}, batch.index, batch.known)


def _made(part: str, how: Modality | Mapping[str, Any], size: int | None) -> Modality:
    if not isinstance(how, Mapping):
        return how
    options = dict(how)
    name = options.pop("modality", part)
    if size is not None and name == "image":
        options.setdefault("size", size)
    return make(name, options)


def _data(batch: Batch) -> dict[str, Tensor]:
    return _dict(batch.data)


def _dict(data: Any) -> dict[str, Tensor]:
    assert isinstance(data, dict)
    return data
