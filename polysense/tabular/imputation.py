"""Filling holes: with the most likely value or with draws, and how sure that is."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from polysense.errors import PolysenseError, unknown
from polysense.tabular.answers import Answer
from polysense.tabular.augmentation.draft import check_column, check_table, framed, names_of, taken
from polysense.tabular.fillers import HOWS, fill_by_mode
from polysense.tabular.reading import to_frame
from polysense.tabular.schema import Schema
from polysense.tabular.trees import MOST_LEVELS, Features
from polysense.tabular.writing import check_out, write_frame

Array = NDArray[Any]

logger = logging.getLogger(__name__)


class Imputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fills the holes of tables: fitted on one, applied to any with the same columns.

    ``trees`` predict each column from all others by boosted trees, which take gaps and categories as they
    are; ``mode`` takes the most frequent level, and the median. Numbers stay within what was seen, integers
    and dates keep to their steps. A column of text, or of more than 200 levels, is left to its mode;
    identifiers stay missing; both is told. Observed cells never change. A transformer of scikit-learn, for
    pipelines too.

    Trees are not saved: as a file they would be a pickle, which is not safe to load. Fit anew, on the same
    rows with the same seed.

    Args:
        how: trees or mode.
        schema: of the columns, by default inferred where it is fitted.
        seed: of the trees.

    >>> frame = pd.DataFrame({"x": [1.5, 2.5, None], "kind": ["a", "a", None]})
    >>> Imputer("mode").fit(frame).transform(frame).loc[2].astype(str).tolist()
    ['2.0', 'a']
    """

    def __init__(self, how: str = "trees", *, schema: Schema | None = None, seed: int = 0) -> None:
        self.how, self.schema, self.seed = how, schema, seed

    def fit(self, X: pd.DataFrame, y: Any = None, *, columns: Iterable[str] | None = None) -> Imputer:
        """Learn to fill columns, by default all, from the rows in which they are observed.

        Raises:
            PolysenseError: for an unknown way or column, an empty table, or values of mixed types.
        """
        if self.how not in HOWS:
            raise unknown("way to impute", self.how, HOWS)
        check_table(X)
        names = names_of(X) if columns is None else [check_column(X, name) for name in columns]
        self.schema_ = self.schema or Schema.infer(X)
        self.features_ = Features.of(X, self.schema_)
        matrix, self.fillers_ = self.features_.matrix(X), {}
        for name in names:
            column, learn = self.schema_[name], HOWS[self.how]
            if column.kind == "identifier" or X[name].isna().all():
                continue
            if column.kind == "text" or len(column.levels or ()) > MOST_LEVELS:
                logger.warning("%s has too many different values to predict: its mode fills it", name)
                learn = fill_by_mode
            self.fillers_[name] = learn(X[name], column.kind, matrix, self.features_, self.seed)
        return self

    def transform(
        self, X: pd.DataFrame, *, draws: int = 1, with_uncertainty: bool = False, seed: int = 0
    ) -> pd.DataFrame:
        """The table with its holes filled.

        Args:
            X: with the columns that it was fitted on.
            draws: 1 for the most likely values; m > 1 for m random completions below each other, with the
                outermost level ``draw`` of the index telling them apart (multiple imputation).
            with_uncertainty: add, for each column with holes, the 90 % interval of a number or date
                (``NAME_low``, ``NAME_high``) or the probability of the most likely level
                (``NAME_probability``); missing where a cell was observed.
            seed: of the draws.

        Raises:
            PolysenseError: before it was fitted, for a table with other columns, or less than one draw.
        """
        if draws < 1:
            raise PolysenseError(f"draws is {draws}, but at least one completion is made")
        gaps, matrix = self._gaps(X), self.features_.matrix(X)
        answers = {name: self.fillers_[name](matrix[rows]) for name, rows in gaps.items()}
        beside = _uncertainty(X, gaps, answers) if with_uncertainty else {}
        if draws == 1:
            best = {name: answer.best(X[name]) for name, answer in answers.items()}
            return framed(_filled(X, gaps, best) | beside, X.index)
        rngs = np.random.default_rng(seed).spawn(draws)
        completions = [
            framed(_filled(X, gaps, self._drawn(X, gaps, matrix.copy(), rng)) | beside, X.index)
            for rng in rngs
        ]
        return pd.concat(completions, keys=range(draws), names=["draw"])

    def _gaps(self, frame: pd.DataFrame) -> dict[str, Array]:
        """The rows to fill in each column, fewest first."""
        if not hasattr(self, "fillers_"):
            raise PolysenseError("this imputer has learned nothing yet: call fit first")
        self.schema_.check(frame, unseen="missing")
        gaps = {name: np.flatnonzero(frame[name].isna()) for name in names_of(frame)}
        left = [name for name, rows in gaps.items() if len(rows) and name not in self.fillers_]
        if left:
            logger.warning("left missing, since there is nothing to tell them from: %s", ", ".join(left))
        able = {name: rows for name, rows in gaps.items() if len(rows) and name in self.fillers_}
        return dict(sorted(able.items(), key=lambda gap: len(gap[1])))

    def _drawn(
        self, frame: pd.DataFrame, gaps: dict[str, Array], matrix: Array, rng: np.random.Generator
    ) -> dict[str, pd.Series[Any]]:
        """One completion: each column is drawn given those drawn before it, so that they fit together."""
        drawn = {}
        for name, rows in gaps.items():
            drawn[name] = self.fillers_[name](matrix[rows]).draw(frame[name], rng)
            own = np.flatnonzero(~self.features_.others(name))
            if len(own):
                matrix[np.ix_(rows, own)] = self.features_.of_column(drawn[name], name)
        return drawn


def impute(
    data: Any,
    *,
    how: str = "trees",
    draws: int = 1,
    with_uncertainty: bool = False,
    seed: int = 0,
    fitted: Imputer | None = None,
) -> pd.DataFrame:
    """Fill the holes of a table; observed cells, columns, types and the index stay as they are.

    Args:
        data: a DataFrame (pandas or polars), an Arrow table, a CSV, TSV, Parquet or JSONL file, or a
            built-in table.
        how: trees or mode, see :class:`Imputer`.
        draws: 1 for the most likely values, more for random completions, see :meth:`Imputer.transform`.
        with_uncertainty: add intervals and probabilities, see :meth:`Imputer.transform`.
        seed: of the trees and the draws.
        fitted: an imputer that learned from another table; else one learns from this.

    Raises:
        PolysenseError: for a table that is none, an unknown way, or less than one draw.

    >>> table = pd.DataFrame({"x": [1, 2, 9, None], "kind": ["a", None, "a", "b"]}).astype({"x": "Int64"})
    >>> impute(table, how="mode").x.tolist()
    [1, 2, 9, 2]
    """
    frame = to_frame(data, least=1 if fitted else 2)
    holed = [name for name in names_of(frame) if frame[name].isna().any()]
    imputer = fitted or Imputer(how, seed=seed).fit(frame, columns=holed)
    return imputer.transform(frame, draws=draws, with_uncertainty=with_uncertainty, seed=seed)


def impute_file(
    data: Any,
    out: str | Path,
    *,
    how: str = "trees",
    draws: int = 1,
    with_uncertainty: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Fill the holes of a table, and write it to a file. Observed cells stay as they are.

    Args:
        data: a CSV, TSV, Parquet or JSONL file, or a built-in table; from Python also a DataFrame.
        out: the file; .parquet, .csv or .tsv.
        how: trees (boosted ones, each column from all others) or mode (the most frequent, the median).
        draws: 1 for the most likely values, more for random completions, told apart by a column draw.
        with_uncertainty: write columns NAME_low and NAME_high, or NAME_probability, for what was filled.
        seed: the same seed fills the same.
        overwrite: replace the file that is there.

    Returns:
        The file.

    Raises:
        PolysenseError: for a table that cannot be read, an unknown way, or a file that exists.

    $ polysense impute holes.csv --out whole.parquet
    $ polysense impute builtin:weather --draws 5 --out completions.parquet
    """
    path = check_out(out, overwrite=overwrite)
    frame = to_frame(data)
    filled = impute(frame, how=how, draws=draws, with_uncertainty=with_uncertainty, seed=seed)
    if draws > 1:
        filled = filled.reset_index("draw")
    write_frame(filled.reset_index(drop=True) if isinstance(frame.index, pd.RangeIndex) else filled, path)
    return path


def _filled(frame: pd.DataFrame, gaps: dict[str, Array], cells: dict[str, pd.Series[Any]]) -> dict[str, Any]:
    """The table's columns with new cells in their gaps."""
    columns = {name: frame[name].array for name in names_of(frame)}
    for name, rows in gaps.items():
        places = np.arange(len(frame))
        places[rows] = len(frame) + np.arange(len(rows))
        columns[name] = taken(pd.concat([frame[name], cells[name]], ignore_index=True), places).array
    return columns


def _uncertainty(
    frame: pd.DataFrame, gaps: dict[str, Array], answers: dict[str, Answer]
) -> dict[str, pd.Series[Any]]:
    """How sure each filled cell is; missing where a cell was observed."""
    columns = {
        f"{name}_{word}": pd.Series(cells.array, index=rows).reindex(range(len(frame)))
        for name, rows in gaps.items()
        for word, cells in answers[name].beside(frame[name]).items()
    }
    for name in columns:
        if name in frame:
            raise PolysenseError(f"the table has a column {name!r}, where its uncertainty goes; rename it")
    return columns
