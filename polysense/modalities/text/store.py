"""Texts in memory, and their tokens, which are made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.modalities.bad import Bad
from polysense.modalities.text.tokenizer import Tokenizer, Tokens


@dataclass(eq=False)
class Texts:
    """Texts that were read; a ``modalities.base.Dataset``.

    ``table``: one row per text, with ``name`` and what else is known of it. ``bad``: name and reason of
    each text that was skipped.
    """

    texts: Sequence[str]
    table: pd.DataFrame
    label: str | None = None
    identity: str | None = None
    evaluation: Mapping[str, Any] | None = None
    bad: Bad = field(default_factory=list)
    _made: tuple[Tokenizer, int, Tokens] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, indices: Sequence[int]) -> Chosen:
        """The texts at these places; nothing is copied or tokenized yet."""
        return Chosen(self, np.asarray(indices, dtype=np.int64))

    def tokens(self, tokenizer: Tokenizer, length: int) -> Tokens:
        """All texts as ids cut to ``length``; the latest are kept, for they are asked for batch by batch."""
        made = self._made
        if made is None or made[0] is not tokenizer or made[1] != length:
            made = self._made = tokenizer, length, tokenizer.tokens(self.texts, length)
        return made[2]


@dataclass(frozen=True)
class Chosen:
    """Some of the texts, ``index[B]`` their places."""

    source: Texts
    index: NDArray[np.int64]
