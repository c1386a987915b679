"""Texts as a modality: read, tokenize, random views, the plain view, and back to words for the eye."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from polysense.errors import PolysenseError
from polysense.modalities.base import Batch, View, ViewPlan
from polysense.modalities.files import is_broken
from polysense.modalities.plans import plan_from_settings, plan_settings, view_settings
from polysense.modalities.text.store import Chosen, Texts
from polysense.modalities.text.tokenizer import Tokenizer
from polysense.modalities.text.views import RandomView, ViewSettings, Words
from polysense.modalities.text.vocabularies import KINDS

if TYPE_CHECKING:
    from polysense.encoders.base import Encoder

logger = logging.getLogger(__name__)

TOKENIZER = "tokenizer.json"
BUCKETS = 1024
"""Of hashed tokens, in the bag of words."""
MOSTLY_UNKNOWN = 0.5
DOCUMENT = 128
"""Tokens from which on a text is a document, of which two crops are views."""
CROPS = (0.3, 0.7)


class Text:
    """Texts: a :class:`~polysense.modalities.base.Modality`.

    ``plan.options["text"]`` sets fields of :class:`.ViewSettings` for all views. In it ``"views"`` may be
    a list of such settings, which the global views take in turn, and ``"local"`` settings for the local
    views only, which show a fifth to a half of the text.

    Args:
        length: tokens of a text at most; longer ones are cut, and counted by :meth:`fit`.
        plan: which views to make.
        tokenizer: a tokenizer; "bpe" or "wordpiece" to train one in :meth:`fit`; or, as
            :meth:`.Tokenizer.of` takes them, ``transformers:NAME``, ``open_clip:NAME`` or a path.
        vocabulary: tokens of the one that is trained.
        lower: whether the one that is trained takes capitals for small letters.

    Raises:
        PolysenseError: for a tokenizer that cannot be had, an unknown setting, or a value out of range.

    >>> text = Text(length=8).fit(Text().read(["a red apple", "a red pear"]))
    >>> view = text.plain(text.batch(["A red pear", "red"]))
    >>> view.data["attended"].sum(1).tolist(), text.show(view).tolist()
    ([8, 3], ['a red pea', 'red'])
    """

    name = "text"
    raw_name = "bag of words"
    default_encoder = "text_small"

    def __init__(
        self,
        length: int = 64,
        plan: ViewPlan = ViewPlan(),  # noqa: B008 - frozen
        tokenizer: Tokenizer | str = "bpe",
        vocabulary: int = 8192,
        lower: bool = True,
    ) -> None:
        if length < 3:
            raise PolysenseError(f"length is {length} tokens; give 3 or more, for a start, a word and an end")
        self.length, self.plan, self.vocabulary, self.lower = length, plan, vocabulary, lower
        trained_here = isinstance(tokenizer, str) and tokenizer in KINDS
        self._tokenizer = (
            tokenizer if trained_here or isinstance(tokenizer, Tokenizer) else Tokenizer.of(tokenizer)
        )
        strengths = {"strong": ViewSettings(), "weak": ViewSettings()}
        global_settings, local_settings = view_settings(plan, self.name, strengths, _local_settings)
        if isinstance(self._tokenizer, Tokenizer):
            self._globals = [RandomView(each, self._tokenizer) for each in global_settings]
            self._local = RandomView(local_settings, self._tokenizer)

    @property
    def tokenizer(self) -> Tokenizer:
        """What makes ids of texts.

        Raises:
            PolysenseError: before :meth:`fit`, where it is to be trained.
        """
        if isinstance(self._tokenizer, str):
            raise PolysenseError(
                "the texts have no tokenizer yet: call fit with the data, or give Text a tokenizer"
            )
        return self._tokenizer

    def read(self, source: Any, **reading: Any) -> Texts:
        """The user's texts; for the options see :func:`.sources.read_texts`."""
        from polysense.modalities.text.sources import read_texts

        return read_texts(source, **reading)

    def fit(self, dataset: Texts, plan: ViewPlan | None = None) -> Text:
        """The same modality with a tokenizer for these texts, and ``plan`` if given; tells how they fit."""
        tokenizer = self._tokenizer
        if isinstance(tokenizer, str):
            tokenizer = Tokenizer.train(
                dataset.texts, vocabulary=self.vocabulary, kind=tokenizer, lower=self.lower
            )
        tokens, every = dataset.tokens(tokenizer, self.length), 1 + len(dataset) // 10_000
        chosen = _for_documents(self.plan if plan is None else plan, np.diff(tokens.starts))
        fitted = Text(self.length, chosen, tokenizer, self.vocabulary, self.lower)
        unknown = tokenizer.unknown_share(dataset.texts[::every])
        logger.info(
            "a vocabulary of %s tokens, %.1f %% of the texts unknown to it; %s of %s texts cut at %d tokens",
            f"{tokenizer.size:,}",
            100 * unknown,
            f"{tokens.cut:,}",
            f"{len(dataset):,}",
            self.length,
        )
        if unknown > MOSTLY_UNKNOWN:
            logger.warning(
                "the tokenizer does not know %.0f %% of the tokens in these texts: take one for their"
                " language, or let one be trained",
                100 * unknown,
            )
        return fitted

    def batch(self, items: Sequence[Any]) -> Batch:
        """A batch of a few texts.

        Raises:
            PolysenseError: if one is no text.
        """
        for place, item in enumerate(items):
            if not isinstance(item, str) or is_broken(item):
                raise PolysenseError(
                    f"item {place} of the list is no text but {item!r}; give strings of Unicode"
                )
        ids, attended, _ = self.tokenizer.encode(items, self.length)
        return Batch({"ids": ids, "attended": attended}, torch.arange(len(items)))

    def collate(self, samples: Chosen) -> Batch:
        """``ids``, ``attended`` and ``words``, ``[B, T]`` all, T the longest text's, as a batch.

        ``words`` holds the number of the word that a token is of, -1 for those that stand for no text.
        """
        tokens = samples.source.tokens(self.tokenizer, self.length)
        ids, attended = tokens.batch(samples.index, self.tokenizer.pad)
        data = {"ids": ids, "attended": attended, "words": tokens.words_of(samples.index)}
        return Batch(data, torch.from_numpy(samples.index))

    def lengths(self, dataset: Any, views: bool = False) -> NDArray[np.int64] | None:
        """``[N]``: the tokens of each text, after which those of its random views go too."""
        if not isinstance(dataset, Texts):  # some of another's samples
            return None
        return np.diff(dataset.tokens(self.tokenizer, self.length).starts)

    def views(self, batch: Batch) -> list[View]:
        """The plan's random views, global ones first."""
        makers = [self._globals[i % len(self._globals)] for i in range(self.plan.globals_)]
        whole = _content(batch)
        shown = [whole] * len(makers)
        if makers and makers[0].settings.adjacent:
            shown = makers[0].spans(*whole, len(makers))
        words = batch.data.get("words") if isinstance(batch.data, dict) else None
        views = [self._random(one, words, maker, "global") for one, maker in zip(shown, makers, strict=True)]
        return views + [self._random(whole, words, self._local, "local") for _ in range(self.plan.locals_)]

    def plain(self, batch: Batch) -> View:
        """The text itself."""
        return self._view(*_content(batch), "global")

    def raw(self, batch: Batch) -> Tensor:
        """``[B, 1024]``: the logarithms of how often tokens occur, of length 1; some tokens share a place."""
        ids, attended = _content(batch)
        inner = self.tokenizer.inner(ids, attended)
        place = (ids * 2654435761 % 2**32) >> 22  # Knuth's multiplicative hash, its upper 10 bits
        counts = torch.zeros(len(ids), BUCKETS, device=ids.device).scatter_add_(1, place, inner.float())
        return functional.normalize(counts.log1p(), dim=1)

    def show(self, view: View) -> NDArray[Any]:
        """A line of text for each sample: ``[B]``."""
        assert isinstance(view.data, dict)
        return np.array(self.tokenizer.decode(view.data["ids"]))

    def encoder(self, spec: str | nn.Module, **options: Any) -> Encoder:
        """The tower for these texts, see :func:`polysense.encoders.text.build_text`."""
        from polysense.encoders.text import build_text

        return build_text(spec, vocabulary=self.tokenizer.size, length=self.length, **options)

    def settings(self) -> dict[str, Any]:
        """Plain values from which, with :meth:`attachments`, :meth:`from_settings` rebuilds this modality."""
        own = self._tokenizer
        return {
            "plan": plan_settings(self.plan, self.name),
            "length": self.length,
            "vocabulary": self.vocabulary,
            "lower": self.lower,
            "tokenizer": own if isinstance(own, str) else own.roles,
        }

    def attachments(self) -> dict[str, str]:
        """The tokenizer, as a ``tokenizer.json`` that every library of Hugging Face reads."""
        return {} if isinstance(self._tokenizer, str) else {TOKENIZER: self._tokenizer.to_json()}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], attachments: Mapping[str, str]) -> Text:
        """The modality that gave these settings and attachments.

        >>> Text.from_settings(Text(length=16).settings(), {}).length
        16
        """
        own = settings["tokenizer"]
        tokenizer = own if isinstance(own, str) else Tokenizer.from_json(attachments[TOKENIZER], own)
        plan = plan_from_settings(settings["plan"], cls.name)
        return cls(**{**settings, "plan": plan, "tokenizer": tokenizer})

    def _random(self, shown: Words, words: Tensor | None, maker: RandomView, kind: str) -> View:
        """A random view, with the words that its tokens are of; after an edit each is one of its own."""
        ids, attended = maker(*shown)
        if words is None or maker.settings != ViewSettings():
            inner = self.tokenizer.inner(ids, attended)
            words = torch.where(inner, inner.cumsum(1) - 1, -1)
        return View({"ids": ids, "attended": attended, "words": words}, self.name, kind)

    def _view(self, ids: Tensor, attended: Tensor, kind: str) -> View:
        return View({"ids": ids, "attended": attended}, self.name, kind)


def _content(batch: Batch) -> tuple[Tensor, Tensor]:
    assert isinstance(batch.data, dict)
    return batch.data["ids"], batch.data["attended"]


def _for_documents(plan: ViewPlan, lengths: NDArray[np.int64]) -> ViewPlan:
    """The plan with crops where texts are to be matched, no view is asked for, and most are documents.

    Of a sentence any edit may change the meaning, so its views differ in the encoder's dropout alone; of a
    document two crops are better views (https://arxiv.org/abs/2508.03453).
    """
    matched = plan.strength == "strong" and plan.globals_ > 1
    if plan.options.get(Text.name) or not matched or np.median(lengths) < DOCUMENT:
        return plan
    low, high = (round(100 * end) for end in CROPS)
    logger.info(
        "half of the texts have %d tokens or more: views are crops of %d to %d %% of them",
        *(DOCUMENT, low, high),
    )
    return replace(plan, options={**plan.options, Text.name: {"crop": CROPS}})


def _local_settings(settings: ViewSettings) -> ViewSettings:
    """A small part of the text."""
    return replace(settings, crop=(0.2, 0.5))
