"""What a run on texts is asked about other tables of texts: which belong together, and who is like whom."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from polysense.errors import PolysenseError
from polysense.evaluation.texts import MatchedTexts, ScoredTexts
from polysense.modalities.base import Modality
from polysense.modalities.pairs.texts import TextPairs
from polysense.modalities.tables import TABLE_SUFFIXES, Loaded, is_hugging_face, read_table
from polysense.modalities.text.modality import Text

log = logging.getLogger("polysense")

PAIRS = (("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("text1", "text2"), ("s1", "s2"))
SCORES = ("score", "similarity", "similarity_score", "relatedness_score")
"""What the columns of texts that people have scored are usually called, and those of the scores."""


def text_task(
    modality: Modality, data: Any, columns: Sequence[str], score: str | None
) -> MatchedTexts | ScoredTexts | None:
    """The texts of two columns to be judged by a run of this modality, or None where none are meant.

    Args:
        modality: the run's, for texts.
        data: a table with columns of texts, anything :meth:`.TextPairs.read` takes.
        columns: those two, where they have no usual names.
        score: the column of numbers that say how alike the two are; where a column has a usual name, of the
            texts too, it is found and told.

    Raises:
        PolysenseError: for a run on something else than texts, and columns that there are not.

    >>> frame = pd.DataFrame({"s1": ["a", "b", "c"], "s2": ["a", "c", "d"], "score": [5, 3, 1]})
    >>> type(text_task(Text(), frame, [], None)).__name__
    'ScoredTexts'
    """
    if not isinstance(modality, Text | TextPairs):
        if columns or score is not None:
            raise PolysenseError(
                f"columns of texts are compared by a run on texts, and this one is on {modality.name!r};"
                " leave out parts and score"
            )
        return None
    frame = _table(data)
    if frame is not None and (score is not None or not columns):
        columns, score = _scored(frame, columns, score)
    if frame is not None and score is not None:
        return ScoredTexts.of(frame, columns, score)
    if not columns:
        return None
    text = modality.text if isinstance(modality, TextPairs) else modality
    return MatchedTexts(TextPairs(columns, text).read(data))


def _table(data: Any) -> pd.DataFrame | None:
    """The table that the data are, if they are one."""
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, str | Path) and str(data).lower().endswith(TABLE_SUFFIXES) and Path(data).is_file():
        return read_table(Path(data), "utf-8").frame
    return Loaded.of(data, "the data set").table()[0] if is_hugging_face(data) else None


def _scored(
    frame: pd.DataFrame, columns: Sequence[str], score: str | None
) -> tuple[Sequence[str], str | None]:
    """The columns of texts and score as they were given, or those of usual names, which is told."""
    names = {str(name).lower(): str(name) for name in frame.columns}
    pair = next(([names[a], names[b]] for a, b in PAIRS if a in names and b in names), [])
    found = next((names[name] for name in SCORES if name in names), None)
    if score is not None:
        if not (columns or pair):
            raise PolysenseError(
                f"the data do not tell which two columns of texts {score!r} is the score of"
                f" ({', '.join(map(str, frame.columns))}): name them with parts"
            )
        return columns or pair, score
    if not pair or found is None:
        return columns, None
    log.info("%r and %r are compared, and with the scores in %r", *pair, found)
    return pair, found
