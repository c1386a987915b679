"""Maskers for texts: words that are hidden, replaced or deleted, and spans of them.

They draw for the whole batch at once and leave alone what stands for no text: padding, start and end.
What is to be predicted goes into the view's data as ``original``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from polysense.encoders.base import Encoder
from polysense.encoders.text_transformer import TextEncoder
from polysense.errors import PolysenseError
from polysense.modalities.base import View, first_tensor


def draw(available: Tensor, count: Tensor, width: int) -> Tensor:
    """``[B, width]``: True at ``count[B, 1]`` random places among the first ``available[B, 1]``.

    >>> draw(torch.tensor([[3], [1]]), torch.tensor([[2], [1]]), width=5).sum(1)
    tensor([2, 1])
    """
    places = torch.arange(width, device=available.device)
    order = torch.rand(len(available), width, device=available.device)
    order = order.masked_fill(places >= available, 2.0).argsort(1).argsort(1)
    return (order < count) & (places < available)


def draw_words(words: Tensor, ratio: float) -> Tensor:
    """``[B, T]``: True at all tokens of so large a share of the words, rounded, of one at least.

    ``words[B, T]``: the number of the word that a token is of, -1 for those that may not be drawn.

    >>> draw_words(torch.tensor([[-1, 0, 0, 0, -1]]), 0.15)
    tensor([[False,  True,  True,  True, False]])
    """
    total = words.amax(1, keepdim=True) + 1
    drawn = draw(total, share(total, ratio), words.shape[1])
    return drawn.gather(1, words.clamp(min=0)) & (words >= 0)


def draw_spans(inner: Tensor, ratio: float, mean: float) -> Tensor:
    """``[B, T]``: True at a share of the ``inner[B, T]`` tokens, in spans of ``mean`` tokens on average.

    How the tokens are shared among the spans, and the spans among the gaps between the others, is uniform;
    no two touch. T5 instead starts every text with a token that is shown and ends it with a hidden one.

    >>> draw_spans(torch.ones(2, 20, dtype=torch.bool), 0.3, 3.0).sum(1)
    tensor([6, 6])
    """
    width = inner.shape[1]
    total = inner.sum(1, keepdim=True)
    hidden = share(total, ratio)
    gaps = total - hidden + 1
    spans = torch.minimum((hidden / mean).round().long().clamp(min=1), gaps)
    first = torch.ones_like(hidden, dtype=torch.bool)
    begins = torch.cat([first, draw(hidden - 1, spans - 1, width - 1)], 1)
    gap = (~draw(gaps, spans, width + 1)).int().argsort(dim=1, stable=True)
    place = torch.arange(width, device=inner.device) + gap.gather(1, begins.cumsum(1) - 1)
    past_the_end = place.masked_fill(torch.arange(width, device=inner.device) >= hidden, width)
    drawn = torch.zeros(len(inner), width + 1, dtype=torch.bool, device=inner.device)
    drawn.scatter_(1, past_the_end, True)
    return drawn.gather(1, (inner.cumsum(1) - 1).clamp(min=0)) & inner


def share(total: Tensor, ratio: float) -> Tensor:
    """How many of ``total`` a share of them is, one at least where there are any.

    Raises:
        PolysenseError: for a share of nothing or of everything.
    """
    if not 0 < ratio < 1:
        raise PolysenseError(f"a share of {ratio} of the words cannot be hidden; choose one between 0 and 1")
    return torch.minimum((ratio * total).round().long().clamp(min=1), total)


def compact(values: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """``values[B, T]`` without those that are not ``kept[B, T]``, the gaps closed, and where they are.

    >>> compact(torch.tensor([[5, 6, 7]]), torch.tensor([[True, False, True]]))
    (tensor([[5, 7]]), tensor([[True, True]]))
    """
    counts = kept.sum(1, keepdim=True)
    order = (~kept).int().argsort(dim=1, stable=True)[:, : max(1, int(counts.max()))]
    there = torch.arange(order.shape[1], device=values.device) < counts
    return values.gather(1, order), there


def content(view: View) -> tuple[Tensor, Tensor, Tensor]:
    """``ids``, ``attended`` and ``words`` of a text's view, ``[B, T]`` all."""
    data = view.data
    if not isinstance(data, dict) or "words" not in data:
        raise PolysenseError(
            "this method hides words, and the views do not tell which tokens are of which word; give it texts"
        )
    return data["ids"], data["attended"], data["words"]


def each_its_own(words: Tensor) -> Tensor:
    """Numbers of words as if every token were one."""
    inner = words >= 0
    return torch.where(inner, inner.cumsum(1) - 1, -1)


def with_vocabulary(encoder: Encoder) -> TextEncoder:
    """The encoder, whose table of embeddings a method shares.

    Raises:
        PolysenseError: for one that has none.
    """
    if not isinstance(encoder, TextEncoder):
        raise encoder.cannot_hide()
    return encoder


@dataclass(frozen=True)
class HideWords:
    """BERT's mask: a share of the tokens is asked for, most of them hidden (https://arxiv.org/abs/1810.04805).

    Of those asked for a share ``random`` shows another token, drawn from the whole vocabulary, and a share
    ``kept`` shows itself. ``whole`` takes all tokens of a word or none.
    """

    ratio: float = 0.15
    random: float = 0.1
    kept: float = 0.1
    whole: bool = False

    def __post_init__(self) -> None:
        if min(self.random, self.kept) < 0 or self.random + self.kept > 1:
            raise PolysenseError(
                f"of the hidden tokens {self.random} are random and {self.kept} kept; choose shares that add"
                " up to at most 1"
            )

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask, and the tokens that are asked for."""
        ids, attended, words = content(view)
        asked = draw_words(words if self.whole else each_its_own(words), self.ratio)
        fate = torch.rand(ids.shape, device=ids.device)
        vocabulary = with_vocabulary(encoder).embeddings.num_embeddings
        other = torch.randint(vocabulary, ids.shape, device=ids.device)
        shown = torch.where(asked & (fate < self.random), other, ids)
        hidden = asked & (fate >= self.random + self.kept)
        data = {"ids": shown, "attended": attended, "words": words, "original": ids}
        return replace(view, data=data).hide(hidden, asked[:, None])


@dataclass(frozen=True)
class HideSpans:
    """Hide spans of tokens, equally many of ``ratio * T / mean`` in texts of one length.

    Where samples are no texts all tokens may be hidden.
    """

    ratio: float
    mean: float

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask."""
        if isinstance(view.data, dict) and "words" in view.data:
            inner = view.data["words"] >= 0
        else:
            data = first_tensor(view.data)
            inner = torch.ones(len(data), *encoder.grid(view.data), dtype=torch.bool, device=data.device)
        return view.hide(draw_spans(inner, self.ratio, self.mean))


@dataclass(frozen=True)
class DeleteWords:
    """Leave a share of the words out, never all of them (TSDAE, https://arxiv.org/abs/2104.06979).

    ``original`` is the whole text, ``written`` is False at its padding.
    """

    ratio: float = 0.6

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The shortened view."""
        ids, attended, words = content(view)
        total = words.amax(1, keepdim=True) + 1
        left = (total - share(total, self.ratio)).clamp(min=1)
        kept = draw(total, left, words.shape[1]).gather(1, words.clamp(min=0)) | (words < 0)
        return replace(view, data=_shortened(view, kept & attended, original=ids, written=attended))


@dataclass(frozen=True)
class CollapseSpans:
    """One hidden token in place of each span, and the spans as a text to write (T5).

    ``original`` is that text: the spans in their order, before each and behind the last one the token with
    which all texts start, where T5 has tokens of their own to count the spans by. ``written`` is False
    behind its end.

    https://arxiv.org/abs/1910.10683
    """

    ratio: float = 0.15
    mean: float = 3.0

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The shortened view with its mask."""
        ids, attended, words = content(view)
        hidden = draw_spans(words >= 0, self.ratio, self.mean)
        begins = hidden & ~torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], 1)
        kept = attended & (~hidden | begins)
        start = ids[:, :1]
        text = torch.stack([start.expand_as(ids), ids], 2).flatten(1)
        part = torch.stack([begins, hidden], 2).flatten(1)
        text, part = torch.cat([text, start], 1), torch.cat([part, torch.ones_like(part[:, :1])], 1)
        original, written = compact(text, part)
        data = _shortened(view, kept, original=original, written=written)
        mask, there = compact(begins, kept)
        return replace(view, data=data).hide(mask & there)


def _shortened(view: View, kept: Tensor, **beside: Tensor) -> dict[str, Tensor]:
    """A text's tokens that are ``kept[B, T]``, and what is to be known beside them."""
    ids, _, words = content(view)
    shorter, there = compact(ids, kept)
    numbers = compact(words, kept)[0].masked_fill(~there, -1)
    return {"ids": shorter, "attended": there, "words": numbers, **beside}
