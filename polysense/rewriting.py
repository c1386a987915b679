"""Texts said in other words: synonyms, or any rewriting of your own such as translating there and back.

What is rewritten stands beside the text as its partner, and a method for texts that belong together brings
the two together. Rewriting may change what a text says, so no method does it by itself.
"""

from __future__ import annotations

import json
import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from polysense.deployment.folder import write_text
from polysense.errors import PolysenseError
from polysense.modalities.builtin import builtin

log = logging.getLogger("polysense")

_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


class Synonyms:
    """Replaces words of a text by others of the same meaning; never what may be a name or a number.

    Words with a capital letter (but the one that begins the text) or a digit beside them stay. Each other
    word that the table knows is replaced with the probability ``share``, one at least.

    Args:
        table: to each word, in small letters, those that may stand in its place.
        share: of the words that the table knows.
        seed: of what is drawn.

    Raises:
        PolysenseError: for a share out of range, or an empty table.

    >>> Synonyms({"big": ["large"], "paris": ["lutetia"]}, share=1.0)("Big boats in Paris")
    'Large boats in Paris'
    """

    def __init__(self, table: Mapping[str, Sequence[str]], share: float = 0.3, seed: int = 0) -> None:
        if not 0 < share <= 1:
            raise PolysenseError(f"share is {share}; give the share of words to replace, above 0 and up to 1")
        if not table:
            raise PolysenseError("the table of synonyms is empty; give words with those that replace them")
        self.table, self.share, self._chance = table, share, random.Random(seed)

    @classmethod
    def of_glosses(cls, share: float = 0.3, seed: int = 0) -> Synonyms:
        """Words that share a definition in ``builtin:glosses``; only of words that have no other meaning."""
        lemmas = [list(many) for many in builtin("builtin:glosses")["lemmas"]]
        meanings = Counter(word for many in lemmas for word in many)
        table: dict[str, list[str]] = defaultdict(list)
        for many in lemmas:
            for word in many:
                plain = meanings[word] == 1 and word.islower() and word.isalpha()
                others = [other for other in many if other != word and other.islower()] if plain else []
                if others:
                    table[word] = others
        return cls(dict(table), share, seed)

    def __call__(self, text: str) -> str:
        """The text with some of its words replaced; as it is where the table knows none of them."""
        known = [found for found in _WORD.finditer(text) if self._may_replace(text, found)]
        if not known:
            return text
        chosen = [found for found in known if self._chance.random() < self.share]
        for found in reversed(chosen or [self._chance.choice(known)]):  # backwards: places before stay right
            other = self._chance.choice(self.table[found[0].lower()])
            other = other[0].upper() + other[1:] if found[0][0].isupper() else other
            text = text[: found.start()] + other + text[found.end() :]
        return text

    def _may_replace(self, text: str, found: re.Match[str]) -> bool:
        word, begins = found[0], not text[: found.start()].strip()
        beside = text[max(0, found.start() - 1) : found.start()] + text[found.end() : found.end() + 1]
        small = word.islower() or (begins and word[1:].islower())
        return small and word.lower() in self.table and not any(map(str.isdigit, beside))


def rewritten(
    texts: Iterable[str], rewrite: Callable[[str], str], *, cache: str | Path | None = None
) -> list[str]:
    """Every text as ``rewrite`` says it; equal texts are rewritten once, and those of the cache never again.

    Args:
        texts: such as a column of a table.
        rewrite: from a text to a text: :class:`Synonyms`, or a model that translates there and back.
        cache: a JSON file that keeps what was rewritten, also when an error stops it half-way.

    Raises:
        PolysenseError: when ``rewrite`` gives no text, or the cache is none.

    >>> rewritten(["a big boat", "a boat"], Synonyms({"big": ["large"]}))
    ['a large boat', 'a boat']
    """
    path = None if cache is None else Path(cache)
    known = {} if path is None or not path.exists() else _read(path)
    before, asked = len(known), list(texts)
    try:
        for text in dict.fromkeys(asked):
            if text not in known:
                known[text] = _text(rewrite(text), text)
    finally:
        if path is not None and len(known) > before:
            write_text(path, json.dumps(known, ensure_ascii=False))
    log.info("%s texts rewritten, %s taken from before", f"{len(known) - before:,}", f"{before:,}")
    return [known[text] for text in asked]


def _read(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PolysenseError(f"{path} holds no rewritten texts ({error}); give another cache") from error
    if not isinstance(known, dict) or not all(isinstance(text, str) for text in known.values()):
        raise PolysenseError(f"{path} holds no rewritten texts; give another cache")
    return known


def _text(made: object, text: str) -> str:
    if not isinstance(made, str) or not made.strip():
        raise PolysenseError(
            f"rewriting {text[:40]!r} gave {made!r} and no text; let it return the text in other words"
        )
    return made
