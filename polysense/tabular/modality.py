"""Rows of a table as a modality: read, collate, random views, the plain view, and back to words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.encoders.cells import Cells
from polysense.errors import PolysenseError, unknown
from polysense.modalities.base import Batch, View, ViewPlan
from polysense.modalities.files import unique
from polysense.modalities.plans import plan_from_settings, plan_settings, view_settings
from polysense.tabular.coder import Coder
from polysense.tabular.reading import to_frame, usual_label, with_dates
from polysense.tabular.schema import Schema
from polysense.tabular.views import ViewSettings, make_view

logger = logging.getLogger(__name__)

Cell = dict[str, Tensor]

STRENGTHS: Mapping[str, ViewSettings] = {"strong": ViewSettings(corrupt=0.3), "weak": ViewSettings()}
"""Where views are matched, some columns come from other rows; where hidden parts are predicted, none."""


@dataclass(eq=False)
class Rows:
    """A table's rows; a ``modalities.base.Dataset``.

    ``frame``: the columns to learn from. ``table``: names, the label, and what else was left out.
    """

    frame: pd.DataFrame
    table: pd.DataFrame
    label: str | None = None
    identity: str | None = None
    evaluation: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self._encoded: tuple[Coder, Cell] | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Rows, Tensor]:
        """The whole table, for it is encoded once, and the rows that are meant."""
        return self, torch.as_tensor(np.asarray(indices, dtype=np.int64))

    def encoded(self, coder: Coder) -> Cell:
        """The cells of all rows."""
        if self._encoded is None or self._encoded[0] is not coder:
            self._encoded = coder, coder.encode(self.frame)
        return self._encoded[1]


class Table:
    """Rows of a table: a :class:`~polysense.modalities.base.Modality`.

    ``plan.options["table"]`` sets fields of :class:`.ViewSettings`; in it ``"views"`` may be a list of
    settings which the global views take in turn, and ``"local"`` settings for the local views only. The
    cells as they were are in ``Batch.known``, for methods that restore them.

    Args:
        kinds: what columns are, where :meth:`.Schema.infer` would get it wrong, by their names.
        bins: into how many classes the values of a number fall.
        unseen: whether an unknown level in later tables is an "error" or "missing".
        plan: which views to make.
        label: the column that holds the classes; known from the data by :meth:`fit`.
        coder: what was learned from the data by :meth:`fit`.

    Raises:
        PolysenseError: for a setting that is unknown or out of range.

    >>> table = Table()
    >>> data = table.read(pd.DataFrame({"carat": [0.5, 1.2, 0.7], "cut": ["Good", "Fair", "Good"]}))
    >>> table = table.fit(data, ViewPlan(globals_=2))
    >>> batch = table.collate(data.__getitems__([0, 2]))
    >>> print(*table.show(table.plain(batch)), sep="; ")
    carat = 0.5, cut = Good; carat = 0.7, cut = Good
    """

    name = "table"
    raw_name = "cells"
    default_encoder = "table_mlp"

    def __init__(
        self,
        kinds: Mapping[str, str] | None = None,
        bins: int = 64,
        unseen: Literal["error", "missing"] = "error",
        plan: ViewPlan = ViewPlan(),  # noqa: B008 - frozen
        label: str | None = None,
        coder: Coder | None = None,
    ) -> None:
        if bins < 2:
            raise PolysenseError(f"bins is {bins}; numbers need at least 2")
        if unseen not in ("error", "missing"):
            raise unknown("way with unseen levels", str(unseen), ["error", "missing"])
        self.kinds, self.bins, self.unseen, self.plan, self.label = (
            dict(kinds or {}),
            bins,
            unseen,
            plan,
            label,
        )
        self._coder = coder
        self._globals, self._local = view_settings(plan, self.name, STRENGTHS, _local_settings)

    @property
    def coder(self) -> Coder:
        """How rows become cells.

        Raises:
            PolysenseError: before :meth:`fit`.
        """
        if self._coder is None:
            raise PolysenseError("this table modality knows no data yet: call fit with a data set first")
        return self._coder

    @property
    def schema(self) -> Schema:
        """The columns that are learned from."""
        return self.coder.schema

    @property
    def cells(self) -> Cells:
        """What an encoder has to know of the rows."""
        return self.coder.cells

    def read(
        self,
        source: Any,
        *,
        label: str | None = None,
        column: str | None = None,
        max_bad: float = 0.0,
        cache: str | None = None,
        drop: Sequence[str] = (),
    ) -> Rows:
        """The user's table, see :func:`.reading.to_frame` for what it may be.

        Args:
            source: the table.
            label: the column that holds the classes; it is left out of the cells, and so only probes see it.
                "" where there is none, and all columns are learned.
            column: none: a row's columns all belong to it.
            max_bad: without effect: rows that cannot be read are an error.
            cache: without effect: tables lie in memory.
            drop: further columns to leave out (a split, other labels).

        Raises:
            PolysenseError: for what is no table, an unknown column, a label of one class, or columns that do
                not fit the data this modality was fitted to.
        """
        if column is not None:
            raise PolysenseError(
                f"a table's samples are its rows: leave out column {column!r}, or name it in drop"
            )
        frame = to_frame(source, least=2 if self._coder is None else 1)
        if label is None:
            label = usual_label(source, frame) or (self.label if self.label in frame.columns else None)
        aside = [*([label] if label else []), *drop]
        for name in aside:
            self._check_aside(frame, name)
        features = frame.drop(columns=aside)
        if self._coder is not None:
            features = self.schema.check(features, unseen=self.unseen)
        elif label and frame[label].nunique() < 2:
            raise PolysenseError(
                f"the label {label!r} has one class only; name a column that tells rows apart"
            )
        names = [f"row {row}" if isinstance(frame.index, pd.RangeIndex) else str(row) for row in frame.index]
        table = frame[aside].reset_index(drop=True).drop(columns="name", errors="ignore")
        table.insert(0, "name", unique(names))
        return Rows(features, table, label or None)

    def fit(self, dataset: Rows, plan: ViewPlan | None = None) -> Table:
        """The same modality with the data's schema and scales, and ``plan`` if given; tells the schema."""
        schema = Schema.infer(dataset.frame, kinds=self.kinds)
        coder = Coder.fit(schema, dataset.frame, self.bins)
        logger.info("the table's columns:\n%s", schema.describe())
        left_out = [column.name for column in schema.columns if column.name not in coder.names]
        if left_out:
            logger.info("not learned from (text, constants, identifiers): %s", ", ".join(left_out))
        return Table(
            self.kinds, self.bins, self.unseen, self.plan if plan is None else plan, dataset.label, coder
        )

    def batch(self, items: Sequence[Any]) -> Batch:
        """A batch of a few rows: dicts or Series by column, or DataFrames of several.

        Raises:
            PolysenseError: where they do not fit the schema.
        """
        frames = [item if isinstance(item, pd.DataFrame) else pd.DataFrame([item]) for item in items]
        frame = with_dates(pd.concat(frames, ignore_index=True)).drop(
            columns=self.label or [], errors="ignore"
        )
        data = self.coder.encode(self.schema.check(frame, unseen=self.unseen))
        return Batch(data, torch.arange(len(frame)), data)

    def collate(self, samples: tuple[Rows, Tensor]) -> Batch:
        """The cells of some rows of a table as a batch."""
        rows, index = samples
        data = {name: cells[index] for name, cells in rows.encoded(self.coder).items()}
        return Batch(data, index, data)

    def views(self, batch: Batch) -> list[View]:
        """The plan's random views, global ones first."""
        turns = [("global", self._globals[i % len(self._globals)]) for i in range(self.plan.globals_)]
        turns += [("local", self._local)] * self.plan.locals_
        row = _cells_of(batch.data)
        return [View(make_view(row, self.cells, settings), self.name, kind) for kind, settings in turns]

    def plain(self, batch: Batch) -> View:
        """The rows as they are."""
        return View(batch.data, self.name)

    def raw(self, batch: Batch) -> Tensor:
        """``[B, F]``: numbers as standard normal, which of them are missing, and one-hot categories."""
        return self.cells.flat(_cells_of(batch.data))

    def show(self, view: View) -> NDArray[Any]:
        """``[B]``: a line for each row, "column = value, …", without what is missing."""
        frame = self.coder.decode(_cells_of(view.data))
        columns = [[_worded(name, value) for value in frame[name]] for name in frame.columns]
        lines = [", ".join(filter(None, cells)) for cells in zip(*columns, strict=True)]
        return np.array(lines)

    def encoder(self, spec: str | nn.Module, **options: Any) -> Encoder:
        """The tower for these rows, see :func:`polysense.encoders.tabular.build`."""
        from polysense.encoders.tabular import build

        return build(spec, cells=self.cells, **options)

    def settings(self) -> dict[str, Any]:
        """Plain values from which, with :meth:`attachments`, :meth:`from_settings` rebuilds this modality."""
        names = ("kinds", "bins", "unseen", "label")
        return {"plan": plan_settings(self.plan, self.name), **{name: getattr(self, name) for name in names}}

    def attachments(self) -> dict[str, str]:
        """The schema and the scales."""
        return {"schema.json": self.schema.to_json(), "scales.json": self.coder.to_json()}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], attachments: Mapping[str, str]) -> Table:
        """The modality that gave these settings and attachments."""
        schema = Schema.from_json(attachments["schema.json"])
        coder = Coder.from_json(schema, attachments["scales.json"])
        plan = plan_from_settings(settings["plan"], cls.name)
        return cls(**{**settings, "plan": plan, "coder": coder})

    def _check_aside(self, frame: pd.DataFrame, name: str) -> None:
        if name not in frame.columns:
            raise unknown("column", name, map(str, frame.columns))
        if self._coder is not None and name in self.coder.names:
            raise PolysenseError(
                f"the encoder reads the column {name!r}, so it cannot be judged on it: pretrain with"
                f" label={name!r}"
            )


def _local_settings(settings: ViewSettings) -> ViewSettings:
    """About half of the columns."""
    return replace(settings, hide=0.5)


def _cells_of(data: Tensor | Cell) -> Cell:
    assert isinstance(data, dict)
    return data


def _worded(name: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}"
