"""What trees learned, kept as arrays: the same predictions, the same fillings, and no trust in the file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from polysense.errors import PolysenseError
from polysense.tabular.augmentation import hide
from polysense.tabular.forest import Forest
from polysense.tasks.imputation import Imputer, impute, impute_file
from tests.tabular.test_augment import every_type
from tests.tabular.test_impute import related


def features(rows: int, *, codes: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Numbers and codes, with gaps."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 4))
    X[:, 1], X[:, 3] = rng.integers(0, codes, rows), 3 * rng.integers(0, 4, rows)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


@pytest.mark.parametrize("categorical", [[False, True, False, True], [False] * 4])
@pytest.mark.parametrize("classes", [0, 2, 4])
def test_a_forest_predicts_what_scikit_learns_trees_do(categorical: list[bool], classes: int) -> None:
    X, later = features(800, codes=20), features(300, codes=40, seed=1)  # some codes were never seen
    y = np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 1]) % 3
    kinds: dict[str, Any] = {
        "max_iter": 12,
        "categorical_features": categorical if any(categorical) else None,
    }
    if classes:
        fitted = HistGradientBoostingClassifier(**kinds).fit(X, np.digitize(y, [1, 2, 3][: classes - 1]))
        forest = Forest.of(fitted, X, np.array(categorical)).check()
        np.testing.assert_array_equal(forest.predict_proba(later), fitted.predict_proba(later))
    else:
        fitted = HistGradientBoostingRegressor(**kinds).fit(X, y)
        forest = Forest.of(fitted, X, np.array(categorical)).check()
        np.testing.assert_array_equal(forest.predict(later), fitted.predict(later))


@pytest.mark.parametrize("how", ["trees", "mode"])
def test_a_saved_imputer_fills_the_same(how: str, tmp_path: Path) -> None:
    holes = hide(related(120).drop(columns=["n", "big"]), rate=0.2, seed=1)
    imputer = Imputer(how).fit(holes)
    again = Imputer.load(imputer.save(tmp_path / "imputer.npz"))
    for asked in ({}, {"draws": 2, "with_uncertainty": True}):
        later = hide(related(100, seed=3).drop(columns=["n", "big"]), rate=0.3, seed=2)
        pd.testing.assert_frame_equal(again.transform(later, **asked), imputer.transform(later, **asked))
    assert again.how == how


def test_levels_of_every_type_are_kept(tmp_path: Path) -> None:
    table = hide(every_type(120), rate=0.1, seed=2)
    imputer = Imputer("mode").fit(table)
    imputer.save(tmp_path / "imputer.npz")
    filled = impute(table, model=tmp_path / "imputer.npz")
    pd.testing.assert_frame_equal(filled, imputer.transform(table))


def test_the_command_saves_and_loads(tmp_path: Path) -> None:
    holes, kept = tmp_path / "holes.csv", tmp_path / "imputer.npz"
    frame = pd.DataFrame({"x": [1.5, None, 3.5], "kind": ["a", "a", "b"]})
    frame.to_csv(holes, index=False)
    impute_file(holes, tmp_path / "one.csv", how="mode", save=kept)
    frame.assign(x=[None, 2.0, 2.0], kind=["a", None, "b"]).to_csv(holes, index=False)
    filled = pd.read_csv(impute_file(holes, tmp_path / "two.csv", model=kept))
    assert filled.x.tolist() == [2.5, 2.0, 2.0]
    assert filled.kind.tolist() == ["a", "a", "b"]  # kind had no hole when it was learned
    with pytest.raises(PolysenseError, match="exists"):
        impute_file(holes, tmp_path / "three.csv", how="mode", save=kept)
    with pytest.raises(PolysenseError, match=r"cannot write an imputer as 'kept.pkl'; end it in .npz"):
        impute_file(holes, tmp_path / "three.csv", how="mode", save=tmp_path / "kept.pkl")
    with pytest.raises(PolysenseError, match="lacks the column 'kind'"):
        impute(frame[["x"]], model=kept)


@pytest.fixture(scope="module")
def small() -> Imputer:
    return Imputer().fit(related(100)[["x", "size"]])


def changed(path: Path, name: str, change: Any) -> Path:
    with np.load(path) as kept:
        arrays = dict(kept)
    found = next(each for each in arrays if each.endswith(name))
    arrays[found] = change(arrays[found].copy())
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def shifted(field: str) -> Any:
    def change(nodes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        nodes[field][nodes["is_leaf"] == 0] += 10_000
        return nodes

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("nodes", shifted("left")),
        ("nodes", shifted("right")),
        ("nodes", shifted("feature_idx")),
        ("nodes", shifted("bitset_idx")),
        ("nodes", lambda nodes: nodes[["value", "left"]].copy()),
        ("nodes", lambda nodes: nodes[:-1]),
        ("subsets", lambda subsets: subsets[:, :2]),
        ("order", lambda order: order[:0]),
    ],
)
def test_damaged_trees_are_not_walked(small: Imputer, name: str, change: Any, tmp_path: Path) -> None:
    """A node that led out of its tree would read memory that is not the tree's."""
    path = small.save(tmp_path / "imputer.npz")
    with pytest.raises(PolysenseError, match="damaged"):
        Imputer.load(changed(path, name, change))


class Harm:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('unpickled')",))


def test_what_is_no_imputer(tmp_path: Path) -> None:
    path = tmp_path / "imputer.npz"
    message = "is no imputer that was written with --save, or damaged"
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(PolysenseError, match=message):
        Imputer.load(path)
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(PolysenseError, match=message):
        Imputer.load(path)
    np.savez(path, how=np.array([Harm()], dtype=object))
    with pytest.raises(PolysenseError, match=message):
        Imputer.load(path)
    Imputer("mode").fit(related(10)).save(path)
    with pytest.raises(PolysenseError, match=message):
        Imputer.load(changed(path, ".class", lambda _: np.array("system")))
