"""Table files: the delimiter is found, quotes and line ends hold, and rows that do not fit are named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.modalities.files import is_broken, read_text
from polysense.modalities.tables import Rows, read_table

FRAME = pd.DataFrame({"text": ["a, b; c", 'say "hi"', "two\nlines", "猫 | ö"], "n": [1, 2, 3, 4]})


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(PolysenseError) as error:
        read_table(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_any_delimiter_and_line_end(tmp_path: Path, delimiter: str, end: str) -> None:
    text = FRAME.to_csv(index=False, sep=delimiter, lineterminator=end)
    rows = read_table(written(tmp_path / "a.csv", text))
    pd.testing.assert_frame_equal(rows.frame, FRAME)
    assert rows.bad == []


def test_tsv_parquet_and_json_lines(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    FRAME.to_parquet(tmp_path / "a.parquet")
    FRAME.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for name in ("a.tsv", "a.parquet", "a.jsonl"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name).frame, FRAME)


def test_byte_order_marks(tmp_path: Path) -> None:
    text = FRAME.to_csv(index=False)
    for encoding in ("utf-8-sig", "utf-16"):
        rows = read_table(written(tmp_path / "a.csv", text.encode(encoding)))
        pd.testing.assert_frame_equal(rows.frame, FRAME)


def test_one_column_without_a_delimiter_keeps_its_commas(tmp_path: Path) -> None:
    rows = read_table(written(tmp_path / "a.csv", 'text\nhello, world\n"a ""b"", c"\n\nlast, one, here\n'))
    assert rows.frame["text"].tolist() == ["hello, world", 'a "b", c', "last, one, here"]


def test_rows_that_do_not_fit_are_named_by_line(tmp_path: Path) -> None:
    text = 'text,n\na,1\nb, c,2\n"two\nlines",3\nonly\n"x\ny",4,5\nd,6\n'
    rows = read_table(written(tmp_path / "a.csv", text))
    assert rows.frame["text"].tolist() == ["a", "two\nlines", "d"]
    assert rows.bad == [
        ("line 3", "has 3 fields where the header has 2"),
        ("line 6", "has 1 fields where the header has 2"),
        ("lines 7 to 8", "has 3 fields where the header has 2"),
    ]


def test_bytes_of_another_encoding_are_named_and_can_be_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,n\ncafé,1\nplain,2\n".encode("latin-1"))
    rows = read_table(path)
    assert rows.frame["text"].tolist() == ["plain"]
    assert rows.bad == [("line 2", "is not utf-8")]
    assert read_table(path, "latin-1").frame["text"].tolist() == ["café", "plain"]


def test_a_quote_that_is_never_closed_swallows_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'image,text\na.jpg,x\nb.jpg,"open\nc.jpg,y\nd.jpg,z\n')
    assert f"cannot read {path} as a table: a quote that is opened in line 3 is never closed" == refusal(path)


def test_very_long_cells(tmp_path: Path) -> None:
    rows = read_table(written(tmp_path / "a.csv", f"text,n\n{'word ' * 100_000},1\n"))
    assert len(rows.frame["text"][0]) == 500_000


def test_json_lines_that_are_none(tmp_path: Path) -> None:
    content = b'{"text": "a"}\n\nno\n[1]\n{"text": "\xe9"}\n{"text": "b", "n": 1}'
    rows = read_table(written(tmp_path / "a.jsonl", content))
    assert rows.frame["text"].tolist() == ["a", "b"]
    assert [name for name, _ in rows.bad] == ["line 3", "line 4", "line 5"]


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    assert "it is empty" in refusal(written(tmp_path / "a.csv", ""))
    assert "is binary, no text" in refusal(written(tmp_path / "b.csv", b"PK\0\0" * 9))
    assert "no line of it is a JSON object" in refusal(written(tmp_path / "c.jsonl", "1\n2"))
    assert "cannot read" in refusal(written(tmp_path / "d.parquet", "text"))
    with pytest.raises(PolysenseError, match="there is no encoding 'utf-9'; give one such as 'latin-1'"):
        read_text(written(tmp_path / "e.txt", "a"), "utf-9")
    with pytest.raises(PolysenseError, match=r"cannot read .*none.txt: No such file"):
        read_text(tmp_path / "none.txt")


def test_broken_texts() -> None:
    assert is_broken("\ud800")
    assert not is_broken("👩‍🚀 שלום")
    assert Rows(FRAME).bad == []
