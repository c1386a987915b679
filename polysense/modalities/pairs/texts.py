"""Texts that belong together as a modality: a question and its answer, read by one tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from polysense.encoders.towers import flat
from polysense.errors import PolysenseError, unknown
from polysense.modalities import make
from polysense.modalities.base import Batch, View, ViewPlan
from polysense.modalities.builtin import PREFIX, builtin, describe
from polysense.modalities.pairs.dataset import Pairs, PairSamples
from polysense.modalities.pairs.modality import Paired
from polysense.modalities.text.modality import Text
from polysense.modalities.text.store import Texts

if TYPE_CHECKING:
    from polysense.encoders.base import Encoder


class TextPairs:
    """Texts that belong together: a :class:`~polysense.modalities.base.Modality` for one text encoder.

    The first part of a sample asks and the second answers (a question and its answer, a premise and what
    follows from it); further ones are wrong answers that are hard to tell from right ones. A sample may have
    several texts of a part, of which each step draws one, and may lack wrong answers.

    Args:
        parts: the parts' names, which are those of the columns where ``columns`` does not say otherwise.
        text: what reads all of them, or the options to make it with, as in ``{"length": 32}``.

    Raises:
        PolysenseError: for fewer than two parts, and as :class:`.Text` does.

    >>> pairs = TextPairs(["word", "meaning"])
    >>> frame = pd.DataFrame({"word": ["sun", "moon"], "meaning": ["a star", "it goes round the earth"]})
    >>> dataset = pairs.read(frame)
    >>> fitted = pairs.fit(dataset, ViewPlan(globals_=1))
    >>> [view.kind for view in fitted.views(fitted.collate(dataset.__getitems__([1])))]
    ['word', 'meaning']
    """

    name = "text_pair"
    raw_name = Text.raw_name
    default_encoder = Text.default_encoder

    def __init__(
        self, parts: Sequence[str] = ("anchor", "positive"), text: Text | Mapping[str, Any] | None = None
    ) -> None:
        if isinstance(parts, str) or len(set(parts)) < len(parts):
            raise PolysenseError(
                f"parts is {parts!r}; give a list of different columns, as in [question, answer]"
            )
        made = text if isinstance(text, Text) else make("text", text or {})
        assert isinstance(made, Text)
        self.text = made
        self.paired = Paired(dict.fromkeys(parts, made))

    @property
    def parts(self) -> list[str]:
        """The names of the parts, the one that asks first."""
        return [*self.paired.parts]

    @property
    def tokenizer(self) -> Any:
        """What makes ids of all of them, see :attr:`.Text.tokenizer`."""
        return self.text.tokenizer

    def read(self, source: Any, **reading: Any) -> Pairs:
        """The user's pairs, see :func:`.sources.read_pairs`; of built-in texts rows with all parts."""
        if isinstance(source, str) and source.startswith(PREFIX):
            reading.setdefault("label", describe(source).label)
            source = self._builtin(source)
        return self.paired.read(source, **reading)

    def fit(self, dataset: Pairs, plan: ViewPlan | None = None) -> TextPairs:
        """The same parts with one tokenizer for all their texts, and ``plan`` if given."""
        texts = [text for part in dataset.parts.values() if isinstance(part, Texts) for text in part.texts]
        every = Texts(texts, pd.DataFrame(index=range(len(texts))))
        if plan is not None:
            plan = replace(plan, options={Text.name: plan.options.get(self.name, {})})
        return TextPairs(self.parts, self.text.fit(every, plan))

    def lengths(self, dataset: Any, views: bool = False) -> NDArray[np.int64] | None:
        """``[N]``: the tokens of a sample's parts together, of several texts of a part those of the first."""
        if not isinstance(dataset, Pairs):
            return None
        total = np.zeros(len(dataset), np.int64)
        for part, members in dataset.members.items():
            lengths = self.text.lengths(dataset.parts[part])
            assert lengths is not None
            has = members.counts > 0
            total[has] += lengths[members.first(has)]
        return total

    def batch(self, items: Sequence[Any]) -> Batch:
        """A batch of a few texts, whatever part they might be."""
        batch = self.text.batch(items)
        return replace(batch, data=flat(self.parts[0], batch.data))

    def collate(self, samples: PairSamples) -> Batch:
        """Every part's texts side by side, see :meth:`.Paired.collate`."""
        return self.paired.collate(samples)

    def views(self, batch: Batch) -> list[View]:
        """A view of each part, whose kind is the part's name; of several texts each step draws one."""
        return [replace(view, modality=self.name, kind=view.modality) for view in self.paired.views(batch)]

    def plain(self, batch: Batch) -> View:
        """The first part as it is."""
        return replace(self.text.plain(self._first(batch)), modality=self.name)

    def raw(self, batch: Batch) -> Tensor:
        """The first part's bag of words, see :meth:`.Text.raw`."""
        return self.text.raw(self._first(batch))

    def show(self, view: View) -> NDArray[Any]:
        """A line of text for each sample: ``[B]``."""
        return self.text.show(view)

    def encoder(self, spec: str | nn.Module, **options: Any) -> Encoder:
        """The one tower for all parts, see :func:`polysense.encoders.text.build_text`."""
        return self.text.encoder(spec, **options)

    def settings(self) -> dict[str, Any]:
        """Plain values from which, with the attachments, :meth:`from_settings` rebuilds this modality."""
        return {"parts": self.parts, "text": self.text.settings()}

    def attachments(self) -> dict[str, str]:
        """The tokenizer, see :meth:`.Text.attachments`."""
        return self.text.attachments()

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], attachments: Mapping[str, str]) -> TextPairs:
        """The modality that gave these :meth:`settings` and :meth:`attachments`."""
        return cls(settings["parts"], Text.from_settings(settings["text"], attachments))

    def _first(self, batch: Batch) -> Batch:
        return self.paired.batch_of(batch, self.parts[0])

    def _builtin(self, name: str) -> pd.DataFrame:
        frame = builtin(name)
        for part in self.parts:
            if part not in frame.columns:
                raise unknown(f"column of {name}", part, map(str, frame.columns))
            kept = frame[part].map(lambda cell: isinstance(cell, str) or len(cell) > 0)
            frame = frame[kept]
        return frame.reset_index(drop=True)
