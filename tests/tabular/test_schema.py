"""What columns are told to be, and what is said of later tables that are different."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from polysense.errors import PolysenseError
from polysense.tabular.columns import as_dates, as_floats, family
from polysense.tabular.schema import Column, Schema
from tests.tabular.toy_table import stones

ROWS = 40


def kind_of(values, **options) -> str:
    (column,) = Schema.infer(pd.DataFrame({"x": values}), **options).columns
    return column.kind


def arrow(values, kind: pa.DataType) -> pd.Series:
    return pd.Series(values, dtype=pd.ArrowDtype(kind))


def codes(count: int) -> list[str]:
    return [f"code-{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, 1.0, 2.0], "number"),
        ([5.0, None, 2.0], "integer"),
        (pd.Series([1, None, 3], dtype="Int64"), "integer"),
        (arrow([1.5, None, 2.0], pa.float32()), "number"),
        (arrow([1, 2, None], pa.int8()), "integer"),
        (arrow(["1.5", "2.5"], pa.string()).astype(pd.ArrowDtype(pa.decimal128(5, 2))), "number"),
        (pd.to_timedelta(["1h", "90min"]), "integer"),
        (list(range(ROWS)), "identifier"),
        ([*range(ROWS - 1), 0], "integer"),
        ([*range(ROWS - 1), ROWS], "integer"),
        (["a", "b", "a"], "category"),
        (arrow(["a", "b", None], pa.large_string()), "category"),
        (pd.Categorical(["b", "a", "b"]), "category"),
        (pd.Categorical(["lo", "hi"], ["lo", "hi"], ordered=True), "ordinal"),
        ([True, False, None], "boolean"),
        (pd.Series([True, None, False], dtype="boolean"), "boolean"),
        (arrow([True, False], pa.bool_()), "boolean"),
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), "date"),
        (pd.to_datetime(["2024-01-01", "2024-01-02"], utc=True), "date"),
        (arrow([1, 2], pa.date32()), "date"),
        ([7, 7, 7], "constant"),
        ([None, None], "constant"),
        (codes(ROWS), "identifier"),
        ([f"a word or {number}" for number in range(ROWS)], "text"),
        (codes(10_000) * 3, "identifier"),
        (codes(900) * 2, "category"),
    ],
)
def test_kinds_are_told_by_type_and_form(values, kind: str) -> None:
    assert kind_of(values) == kind


def test_ranges_levels_and_shares_are_those_of_the_data() -> None:
    frame = pd.DataFrame(
        {
            "x": pd.Series([3, None, 1, 2], dtype="Int64"),
            "size": pd.Categorical(["hi", "lo", None, "lo"], ["lo", "mid", "hi"], ordered=True),
            "on": pd.to_datetime(["2024-03-01", "2024-01-01", None, None], utc=True),
        }
    )
    x, size, on = Schema.infer(frame).columns
    assert (x.minimum, x.maximum, x.missing, x.dtype) == (1.0, 3.0, 0.25, "Int64")
    assert size.levels == ("lo", "mid", "hi")
    assert (on.minimum, on.missing) == ("2024-01-01T00:00:00+00:00", 0.5)


def test_the_user_corrects_kinds() -> None:
    frame = stones()
    assert Schema.infer(frame, kinds={"price": "category"})["price"].kind == "category"
    assert kind_of([0, 1, 1], kinds={"x": "boolean"}) == "boolean"
    assert kind_of([2, 0, 1], kinds={"x": "ordinal"}) == "ordinal"
    with pytest.raises(PolysenseError, match="unknown column 'prise'; did you mean 'price'"):
        Schema.infer(frame, kinds={"prise": "number"})
    with pytest.raises(PolysenseError, match="unknown kind of column 'numbr'; did you mean 'number'"):
        Schema.infer(frame, kinds={"price": "numbr"})
    with pytest.raises(PolysenseError, match="'cut' holds string values, which are no number"):
        Schema.infer(frame, kinds={"cut": "number"})
    with pytest.raises(PolysenseError, match="order of the levels of 'cut' is not known"):
        Schema.infer(frame, kinds={"cut": "ordinal"})
    with pytest.raises(PolysenseError, match="has 4 levels, and a boolean has two"):
        Schema.infer(frame, kinds={"cut": "boolean"})


def test_json_gives_the_same_schema_back() -> None:
    schema = Schema.infer(stones())
    assert Schema.from_json(schema.to_json()) == schema
    with pytest.raises(PolysenseError, match="this is no schema of a table"):
        Schema.from_json("[1]")
    with pytest.raises(PolysenseError, match="unknown kind of column 'colour'"):
        Schema.from_json(Schema((Column("x", "colour", "str"),)).to_json())


def test_it_is_printed_a_line_for_each_column() -> None:
    lines = Schema.infer(stones()).describe().splitlines()
    assert lines[0].startswith("weight  number ")
    assert lines[0].endswith("% missing")
    assert lines[3] == "cut     category  4 levels: fair, good, ideal, rough"
    assert len(lines) == 7


def test_a_later_table_is_put_in_order() -> None:
    frame = stones()
    schema = Schema.infer(frame)
    checked = schema.check(frame[frame.columns[::-1]])
    pd.testing.assert_frame_equal(checked, frame)
    gaps = frame.astype({"price": "Int64", "cut": "category"}).assign(sold=None)
    assert list(schema.check(gaps)) == list(frame)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drop": ["price"]}, "the table lacks the column 'price': add"),
        ({"rename": {"price": "Price"}}, "lacks the column 'price'; the table has 'Price' instead"),
        ({"assign": {"more": 1}}, "the table has the column 'more', unknown to the schema"),
        (
            {"row": ("cut", "awful")},
            "row 3 holds 'awful' of the column 'cut', which is not among its 4 levels",
        ),
        ({"row": ("depth", np.inf)}, "the column 'depth' is infinite in row 3"),
        ({"assign": {"depth": "deep"}}, "'depth' holds string values where float64 was expected"),
        ({"assign": {"when": 3}}, "'when' holds number values where datetime64.* was expected"),
    ],
)
def test_what_does_not_fit_is_named_with_column_and_row(change, said: str) -> None:
    frame = stones()
    schema = Schema.infer(frame)
    frame = frame.drop(columns=change.get("drop", [])).rename(columns=change.get("rename", {}))
    frame = frame.assign(**change.get("assign", {}))
    if "row" in change:
        name, value = change["row"]
        frame.loc[3, name] = value
    with pytest.raises(PolysenseError, match=said):
        schema.check(frame)


def test_unknown_levels_may_pass_as_missing() -> None:
    frame = stones()
    schema = Schema.infer(frame)
    schema.check(frame.assign(cut="awful"), unseen="missing")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2, "x"], "the column 'x' mixes types: row 2 holds 'x' among int values"),
        ([[1], [2]], "holds list values in its cells"),
        ([1.0, np.inf], "the column 'x' is infinite in row 1"),
        (pd.period_range("2024", periods=2, freq="D"), "holds Period values"),
    ],
)
def test_what_is_no_column_is_refused(values, said: str) -> None:
    with pytest.raises(PolysenseError, match=said):
        Schema.infer(pd.DataFrame({"x": values}))


def test_families_read_every_type_alike() -> None:
    dates = pd.Series(["1500-01-01T12:00", None]).astype("datetime64[us]")
    zoned = dates.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    for series in (dates, zoned, arrow([dates.dt.to_pydatetime()[0], None], pa.timestamp("us"))):
        assert family(series) == "date"
        assert as_dates(series)[0] == pd.Timestamp("1500-01-01T12:00")
    numbers = [pd.Series([1, None]), pd.Series([1, None], dtype="Int8"), arrow([1, None], pa.int64())]
    for series in numbers:
        np.testing.assert_array_equal(as_floats(series), [1.0, np.nan])
    np.testing.assert_array_equal(as_floats(pd.Series(pd.to_timedelta(["1min", None]))), [60.0, np.nan])
