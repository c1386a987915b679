"""Recipes for tables: their published values, the traps of re-implementing them, and that they learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import polysense
from polysense.encoders.cell_transformers import CellTransformer
from polysense.encoders.cells import RowEncoder
from polysense.errors import PolysenseError
from polysense.methods.engine import Method, Seen
from polysense.methods.table import find
from polysense.methods.tables import InTurn, RandomColumns, UnitTokens
from polysense.modalities.base import Batch, View, ViewPlan
from polysense.objectives import InfoNCE
from polysense.tabular.modality import Rows, Table
from tests.tabular.toy_table import stones
from tests.toys import RowEncoder as ToyEncoder

PUBLISHED = {
    "scarf": {"temperature": 1.0, "hidden": 256, "out": 256},
    "vime": {"alpha": 2.0},
    "dae": {},
    "masked_cells": {"gaps": False},
    "saint": {"temperature": 0.7, "contrast": 0.5, "numbers": 10.0, "levels": 1.0},
    "subtab": {"temperature": 0.1, "distance": 1.0, "restore": 1.0, "out": 256},
}
SMALL = {
    "table_mlp": {"width": 64, "depth": 2},
    "table_mlp_wide": {"width": 64},
    "cell_transformer": {"width": 32, "depth": 1, "heads": 2},
    "saint": {"width": 16, "heads": 2, "dropout": 0.0},
}
every = pytest.mark.parametrize("name", PUBLISHED)


def noisy_centres(rows: int = 384) -> pd.DataFrame:
    """Four kinds, told by six numbers and a category; eight more numbers tell nothing."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, rows)
    told = rng.normal(size=(4, 6))[kinds] + rng.normal(size=(rows, 6))
    values = np.concatenate([told, rng.normal(size=(rows, 8))], 1)
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(14)])
    frame["level"] = np.array(list("abcd"))[np.where(rng.random(rows) < 0.6, kinds, rng.integers(0, 4, rows))]
    return frame.assign(kind=[f"kind {kind}" for kind in kinds])


def built(name: str, frame: pd.DataFrame, views: ViewPlan | None = None) -> tuple[Method, Table, Rows]:
    torch.manual_seed(0)
    recipe = find(name)
    table = Table(bins=16)
    data = table.read(frame, label="kind")
    table = table.fit(data, views or recipe.views)
    spec = recipe.default_encoders.get("table", table.default_encoder)
    narrow = {option: 32 for option in ("hidden", "out") if option in recipe.published}
    return recipe.build(table.encoder(spec, **SMALL[spec]), "table", **narrow), table, data


def batch_of(table: Table, data: Rows, rows: int = 64) -> Batch:
    return table.collate(data.__getitems__(range(rows)))


@every
def test_published_defaults(name: str) -> None:
    assert find(name).published == PUBLISHED[name]
    assert find(name).modalities == ("table",)


def test_published_views() -> None:
    views = {name: find(name).views.options.get("table", {}) for name in PUBLISHED}
    assert views["scarf"] == {"corrupt": 0.6, "views": [{"corrupt": 0.0}, {}]}
    assert (views["vime"], views["dae"]) == ({"swap": 0.3}, {"swap": 0.15})
    assert views["saint"]["views"][1] == {"cutmix": 0.1, "mixup": 0.3}
    assert (views["subtab"]["parts"], views["subtab"]["overlap"], views["subtab"]["swap"]) == (4, 0.75, 0.3)


@every
def test_every_parameter_learns(name: str) -> None:
    method, table, data = built(name, stones())
    batch = batch_of(table, data)
    method.at(0.0)
    outcome = method(table.views(batch), batch.known)
    outcome.loss.backward()
    assert outcome.loss.isfinite()
    assert [n for n, parameter in method.named_parameters() if parameter.grad is None] == []


def neighbours_agree(x: Tensor, kinds: Tensor) -> float:
    x = functional.normalize(x - x.mean(0), dim=1)
    near = (x @ x.T).fill_diagonal_(-1).topk(10).indices
    return float((functional.one_hot(kinds)[near].sum(1).argmax(1) == kinds).float().mean())


MILDER = ViewPlan(strength="weak", options={"table": {"views": [{}, {"cutmix": 0.1, "mixup": 0.8}]}})
"""SAINT's published mixup leaves more of the partner than of the row: that takes longer than a test may."""


@pytest.mark.parametrize(
    ("name", "steps", "views"),
    [
        ("scarf", 80, None),
        ("vime", 80, None),
        ("dae", 80, None),
        ("masked_cells", 100, None),
        ("saint", 40, MILDER),
        ("subtab", 50, None),
    ],
)
def test_neighbours_are_of_one_kind_more_often_than_before(name: str, steps: int, views) -> None:
    method, table, data = built(name, noisy_centres(), views)
    encoder, whole = method.towers["table"], batch_of(table, data, len(data))
    kinds = torch.as_tensor(pd.factorize(data.table["kind"])[0])

    def quality() -> float:
        with torch.no_grad():
            return neighbours_agree(encoder.eval()(whole.data).pooled, kinds)

    before = quality()
    optimiser = torch.optim.AdamW(method.train().parameters(), lr=3e-3)
    for _ in range(steps):
        batch = table.collate(data.__getitems__(torch.randperm(len(data))[:128].tolist()))
        optimiser.zero_grad()
        method(table.views(batch), batch.known).loss.backward()
        optimiser.step()
    assert quality() > before + 0.02


def test_scarf_asks_in_one_direction_only() -> None:
    torch.manual_seed(0)
    clean, corrupted = torch.randn(2, 5, 3, dtype=torch.float64)
    total = 0.0
    for i in range(5):
        cosines = [functional.cosine_similarity(clean[i], corrupted[j], dim=0) for j in range(5)]
        total += -torch.log(cosines[i].exp() / sum(cosine.exp() for cosine in cosines))
    objective = InfoNCE(1.0, one_way=True)
    torch.testing.assert_close(objective(torch.stack([clean, corrupted])), total / 5)
    assert not torch.isclose(objective(torch.stack([corrupted, clean])), total / 5)


def test_scarf_compares_the_clean_view_with_the_corrupted_one() -> None:
    method, table, data = built("scarf", stones())
    batch = batch_of(table, data)
    clean, corrupted = table.views(batch)
    assert not table.cells.differ(clean.data, batch.data).any()
    changed = table.cells.differ(corrupted.data, batch.data)[:, : table.cells.numbers]
    assert changed[:, 1].float().mean() == pytest.approx(0.5, abs=0.15)  # floor(.6 * 6) of 6 columns
    outcome = method([clean, corrupted], batch.known)
    z = [method.branches["match"].head(one) for one in outcome.seen.student]
    torch.testing.assert_close(outcome.loss, InfoNCE(1.0, one_way=True)(torch.stack(z)))


def test_vime_asks_what_has_changed_and_not_what_was_drawn() -> None:
    """In a column of two values many cells are swapped with an equal one."""
    frame = pd.DataFrame({"x": np.random.default_rng(0).integers(0, 2, 200), "y": np.arange(200.0) / 7})
    method, table, data = built("vime", frame.assign(kind=["a", "b"] * 100))
    batch = batch_of(table, data, 200)
    torch.manual_seed(0)
    (view,) = table.views(batch)
    seen = Seen([view], [method.towers["table"](view.data)], [None], batch.known)
    branch = method.branches["changed"]
    logits, changed = branch.reads(branch, seen, None)
    assert logits.shape == (200, 2, 2)
    expected = torch.stack([view.data["numbers"][:, c] != batch.data["numbers"][:, c] for c in range(2)], 1)
    assert torch.equal(changed.bool(), expected)
    assert changed[:, 0].float().mean() == pytest.approx(0.15, abs=0.06)
    assert changed[:, 1].float().mean() == pytest.approx(0.3, abs=0.08)


def test_rows_are_restored_to_what_they_were_where_that_is_known() -> None:
    method, table, data = built("dae", stones())
    batch = batch_of(table, data)
    (view,) = table.views(batch)
    outcome = method([view], batch.known)
    (encoded,) = outcome.seen.student
    numbers, levels = method.branches["numbers"].head(encoded), method.branches["levels"].head(encoded)
    known = ~batch.data["missing"]
    assert not known.all()
    error = ((numbers[..., 0] - batch.data["numbers"]) ** 2)[known].mean()
    torch.testing.assert_close(outcome.parts["numbers"], error)
    terms = [functional.cross_entropy(levels[:, c], batch.data["codes"][:, c]) for c in range(2)]
    torch.testing.assert_close(outcome.parts["levels"], torch.stack(terms).mean())


def test_saint_restores_from_the_mixed_view_alone() -> None:
    method, table, data = built("saint", stones())
    batch = batch_of(table, data)
    views = table.views(batch)
    outcome = method(views, batch.known)
    numbers = method.branches["numbers"].head(outcome.seen.student[1])
    known = ~batch.data["missing"]
    error = ((numbers[..., 0] - batch.data["numbers"]) ** 2)[known].mean()
    torch.testing.assert_close(outcome.parts["numbers"], 10 * error)
    # the tokens are normalised before each view's own projector, and nothing is behind it
    first, second = method.branches["match"].predictor.parts
    clean, mixed = (UnitTokens()(one) for one in outcome.seen.student)
    assert clean.unflatten(1, (-1, 16)).norm(dim=-1).sub(1).abs().max() < 1e-5
    logits = first(clean) @ second(mixed).T / 0.7
    place = torch.arange(64)
    both = functional.cross_entropy(logits, place) + functional.cross_entropy(logits.T, place)
    torch.testing.assert_close(outcome.parts["match"], 0.5 * both / 2)


def test_a_module_for_each_view() -> None:
    module = InTurn([torch.nn.Identity(), torch.nn.Linear(3, 3)])
    x = torch.randn(4, 3)
    torch.testing.assert_close(module(x), torch.cat([x[:2], module.parts[1](x[2:])]))


def test_subtab_is_the_papers_sum() -> None:
    method, table, data = built("subtab", stones())
    batch = batch_of(table, data, 16)
    outcome = method(table.views(batch), batch.known)
    z = torch.stack([method.branches["match"].head(one) for one in outcome.seen.student]).double()
    assert z.norm(dim=-1).sub(1).abs().max() < 1e-5
    pairs = [(a, b) for a in range(4) for b in range(a)]
    distance = sum((z[a] - z[b]).square().sum() / 16 for a, b in pairs) / 6
    torch.testing.assert_close(outcome.parts["near"].double(), distance, atol=1e-4, rtol=1e-4)
    contrast = 0.0
    for a, b in pairs:
        both = torch.cat([z[a], z[b]])
        logits = (both @ both.T / 0.1).fill_diagonal_(-torch.inf)
        contrast += functional.cross_entropy(logits, torch.arange(32).roll(16), reduction="sum") / 16
    torch.testing.assert_close(outcome.parts["match"].double(), contrast / 6, atol=1e-4, rtol=1e-4)


def test_any_share_of_the_columns_is_hidden_and_missing_cells_are_never_asked_for() -> None:
    method, table, data = built("masked_cells", stones(2000))
    encoder = method.towers["table"]
    assert isinstance(encoder, RowEncoder)
    batch = batch_of(table, data, 2000)
    view = RandomColumns()(View(batch.data, "table"), encoder)
    assert view.mask is not None
    assert view.asked is not None
    columns = view.mask[:, [table.cells.columns.index(c) for c in range(6)]]
    assert torch.equal(table.cells.of_columns(columns), view.mask)  # a date's cells go together
    shares = torch.bincount(columns.sum(1), minlength=7) / 2000
    torch.testing.assert_close(shares, torch.full((7,), 1 / 7), atol=0.035, rtol=0)
    missing = ~table.cells.known(batch.data)
    assert (view.mask & missing).any()
    assert torch.equal(view.asked[:, 0], view.mask & ~missing)
    with_gaps = RandomColumns(gaps=True)(View(batch.data, "table"), encoder)
    assert with_gaps.asked is not None
    assert with_gaps.mask is not None
    assert torch.equal(with_gaps.asked[:, 0], with_gaps.mask)


def test_masked_cells_is_the_cross_entropy_of_what_is_asked_for() -> None:
    method, table, data = built("masked_cells", stones())
    batch = batch_of(table, data)
    outcome = method(table.views(batch), batch.known)
    encoder, view = method.towers["table"], outcome.seen.views[0]
    assert isinstance(encoder, CellTransformer)
    assert method.branches["predict"].head is encoder.predict
    logits, classes = encoder.predict(outcome.seen.student[0]), encoder.tokenise(batch.data)
    asked = view.asked[:, 0]
    assert classes[asked].min() >= 1
    expected = functional.cross_entropy(logits[asked].double(), classes[asked])
    torch.testing.assert_close(outcome.loss.double(), expected)


@pytest.mark.parametrize("name", ["simclr", "vicreg", "byol", "barlow_twins"])
def test_methods_for_anything_run_on_tables_too(name: str) -> None:
    method, table, data = built(name, stones())
    batch = batch_of(table, data)
    views = table.views(batch)
    assert len(views) == 2
    for view in views:
        assert 0.1 < table.cells.differ(view.data, batch.data).float().mean() < 0.3
    method.at(0.0)
    method(views, batch.known).loss.backward()
    assert all(parameter.grad is not None for parameter in method.towers.parameters())


def test_a_table_is_pretrained_loaded_and_embedded(tmp_path: Path) -> None:
    frame = stones(80)
    run = polysense.pretrain(
        frame,
        method="masked_cells",
        encoder_options={"width": 16, "depth": 1, "heads": 2},
        modality_options={"bins": 8},
        label="kind",
        out=tmp_path / "run",
        batch_size=16,
        steps=3,
    )
    assert {"schema.json", "scales.json"} <= {path.name for path in (tmp_path / "run").glob("*/*.json")}
    embedded = polysense.load(tmp_path / "run").embed(frame.iloc[:3].drop(columns="kind"))
    torch.testing.assert_close(embedded, run.embed([frame.iloc[:3]]))
    later = frame.iloc[:3].assign(cut="awful")
    with pytest.raises(PolysenseError, match="row 0 holds 'awful' of the column 'cut'"):
        run.embed(later)


def test_what_knows_no_cells_is_refused() -> None:
    for name in ("vime", "dae", "masked_cells", "saint", "subtab"):
        with pytest.raises(PolysenseError, match="restores the cells of a table, which RowEncoder does not"):
            find(name).build(ToyEncoder(8), "table")
    method, table, data = built("dae", stones())
    with pytest.raises(PolysenseError, match="which the data do not tell; give it a table"):
        method(table.views(batch_of(table, data)))
    with pytest.raises(PolysenseError, match="MLPEncoder cannot hide cells in the way of this method"):
        find("masked_cells").build(table.encoder("table_mlp"), "table")
    with pytest.raises(PolysenseError, match="has no token for each cell; choose 'ft_nano'"):
        find("saint").build(table.encoder("table_mlp"), "table")
