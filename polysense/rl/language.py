"""What is said of episodes, an instruction or a narration, as frozen embeddings of sentences."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.deployment.folder import CONFIG
from polysense.deployment.run import Run, load
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError

BAG_OF_WORDS = "bag_of_words"
BUCKETS = 256

_TRANSFORMERS = "transformers:"
_TOKENS = 77
"""Of a sentence for a model of transformers, at most."""

Embedder = Callable[[list[str]], Tensor]
"""From n texts to ``[n, D]``."""


@dataclass(frozen=True)
class Sentences:
    """The different ``texts``, their ``embeddings`` ``[S, D]``, and which one is said of each frame.

    ``which``: ``[N]``, -1 where nothing is said.
    """

    texts: list[str]
    embeddings: Tensor
    which: NDArray[np.int64]

    @classmethod
    def of(cls, said: pd.Series, embedder: str) -> Sentences | None:
        """Of a column with a sentence for each frame; None where there is none at all.

        Raises:
            PolysenseError: for an embedder that there is not.
        """
        which, texts = pd.factorize(said.where(said.astype("string").str.strip() != ""), sort=True)
        if not len(texts):
            return None
        found = [str(text) for text in texts]
        return cls(found, sentence_embedder(embedder)(found), np.asarray(which, np.int64))

    def known(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """What a batch knows: ``instruction`` ``[B]``, the sentence's number, and ``sentence`` ``[B, D]``."""
        instruction = torch.from_numpy(self.which[rows])
        there = (instruction >= 0)[:, None]
        return {"instruction": instruction, "sentence": self.embeddings[instruction.clamp_min(0)] * there}


def sentence_embedder(spec: str) -> Embedder:
    """A frozen encoder of sentences: "bag_of_words", a run on texts, or ``transformers:NAME``, pretrained.

    >>> sentence_embedder("bag_of_words")(["pick up the red ball", "open the door"]).shape
    torch.Size([2, 256])

    Raises:
        PolysenseError: when it is none of these, or cannot be had.
    """
    if spec == BAG_OF_WORDS:
        return bag_of_words
    if spec.startswith(_TRANSFORMERS):
        from polysense.modalities.text.modality import Text

        texts = Text(length=_TOKENS, tokenizer=spec)
        return Run(texts.encoder(spec, pretrained=True), texts, Path(spec), {}).eval().embed
    if not (Path(spec) / CONFIG).is_file():
        raise PolysenseError(
            f"there is no encoder of sentences {spec!r}; give {BAG_OF_WORDS!r}, the folder of a run on texts,"
            f" or {_TRANSFORMERS}NAME"
        )
    run = load(spec)
    run = run.part("text") if isinstance(run.encoder, Towers) else run
    if run.modality.name != "text":
        raise PolysenseError(f"the run {spec} reads {run.modality.name!r}, not texts; give a run on texts")
    return run.embed


def bag_of_words(texts: list[str]) -> Tensor:
    """``[n, 256]`` of length 1: which words a text has, by a hash of each. It knows no similar words.

    >>> red, ball = bag_of_words(["the red ball", "The ball, red!"])
    >>> torch.equal(red, ball)
    True
    """
    bags = torch.zeros(len(texts), BUCKETS)
    for bag, text in zip(bags, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            bag[zlib.crc32(word.encode()) % BUCKETS] += 1
    return torch.nn.functional.normalize(bags, dim=1)
