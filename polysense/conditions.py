"""Conditions on rows in words such as ``temp > 80 and origin in ["JFK"]``: read, checked, never evaluated.

A condition is parsed by Python's own grammar with a short white list, so that no text can run code. It
can be asked of a table (:meth:`Condition.mask`), or be taken apart into what it allows each column
(:meth:`Condition.boxes`), from which rows can be drawn that satisfy it.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polysense.errors import PolysenseError, unknown

_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_QUOTED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Allowed:
    """What one column may hold: a range, some of a set of values, and none of others.

    ``low`` and ``high`` are None where the range is open to that side, and belong to it unless
    ``above`` or ``below`` is set. ``among``: the values to choose from, None for all. ``without``: values
    ruled out. ``missing``: True where the cell has to be missing; a missing cell satisfies nothing else.
    """

    low: Any = None
    high: Any = None
    above: bool = False
    below: bool = False
    among: tuple[Any, ...] | None = None
    without: tuple[Any, ...] = ()
    missing: bool = False

    def mask(self, values: pd.Series[Any]) -> NDArray[np.bool_]:
        """Which cells are allowed, ``[N]``."""
        if self.missing:
            return values.isna().to_numpy(dtype=bool)
        allowed = values.notna()
        if self.low is not None:
            low = _like(self.low, values)
            allowed &= _truth(values > low if self.above else values >= low)
        if self.high is not None:
            high = _like(self.high, values)
            allowed &= _truth(values < high if self.below else values <= high)
        if self.among is not None:
            allowed &= values.isin([_like(value, values) for value in self.among])
        if self.without:
            allowed &= ~values.isin([_like(value, values) for value in self.without])
        return allowed.to_numpy(dtype=bool)

    def both(self, other: Allowed) -> Allowed:
        """What satisfies this and ``other``."""
        low, above = _tighter((self.low, self.above), (other.low, other.above), operator.gt)
        high, below = _tighter((self.high, self.below), (other.high, other.below), operator.lt)
        among = self.among if other.among is None else other.among
        if self.among is not None and other.among is not None:
            among = tuple(value for value in self.among if value in other.among)
        without = (*self.without, *other.without)
        return Allowed(low, high, above, below, among, without, self.missing or other.missing)

    @property
    def empty(self) -> bool:
        """Whether no value at all can satisfy it."""
        if self.missing:
            others = (self.low, self.high, self.among)
            return any(value is not None for value in others) or bool(self.without)
        if self.among is not None and not [value for value in self.among if self._admits(value)]:
            return True
        if self.low is None or self.high is None:
            return False
        return bool(self.low > self.high or (self.low == self.high and (self.above or self.below)))

    def _admits(self, value: Any) -> bool:
        high_enough = self.low is None or (value > self.low if self.above else value >= self.low)
        low_enough = self.high is None or (value < self.high if self.below else value <= self.high)
        return bool(high_enough and low_enough and value not in self.without)


@dataclass(frozen=True)
class Box:
    """One way to satisfy a condition: what each named column may hold, and what is left to check by row.

    ``by_row`` is False where ``columns`` says it all.
    """

    columns: dict[str, Allowed] = field(default_factory=dict)
    by_row: bool = False

    @property
    def empty(self) -> bool:
        """Whether it contradicts itself."""
        return any(allowed.empty for allowed in self.columns.values())


class Condition:
    """A condition on the rows of a table, such as ``temp > 80 and origin in ["JFK"]``.

    Compare columns with values (``<``, ``<=``, ``>``, ``>=``, ``==``, ``!=``, ``in``, ``not in``), join by
    ``and``, ``or`` and ``not``; ``== None`` asks for a missing cell, and a missing cell satisfies nothing
    else. Columns may also be compared with columns, with ``+ - * /`` between. Names with blanks stand in
    backticks. Dates are written as texts.

    Raises:
        PolysenseError: for anything else, a column that is not among ``columns``, or a contradiction.

    >>> frame = pd.DataFrame({"temp": [70, 85, None], "origin": ["JFK", "JFK", "EWR"]})
    >>> Condition("temp > 80 and origin in ['JFK']", list(frame)).mask(frame).tolist()
    [False, True, False]
    """

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self.text = text
        self._names = [str(column) for column in columns]
        quoted = {f"_column_{place}_": name for place, name in enumerate(_QUOTED.findall(text))}
        places = iter(quoted)
        plain = _QUOTED.sub(lambda _: next(places), text)
        try:
            tree = ast.parse(plain.strip(), mode="eval").body
        except SyntaxError as error:
            raise self._refused(f"is not written as one ({error.msg})") from error
        self._quoted: dict[str, str] = quoted
        self._tree = _positive(tree, self._refused)
        self._check(self._tree)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name):
                self._column(node)
        if all(box.empty for box in self.boxes()):
            raise self._refused("contradicts itself: no row can satisfy it")

    @property
    def columns(self) -> list[str]:
        """The columns it names, each once."""
        names = [self._column(node) for node in ast.walk(self._tree) if isinstance(node, ast.Name)]
        return list(dict.fromkeys(names))

    def mask(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows satisfy it, ``[N]``."""
        return self._rows(self._tree, frame)

    def boxes(self) -> list[Box]:
        """The alternatives (joined by ``or``) that satisfy it; they may overlap."""
        return [self._box(conjunction) for conjunction in _alternatives(self._tree)]

    def _rows(self, node: ast.expr, frame: pd.DataFrame) -> NDArray[np.bool_]:
        if isinstance(node, ast.BoolOp):
            parts = [self._rows(value, frame) for value in node.values]
            joined = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            mask: NDArray[np.bool_] = joined.reduce(parts)
            return mask
        assert isinstance(node, ast.Compare)
        if (simple := self._simple(node)) is not None:
            column, allowed = simple
            return allowed.mask(frame[column])
        left, right = (self._value(side, frame) for side in (node.left, node.comparators[0]))
        compared = _ORDER[type(node.ops[0])](left, right)
        known = pd.Series(left).notna().to_numpy() & pd.Series(right).notna().to_numpy()
        return _truth(pd.Series(compared)).to_numpy(dtype=bool) & known

    def _value(self, node: ast.expr, frame: pd.DataFrame) -> Any:
        if isinstance(node, ast.Name):
            return frame[self._column(node)]
        if isinstance(node, ast.BinOp):
            operation = _ARITHMETIC[type(node.op)]
            return operation(self._value(node.left, frame), self._value(node.right, frame))
        return _constant(node)

    def _box(self, conjunction: Sequence[ast.Compare]) -> Box:
        columns: dict[str, Allowed] = {}
        by_row = False
        for part in conjunction:
            simple = self._simple(part)
            if simple is None:
                by_row = True
                continue
            column, allowed = simple
            try:
                columns[column] = columns.get(column, Allowed()).both(allowed)
            except TypeError as error:
                raise self._refused(f"compares {column!r} with texts and with numbers") from error
        return Box(columns, by_row)

    def _simple(self, node: ast.Compare) -> tuple[str, Allowed] | None:
        """A column compared with constants, as what it allows; None for anything between columns."""
        left, kind, right = node.left, type(node.ops[0]), node.comparators[0]
        if isinstance(right, ast.Name) and _is_constant(left):
            left, right, kind = right, left, _MIRRORED.get(kind, kind)
        if not isinstance(left, ast.Name) or not _is_constant(right):
            return None
        return self._column(left), self._allowed(kind, _constant(right))

    def _allowed(self, kind: type[ast.cmpop], value: Any) -> Allowed:
        if kind in (ast.In, ast.NotIn):
            if not isinstance(value, tuple):
                raise self._refused("asks for membership (in) in what is no list; write in [a, b]")
            return Allowed(among=value) if kind is ast.In else Allowed(without=value)
        if value is None:
            if kind not in (ast.Eq, ast.NotEq):
                raise self._refused("compares with None, which only == and != can")
            return Allowed(missing=True) if kind is ast.Eq else Allowed()
        if isinstance(value, tuple):
            raise self._refused("compares with a list; write in [a, b]")
        if kind is ast.Eq:
            return Allowed(among=(value,))
        if kind is ast.NotEq:
            return Allowed(without=(value,))
        if kind in (ast.Gt, ast.GtE):
            return Allowed(low=value, above=kind is ast.Gt)
        return Allowed(high=value, below=kind is ast.Lt)

    def _check(self, node: ast.expr) -> None:
        """Every comparison is of a kind that is understood; told now and not while rows are drawn."""
        for alternative in _alternatives(node):
            for part in alternative:
                if not any(isinstance(inner, ast.Name) for inner in ast.walk(part)):
                    raise self._refused("names no column")
                if self._simple(part) is None:
                    for side in (part.left, part.comparators[0]):
                        self._check_side(side)
                    if type(part.ops[0]) not in _ORDER:
                        raise self._refused("asks for membership (in) in a column; write in [a, b]")

    def _check_side(self, node: ast.expr) -> None:
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            self._check_side(node.left)
            self._check_side(node.right)
        elif not isinstance(node, ast.Name) and not _is_constant(node):
            raise self._refused(f"holds {ast.unparse(node)!r}, which is neither a column nor a value")

    def _column(self, node: ast.Name) -> str:
        name: str = self._quoted.get(node.id, node.id)
        if name not in self._names:
            raise unknown(f"column in the condition {self.text!r}: column", name, self._names)
        return name

    def _refused(self, why: str) -> PolysenseError:
        return PolysenseError(
            f"the condition {self.text!r} {why}; write one such as temp > 80 and origin in ['JFK']"
        )


def _positive(node: ast.expr, refused: Callable[[str], PolysenseError], negate: bool = False) -> ast.expr:
    """The same condition without ``not`` and without chained comparisons."""
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return _positive(inner, refused, not negate)
        case ast.BoolOp(op=op, values=values):
            both = isinstance(op, ast.And) != negate
            parts = [_positive(value, refused, negate) for value in values]
            return ast.BoolOp(ast.And() if both else ast.Or(), parts)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            if any(type(op) not in _OPPOSITE for op in ops):
                raise refused("compares by 'is'; use ==")
            sides = [left, *comparators]
            parts = [
                ast.Compare(sides[i], [_OPPOSITE[type(op)]() if negate else op], [sides[i + 1]])
                for i, op in enumerate(ops)
            ]
            joined = ast.Or() if negate else ast.And()
            return parts[0] if len(parts) == 1 else ast.BoolOp(joined, parts)
    raise refused(f"holds {ast.unparse(node)!r}, which compares nothing")


def _alternatives(node: ast.expr) -> Iterator[list[ast.Compare]]:
    """The disjunctive form: each alternative is a list of comparisons that all have to hold."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        for value in node.values:
            yield from _alternatives(value)
    elif isinstance(node, ast.BoolOp):
        first, *rest = node.values
        others = ast.BoolOp(ast.And(), rest) if len(rest) > 1 else rest[0] if rest else None
        for here in _alternatives(first):
            for there in _alternatives(others) if others is not None else [[]]:
                yield here + there
    else:
        assert isinstance(node, ast.Compare)
        yield [node]


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return all(_is_constant(element) for element in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int | float)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | bool | None)


def _constant(node: ast.expr) -> Any:
    value = ast.literal_eval(node)
    return tuple(value) if isinstance(value, list | set) else value


def _like(value: Any, values: pd.Series[Any]) -> Any:
    """A value as the column has it: a text as a date in a column of dates.

    Raises:
        PolysenseError: where the two are of different kinds.
    """
    dtype = values.dtype.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
    if isinstance(value, str) and pd.api.types.is_datetime64_any_dtype(dtype):
        try:
            return pd.Timestamp(value).tz_localize(getattr(dtype, "tz", None))
        except (ValueError, TypeError) as error:
            raise PolysenseError(f"{value!r} is no date for the column {values.name!r}") from error
    numbers, number = pd.api.types.is_numeric_dtype(dtype), isinstance(value, int | float)
    if numbers != number:
        held, said = ("numbers", "the text") if numbers else ("texts or levels", "the number")
        raise PolysenseError(
            f"the column {values.name!r} holds {held} and is compared with {said} {value!r}; compare like"
            " with like"
        )
    if number and not math.isfinite(value):
        raise PolysenseError(f"the column {values.name!r} is compared with {value}; give a finite number")
    return value


def _truth(values: pd.Series[Any]) -> pd.Series[bool]:
    return values.fillna(False).astype(bool)


def _tighter(one: tuple[Any, bool], other: tuple[Any, bool], wins: Any) -> tuple[Any, bool]:
    """The bound that leaves less; of equal ones the one that excludes its own value."""
    if one[0] is None or other[0] is None:
        return other if one[0] is None else one
    if one[0] == other[0]:
        return one[0], one[1] or other[1]
    return one if wins(one[0], other[0]) else other
