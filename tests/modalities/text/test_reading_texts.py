"""Every kind of source gives the same texts, labels and names; what cannot be read is named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.modalities.text.sources import read_texts
from polysense.modalities.text.store import Texts

TEXTS = ["a red apple", "ein grüner Apfel", "苹果", "תפוח ירוק", "🍎"]


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(PolysenseError) as error:
        read_texts(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``fruit/0.txt`` and so on: two classes, two texts each, and what is no text."""
    for name in ("fruit", "stone"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "all" / name / f"{i}.txt").write_text(f"{name} {i}\nand more", encoding="utf-8")
    (tmp_path / "all" / "fruit" / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "all" / ".hidden.txt").write_text("hidden")
    return tmp_path / "all"


# --- sources


def test_a_list() -> None:
    texts = read_texts(TEXTS)
    assert isinstance(texts, Texts)
    assert list(texts.texts) == TEXTS
    assert texts.table["name"].tolist() == [f"text {i}" for i in range(5)]
    assert (texts.label, texts.identity, texts.evaluation, len(texts), texts.bad) == (None, None, None, 5, [])
    for source in (tuple(TEXTS), pd.Series(TEXTS), np.array(TEXTS)):
        assert list(read_texts(source).texts) == TEXTS


def test_the_lines_of_a_file(tmp_path: Path) -> None:
    for end in ("\n", "\r\n"):
        (tmp_path / "a.txt").write_bytes((f"{end}{end}".join(TEXTS) + end).encode())
        texts = read_texts(tmp_path / "a.txt")
        assert list(texts.texts) == TEXTS
        assert texts.table["name"].tolist() == [f"line {i}" for i in (1, 3, 5, 7, 9)]
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "a.txt").write_bytes("\n".join(TEXTS).encode(encoding))
        assert list(read_texts(tmp_path / "a.txt").texts) == TEXTS


def test_a_folder_of_files_and_a_glob(folder: Path) -> None:
    texts = read_texts(str(folder))
    assert list(texts.texts) == [f"{name} {i}\nand more" for name in ("fruit", "stone") for i in range(2)]
    assert texts.label == "label"
    assert texts.table["label"].tolist() == ["fruit", "fruit", "stone", "stone"]
    assert texts.table["name"].tolist() == ["fruit/0.txt", "fruit/1.txt", "stone/0.txt", "stone/1.txt"]
    assert len(read_texts(f"{folder}/stone/*.txt")) == 2
    assert len(read_texts(f"{folder}/**/*")) == 4


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl", "frame"])
def test_a_column_of_a_table(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"kind": list("aabbb"), "text": TEXTS, "label": list("xxyyy"), "n": range(5)})
    path = tmp_path / f"t.{kind}"
    match kind:
        case "parquet":
            frame.to_parquet(path)
        case "jsonl":
            frame.to_json(path, orient="records", lines=True)
        case _:
            frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ";")
    texts = read_texts(frame if kind == "frame" else path)
    assert list(texts.texts) == TEXTS
    assert texts.label == "label"
    assert texts.table.columns.tolist() == ["name", "kind", "label", "n"]
    assert texts.table["name"].tolist() == [f"row {i}" for i in range(5)]
    assert read_texts(frame, label="kind").label == "kind"


def test_names_of_a_table_stay(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS[:3], "name": ["a", "b", "a"]})
    assert read_texts(frame).table["name"].tolist() == ["a", "b", "a (2)"]


def test_hugging_face(tmp_path: Path) -> None:
    kinds = datasets.ClassLabel(names=["fruit", "stone"])
    features = datasets.Features({"text": datasets.Value("string"), "kind": kinds})
    data = datasets.Dataset.from_dict({"text": TEXTS[:3], "kind": [0, 1, 0]}, features=features)
    data.save_to_disk(str(tmp_path / "saved"))
    for source in (data, tmp_path / "saved", datasets.DatasetDict({"train": data})):
        texts = read_texts(source)
        assert list(texts.texts) == TEXTS[:3]
        assert texts.label == "kind"
        assert texts.table["kind"].tolist() == ["fruit", "stone", "fruit"]
    assert "streaming=False" in refusal(data.to_iterable_dataset())


def test_glosses() -> None:
    texts = read_texts("builtin:glosses")
    assert len(texts) == 117_659
    assert texts.label == "category"
    assert texts.texts[0].startswith("that which is perceived")
    assert "lemmas" in texts.table.columns
    message = refusal("builtin:emoji")
    assert message == "builtin:emoji holds no texts but data for 'image'; texts: builtin:glosses"


# --- which column


def guess(caplog: pytest.LogCaptureFixture, **columns: list[Any]) -> tuple[list[Any], str]:
    with caplog.at_level(logging.INFO):
        caplog.clear()
        return list(read_texts(pd.DataFrame(columns)).texts), caplog.text


def test_the_column_is_guessed_and_the_reason_told(caplog: pytest.LogCaptureFixture) -> None:
    long = [f"a long description of thing {i}" for i in range(3)]
    texts, told = guess(caplog, note=long, Caption=TEXTS[:3])
    assert texts == TEXTS[:3]
    assert "texts are read from the column 'Caption': that is a usual name" in told
    texts, told = guess(caplog, a=[1, 2, 3], b=TEXTS[:3])
    assert texts == TEXTS[:3]
    assert "'b': no other holds texts" in told
    texts, told = guess(caplog, code=["x", "y", "z"], about=long)
    assert texts == long
    assert "'about': its texts are the longest, 29 characters on average" in told


def test_where_no_column_stands_out_all_are_named() -> None:
    frame = pd.DataFrame({"title": TEXTS, "subtitle": TEXTS, "n": range(5)})
    assert refusal(frame) == (
        "the DataFrame does not tell which column holds the texts (title, subtitle, n): name it with --column"
    )
    assert list(read_texts(frame, column="title").texts) == TEXTS
    assert "unknown column 'titel'; did you mean 'title'" in refusal(frame, column="titel")
    assert "unknown column 'labl'" in refusal(frame, column="title", label="labl")
    assert "does not tell which column holds the texts (n)" in refusal(frame[["n"]])


# --- what cannot be read


def test_bad_texts_are_named_counted_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    items = [*TEXTS, "  \n", None, 7, float("nan"), "\ud800", "x" * 100_001, b"bytes"]
    texts = read_texts(items, max_bad=0.6)
    assert list(texts.texts) == TEXTS
    assert texts.bad == [
        ("text 5", "is empty"),
        ("text 6", "is missing"),
        ("text 7", "is no text but a int"),
        ("text 8", "is missing"),
        ("text 9", "is not utf-8"),
        ("text 10", "has 100,001 characters, more than longest=100,000"),
        ("text 11", "is no text but a bytes"),
    ]
    assert "skipped 7 of 12 texts (58.3 %): text 5: is empty; text 6: is missing" in caplog.text
    assert "cannot read 7 of 12 texts (58.3 %)" in refusal(items)
    assert "or allow so many with --max-bad 0.59" in refusal(items)
    assert len(read_texts(["x" * 100_001], longest=200_000)) == 1


def test_a_table_is_aligned_with_the_texts_that_are_left() -> None:
    frame = pd.DataFrame({"text": ["a", None, "c"], "label": [1, 2, 3]})
    texts = read_texts(frame, max_bad=0.5)
    assert texts.table["label"].tolist() == [1, 3]
    assert texts.table["name"].tolist() == ["row 0", "row 2"]


def test_rows_of_a_file_that_do_not_fit_count_as_bad(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,1\nb, with a comma,2\n,3\nd,4\n", encoding="utf-8")
    texts = read_texts(tmp_path / "a.csv", max_bad=0.5)
    assert list(texts.texts) == ["a", "d"]
    assert texts.bad == [("line 3", "has 3 fields where the header has 2"), ("row 1", "is missing")]
    assert "cannot read 2 of 4 texts (50.0 %): line 3: has 3 fields" in refusal(tmp_path / "a.csv")


def test_lines_and_files_of_another_encoding(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.txt").write_bytes("plain\ncafé\nmore\n".encode("latin-1"))
    assert "line 2: is not utf-8" in refusal(tmp_path / "a.txt")
    assert list(read_texts(tmp_path / "a.txt", encoding="latin-1").texts) == ["plain", "café", "more"]
    (folder / "stone" / "2.txt").write_bytes("café".encode("latin-1"))
    (folder / "stone" / "3.txt").write_bytes(b"GIF\0\0\x01")
    (folder / "stone" / "4.txt").write_bytes(b"")
    message = refusal(folder)
    assert "cannot read 3 of 7 texts (42.9 %)" in message
    assert "stone/2.txt: is not utf-8; stone/3.txt: is binary, no text; stone/4.txt: is empty" in message
    assert len(read_texts(folder, max_bad=0.5)) == 4


def test_sources_that_hold_no_texts(tmp_path: Path) -> None:
    assert refusal([]) == "the list of texts is empty"
    assert "none is left to learn from" in refusal(["", " "])
    assert "the DataFrame has no rows" in refusal(pd.DataFrame({"text": []}))
    assert f"no text in {tmp_path}; looked for files ending in .txt, .md" == refusal(tmp_path)
    assert "no text file matches" in refusal(f"{tmp_path}/*.txt")
    (tmp_path / "a.txt").write_text("\n \n")
    assert "is empty; give a file with a text in each line" in refusal(tmp_path / "a.txt")
    (tmp_path / "a.pdf").write_bytes(b"%PDF\0\0")
    assert "a.pdf is binary, no text; give a list of texts" in refusal(tmp_path / "a.pdf")
    assert "did you mean" in refusal(tmp_path / "a.tx")
    assert "cannot read texts from a int; give a list of texts" in refusal(3)
