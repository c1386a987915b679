"""Filling holes: with the most likely value or with draws, and how sure that is."""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from polysense.errors import PolysenseError, unknown
from polysense.tabular.answers import Answer
from polysense.tabular.augmentation.draft import check_column, check_table, framed, names_of
from polysense.tabular.completion import ByCells, ByColumn, Completer, Gaps, completed, uncertainty
from polysense.tabular.fillers import HOWS, fill_by_mode
from polysense.tabular.generate import Generator
from polysense.tabular.keeping import read_fillers, write_fillers
from polysense.tabular.reading import to_frame
from polysense.tabular.schema import Schema
from polysense.tabular.trees import MOST_LEVELS, Features
from polysense.tabular.writing import check_out, write_frame

logger = logging.getLogger(__name__)

CELLS = "cells"
"""The way to fill that learns a network."""


class Imputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fills the holes of tables: fitted on one, applied to any with the same columns.

    ``trees`` predict each column from all others by boosted trees, which take gaps and categories as they
    are; ``mode`` takes the most frequent level, and the median; ``cells`` asks one masked-cell network
    (https://arxiv.org/abs/2312.06089) for the odds of all gaps of a row, and draws them jointly. Numbers stay
    within what was seen, integers and dates keep to their steps. A column of text, or for trees of more than
    200 levels, is left to its mode; identifiers stay missing; both is told. Observed cells never change. A
    transformer of scikit-learn, for pipelines too.

    Args:
        how: trees, mode or cells.
        schema: of the columns, by default inferred where it is fitted.
        model: for cells, a generator or its run folder; by default one is trained by :meth:`fit`, which
            leaves a run folder.
        run: for cells, where that folder goes, by default ``runs/masked_cells-cell_transformer-NUMBER``.
        max_time: for cells, how long to train: 90s, 3min; by default from the table's size.
        seed: of the trees or the network.

    >>> frame = pd.DataFrame({"x": [1.5, 2.5, None], "kind": ["a", "a", None]})
    >>> Imputer("mode").fit(frame).transform(frame).loc[2].astype(str).tolist()
    ['2.0', 'a']
    """

    def __init__(
        self,
        how: str = "trees",
        *,
        schema: Schema | None = None,
        model: Generator | str | Path | None = None,
        run: str | Path | None = None,
        max_time: str | float | None = None,
        seed: int = 0,
    ) -> None:
        self.how, self.schema, self.seed = how, schema, seed
        self.model, self.run, self.max_time = model, run, max_time

    def fit(self, X: pd.DataFrame, y: Any = None, *, columns: Iterable[str] | None = None) -> Imputer:
        """Learn to fill columns, by default all, from the rows in which they are observed.

        Raises:
            PolysenseError: for an unknown way or column, an empty table, values of mixed types, or a model
                that cannot fill tables.
        """
        if self.how not in (*HOWS, CELLS):
            raise unknown("way to impute", self.how, (*HOWS, CELLS))
        if self.how != CELLS and (self.model, self.run, self.max_time) != (None, None, None):
            raise PolysenseError(
                f"model, run and max_time are for cells, and how is {self.how!r}; leave them out"
            )
        check_table(X)
        names = names_of(X) if columns is None else [check_column(X, name) for name in columns]
        self.schema_ = self.schema or Schema.infer(X)
        self.completers_: list[Completer] = []
        if self.how == CELLS:
            self.completers_.append(ByCells(self._generator(X)))
            names = [name for name in names if name not in self.completers_[0].columns]
        self.completers_.append(self._by_column(X, names))
        return self

    def transform(
        self, X: pd.DataFrame, *, draws: int = 1, with_uncertainty: bool = False, seed: int = 0
    ) -> pd.DataFrame:
        """The table with its holes filled; a column that is missing altogether gets the type it had.

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
        gaps = self._gaps(X)
        like = self._like(X, gaps)
        answers: dict[str, Answer] = {}
        if draws == 1 or with_uncertainty:
            for completer in self.completers_:
                answers |= completer.answers(X, _of(gaps, completer))
        beside = uncertainty(X, like, gaps, answers) if with_uncertainty else {}
        if draws == 1:
            best = {name: answer.best(like[name]) for name, answer in answers.items()}
            return framed(completed(X, gaps, best) | beside, X.index)
        rngs = np.random.default_rng(seed).spawn(draws)
        drawn = [completer.drawn(X, _of(gaps, completer), like, rngs) for completer in self.completers_]
        completions = [
            framed(completed(X, gaps, dict(ChainMap(*parts))) | beside, X.index)
            for parts in zip(*drawn, strict=True)
        ]
        return pd.concat(completions, keys=range(draws), names=["draw"])

    def save(self, path: str | Path) -> Path:
        """Write what was learned to a file of arrays, for :meth:`load`; nothing in it is a pickle.

        Raises:
            PolysenseError: before it was fitted, for another suffix than .npz, where the disk refuses, and
                for cells, whose run folder is kept already.
        """
        *networks, fillers = self._fitted()
        if networks:
            raise _kept_already()
        assert isinstance(fillers, ByColumn)
        checked = check_out(path, overwrite=True, suffixes=(".npz",), what="an imputer")
        write_fillers(checked, self.how, self.schema_, fillers)
        return checked

    @classmethod
    def load(cls, path: str | Path) -> Imputer:
        """The fitted imputer that :meth:`save` wrote; it fills the very same.

        Raises:
            PolysenseError: for a file that is none, damaged, or of another version of scikit-learn.
        """
        how, schema, fillers = read_fillers(Path(path))
        imputer = cls(how, schema=schema)
        imputer.schema_, imputer.completers_ = schema, [fillers]
        return imputer

    def _generator(self, frame: pd.DataFrame) -> Generator:
        """The one that was given, or one that is trained now."""
        if isinstance(self.model, Generator):
            return self.model
        if self.model is not None:
            return Generator.load(self.model)
        from polysense.tasks.generation import fit_generator  # what trains takes a while to import

        kinds = {column.name: column.kind for column in self.schema_.columns}
        generator = fit_generator(
            frame, out=self.run, kinds=kinds, max_time=self.max_time, gaps=False, seed=self.seed
        )
        logger.info("the network is kept in %s, and can be given as the model again", generator.path)
        return generator

    def _by_column(self, frame: pd.DataFrame, names: Iterable[str]) -> ByColumn:
        """A filler for each of these columns; where a network fills the others, its mode."""
        features = Features.of(frame, self.schema_)
        matrix, fillers = features.matrix(frame), {}
        for name in names:
            column, learn = self.schema_[name], HOWS.get(self.how, fill_by_mode)
            if column.kind == "identifier" or frame[name].isna().all():
                continue
            if column.kind == "text" or len(column.levels or ()) > MOST_LEVELS:
                logger.warning("%s has too many different values to predict: its mode fills it", name)
                learn = fill_by_mode
            fillers[name] = learn(frame[name], column.kind, matrix, features, self.seed)
        return ByColumn(features, fillers)

    def _fitted(self) -> list[Completer]:
        if not hasattr(self, "completers_"):
            raise PolysenseError("this imputer has learned nothing yet: call fit first")
        return self.completers_

    def _like(self, frame: pd.DataFrame, gaps: Gaps) -> pd.DataFrame:
        """The types of the columns; of those that are missing altogether the ones that were learned."""
        empty = [name for name, rows in gaps.items() if len(rows) == len(frame)]
        types = {name: pd.Series(dtype=self.schema_[name].pandas_dtype) for name in empty}
        return frame.iloc[:0].assign(**types)

    def _gaps(self, frame: pd.DataFrame) -> Gaps:
        """The rows to fill in each column, fewest first."""
        able = {name for completer in self._fitted() for name in completer.columns}
        self.schema_.check(frame, unseen="missing")
        gaps = {name: np.flatnonzero(frame[name].isna()) for name in names_of(frame)}
        left = [name for name, rows in gaps.items() if len(rows) and name not in able]
        if left:
            logger.warning("left missing, since there is nothing to tell them from: %s", ", ".join(left))
        filled = {name: rows for name, rows in gaps.items() if len(rows) and name in able}
        return dict(sorted(filled.items(), key=lambda gap: len(gap[1])))


def impute(
    data: Any,
    *,
    how: str = "trees",
    draws: int = 1,
    with_uncertainty: bool = False,
    model: Imputer | Generator | str | Path | None = None,
    run: str | Path | None = None,
    max_time: str | float | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Fill the holes of a table; observed cells, columns, types and the index stay as they are.

    Args:
        data: a DataFrame (pandas or polars), an Arrow table, a CSV, TSV, Parquet or JSONL file, or a
            built-in table.
        how: trees, mode or cells, see :class:`Imputer`; of a model its own.
        draws: 1 for the most likely values, more for random completions, see :meth:`Imputer.transform`.
        with_uncertainty: add intervals and probabilities, see :meth:`Imputer.transform`.
        model: what learned from another table: an imputer or the file it was saved in, or a generator or its
            run folder; else one learns from this.
        run: for cells, where the folder of the network goes.
        max_time: for cells, how long to train.
        seed: of what learns, and of the draws.

    Raises:
        PolysenseError: for a table that is none, an unknown way, a model that is none, or less than one draw.

    >>> table = pd.DataFrame({"x": [1, 2, 9, None], "kind": ["a", None, "a", "b"]}).astype({"x": "Int64"})
    >>> impute(table, how="mode").x.tolist()
    [1, 2, 9, 2]
    """
    frame = to_frame(data, least=2 if model is None else 1)
    imputer = _imputer(frame, how, model, run, max_time, seed, _holed(frame))
    return imputer.transform(frame, draws=draws, with_uncertainty=with_uncertainty, seed=seed)


def impute_file(
    data: Any,
    out: str | Path,
    *,
    how: str = "trees",
    draws: int = 1,
    with_uncertainty: bool = False,
    model: str | Path | None = None,
    run: str | Path | None = None,
    max_time: str | float | None = None,
    save: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Fill the holes of a table, and write it to a file. Observed cells stay as they are.

    Args:
        data: a CSV, TSV, Parquet or JSONL file, or a built-in table; from Python also a DataFrame.
        out: the file; .parquet, .csv or .tsv.
        how: trees (boosted ones, each column from all others), mode (the most frequent, the median) or cells
            (a network, trained for as long as max_time says).
        draws: 1 for the most likely values, more for random completions, told apart by a column draw.
        with_uncertainty: write columns NAME_low and NAME_high, or NAME_probability, for what was filled.
        model: what learned from another table: a file that --save wrote, or the run folder of a generator.
        run: for cells, where the run folder goes.
        max_time: for cells, how long to train: 90s, 3min; by default from the table's size.
        save: a file (.npz) to keep what the trees or the mode learned, for --model.
        seed: the same seed fills the same.
        overwrite: replace the files that are there.

    Returns:
        The file.

    Raises:
        PolysenseError: for a table that cannot be read, an unknown way, a model that is none, or a file that
            exists.

    $ polysense impute holes.csv --out whole.parquet --save imputer.npz
    $ polysense impute more.csv --model imputer.npz --out more_whole.parquet
    $ polysense impute builtin:weather --how cells --max-time 90s --draws 5 --out completions.parquet
    """
    path = check_out(out, overwrite=overwrite)
    if save is not None:
        if how == CELLS:
            raise _kept_already()
        check_out(save, overwrite=overwrite, suffixes=(".npz",), what="an imputer")
    frame = to_frame(data, least=2 if model is None else 1)
    columns = names_of(frame) if save is not None else _holed(frame)
    imputer = _imputer(frame, how, model, run, max_time, seed, columns)
    filled = imputer.transform(frame, draws=draws, with_uncertainty=with_uncertainty, seed=seed)
    if draws > 1:
        filled = filled.reset_index("draw")
    if save is not None:
        imputer.save(save)
    write_frame(filled.reset_index(drop=True) if isinstance(frame.index, pd.RangeIndex) else filled, path)
    return path


def _imputer(
    frame: pd.DataFrame,
    how: str,
    model: Imputer | Generator | str | Path | None,
    run: str | Path | None,
    max_time: str | float | None,
    seed: int,
    columns: Iterable[str],
) -> Imputer:
    """The imputer that a model is or belongs to, or else one that learns columns from the table."""
    if isinstance(model, Imputer):
        return model
    if isinstance(model, str | Path) and not Path(model).is_dir():
        return Imputer.load(model)
    way = how if model is None else CELLS
    return Imputer(way, model=model, run=run, max_time=max_time, seed=seed).fit(frame, columns=columns)


def _kept_already() -> PolysenseError:
    return PolysenseError("the network of cells is kept in its run folder: give that as model, and save none")


def _holed(frame: pd.DataFrame) -> list[str]:
    return [name for name in names_of(frame) if frame[name].isna().any()]


def _of(gaps: Gaps, completer: Completer) -> Gaps:
    """The gaps of the columns that one completer fills."""
    return {name: rows for name, rows in gaps.items() if name in completer.columns}
