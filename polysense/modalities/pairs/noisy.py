"""Rules that sort noisy texts from the web out before training, as ALIGN does."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise

from polysense.errors import PolysenseError

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # kana and Han
_NO_DESCRIPTION = re.compile(
    r"https?://|www\.|\.(?:jpe?g|png|gif|webp|bmp|tiff?)\b|^(?:img|dsc|dscn|image|photo|picture|untitled|file)"
    r"[\s_-]*\d*$",
    re.IGNORECASE,
)


def failed_rules(
    texts: Sequence[str],
    pictures: Sequence[Hashable] | None = None,
    *,
    least: int = 3,
    most: int = 20,
    shared: int = 10,
    frequent: int = 100_000_000,
    alt_rules: bool = True,
) -> list[str | None]:
    """For each text the first rule that it fails, None where it describes its picture well enough.

    The rules of ALIGN (https://arxiv.org/abs/2102.05918, section 3): a text has from ``least`` to ``most``
    words, belongs to no more than ``shared`` pictures, and holds no word or pair of words that is not among
    the ``frequent`` most frequent ones of all texts. With ``alt_rules`` it is no address or file name, nor
    a camera's number. Kana and Chinese characters count as a word each.

    Args:
        texts: one for each pair.
        pictures: what tells the pictures apart; if None, each pair has one of its own.
        least, most: number of words.
        shared: pictures a text may have.
        frequent: how many words and pairs of words are taken for frequent.
        alt_rules: whether addresses and file names are left out.

    Raises:
        PolysenseError: when pictures and texts do not match in number, or for limits that no text can keep.

    >>> failed_rules(["a red apple on a plate", "IMG_0231", "apple"])
    [None, 'is an address or a file name', 'has less than 3 words']
    """
    if pictures is not None and len(pictures) != len(texts):
        raise PolysenseError(f"there are {len(texts)} texts and {len(pictures)} pictures; give one for each")
    if not 1 <= least <= most or shared < 1 or frequent < 1:
        raise PolysenseError(
            f"no text can have from {least} to {most} words, {shared} pictures or {frequent} frequent words;"
            " give least up to most, and all at least 1"
        )
    words = [_words(text) for text in texts]
    owners = _owners(texts, pictures)
    known = _frequent(words, frequent)

    def failed(text: str, own: Sequence[str]) -> str | None:
        if alt_rules and _NO_DESCRIPTION.search(text.strip()):
            return "is an address or a file name"
        if len(own) < least:
            return f"has less than {least} words"
        if len(own) > most:
            return f"has more than {most} words"
        if owners[text.strip().lower()] > shared:
            return f"belongs to more than {shared} pictures"
        if known is not None and not known.issuperset(_grams(own)):
            return "holds a rare word or pair of words"
        return None

    return [failed(text, own) for text, own in zip(texts, words, strict=True)]


def _words(text: str) -> list[str]:
    return _WORD.findall(_UNSPACED.sub(lambda found: f" {found[0]} ", text.lower()))


def _grams(words: Sequence[str]) -> list[Hashable]:
    return [*words, *pairwise(words)]


def _owners(texts: Sequence[str], pictures: Sequence[Hashable] | None) -> dict[str, int]:
    """How many different pictures each text has."""
    owners: dict[str, set[Hashable]] = defaultdict(set)
    for place, text in enumerate(texts):
        owners[text.strip().lower()].add(place if pictures is None else pictures[place])
    return {text: len(mine) for text, mine in owners.items()}


def _frequent(words: Sequence[Sequence[str]], count: int) -> set[Hashable] | None:
    """The most frequent words and pairs of words, None where all are."""
    counts = Counter(gram for own in words for gram in _grams(own))
    return None if len(counts) <= count else {gram for gram, _ in counts.most_common(count)}
