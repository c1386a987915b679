from __future__ import annotations

import io
import json
from importlib import resources

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.evaluation import Protocol, judge, knn_accuracy, recall_at, table

from .fakes import Vectors

EMOJI = {
    "labels": ["group", "subgroup"],
    "bank": {"vendor": "twemoji"},
    "queries": {"vendor": "noto"},
    "identity": "code",
    "k": 10,
    "temperature": 0.1,
}


def labelled(rows: int = 300, **options) -> tuple[Tensor, Vectors]:
    torch.manual_seed(0)
    kinds = torch.arange(rows) % 3
    good = torch.randn(3, 8)[kinds] + 0.3 * torch.randn(rows, 8)
    return good, Vectors(good, {"kind": [["a", "b", "c"][kind] for kind in kinds]}, label="kind", **options)


def test_ordinary_labels() -> None:
    good, dataset = labelled()
    found = judge({"good": good, "noise": torch.randn(300, 8)}, dataset, Protocol.of(dataset))
    assert set(found.results) == {"good", "noise", "majority"}
    assert set(found.results["good"]) == {"knn", "linear", "rankme"}
    assert set(found.results["majority"]) == {"knn", "linear"}
    assert found.results["good"]["knn"] > 95
    assert found.results["good"]["linear"] > 95
    assert found.results["noise"]["knn"] < 60
    assert found.results["majority"]["knn"] == pytest.approx(100 / 3, abs=1)
    assert found.notes == []
    assert json.loads(json.dumps(found.results)) == found.results


def test_intervals_hold_the_value_and_narrow_with_more_queries() -> None:
    def width(rows: int) -> float:
        _, dataset = labelled(rows)
        noise = torch.randn(rows, 8)
        found = judge({"noise": noise}, dataset, Protocol.of(dataset))
        low, high = found.intervals["noise"]["knn"]
        assert low < found.results["noise"]["knn"] < high
        assert "rankme" not in found.intervals["noise"]
        return high - low

    few, many = width(150), width(2400)
    assert many == pytest.approx(few / 4, rel=0.3)
    # 480 queries at about a third: ± 1.96 · sqrt(p (1 − p) / n)
    assert many == pytest.approx(100 * 2 * 1.96 * np.sqrt(2 / 9 / 480), rel=0.15)


def test_recall_among_all_others_where_identities_repeat() -> None:
    torch.manual_seed(0)
    who = np.arange(100) // 2
    features = torch.randn(50, 16)[who] + 0.1 * torch.randn(100, 16)
    dataset = Vectors(features, {"who": who}, identity="who")
    found = judge({"good": features, "noise": torch.randn(100, 16)}, dataset, Protocol.of(dataset))
    assert set(found.results["good"]) == {"recall_at_1", "recall_at_5", "rankme"}
    assert found.results["good"]["recall_at_1"] == 100
    assert found.results["noise"]["recall_at_1"] < 30
    assert "majority" not in found.results
    assert "no labels" in found.notes[0]


def test_without_labels_or_identities_only_the_rank() -> None:
    dataset = Vectors(torch.randn(30, 4))
    found = judge({"x": dataset.data}, dataset, Protocol.of(dataset))
    assert set(found.results) == {"x"}
    assert set(found.results["x"]) == {"rankme"}


def test_rows_without_label_are_left_out_and_counted() -> None:
    good, dataset = labelled()
    dataset.table.loc[:9, "kind"] = None
    found = judge({"good": good}, dataset, Protocol.of(dataset))
    assert found.notes == ["kind: 10 of 300 rows have no label and are left out"]
    assert found.results["good"]["knn"] > 95


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (["same"] * 60, "fewer than two classes"),
        (list(np.linspace(0, 1, 60)), "real numbers"),
        ([None] * 60, "fewer than two classes"),
    ],
)
def test_a_label_that_cannot_be_judged_is_noted(values: list, note: str) -> None:
    dataset = Vectors(torch.randn(60, 4), {"kind": values}, label="kind")
    found = judge({"x": dataset.data}, dataset, Protocol.of(dataset))
    assert set(found.results["x"]) == {"rankme"}
    assert any(note in line and line.startswith("kind: ") for line in found.notes)


def test_table_shows_every_row_and_metric() -> None:
    good, dataset = labelled()
    found = judge({"good": good}, dataset, Protocol.of(dataset))
    console = Console(file=io.StringIO(), width=120)
    console.print(table(found))
    text = console.file.getvalue()
    assert all(word in text for word in ("good", "majority", "knn", "linear", "rankme", "±", "–"))


def test_features_of_another_dataset_are_refused() -> None:
    good, dataset = labelled()
    with pytest.raises(PolysenseError, match="'good' have 299 rows, but the dataset 300 samples"):
        judge({"good": good[1:]}, dataset, Protocol.of(dataset))


@pytest.fixture(scope="module")
def emoji() -> tuple[pd.DataFrame, Tensor]:
    """The pictures' rows, and their pixels at 32 × 32, from −1 to 1."""
    from PIL import Image

    rows = pd.read_parquet(str(resources.files("polysense") / "data" / "emoji.parquet"))
    pictures = (Image.open(io.BytesIO(image["bytes"])).convert("RGB").reduce(2) for image in rows.image)
    pixels = np.stack([np.asarray(picture, dtype=np.float32).ravel() for picture in pictures])
    return rows.drop(columns="image"), torch.from_numpy(pixels / 127.5 - 1)


def test_reproduces_the_published_floor_of_raw_pixels(emoji: tuple[pd.DataFrame, Tensor]) -> None:
    rows, pixels = emoji
    bank, queries = (torch.tensor((rows.vendor == vendor).to_numpy()) for vendor in ("twemoji", "noto"))
    code, group, subgroup = (
        torch.tensor(pd.factorize(rows[column])[0]) for column in ("code", "group", "subgroup")
    )
    identities = {"bank_identity": code[bank], "query_identity": code[queries]}
    measured = {
        f"knn_{name}": 100 * knn_accuracy(pixels[bank], of[bank], pixels[queries], of[queries], **identities)
        for name, of in {"group": group, "subgroup": subgroup}.items()
    }
    recall = recall_at([1, 5], pixels[queries], code[queries], pixels[bank], code[bank])
    measured |= {f"recall_at_{k}": 100 * value for k, value in recall.items()}
    published = {"knn_group": 41.1, "knn_subgroup": 22.1, "recall_at_1": 26.6, "recall_at_5": 39.9}
    assert measured == pytest.approx(published, abs=0.3)


def test_judges_emoji_by_its_own_protocol(emoji: tuple[pd.DataFrame, Tensor]) -> None:
    rows, pixels = emoji
    narrow = pixels.view(-1, 8, 4, 8, 4, 3).mean(dim=(2, 4)).flatten(1)  # 8 × 8: quick to probe
    dataset = Vectors(narrow, rows.drop(columns="name").to_dict("list"), label="group", evaluation=EMOJI)
    found = judge({"pixels": narrow}, dataset, Protocol.of(dataset))
    assert set(found.results["pixels"]) == {
        "knn_group", "knn_subgroup", "linear_group", "recall_at_1", "recall_at_5", "rankme",
    }  # fmt: skip
    assert found.results["majority"]["knn_group"] == pytest.approx(20.2, abs=0.1)
    assert found.results["pixels"]["linear_group"] > found.results["majority"]["linear_group"] + 10
    assert found.results["pixels"]["knn_group"] > found.results["majority"]["knn_group"] + 20
