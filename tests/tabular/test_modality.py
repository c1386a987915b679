"""Rows as a modality: what is fitted, what a view does to a row, and what is kept of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest

from polysense.encoders.cells import Cells
from polysense.errors import PolysenseError
from polysense.modalities.base import Batch, Dataset, Modality, ViewPlan
from polysense.tabular.coder import Coder, Number
from polysense.tabular.modality import Table
from polysense.tabular.schema import Schema
from polysense.tabular.views import ViewSettings, make_view, part_of
from tests.tabular.toy_table import stones


def fitted(frame: pd.DataFrame | None = None, label: str | None = "kind", **plan) -> tuple[Table, Batch]:
    table = Table()
    data = table.read(stones() if frame is None else frame, label=label)
    table = table.fit(data, ViewPlan(**plan))
    return table, table.collate(data.__getitems__(range(len(data))))


def row_of(rows: int, cells: Cells) -> dict[str, torch.Tensor]:
    """Rows whose cells are all different from row to row."""
    place = torch.arange(rows)
    return {
        "numbers": place[:, None] + torch.zeros(cells.numbers),
        "missing": torch.zeros(rows, cells.numbers, dtype=torch.bool),
        "codes": place[:, None].expand(-1, len(cells.levels)) + 1,
    }


CELLS = Cells(edges=((0.0, 1.0),) * 6, levels=(500,) * 4, columns=(0, 0, 1, 2, 3, 4, 5, 6, 7, 8))
"""Six numbers, of which the first two are one column, and four categories."""


def test_it_is_a_modality_and_its_data_a_dataset() -> None:
    table, _ = fitted()
    assert isinstance(table.read(stones(), label="kind"), Dataset)
    assert {name for name in vars(Modality) if not name.startswith("_")} <= set(dir(table))


def test_the_label_is_left_out_of_the_cells() -> None:
    table, _ = fitted()
    data = table.read(stones())  # the modality remembers its label
    assert "kind" not in table.schema.names
    assert (data.label, list(data.table)) == ("kind", ["name", "kind"])
    assert list(table.read(stones().drop(columns="kind")).table) == ["name"]
    with pytest.raises(PolysenseError, match="the encoder reads the column 'cut', so it cannot be judged"):
        table.read(stones(), label="cut")


def test_further_columns_are_put_aside() -> None:
    frame = stones().set_index(pd.Index([f"stone {i}" for i in range(64)]))
    data = Table().read(frame, label="kind", drop=["sold"])
    assert list(data.frame) == ["weight", "depth", "price", "cut", "when"]
    assert list(data.table) == ["name", "kind", "sold"]
    assert data.table["name"].tolist()[:2] == ["stone 0", "stone 1"]


def test_numbers_become_standard_normal_and_come_back() -> None:
    values = np.random.default_rng(0).exponential(size=500) ** 2
    number = Number.fit("x", values, bins=8)
    scores = number.score(values)
    assert kstest(scores, "norm").statistic < 0.01
    assert (np.argsort(scores) == np.argsort(values)).all()
    np.testing.assert_array_equal(number.value(scores.astype(np.float32)), values)
    counts = np.histogram(scores, number.edges)[0]
    assert counts.max() - counts.min() <= 2
    assert number.score(np.array([-1.0, 1e9, np.nan])).tolist()[:2] == [scores.min(), scores.max()]


def test_equal_numbers_get_the_score_of_their_mean_rank() -> None:
    number = Number.fit("x", np.array([0.0] * 6 + [1.0, 2.0]), bins=64)
    normal = torch.distributions.Normal(0, 1)
    expected = normal.icdf(torch.tensor([3 / 8, 6.5 / 8, 7.5 / 8], dtype=torch.float64))
    np.testing.assert_allclose(number.score(np.array([0.0, 1.0, 2.0])), expected)
    assert len(number.edges) == 4  # each value is a bin of its own


def test_cells_come_back_as_the_columns_they_were() -> None:
    frame = stones().drop(columns="kind")
    coder = Coder.fit(Schema.infer(frame), frame)
    pd.testing.assert_frame_equal(coder.decode(coder.encode(frame)), frame)
    gaps = frame.astype({"price": "Int64", "sold": "boolean"})
    gaps.loc[2] = None
    cells = coder.encode(coder.schema.check(gaps))
    assert cells["missing"][2].all()
    assert not cells["codes"][2].any()
    assert coder.decode(cells).loc[2].isna().all()


def test_a_date_is_one_column_of_several_cells() -> None:
    table, batch = fitted()
    cells = table.cells
    assert [one.part for one in table.coder.numbers if one.column == "when"] == [
        None,
        "hour sine",
        "hour cosine",
        "weekday sine",
        "weekday cosine",
        "day of year sine",
        "day of year cosine",
    ]
    assert max(cells.columns) + 1 == 6
    waves = batch.data["numbers"][:, [4, 5]]
    torch.testing.assert_close(waves.square().sum(1), torch.full((64,), 2.0))
    daily = stones().assign(when=pd.date_range("2024-01-01", periods=64, freq="D"))
    assert not any("hour" in (one.part or "") for one in fitted(daily)[0].coder.numbers)


def test_raw_cells_are_numbers_gaps_and_one_hot_levels() -> None:
    table, batch = fitted(pd.DataFrame({"x": [1.0, 2.0, None], "c": ["a", "b", None]}), label=None)
    raw = table.raw(batch)
    score = table.coder.numbers[0].scores
    expected = [[score[0], 0, 0, 1, 0], [score[1], 0, 0, 0, 1], [0, 1, 1, 0, 0]]
    torch.testing.assert_close(raw, torch.tensor(expected))


def test_scarf_replaces_exactly_so_many_columns_of_every_row() -> None:
    torch.manual_seed(0)
    row = row_of(400, CELLS)
    changed = CELLS.differ(make_view(row, CELLS, ViewSettings(corrupt=0.6)), row)
    assert torch.equal(changed[:, 0], changed[:, 1])  # cells of one column go together
    counts = changed[:, 1:].sum(1)
    assert counts.max() == 5  # floor(0.6 * 9), less what a row drew from itself
    assert counts.float().mean() > 4.95
    assert changed[:, 1:].float().mean(0).std() < 0.05


def test_corrupted_cells_keep_the_columns_own_distribution() -> None:
    torch.manual_seed(0)
    row = row_of(2000, CELLS)
    row["numbers"] = torch.randn(2000, 6).exp()
    row["codes"] = (torch.rand(2000, 4) < 0.1).long() + 1
    view = make_view(row, CELLS, ViewSettings(corrupt=1.0))
    assert kstest(view["numbers"][:, 3], row["numbers"][:, 3]).pvalue > 0.01
    assert (view["codes"] == 2).float().mean() == pytest.approx(0.1, abs=0.02)
    # and its columns no longer depend on each other: each has a row of its own
    assert (view["numbers"][:, 2:4].T.corrcoef()[0, 1]).abs() < 0.1


def test_swap_noise_is_drawn_cell_by_cell_and_cutmix_from_one_partner() -> None:
    torch.manual_seed(0)
    row = row_of(400, CELLS)
    swapped = make_view(row, CELLS, ViewSettings(swap=0.15))
    share = CELLS.differ(swapped, row).float().mean()
    assert share == pytest.approx(0.15, abs=0.02)
    mixed = make_view(row, CELLS, ViewSettings(cutmix=0.3))
    assert CELLS.differ(mixed, row).float().mean() == pytest.approx(0.3, abs=0.03)
    for here in range(400):
        sources = set(mixed["numbers"][here].int().tolist()) | set((mixed["codes"][here] - 1).tolist())
        assert len(sources - {here}) <= 1


def test_mixup_names_another_row_and_the_own_share() -> None:
    row = row_of(5, CELLS)
    view = make_view(row, CELLS, ViewSettings(mixup=0.3))
    assert torch.equal(view["share"], torch.full((5,), 0.3))
    assert (view["other/codes"] != row["codes"]).all()
    assert sorted(view["other/codes"][:, 0].tolist()) == [1, 2, 3, 4, 5]
    single = row_of(1, CELLS)
    assert torch.equal(make_view(single, CELLS, ViewSettings(mixup=0.3))["other/codes"], single["codes"])


def test_hidden_cells_and_noise() -> None:
    torch.manual_seed(0)
    row = row_of(400, CELLS)
    view = make_view(row, CELLS, ViewSettings(hide=0.4))
    assert (~CELLS.known(view)).float().mean() == pytest.approx(0.4, abs=0.03)
    assert not view["numbers"][view["missing"]].any()
    noisy = make_view(row, CELLS, ViewSettings(noise=0.5))
    assert (noisy["numbers"] - row["numbers"]).std() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(noisy["codes"], row["codes"])


def test_subsets_are_subtabs() -> None:
    # 20 columns in 4 parts of 5, each 3 more: the first on the right, the others on the left
    parts = [part_of(20, part, 4, 0.75) for part in range(4)]
    assert [(part.start, part.stop) for part in parts] == [(0, 8), (1, 10), (6, 15), (11, 20)]
    view = make_view(row_of(3, CELLS), CELLS, ViewSettings(part=0, parts=3, overlap=0.5))
    assert CELLS.known(view)[0].tolist() == [True] * 5 + [False] * 5  # columns 0 to 3


def test_views_are_those_of_the_plan_and_leave_the_rows_alone() -> None:
    table, batch = fitted(globals_=2, locals_=1, options={"table": {"views": [{"corrupt": 0.0}, {}]}})
    before = {name: tensor.clone() for name, tensor in batch.data.items()}
    views = table.views(batch)
    assert [view.kind for view in views] == ["global", "global", "local"]
    assert not table.cells.differ(views[0].data, before).any()
    assert table.cells.differ(views[1].data, before).any(1).float().mean() > 0.5
    for name, tensor in before.items():
        assert torch.equal(batch.data[name], tensor)
        assert torch.equal(batch.known[name], tensor)


def test_a_run_keeps_all_that_rebuilds_it() -> None:
    table, batch = fitted(strength="weak", options={"table": {"swap": 0.3}})
    again = Table.from_settings(table.settings(), table.attachments())
    assert again.coder == table.coder
    assert again.settings() == table.settings()
    torch.manual_seed(0)
    one = table.views(batch)[0].data
    torch.manual_seed(0)
    assert not table.cells.differ(one, again.views(batch)[0].data).any()


def test_a_few_rows_in_memory_are_read_as_the_table_is() -> None:
    table, whole = fitted()
    frame = stones()
    records = frame.iloc[:2].astype(object).to_dict("records")
    records[0]["when"] = records[0]["when"].isoformat()
    records[1]["when"] = records[1]["when"].isoformat()
    for items in (records, [frame.iloc[:2]], [frame.iloc[0], frame.iloc[1]]):
        batch = table.batch(items)
        for name, tensor in batch.data.items():
            torch.testing.assert_close(tensor, whole.data[name][:2])
    assert table.show(table.plain(batch))[0].startswith("weight = ")


def test_unknown_levels_are_missing_where_that_is_wanted() -> None:
    table = Table(unseen="missing")
    table = table.fit(table.read(stones(), label="kind"), ViewPlan())
    assert table.batch([stones().iloc[:1].assign(cut="awful")]).data["codes"][0, 0] == 0


def test_what_cannot_be_learned_from_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fitted(stones().assign(empty=None, row=range(64)), label="kind")
    assert "not learned from (text, constants, identifiers): empty, row" in caplog.text
    assert "4 levels: fair, good, ideal, rough" in caplog.text


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda: Table(bins=1), "bins is 1; numbers need at least 2"),
        (lambda: Table(unseen="skip"), "unknown way with unseen levels 'skip'"),
        (lambda: Table().schema, "knows no data yet: call fit"),
        (lambda: Table().read(stones(), label="knd"), "unknown column 'knd'; did you mean 'kind'"),
        (lambda: Table().read(stones(), column="cut"), "a table's samples are its rows"),
        (lambda: Table().read(stones().assign(y=1), label="y"), "the label 'y' has one class only"),
        (lambda: fitted(pd.DataFrame({"x": [1, 1], "y": [2, 2]}), None), "no column to learn from"),
        (lambda: Table(plan=ViewPlan(options={"table": {"swop": 0.1}})), "unknown view setting 'swop'"),
        (lambda: ViewSettings(swap=1.5), "swap is 1.5; it is a share from 0 to 1"),
        (lambda: ViewSettings(noise=-1), "noise is -1; it must be at least 0"),
        (lambda: ViewSettings(part=4), "part is 4 of 4; it must be from 0 to below parts"),
        (lambda: Number.fit("x", np.array([np.nan]), 8), "the column 'x' is empty: leave it out"),
        (lambda: Coder.from_json(Schema(()), "[1]"), "these are no scales of a table"),
    ],
)
def test_bad_input_is_said_in_a_sentence(action, said: str) -> None:
    with pytest.raises(PolysenseError, match=said):
        action()
