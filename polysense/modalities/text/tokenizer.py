"""Texts as ids of tokens: trained on the user's texts, or taken over from where a model was trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.errors import PolysenseError, require, unknown
from polysense.modalities.text.vocabularies import KINDS, ROLES, library, of_clip

_TRAINING_CHARACTERS = 20_000_000
"""What a vocabulary is learned from, of more an even part: it hardly changes, and takes seconds."""
_AT_ONCE = 8192
"""Texts that are encoded at once: it bounds the memory that is needed besides the ids."""


@dataclass(frozen=True)
class Tokens:
    """The ids of many texts, one behind the other: text ``i`` has ``ids[starts[i] : starts[i + 1]]``.

    ``words``: the number, in its text, of the word that a token is of; -1 for those around the text.
    ``cut``: how many of the texts were longer.
    """

    ids: NDArray[np.int32]
    words: NDArray[np.int32]
    starts: NDArray[np.int64]
    cut: int

    def batch(self, rows: NDArray[np.int64], pad: int) -> tuple[Tensor, Tensor]:
        """``ids`` int64 and ``attended`` bool, ``[B, T]`` both, of some texts; padding is on the right."""
        ids, attended = self._rows(self.ids, rows, pad)
        return torch.from_numpy(ids), torch.from_numpy(attended)

    def words_of(self, rows: NDArray[np.int64]) -> Tensor:
        """The numbers of words in a batch of some texts, int64 ``[B, T]``, -1 where there is none."""
        return torch.from_numpy(self._rows(self.words, rows, -1)[0])

    def _rows(
        self, values: NDArray[np.int32], rows: NDArray[np.int64], fill: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        first, counts = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        places = np.arange(max(1, int(counts.max(initial=1))))
        there = places < counts[:, None]
        filled = np.full(there.shape, fill, np.int64)
        filled[there] = values[(first[:, None] + places)[there]]
        return filled, there


class Tokenizer:
    """A tokenizer of the library ``tokenizers``, which also is what transformers' fast ones are made of.

    Args:
        backend: the library's own ``Tokenizer``.
        roles: which tokens "pad", "unknown", "start", "end" and "mask" are; by default found by their usual
            names. Where none is for padding it is the end's.

    >>> tokenizer = Tokenizer.train(["a red apple", "a green apple"])
    >>> ids, attended, cut = tokenizer.encode(["a red apple", "apple"], length=8)
    >>> attended.sum(1).tolist(), cut, tokenizer.decode(ids)
    ([7, 3], 0, ['a red apple', 'apple'])
    """

    def __init__(self, backend: Any, roles: Mapping[str, str] | None = None) -> None:
        self.backend = backend
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # a text that says "[MASK]" is not a mask
        if roles is None:
            found = {
                role: [name for name in names if self._id(name) is not None] for role, names in ROLES.items()
            }
            roles = {role: names[0] for role, names in found.items() if names}
        self.roles = dict(roles)
        if "pad" not in self.roles and "end" in self.roles:
            self.roles["pad"] = self.roles["end"]
        if "pad" not in self.roles:
            raise PolysenseError(
                f"the tokenizer has no token for padding; add one to it, called {' or '.join(ROLES['pad'])}"
            )

    # --- where they come from

    @classmethod
    def train(
        cls, texts: Sequence[str], *, vocabulary: int = 8192, kind: str = "bpe", lower: bool = True
    ) -> Tokenizer:
        """Learn a vocabulary from texts in any languages.

        Texts are brought to Unicode's NFKC form; accents stay. "bpe" works on bytes, so that nothing is
        unknown (https://arxiv.org/abs/1909.03341); "wordpiece" is BERT's, on characters. Texts beyond 20
        million characters are represented by an even part of them.

        Raises:
            PolysenseError: for an unknown kind, or a vocabulary that is too small.
        """
        if kind not in KINDS:
            raise unknown("kind of tokenizer", kind, KINDS)
        if vocabulary < 512:
            raise PolysenseError(
                f"a vocabulary of {vocabulary} tokens is too small for words; give 512 or more"
            )
        every = 1 + sum(map(len, texts)) // _TRAINING_CHARACTERS
        return cls(KINDS[kind](texts[::every], vocabulary, lower))

    @classmethod
    def from_json(cls, text: str, roles: Mapping[str, str] | None = None) -> Tokenizer:
        """The tokenizer that a ``tokenizer.json`` describes.

        Raises:
            PolysenseError: for a text that describes none.
        """
        try:
            backend = library().Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain Exceptions
            raise PolysenseError(f"this is no tokenizer.json: {error}") from error
        return cls(backend, roles)

    @classmethod
    def from_transformers(cls, name: str) -> Tokenizer:
        """The tokenizer of a model of transformers, from the Hub or a folder.

        Raises:
            PolysenseError: when the library or the tokenizer is not there, or it is not a fast one.
        """
        transformers: Any = require("transformers", "transformers", f"the tokenizer 'transformers:{name}'")
        try:
            return cls._from_fast(transformers.AutoTokenizer.from_pretrained(name))
        except (OSError, ValueError) as error:
            raise PolysenseError(
                f"the tokenizer 'transformers:{name}' cannot be had ({str(error).splitlines()[0]}); check the"
                " name, or bring its files onto this machine"
            ) from error

    @classmethod
    def from_open_clip(cls, name: str) -> Tokenizer:
        """The tokenizer of a model of open_clip, such as ``ViT-B-32``.

        open_clip's own repairs of broken characters (ftfy) and its HTML entities are not taken over.

        Raises:
            PolysenseError: when the library or the tokenizer is not there, or it is one for SigLIP.
        """
        open_clip: Any = require("open_clip", "open_clip", f"the tokenizer 'open_clip:{name}'")
        if ":" not in name and name not in open_clip.list_models():  # it would give CLIP's without a word
            raise unknown("model of open_clip", name, open_clip.list_models())
        try:
            theirs = open_clip.get_tokenizer(name)
        except (OSError, ValueError, RuntimeError) as error:
            raise PolysenseError(
                f"the tokenizer 'open_clip:{name}' cannot be had ({str(error).splitlines()[0]}); check the"
                " name"
            ) from error
        if hasattr(theirs, "bpe_ranks"):
            return cls(of_clip(theirs))
        if type(theirs).__name__ == "HFTokenizer":
            return cls._from_fast(theirs.tokenizer)
        raise PolysenseError(
            f"the tokenizer of 'open_clip:{name}' cleans its texts in a way of its own; take its twin by"
            " transformers:NAME"
        )

    @classmethod
    def of(cls, spec: str) -> Tokenizer:
        """The tokenizer ``transformers:NAME``, ``open_clip:NAME``, or that of a ``tokenizer.json``, by path.

        Raises:
            PolysenseError: when there is none.
        """
        source, _, name = spec.partition(":")
        if source == "transformers":
            return cls.from_transformers(name)
        if source == "open_clip":
            return cls.from_open_clip(name)
        path = Path(spec).expanduser()
        if not path.is_file():
            raise PolysenseError(
                f"there is no tokenizer {spec!r}; give {' or '.join(map(repr, KINDS))} to train one,"
                " transformers:NAME, open_clip:NAME, or the path of a tokenizer.json"
            )
        return cls.from_json(path.read_text(encoding="utf-8"))

    @classmethod
    def _from_fast(cls, theirs: Any) -> Tokenizer:
        backend = getattr(theirs, "backend_tokenizer", None)
        if backend is None:
            raise PolysenseError(
                f"{type(theirs).__name__} is no fast tokenizer of transformers; choose a model that has one"
            )
        given = {
            "pad": theirs.pad_token,
            "unknown": theirs.unk_token,
            "start": theirs.cls_token or theirs.bos_token,
            "end": theirs.sep_token or theirs.eos_token,
            "mask": theirs.mask_token,
        }
        return cls(backend, {role: str(token) for role, token in given.items() if token is not None})

    # --- what they know

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def pad(self) -> int:
        """The id on the right of texts that are shorter than others."""
        return self._role("pad")

    @property
    def start(self) -> int | None:
        """The id in front of every text."""
        return self._id(self.roles.get("start"))

    @property
    def end(self) -> int | None:
        """The id behind every text."""
        return self._id(self.roles.get("end"))

    @property
    def mask(self) -> int:
        """The id that stands where a token is hidden.

        Raises:
            PolysenseError: for a tokenizer without one.
        """
        return self._role("mask")

    @cached_property
    def special(self) -> Tensor:
        """``[S]``: the ids that stand for no part of a text; the unknown does."""
        added = self.backend.get_added_tokens_decoder()
        ids = {number for number, token in added.items() if token.special}
        ids |= {number for token in self.roles.values() if (number := self._id(token)) is not None}
        return torch.tensor(sorted(ids - {self._id(self.roles.get("unknown"))}))

    def unknown_share(self, texts: Sequence[str]) -> float:
        """The share of the texts' tokens that the vocabulary does not know."""
        number = self._id(self.roles.get("unknown"))
        if number is None or not texts:
            return 0.0
        ids = np.concatenate([np.asarray(one.ids) for one in self._encodings(texts, special=False)])
        return float((ids == number).mean()) if len(ids) else 0.0

    def inner(self, ids: Tensor, attended: Tensor) -> Tensor:
        """``[B, T]``: which tokens of ``ids``, ``attended`` ``[B, T]`` stand for a part of their text."""
        return attended & ~torch.isin(ids, self.special.to(ids.device))

    def to_json(self) -> str:
        """What goes into a ``tokenizer.json``."""
        return str(self.backend.to_str())

    # --- what they do

    def tokens(self, texts: Sequence[str], length: int) -> Tokens:
        """The ids of all texts, each cut to ``length``; the end stays at the end of those that are cut."""
        ids, words, counts, cut = [], [], [], 0
        for at in range(0, len(texts), _AT_ONCE):
            for one in self._encodings(texts[at : at + _AT_ONCE]):
                own, of = one.ids, [-1 if number is None else number for number in one.word_ids]
                if len(own) > length:
                    cut, last = cut + 1, -1 if own[-1] == self.end else length - 1
                    own, of = ([*each[: length - 1], each[last]] for each in (own, of))
                counts.append(len(own))
                ids.append(np.asarray(own, np.int32))
                words.append(np.asarray(of, np.int32))
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return Tokens(np.concatenate(ids), np.concatenate(words), starts, cut)

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor, int]:
        """``ids`` int64 and ``attended`` bool, ``[B, T]`` both, and how many texts were cut to ``length``."""
        tokens = self.tokens(texts, length)
        return *tokens.batch(np.arange(len(texts)), self.pad), tokens.cut

    def decode(self, ids: Tensor) -> list[str]:
        """The texts of ``ids[B, T]``, without the tokens around them; hidden ones show as such."""
        around = {self.pad, self.start, self.end}
        kept = [[number for number in row if number not in around] for row in ids.tolist()]
        return [text.strip() for text in self.backend.decode_batch(kept, skip_special_tokens=False)]

    def __reduce__(self) -> Any:
        return Tokenizer.from_json, (self.to_json(), self.roles)

    def _encodings(self, texts: Sequence[str], special: bool = True) -> Iterable[Any]:
        encodings: list[Any] = self.backend.encode_batch(list(texts), add_special_tokens=special)
        return encodings

    def _id(self, token: str | None) -> int | None:
        number: int | None = None if token is None else self.backend.token_to_id(token)
        return number

    def _role(self, role: str) -> int:
        number = self._id(self.roles.get(role))
        if number is None:
            raise PolysenseError(f"the tokenizer has no token for {role}; choose another")
        return number
