"""The transformer of scikit-learn: its contract, tables of all kinds, repeatability, the folder it leaves."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import polysense
from polysense import PolysenseError, SelfSupervisedEncoder
from tests.tabular.toy_table import stones

ROUNDING = "in float32 the last bit of a row's embedding depends on its place in the batch"


def small(method: str = "scarf", **given: object) -> SelfSupervisedEncoder:
    settings = {"steps": 3, "random_state": 0, "encoder_options": {"width": 8, "depth": 1}}
    return SelfSupervisedEncoder(method, **{**settings, **given})


@parametrize_with_checks(
    [small(steps=1)],
    expected_failed_checks=lambda _: {
        "check_methods_sample_order_invariance": ROUNDING,
        "check_methods_subset_invariance": ROUNDING,
    },
)
def test_it_keeps_scikit_learns_contract(estimator: SelfSupervisedEncoder, check) -> None:
    check(estimator)


def test_embeddings_are_those_of_the_run_and_do_not_depend_on_other_rows() -> None:
    frame = stones(300).drop(columns="kind")
    fitted = small().fit(frame)
    embedded = fitted.transform(frame)
    assert (embedded.shape, embedded.dtype) == ((300, 8), np.float32)
    np.testing.assert_allclose(embedded[270:], fitted.transform(frame.iloc[270:]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(embedded[:4], fitted.run_.embed(frame.iloc[:4]).numpy(), rtol=1e-5, atol=1e-6)


def test_it_goes_in_a_pipeline_and_tells_the_centres_apart() -> None:
    frame = stones(400)
    rows, kinds = frame.drop(columns="kind"), frame["kind"]
    encoder = small(steps=20, encoder_options={"width": 32, "depth": 1})
    scores = cross_val_score(
        make_pipeline(encoder, StandardScaler(), LogisticRegression(max_iter=500)), rows, kinds, cv=2
    )
    assert scores.mean() > 0.7  # of four kinds


def test_one_seed_is_one_encoder_and_torchs_random_numbers_go_on_as_if_nothing_was() -> None:
    frame = stones().drop(columns="kind")
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    first = small(random_state=1).fit(frame).transform(frame)
    assert torch.equal(torch.rand(2), wanted)
    np.testing.assert_array_equal(first, small(random_state=1).fit(frame).transform(frame))
    assert not np.allclose(first, small(random_state=2).fit(frame).transform(frame))


def test_parameters_reach_the_run() -> None:
    estimator = small("vime", batch_size=16, lr=0.5, options={"alpha": 3.0}, views={"swap": 0.2})
    config = clone(estimator).fit(stones().drop(columns="kind")).run_.config
    assert (config["method"], config["options"]["alpha"]) == ("vime", 3.0)
    assert (config["training"]["batch"], config["budget"]["steps"]) == (16, 3)
    assert config["optimisation"]["lr"] == 0.5
    assert config["modality"]["settings"]["plan"]["options"]["swap"] == 0.2


def test_pandas_comes_out_where_it_is_asked_for() -> None:
    frame = stones(16).drop(columns="kind").set_index(pd.Index([f"stone {row}" for row in range(16)]))
    made = small().set_output(transform="pandas").fit(frame).transform(frame)
    assert list(made.columns) == [f"selfsupervisedencoder{place}" for place in range(8)]
    assert list(made.index) == list(frame.index)


def test_the_columns_of_an_array_are_numbers_whatever_they_look_like() -> None:
    X = np.stack([np.arange(30), np.zeros(30), np.full(30, np.nan)], 1)  # run, constant, empty
    fitted = small().fit(X)
    assert [column.kind for column in fitted.run_.modality.schema.columns] == ["number", "number", "constant"]
    assert np.isfinite(fitted.transform(X)).all()


def test_an_unseen_level_is_missing_unless_asked_otherwise() -> None:
    frame = stones().drop(columns="kind")
    odd, gap = frame.assign(cut="odd"), frame.assign(cut=None)
    fitted = small().fit(frame)
    np.testing.assert_array_equal(fitted.transform(odd), fitted.transform(gap.astype({"cut": "str"})))
    with pytest.raises(PolysenseError, match=r"'odd'.*'cut'"):
        small(unseen="error").fit(frame).transform(odd)


def test_it_is_quiet_unless_asked_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    frame = stones().drop(columns="kind")
    small().fit(frame)
    assert capsys.readouterr() == ("", "")
    small(verbose=True).fit(frame)
    assert "step 3" in capsys.readouterr().err


def test_it_fits_in_a_thread() -> None:
    fitted: list[SelfSupervisedEncoder] = []
    thread = threading.Thread(target=lambda: fitted.append(small().fit(stones().drop(columns="kind"))))
    thread.start()
    thread.join()
    assert fitted


@pytest.mark.parametrize("named", [True, False])
def test_it_is_saved_without_a_pickle_and_comes_back(tmp_path: Path, named: bool) -> None:
    frame = stones()[["weight", "depth", "price"]]
    X = frame if named else frame.to_numpy()
    fitted = small(views={"corrupt": 0.5}).fit(X)
    folder = fitted.save(tmp_path / "kept")
    back = SelfSupervisedEncoder.load(folder)
    np.testing.assert_array_equal(back.transform(X), fitted.transform(X))
    assert back.get_params() == fitted.get_params()
    assert hasattr(back, "feature_names_in_") == named
    with pytest.raises(ValueError, match=r"2 features|feature names should match"):
        back.transform(frame[["weight", "depth"]] if named else X[:, :2])
    assert polysense.load(folder).embed(frame if named else _named(frame)).shape == (64, 8)
    for path in folder.rglob("*"):
        with pytest.raises((pickle.UnpicklingError, IsADirectoryError, ValueError, EOFError, KeyError)):
            pickle.loads(path.read_bytes())


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_axis(["x0", "x1", "x2"], axis=1)


def test_saving_replaces_a_run_only_when_asked(tmp_path: Path) -> None:
    fitted = small().fit(stones().drop(columns="kind"))
    fitted.save(tmp_path / "kept")
    with pytest.raises(PolysenseError, match="exists; choose another out"):
        fitted.save(tmp_path / "kept")
    fitted.save(tmp_path / "kept", overwrite=True)


def test_a_run_that_it_did_not_save_is_told(tmp_path: Path) -> None:
    polysense.pretrain(stones(), method="scarf", out=tmp_path / "run", steps=1, judge=False)
    with pytest.raises(PolysenseError, match="was not saved by a SelfSupervisedEncoder"):
        SelfSupervisedEncoder.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "scrf"}, "did you mean 'scarf'"),
        ({"method": "mae"}, "choose a ViT|for data of the modality|cannot hide"),
        ({"encoder": "table_mpl"}, "unknown encoder of tables 'table_mpl'"),
        ({"steps": 0}, "steps"),
        ({"kinds": {"carat": "number"}}, "unknown column 'carat'"),
    ],
)
def test_a_wrong_parameter_is_told_in_fit(given: dict[str, object], said: str) -> None:
    with pytest.raises(PolysenseError, match=said):
        small(**given).fit(stones().drop(columns="kind"))


def test_one_row_is_too_few() -> None:
    with pytest.raises(PolysenseError, match="one row only"):
        small().fit(stones(1).drop(columns="kind"))
