"""New rows of a table, free or by condition, and holes filled by draws; from one masked-cell network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.conditions import Allowed, Box, Condition
from polysense.deployment.folder import CONFIG
from polysense.deployment.run import Run, load
from polysense.encoders.cell_transformers import CellTransformer
from polysense.errors import PolysenseError, unknown
from polysense.tabular.draws import Draws, Region, Wish, shuffled
from polysense.tabular.language_model import Writer, understand_by_model
from polysense.tabular.modality import Table
from polysense.tabular.prompts import understand
from polysense.tabular.reading import with_dates
from polysense.tabular.sampler import Draft, Sampler

logger = logging.getLogger(__name__)

TABLE = "table.parquet"
"""Where a run folder keeps the table that it learned from, if that was an object in memory."""


class Generator:
    """Draws rows like those of a table, from a run of ``masked_cells`` on it.

    Any columns may be given, whole or as ranges and sets; the others are drawn one after the other, each
    given all that is known by then. Every drawn value is one that its column was seen with, so types,
    decimals and levels stay; columns of text cannot be drawn and stay missing. The model is that of TabMT
    (https://arxiv.org/abs/2312.06089).

    Args:
        run: a trained run; its encoder must be a ``cell_transformer``.
        frame: the columns of the training table that it learned from.

    Raises:
        PolysenseError: for any other run.
    """

    def __init__(self, run: Run, frame: pd.DataFrame) -> None:
        encoder, table = _parts(run)
        self.path, self.frame, self.schema, self.coder = run.path, frame, table.schema, table.coder
        self.gaps = bool(run.config["options"].get("gaps"))
        self.sampler = Sampler(encoder, self.coder, frame, gaps=self.gaps)

    @classmethod
    def load(cls, run: str | Path | Run, data: Any = None) -> Generator:
        """The generator of a run folder with its table; ``data`` only where that is no longer found.

        Raises:
            PolysenseError: for a folder that is no run of masked_cells, or data that are missing or do not
                fit it.
        """
        loaded = run if isinstance(run, Run) else load(run)
        _, table = _parts(loaded)
        source, kept = loaded.config["data"]["source"] if data is None else data, loaded.path / TABLE
        if source is not None:
            reading = {name: value for name, value in loaded.config["reading"].items() if value is not None}
            return cls(loaded, table.read(source, **reading).frame)
        if not kept.is_file():
            was = loaded.config["data"]["was"]
            raise PolysenseError(f"this run's table was {was} in memory: give it again, as data=")
        return cls(loaded, table.read(kept, label="").frame)

    def sample(
        self,
        n: int,
        *,
        given: Mapping[str, Any] | pd.DataFrame | None = None,
        where: str | None = None,
        prompt: str | None = None,
        constraints: Sequence[str] = (),
        words: Mapping[str, str] | None = None,
        language_model: str | Path | Writer | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        avoid_copies: bool = False,
    ) -> pd.DataFrame:
        """Draw ``n`` rows with the table's columns, order and types.

        One range and any equalities are drawn exactly as the model has them. Where several columns are
        restricted, 8 times as many rows are drawn by truncation and resampled by the product of the masses
        that it left. Alternatives (``or``) are drawn by their mass; comparisons between columns by rejection.

        Args:
            n: how many; with a table given, how many for each of its rows.
            given: by column a value, a range ``(low, high)`` with None for open ends, a list or set of
                values, or None for missing. Or a table of rows: what is known of each is kept, what is
                missing or left out is drawn, all at once, or row after row where a condition is to hold.
            where: a condition such as ``temp > 80 and origin in ["JFK"]``; all rows satisfy it.
            prompt: a sentence, see :func:`.prompts.understand`; it is told as the condition it means.
            constraints: further conditions, between columns, such as ``"dewp <= temp"``.
            words: what words of the prompt mean, as conditions.
            language_model: reads the prompt instead of the rules: a causal one of transformers, by folder or
                name, or a function, see :func:`.language_model.understand_by_model`; none is shipped.
            seed: the same seed draws the same rows.
            temperature: below 1 the likely becomes likelier.
            avoid_copies: draw no row that equals a training row in all columns that are learned.

        Returns:
            The rows, with the index of those given; in their ``attrs["report"]``: ``query``, the condition
            that they satisfy; ``effective_sample_size``, the share of the pool's rows that count after
            weighting, the least of any row given; ``acceptance``, the share not rejected; ``copies``, how
            many rows are training rows.

        Raises:
            PolysenseError: for a condition that names no column, contradicts itself or is never met, a
                prompt with unknown words, or numbers out of range.
        """
        if n < 1:
            raise PolysenseError(f"n is {n}; draw at least one row")
        if not temperature > 0:
            raise PolysenseError(f"the temperature is {temperature}; it must be above 0")
        conditions = [where] if where else []
        if prompt is not None:
            conditions.append(self._read(prompt, words, language_model))
            logger.info("the prompt was understood as: %s", conditions[-1])
        elif language_model is not None:
            raise PolysenseError("a language model reads prompts: give one, or leave the model out")
        conditions += constraints
        condition = " and ".join(f"({each})" for each in conditions)
        known, asked = self._context(given)
        draws = Draws(self.sampler, torch.Generator().manual_seed(seed), temperature, avoid_copies)
        picks = self._granted(n, known, asked, condition, draws)
        rows = self._assembled(picks, known.take(np.repeat(np.arange(len(known)), n)))
        if isinstance(given, pd.DataFrame):
            rows.index = given.index.repeat(n)
        rows.attrs["report"] = {
            "query": " and ".join(conditions),
            "effective_sample_size": round(draws.effective, 4),
            "acceptance": round(draws.acceptance, 4),
            "copies": int(self.sampler.copies(picks).sum()),
        }
        return rows

    def complete(self, frame: pd.DataFrame, *, seed: int = 0, temperature: float = 1.0) -> pd.DataFrame:
        """Fill the holes of rows with joint draws; columns that are left out are filled whole.

        What is known of a row stays as it is, and no hole is left where the table had values.

        Raises:
            PolysenseError: for rows that do not fit the schema.
        """
        known, generator = self.checked(frame), torch.Generator().manual_seed(seed)
        draft, order = self.sampler.given(known), shuffled(self.coder.names, generator)
        self.sampler.draw(draft, order, generator, allowed=self.sampler.not_missing, temperature=temperature)
        return self._assembled(draft.picks.numpy(), known).set_axis(frame.index)

    def checked(self, frame: pd.DataFrame, *, unseen: Literal["error", "missing"] = "error") -> pd.DataFrame:
        """Rows of which some columns are known, with all columns of the schema.

        Raises:
            PolysenseError: for rows that do not fit the schema.
        """
        absent = {name: None for name in self.schema.names if name not in frame}
        return self.schema.check(with_dates(frame).assign(**absent), unseen=unseen)

    def _read(self, prompt: str, words: Mapping[str, str] | None, model: str | Path | Writer | None) -> str:
        """The condition that a prompt means."""
        if model is None:
            return understand(prompt, self.frame, self.schema, words=words)
        if words:
            raise PolysenseError("words are for prompts that are read by rules; leave them or the model out")
        return understand_by_model(prompt, self.frame, self.schema, model)

    def _context(
        self, given: Mapping[str, Any] | pd.DataFrame | None
    ) -> tuple[pd.DataFrame, dict[str, Allowed]]:
        """The rows to start from, with what is known of them, and what else their columns may hold."""
        if isinstance(given, pd.DataFrame):
            if given.empty:
                raise PolysenseError("the table given has no rows or no columns; leave it out")
            known, asked = given.reset_index(drop=True), {}
        else:
            for name in given or {}:
                self._learned(name)
            values = {name: value for name, value in (given or {}).items() if _is_value(value)}
            known = pd.DataFrame([values], index=[0])
            asked = {name: _allowed(value) for name, value in (given or {}).items() if name not in values}
        known = self.checked(known)
        self._check_range(known)
        return known, asked

    def _granted(
        self, n: int, known: pd.DataFrame, asked: Mapping[str, Allowed], condition: str, draws: Draws
    ) -> NDArray[Any]:
        """The values of ``n`` rows for each of which some cells are known: ``[n * rows, columns]``."""
        if not (asked or condition or draws.avoid_copies):
            return draws.free(self._start(known).take(torch.arange(len(known)).repeat_interleave(n)))
        picks = []
        for at, row in enumerate(known.index):
            try:
                picks.append(draws.rows(n, self._wish(known.iloc[[at]], asked, condition), self._assembled))
            except PolysenseError as error:
                if len(known) == 1:
                    raise
                raise PolysenseError(f"of row {row!r} of the table given: {error}") from error
        return np.concatenate(picks)

    def _start(self, known: pd.DataFrame) -> Draft:
        """The rows as far as they are known, and which values of the table these are; -2 is none of them."""
        start = self.sampler.given(known)
        for at, (name, support) in enumerate(self.sampler.supports.items()):
            places = pd.Index(support.values).get_indexer(pd.Index(known[name]))
            picks = torch.from_numpy(np.where(places < 0, -2, places))
            start.picks[:, at] = torch.where(start.hidden[:, at], start.picks[:, at], picks)
        return start

    def _wish(self, known: pd.DataFrame, asked: Mapping[str, Allowed], query: str) -> Wish:
        """What the rows that start from one must satisfy."""
        condition = Condition(query, self.schema.names) if query else None
        regions, why = [], None
        for box in condition.boxes() if condition else [Box()]:
            columns = dict(box.columns)
            for name, allowed in asked.items():
                columns[name] = columns.get(name, Allowed()).both(allowed)
            try:
                regions.append(self._region(columns, known))
            except PolysenseError as error:
                why = error
        if not regions and why is not None:
            raise why
        return Wish(self._start(known), known, regions, condition)

    def _region(self, columns: Mapping[str, Allowed], known: pd.DataFrame) -> Region:
        region: dict[str, Tensor] = {}
        for name, allowed in columns.items():
            self._learned(name)
            fixed = known[name].notna().all()
            may = allowed.mask(known[name] if fixed else self.sampler.supports[name].values)
            if not may.any():
                raise PolysenseError(
                    f"no row can be drawn: of {name!r} no value that was seen is allowed"
                    f" ({self._seen(name)}); widen the condition"
                )
            if not fixed:
                region[name] = torch.tensor(may)
        return region

    def _seen(self, name: str) -> str:
        column = self.schema[name]
        gaps = "sometimes missing" if column.missing else "never missing"
        taught = "" if self.gaps or not column.missing else ", and gaps were not learned: train with gaps"
        return f"it has {column.describe()}, and is {gaps}{taught}"

    def _learned(self, name: str) -> None:
        if name not in self.schema.names:
            raise unknown("column", str(name), self.schema.names)
        if name not in self.coder.names:
            raise PolysenseError(
                f"the column {name!r} is {self.schema[name].kind}, which is not learned: leave it out of the"
                " condition"
            )

    def _check_range(self, known: pd.DataFrame) -> None:
        for column in self.schema.of_kind("number", "integer"):
            low, high = self.frame[column.name].min(), self.frame[column.name].max()
            given = known[column.name].dropna()
            outside = given[(given < low) | (given > high)]
            if len(outside):
                raise PolysenseError(
                    f"{column.name} is given as {outside.iloc[0]}, but the table has {low} to {high}; give a"
                    " value in between"
                )

    def _assembled(self, picks: NDArray[Any], known: pd.DataFrame) -> pd.DataFrame:
        """The rows that were picked, with what is known of them, and all columns in the table's types."""
        made = self.sampler.table(picks)
        for column in self.schema.columns:
            cells, dtype = known[column.name].reset_index(drop=True), self.frame[column.name].dtype
            if column.name in made:
                drawn = made[column.name].astype(object).where(cells.isna(), cells.astype(object))
                made[column.name] = drawn.astype(dtype) if cells.notna().any() else made[column.name]
            elif cells.notna().any():
                made[column.name] = cells
            else:
                made[column.name] = _aside(self.frame[column.name], column.kind, len(picks))
        return pd.DataFrame({name: made[name].array for name in self.frame.columns})


def is_run(data: Any) -> bool:
    """Whether this is a run folder, and no table."""
    return isinstance(data, str | Path) and (Path(data) / CONFIG).is_file()


def _parts(run: Run) -> tuple[CellTransformer, Table]:
    """The encoder and the modality of a run that can draw rows."""
    if not isinstance(run.encoder, CellTransformer) or not isinstance(run.modality, Table):
        raise PolysenseError(
            f"{run.path} cannot draw rows; pretrain the method masked_cells on a table, with the encoder"
            " 'cell_transformer'"
        )
    return run.encoder, run.modality


def _is_value(given: Any) -> bool:
    return not (given is None or isinstance(given, tuple | list | set | frozenset) or pd.isna(given))


def _allowed(given: Any) -> Allowed:
    """What a context that is no value allows."""
    if isinstance(given, tuple):
        if len(given) != 2:
            raise PolysenseError(f"a range is (low, high), and {given!r} has {len(given)} ends; use a list")
        return Allowed(*given)
    return Allowed(among=tuple(given)) if isinstance(given, list | set | frozenset) else Allowed(missing=True)


def _aside(values: pd.Series[Any], kind: str, count: int) -> pd.Series[Any]:
    """A column that is not learned: constants stay, identifiers of integers go on, texts are missing."""
    if kind == "constant":
        return values.take(np.arange(count) % len(values)).reset_index(drop=True)
    if kind == "identifier" and pd.api.types.is_integer_dtype(values.dtype):
        return pd.Series(int(values.max()) + 1 + np.arange(count)).astype(values.dtype)
    return pd.Series([None] * count, dtype=values.dtype)
