"""Between a DataFrame and the cells of an encoder: fitted on one table, and the same for all later ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.encoders.cells import Cells
from polysense.errors import PolysenseError
from polysense.tabular.columns import as_dates, as_floats, plain_value
from polysense.tabular.schema import LEVELLED, Column, Schema

Floats = NDArray[np.float64]

MOST_POINTS = 1000
"""A number's scale is kept as so many points at most."""

_TURNS: Mapping[str, float] = {"hour": 24.0, "weekday": 7.0, "day of year": 366.0}
"""What comes round again in a date, and after how many."""


@dataclass(frozen=True)
class Number:
    """A cell that holds a number: which column's, and how it becomes standard normal.

    ``part`` is the part of a date ("hour sine"), None for the number itself. The scale goes in straight
    lines from ``points``, values in rising order, to ``scores``. ``edges``: of bins that hold about equally
    many of the scores.
    """

    column: str
    part: str | None
    points: tuple[float, ...]
    scores: tuple[float, ...]
    edges: tuple[float, ...]

    @classmethod
    def fit(cls, column: str, values: Floats, bins: int) -> Number:
        """The scale of a column's values: each to the normal score of its rank, equal ones to the same.

        Raises:
            PolysenseError: where no value is known.
        """
        known, counts = np.unique(values[~np.isnan(values)], return_counts=True)
        if not len(known):
            raise PolysenseError(f"the column {column!r} is empty: leave it out, or make it a constant")
        behind = np.cumsum(counts) / counts.sum()
        kept = _spread(behind, MOST_POINTS)
        rank = behind - counts / counts.sum() / 2
        scores = torch.special.ndtri(torch.from_numpy(rank)).numpy()
        inner = _spread(behind, bins) if len(known) > bins else np.arange(len(known))
        edges = scores[inner]
        if len(known) <= bins:  # each value is a bin of its own
            edges = np.concatenate([scores[:1] - 1, (scores[1:] + scores[:-1]) / 2, scores[-1:] + 1])
        return cls(
            column, None, tuple(known[kept].tolist()), tuple(scores[kept].tolist()), tuple(edges.tolist())
        )

    @classmethod
    def of_turn(cls, column: str, part: str, bins: int) -> Number:
        """The sine or cosine of what comes round again, to a deviation of one."""
        end = 2**0.5
        edges = np.linspace(-end, end, max(2, min(bins, 16)) + 1)
        return cls(column, part, (-1.0, 1.0), (-end, end), tuple(edges.tolist()))

    def score(self, values: Floats) -> Floats:
        """Values as standard normal; those beyond the points as the last of them. NaN stays."""
        scored: Floats = np.interp(values, self.points, self.scores)
        return np.where(np.isnan(values), np.nan, scored)

    def value(self, scores: Floats) -> Floats:
        """The inverse of :meth:`score`; where a score is that of a point in float32, the point itself."""
        points, known = np.array(self.points), np.array(self.scores)
        nearest = np.searchsorted((known[1:] + known[:-1]) / 2, scores)
        exact = np.isclose(known[nearest], scores, rtol=1e-6, atol=1e-6)
        values: Floats = np.where(exact, points[nearest], np.interp(scores, known, points))
        return values


@dataclass(frozen=True)
class Coder:
    """A schema, and how the cells of its columns become tensors.

    Dates are a number, and sine and cosine of hour, weekday and day of the year where those vary. Text,
    constants and identifiers are left out.

    >>> frame = pd.DataFrame({"carat": [0.5, 1.2, None], "cut": ["Good", "Fair", "Good"]})
    >>> coder = Coder.fit(Schema.infer(frame), frame)
    >>> coder.encode(frame)["codes"].flatten(), coder.decode(coder.encode(frame)).equals(frame)
    (tensor([2, 1, 2]), True)
    """

    schema: Schema
    numbers: tuple[Number, ...]

    @classmethod
    def fit(cls, schema: Schema, frame: pd.DataFrame, bins: int = 64) -> Coder:
        """The scales of a frame that was checked against the schema.

        Raises:
            PolysenseError: where there is no column to learn from.
        """
        numbers: list[Number] = []
        for column in schema.of_kind("number", "integer", "date"):
            values = frame[column.name]
            if column.kind != "date":
                numbers.append(Number.fit(column.name, as_floats(values), bins))
                continue
            dates = as_dates(values)
            numbers.append(Number.fit(column.name, _seconds(dates), bins))
            for name, turn in _turns(dates).items():
                if len(np.unique(turn[~np.isnan(turn)])) > 1:
                    numbers += [
                        Number.of_turn(column.name, f"{name} {wave}", bins) for wave in ("sine", "cosine")
                    ]
        if not numbers and not schema.of_kind(*LEVELLED):
            raise PolysenseError(
                "the table has no column to learn from: all are text, constants or identifiers;"
                " correct their kinds"
            )
        return cls(schema, tuple(numbers))

    @cached_property
    def categories(self) -> list[Column]:
        """The columns of levels, in the order of their codes."""
        return self.schema.of_kind(*LEVELLED)

    @cached_property
    def names(self) -> list[str]:
        """The columns that have cells, in the order of ``Cells.columns``."""
        return list(
            dict.fromkeys([*(one.column for one in self.numbers), *(one.name for one in self.categories)])
        )

    @cached_property
    def cells(self) -> Cells:
        """What an encoder has to know of the rows."""
        order = {name: place for place, name in enumerate(self.names)}
        columns = [*(one.column for one in self.numbers), *(one.name for one in self.categories)]
        return Cells(
            edges=tuple(one.edges for one in self.numbers),
            levels=tuple(len(one.levels or ()) for one in self.categories),
            columns=tuple(order[name] for name in columns),
        )

    def encode(self, frame: pd.DataFrame) -> dict[str, Tensor]:
        """``numbers`` ``[B, N]``, ``missing`` ``[B, N]`` and ``codes`` ``[B, C]`` of a checked frame."""
        read: dict[str, Mapping[str, Floats]] = {}
        scores = np.zeros((len(frame), len(self.numbers)), np.float32)
        for place, number in enumerate(self.numbers):
            if number.column not in read:
                read[number.column] = _parts(frame[number.column], self.schema[number.column].kind)
            scores[:, place] = number.score(read[number.column][number.part or ""])
        codes = np.zeros((len(frame), len(self.categories)), np.int64)
        for place, column in enumerate(self.categories):
            codes[:, place] = _codes(column, frame[column.name])
        missing = np.isnan(scores)
        return {
            "numbers": torch.from_numpy(np.where(missing, np.float32(0), scores)),
            "missing": torch.from_numpy(missing),
            "codes": torch.from_numpy(codes),
        }

    def decode(self, row: Mapping[str, Tensor]) -> pd.DataFrame:
        """The columns of rows of cells as a frame, in their types where these can hold what is missing."""
        made: dict[str, pd.Series[Any]] = {}
        for place, number in enumerate(self.numbers):
            if number.part is None:
                values = number.value(row["numbers"][:, place].double().cpu().numpy())
                values[row["missing"][:, place].cpu().numpy()] = np.nan
                made[number.column] = _numbers_as(self.schema[number.column], values)
        for place, column in enumerate(self.categories):
            made[column.name] = _levels_as(column, row["codes"][:, place].cpu().numpy())
        return pd.DataFrame({name: made[name] for name in self.schema.names if name in made})

    def to_json(self) -> str:
        """The scales as text; the schema has its own."""
        return json.dumps([asdict(number) for number in self.numbers])

    @classmethod
    def from_json(cls, schema: Schema, text: str) -> Coder:
        """The coder that gave this schema and text."""
        try:
            numbers = [
                Number(
                    each["column"],
                    each["part"],
                    *(tuple(each[name]) for name in ("points", "scores", "edges")),
                )
                for each in json.loads(text)
            ]
        except (ValueError, TypeError, KeyError) as error:
            raise PolysenseError(f"these are no scales of a table ({error}); take those of a run") from error
        return cls(schema, tuple(numbers))


def _spread(behind: Floats, count: int) -> NDArray[np.int64]:
    """The places of about ``count`` values, equally many rows apart, the first and the last among them."""
    wanted = np.searchsorted(behind, np.linspace(0, 1, count + 1))
    return np.unique(np.clip(wanted, 0, len(behind) - 1))


def _parts(values: pd.Series[Any], kind: str) -> Mapping[str, Floats]:
    """The numbers of a column: itself under "", and the waves of a date under their names."""
    if kind != "date":
        return {"": as_floats(values)}
    dates = as_dates(values)
    parts = {"": _seconds(dates)}
    for name, turn in _turns(dates).items():
        angle = 2 * np.pi * turn / _TURNS[name]
        parts |= {f"{name} sine": np.sin(angle), f"{name} cosine": np.cos(angle)}
    return parts


def _seconds(dates: pd.Series[Any]) -> Floats:
    """Seconds since 1970."""
    return as_floats(dates - pd.Timestamp(0).as_unit("us"))


def _turns(dates: pd.Series[Any]) -> dict[str, Floats]:
    """How far each date is round the day, the week and the year."""
    hour = dates.dt.hour + dates.dt.minute / 60
    turns = {"hour": hour, "weekday": dates.dt.weekday, "day of year": dates.dt.dayofyear - 1}
    return {name: as_floats(turn) for name, turn in turns.items()}


def _codes(column: Column, values: pd.Series[Any]) -> NDArray[np.int64]:
    """Levels from 1; 0 where missing or unknown."""
    assert column.levels is not None
    known = {level: code for code, level in enumerate(column.levels, start=1)}
    places, found = pd.factorize(values)
    table = np.array([*(known.get(plain_value(level), 0) for level in found), 0], np.int64)
    return table[places]  # a missing value has the place -1: the last of the table


def _numbers_as(column: Column, values: Floats) -> pd.Series[Any]:
    if column.kind == "date":
        micros = np.where(np.isnan(values), np.iinfo(np.int64).min, (values * 1e6).round())  # NaT
        dates = pd.Series(micros.astype(np.int64).view("datetime64[us]"))
        zone = getattr(column.pandas_dtype, "tz", None)
        return dates if zone is None else dates.dt.tz_localize("UTC").dt.tz_convert(zone)
    whole = pd.Series(values.round() if column.kind == "integer" else values)
    if "timedelta" in column.dtype or "duration" in column.dtype:
        return pd.to_timedelta(whole, unit="s")
    return _typed(whole, column, "Int64" if column.kind == "integer" else "float64")


def _levels_as(column: Column, codes: NDArray[np.int64]) -> pd.Series[Any]:
    levels = list(column.levels or ())
    if column.dtype == "category":
        return pd.Series(pd.Categorical.from_codes(codes - 1, dtype=column.pandas_dtype))
    cells = pd.Series([None, *levels], dtype=object).iloc[codes].reset_index(drop=True)
    return _typed(cells, column, "boolean" if column.kind == "boolean" else "object")


def _typed(values: pd.Series[Any], column: Column, otherwise: str) -> pd.Series[Any]:
    """In the column's own type, or where that cannot hold what is missing in another."""
    holds = not (values.isna().any() and str(column.dtype).startswith(("int", "uint", "bool")))
    own = holds or "pyarrow" in column.dtype
    return values.astype(column.pandas_dtype if own else otherwise)  # type: ignore[arg-type]
