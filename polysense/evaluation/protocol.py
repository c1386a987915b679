"""How a dataset is judged: which labels, which rows ask, which rows answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError, unknown
from polysense.modalities.base import Dataset

_TRAIN = ("train", "training")
_TEST = ("test", "val", "valid", "validation", "dev")


class Parts(NamedTuple):
    """Which rows of a table do what, each a ``[N]`` mask: see :class:`Protocol`."""

    bank: NDArray[np.bool_]
    queries: NDArray[np.bool_]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


@dataclass(frozen=True)
class Protocol:
    """How a dataset is judged. Figures compare only under one protocol.

    ``labels``: the columns to predict; the linear probe predicts the first. ``identity``: the column
    whose equal values mark samples of the same thing, which never answer for each other. ``bank`` and
    ``queries``: the rows that answer and that ask, each as a column and its value; without them, a
    share ``held_out`` of each class, drawn with ``seed``, asks the rest. ``k`` and ``temperature``: of
    the kNN probe.

    With an identity, whole identities are held out, and the linear probe is tested on the queries of
    those identities and trained on the bank's rows of the others.

    >>> Protocol(labels=("kind",), bank=("split", "train"), queries=("split", "test")).k
    10
    """

    labels: tuple[str, ...] = ()
    identity: str | None = None
    bank: tuple[str, str] | None = None
    queries: tuple[str, str] | None = None
    k: int = 10
    temperature: float = 0.1
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise PolysenseError(f"held_out must be a share between 0 and 1, not {self.held_out}")
        if (self.bank is None) != (self.queries is None):
            raise PolysenseError("a protocol names both a bank and queries, or neither")

    @classmethod
    def of(cls, dataset: Dataset, label: str | None = None, split: str | None = None) -> Protocol:
        """The protocol that a dataset brings along, or the usual one for what its table holds.

        ``label`` names the column to predict instead of the dataset's own; ``split`` a column that
        tells the training rows ("train") from those to be judged on ("test", or else "val").

        Raises:
            PolysenseError: for a column that the table lacks, or a split without such values.
        """
        own: Mapping[str, Any] = dataset.evaluation or {}
        protocol = cls(
            labels=tuple(own.get("labels", [dataset.label] if dataset.label else [])),
            identity=own.get("identity", dataset.identity),
            bank=_pair(own.get("bank")),
            queries=_pair(own.get("queries")),
            **{name: own[name] for name in ("k", "temperature", "held_out", "seed") if name in own},
        )
        if label is not None:
            protocol = replace(protocol, labels=(label,))
        if split is not None:
            bank, queries = _split_values(dataset.table, split)
            protocol = replace(protocol, bank=(split, bank), queries=(split, queries))
        for name in (*protocol.labels, protocol.identity):
            if name is not None:
                _column(dataset.table, name)
        return protocol

    def parts(self, table: pd.DataFrame) -> Parts:
        """The rows that answer, that ask, and that train and test the linear probe.

        Raises:
            PolysenseError: where bank or queries are empty or share rows.
        """
        labels = class_codes(table, self.labels[0]) if self.labels else np.zeros(len(table), np.int64)
        identity = identity_codes(table, self.identity) if self.identity else None
        held_out = held_out_rows(labels, self.held_out, self.seed, identity)
        if self.bank is None or self.queries is None:
            bank, queries = ~held_out, held_out
        else:
            bank, queries = _rows(table, *self.bank), _rows(table, *self.queries)
        if (shared := int((bank & queries).sum())) > 0:
            raise PolysenseError(f"the bank and the queries share {shared} rows; give them different values")
        if identity is None:
            return Parts(bank, queries, bank, queries)
        return Parts(bank, queries, bank & ~held_out, queries & held_out)


def class_codes(table: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """``[N]`` classes from 0, in the order of their names; -1 where the label is missing.

    >>> class_codes(pd.DataFrame({"kind": ["b", None, "a", "b"]}), "kind").tolist()
    [1, -1, 0, 1]
    """
    values = _column(table, column)
    return pd.factorize(values.where(values.isna(), values.astype(str)), sort=True)[0].astype(np.int64)


def identity_codes(table: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """``[N]`` codes, equal where the identity is; a row without one is a thing of its own.

    >>> identity_codes(pd.DataFrame({"who": ["x", None, "x", None]}), "who").tolist()
    [0, 1, 0, 2]
    """
    codes = pd.factorize(_column(table, column))[0].astype(np.int64)
    missing = codes < 0
    codes[missing] = codes.max(initial=-1) + 1 + np.arange(missing.sum())
    return codes


def held_out_rows(
    labels: NDArray[np.int64], share: float, seed: int, identity: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """A mask of about ``share`` of each class, drawn with ``seed``; a class of one stays in training.

    With ``identity`` whole identities are drawn, each counted for the class of its first row. The
    global random state is left alone.

    >>> held_out_rows(np.repeat([0, 1], 10), 0.2, seed=0).reshape(2, 10).sum(axis=1).tolist()
    [2, 2]
    """
    if identity is not None:
        _, first, member = np.unique(identity, return_index=True, return_inverse=True)
        chosen: NDArray[np.bool_] = held_out_rows(labels[first], share, seed)[member]
        return chosen
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    mask = np.zeros(len(labels), dtype=bool)
    for name in np.unique(labels):
        members = shuffled[labels[shuffled] == name]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        mask[members[:count]] = True
    return mask


def _pair(named: Mapping[str, str] | None) -> tuple[str, str] | None:
    """``{"vendor": "noto"}`` as ``("vendor", "noto")``."""
    return next(iter(named.items())) if named else None


def _column(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    if name not in table.columns:
        raise unknown("column", name, map(str, table.columns))
    return table[name]


def _rows(table: pd.DataFrame, column: str, value: str) -> NDArray[np.bool_]:
    rows = (_column(table, column).astype(str) == value).to_numpy(dtype=bool)
    if not rows.any():
        raise PolysenseError(f"no row has {value!r} in the column {column!r}; check the protocol's values")
    return rows


def _split_values(table: pd.DataFrame, column: str) -> tuple[str, str]:
    """The values of a split column that mean training and test."""
    values = [str(value) for value in _column(table, column).dropna().unique()]
    found = {value.strip().lower(): value for value in values}
    train = next((found[name] for name in _TRAIN if name in found), None)
    test = next((found[name] for name in _TEST if name in found), None)
    if train is None or test is None:
        raise PolysenseError(
            f"the split column {column!r} must hold 'train' and 'test' (or 'val'), "
            f"not {', '.join(map(repr, values[:8]))}"
        )
    return train, test
