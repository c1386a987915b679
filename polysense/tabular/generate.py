"""New rows of a table, free or by condition, and holes filled by draws; from one masked-cell network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.conditions import Allowed, Box, Condition
from polysense.deployment.run import Run, load
from polysense.encoders.cell_transformers import CellTransformer
from polysense.errors import PolysenseError, unknown
from polysense.tabular.draws import Draws, Region, Wish, shuffled
from polysense.tabular.modality import Table
from polysense.tabular.prompts import understand
from polysense.tabular.reading import with_dates
from polysense.tabular.sampler import Sampler

logger = logging.getLogger(__name__)


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
        self.frame, self.schema, self.coder = frame, table.schema, table.coder
        self.gaps = bool(run.config["options"].get("gaps"))
        self.sampler = Sampler(encoder, self.coder, frame, gaps=self.gaps)

    @classmethod
    def load(cls, run: str | Path | Run, data: Any = None) -> Generator:
        """The generator of a run folder; ``data`` only where the table was an object in memory.

        Raises:
            PolysenseError: for a folder that is no run of masked_cells, or data that are missing or do not
                fit it.
        """
        loaded = run if isinstance(run, Run) else load(run)
        _, table = _parts(loaded)
        source = loaded.config["data"]["source"] if data is None else data
        if source is None:
            was = loaded.config["data"]["was"]
            raise PolysenseError(f"this run's table was {was} in memory: give it again, as data=")
        reading = {name: value for name, value in loaded.config["reading"].items() if value is not None}
        return cls(loaded, table.read(source, **reading).frame)

    def sample(
        self,
        n: int,
        *,
        given: Mapping[str, Any] | None = None,
        where: str | None = None,
        prompt: str | None = None,
        constraints: Sequence[str] = (),
        words: Mapping[str, str] | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        avoid_copies: bool = False,
    ) -> pd.DataFrame:
        """Draw ``n`` rows with the table's columns, order and types.

        One range and any equalities are drawn exactly as the model has them. Where several columns are
        restricted, 8 times as many rows are drawn by truncation and resampled by the product of the masses
        that it left. Alternatives (``or``) are drawn by their mass; comparisons between columns by rejection.

        Args:
            n: how many.
            given: by column a value, a range ``(low, high)`` with None for open ends, a list or set of
                values, or None for missing.
            where: a condition such as ``temp > 80 and origin in ["JFK"]``; all rows satisfy it.
            prompt: a sentence, see :func:`.prompts.understand`; it is told as the condition it means.
            constraints: further conditions, between columns, such as ``"dewp <= temp"``.
            words: what words of the prompt mean, as conditions.
            seed: the same seed draws the same rows.
            temperature: below 1 the likely becomes likelier.
            avoid_copies: draw no row that equals a training row in all columns that are learned.

        Returns:
            The rows; in their ``attrs["report"]``: ``query``, the condition that they satisfy;
            ``effective_sample_size``, the share of the pool's rows that count after weighting;
            ``acceptance``, the share not rejected; ``copies``, how many rows are training rows.

        Raises:
            PolysenseError: for a condition that names no column, contradicts itself or is never met, a
                prompt with unknown words, or numbers out of range.
        """
        if n < 1:
            raise PolysenseError(f"n is {n}; draw at least one row")
        if isinstance(given, pd.DataFrame):
            raise PolysenseError("given is a table; fill its rows with complete, or give one row as a dict")
        if not temperature > 0:
            raise PolysenseError(f"the temperature is {temperature}; it must be above 0")
        conditions = [where] if where else []
        if prompt is not None:
            conditions.append(understand(prompt, self.frame, self.schema, words=words))
            logger.info("the prompt was understood as: %s", conditions[-1])
        query = " and ".join(f"({each})" for each in (*conditions, *constraints))
        wish = self._wish(given or {}, query)
        draws = Draws(self.sampler, wish, torch.Generator().manual_seed(seed), temperature)
        picks = draws.rows(n, self._assembled, avoid_copies=avoid_copies)
        rows = self._assembled(picks, wish.fixed)
        rows.attrs["report"] = {
            "query": " and ".join(conditions + list(constraints)),
            "effective_sample_size": round(draws.effective, 4),
            "acceptance": round(draws.acceptance, 4),
            "copies": int(self.sampler.copies(picks).sum()),
        }
        return rows

    def complete(self, frame: pd.DataFrame, *, seed: int = 0, temperature: float = 1.0) -> pd.DataFrame:
        """Fill the holes of rows with joint draws; columns that are left out are filled whole.

        What is known of a row stays as it is.

        Raises:
            PolysenseError: for rows that do not fit the schema.
        """
        known = self._checked(frame)
        draft = self.sampler.given(known)
        allowed = {
            name: torch.tensor(support.values.notna().to_numpy(dtype=bool))
            for name, support in self.sampler.supports.items()
        }
        generator = torch.Generator().manual_seed(seed)
        order = shuffled(self.coder.names, generator)
        self.sampler.draw(draft, order, generator, allowed=allowed, temperature=temperature)
        drawn = self.sampler.table(draft.picks.numpy())
        filled = {name: known[name].set_axis(range(len(known))) for name in self.schema.names}
        for name, cells in drawn.items():
            holes = filled[name].isna()
            whole = filled[name].astype(object).where(~holes, cells.astype(object))
            filled[name] = whole.astype(self.frame[name].dtype)
        return pd.DataFrame(filled).set_axis(frame.index)

    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of which some columns are known, with all columns of the schema."""
        absent = {name: None for name in self.schema.names if name not in frame}
        return self.schema.check(with_dates(frame).assign(**absent))

    def _wish(self, given: Mapping[str, Any], query: str) -> Wish:
        for name in given:
            self._learned(name)
        fixed = {name: value for name, value in given.items() if _is_value(value)}
        known = self._checked(pd.DataFrame([fixed], index=[0]))
        self._check_range(known, list(fixed))
        condition = Condition(query, self.schema.names) if query else None
        boxes = condition.boxes() if condition else [Box()]
        asked = {name: _allowed(value) for name, value in given.items() if name not in fixed}
        regions, why = [], None
        for box in boxes:
            columns = dict(box.columns)
            for name, allowed in asked.items():
                columns[name] = columns.get(name, Allowed()).both(allowed)
            try:
                regions.append(self._region(columns, known[list(fixed)]))
            except PolysenseError as error:
                why = error
        if not regions and why is not None:
            raise why
        start = self.sampler.given(known)
        for name in fixed:
            at = self.coder.names.index(name)
            same = np.flatnonzero(self.sampler.supports[name].values == known[name].iloc[0])
            start.picks[:, at] = int(same[0]) if len(same) else -2  # no value of any training row
        return Wish(start, known[list(fixed)], regions, condition)

    def _region(self, columns: Mapping[str, Allowed], fixed: pd.DataFrame) -> Region:
        region: dict[str, Tensor] = {}
        for name, allowed in columns.items():
            self._learned(name)
            values = fixed[name] if name in fixed else self.sampler.supports[name].values
            may = allowed.mask(values)
            if not may.any():
                raise PolysenseError(
                    f"no row can be drawn: of {name!r} no value that was seen is allowed"
                    f" ({self._seen(name)}); widen the condition"
                )
            if name not in fixed:
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

    def _check_range(self, known: pd.DataFrame, names: Sequence[str]) -> None:
        for name in names:
            if self.schema[name].kind in ("number", "integer"):
                low, high = self.frame[name].min(), self.frame[name].max()
                if not low <= known[name].iloc[0] <= high:
                    raise PolysenseError(
                        f"{name} is given as {known[name].iloc[0]}, but the table has {low} to {high}; give a"
                        " value in between"
                    )

    def _assembled(self, picks: NDArray[Any], fixed: pd.DataFrame) -> pd.DataFrame:
        """The rows that were picked, with all columns of the table in their types."""
        made = self.sampler.table(picks)
        for name in map(str, fixed):
            made[name] = fixed[name].take([0] * len(picks)).astype(self.frame[name].dtype)
        for column in self.schema.columns:
            if column.name not in made:
                made[column.name] = _aside(self.frame[column.name], column.kind, len(picks))
        return pd.DataFrame({name: made[name].array for name in self.frame.columns})


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
