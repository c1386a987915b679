"""More rows of the rare classes, each between a row and one of its nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError, unknown
from polysense.tabular.augmentation.draft import Draft, Seed, check_column, taken
from polysense.tabular.augmentation.mixing import between
from polysense.tabular.augmentation.values import Array, column_of, values_of
from polysense.tabular.schema import Schema

PART = 50_000
"""How many new rows are voted on at a time."""

MOST_LEVELS = 20
"""More levels of a category than these, its most frequent ones, are told apart by no distance."""


def oversample(
    frame: pd.DataFrame,
    *,
    label: str,
    to: float | Mapping[Any, int] = 1.0,
    neighbours: int = 5,
    among: int = 10_000,
    schema: Schema | None = None,
    seed: Seed = 0,
) -> pd.DataFrame:
    """New rows of the rare classes, as many as bring them to ``to`` times the largest class.

    SMOTE for mixed columns: a new row lies at a random place between a row and one of its nearest
    neighbours of the same class; of categories it takes the most frequent value among the neighbours. The
    distance is Euclidean on standardised numbers, and a category that differs counts 1. Neighbours are
    looked for among at most ``among`` rows of the class and may be up to twice as far as the nearest
    (in practice they are a few per cent further), so that the time is linear in the rows.

    Args:
        frame: the rows; those without a label are left out.
        label: the column that holds the class.
        to: the share of the largest class that every class shall have, or how many rows by class.
        neighbours: how many are chosen among.
        among: how many rows of a class neighbours are looked for in.
        schema: of the columns, by default inferred.
        seed: the same seed makes the same rows.

    Returns:
        The new rows only.

    Raises:
        PolysenseError: for an empty table, an unknown column or class, a single class, or a class of one
            row.

    Paper: https://arxiv.org/abs/1106.1813

    >>> frame = pd.DataFrame({"x": [0.0, 0.1, 0.2, 0.3, 5.0, 5.2], "kind": ["a"] * 4 + ["b"] * 2})
    >>> oversample(frame, label="kind", seed=0)
              x kind
    0  5.191805    b
    1  5.003306    b
    """
    check_column(frame, label)
    if neighbours < 1 or among < 2:
        raise PolysenseError(
            f"neighbours is {neighbours} and among is {among}, but at least one is chosen among two rows"
        )
    draft = Draft(frame, label=label, schema=schema, seed=seed)
    codes, classes = pd.factorize(frame[label])
    wanted = _wanted(label, np.bincount(codes[codes >= 0], minlength=len(classes)), list(classes), to)
    origin, near = [], []
    for at, new in enumerate(wanted):
        rows = np.flatnonzero(codes == at)
        if new and len(rows) < 2:
            raise PolysenseError(
                f"the class {classes[at]!r} has a single row, and new rows lie between two; leave it out"
            )
        if new:
            base = draft.rng.permutation(rows)[:new]
            found = _nearest(_space(frame.take(rows), draft), rows, base, neighbours, among, draft.rng)
            again = np.resize(np.arange(len(base)), new)
            origin.append(base[again])
            near.append(found[again])
    if not origin:
        raise PolysenseError(f"no class of {label!r} is rarer than asked for; ask for more with to=")
    draft.origin = np.concatenate(origin)
    return _made(draft, np.concatenate(near))


def _wanted(label: str, counts: Array, classes: list[Any], to: float | Mapping[Any, int]) -> list[int]:
    """How many new rows each class gets."""
    if len(classes) < 2:
        raise PolysenseError(
            f"the label {label!r} holds a single class, and there is none to balance it with"
        )
    if isinstance(to, Mapping):
        for name in to:
            if name not in classes:
                raise unknown("class", str(name), map(str, classes))
        goal = [to.get(name, 0) for name in classes]
    else:
        goal = [round(to * counts.max())] * len(classes)
    return [max(0, int(more - count)) for more, count in zip(goal, counts, strict=True)]


def _space(rows: pd.DataFrame, draft: Draft) -> NDArray[np.float32]:
    """Rows as points: numbers standardised, and two levels of a category at a distance of 1."""
    axes: list[Array] = []
    for name in draft.changeable:
        if draft.calculated(name):
            cells, known = values_of(rows[name]), values_of(draft.frame[name]).known()
            numbers = (cells.numbers - known.mean()) / (known.std() or 1.0) if len(known) else cells.numbers
            axes.append(np.where(cells.missing, 0.0, numbers))
        else:
            frequent = draft.frame[name].value_counts().index[:MOST_LEVELS]
            codes = frequent.get_indexer(pd.Index(rows[name]))
            axes += [np.sqrt(0.5) * (codes == level) for level in range(len(frequent))]
    return np.column_stack(axes).astype(np.float32)


def _nearest(
    space: Array, rows: Array, base: Array, neighbours: int, among: int, rng: np.random.Generator
) -> Array:
    """Near rows of each base, the nearest first, never itself; repeated if few: ``[base, neighbours]``."""
    from scipy.spatial import cKDTree

    bank = rng.permutation(len(rows))[:among]
    many = min(neighbours + 1, len(bank))
    points = space[np.searchsorted(rows, base)]
    found = cKDTree(space[bank], balanced_tree=False).query(points, many, eps=1)[1].reshape(len(base), many)
    near = rows[bank].astype(np.int32)[found]
    itself = near == base[:, None]
    others = np.take_along_axis(near, np.argsort(itself, axis=1, kind="stable"), axis=1)
    return others[:, np.arange(neighbours) % (many - 1)]


def _elected(codes: Array, near: Array) -> Array:
    """The nearest of the rows whose code is the most frequent among the neighbours, part by part."""
    elected = []
    for part in np.array_split(near, len(near) // PART + 1):
        votes = codes[part]
        frequent = (votes[:, :, None] == votes[:, None, :]).sum(-1).argmax(1)
        elected.append(part[np.arange(len(part)), frequent])
    return np.concatenate(elected)


def _made(draft: Draft, near: Array) -> pd.DataFrame:
    """Numbers between the origin and one neighbour, categories as most of the neighbours have them."""
    partner = near[np.arange(len(near)), draft.rng.integers(near.shape[1], size=len(near))]
    weight = draft.rng.random(len(near))
    columns = {}
    for name in draft.changeable:
        column = draft.frame[name]
        if draft.calculated(name):
            cells = draft.values(name, column)
            mine, theirs = cells.take(draft.origin), cells.take(partner)
            mixed = between(mine, theirs, np.where(mine.missing | theirs.missing, 1.0, weight), cells.step)
            columns[name] = column_of(replace(mixed, missing=mine.missing), column)
        else:
            columns[name] = taken(column, _elected(pd.factorize(column)[0], near))
    return draft.finish(columns)
