"""Every kind of source of pairs, and every mistake in one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from polysense.errors import PolysenseError
from polysense.modalities.builtin import builtin
from polysense.modalities.pairs.dataset import Pairs
from polysense.modalities.pairs.modality import Paired
from polysense.modalities.text.store import Texts
from tests.shard_tools import png, write_shard

Write = Callable[..., list[str]]


def read(source: Any, **reading: Any) -> Pairs:
    return Paired(size=8).read(source, **reading)


def captions(pairs: Pairs) -> list[list[str]]:
    """Of each sample."""
    texts, members = pairs.parts["text"], pairs.members["text"]
    assert isinstance(texts, Texts)
    found = [members.rows[members.starts[i] : members.starts[i + 1]] for i in range(len(pairs))]
    return [[texts.texts[row] for row in rows] for rows in found]


def colours(pairs: Pairs) -> list[int]:
    """The upper left value of each sample's picture, which tells which one it is."""
    pixels: Any = pairs.__getitems__(range(len(pairs))).parts["image"]["pixels"]
    values: list[int] = pixels[:, 0, 0, 0].tolist()
    return values


@pytest.mark.parametrize(
    ("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".tsv", "\t"), (".csv", "\t")]
)
def test_captions_may_hold_quotes_delimiters_and_line_breaks(
    tmp_path: Path, pictures: Write, suffix: str, delimiter: str
) -> None:
    names, texts = pictures(3), ['a "red", ripe\napple', "one; two", "tab\there"]
    frame = pd.DataFrame({"filepath": names, "title": texts, "size": [1, 2, 3]})
    frame.to_csv(tmp_path / f"pairs{suffix}", index=False, sep=delimiter)
    pairs = read(tmp_path / f"pairs{suffix}")
    assert captions(pairs) == [[text] for text in texts]
    assert colours(pairs) == [0, 20, 40]
    assert [Path(name).name for name in pairs.table["name"]] == names
    assert pairs.table["size"].tolist() == [1, 2, 3]


def test_the_guess_is_told(tmp_path: Path, pictures: Write, caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"file": pictures(2), "licence": ["CC0, by the way", "CC0"], "caption": ["a", "b"]})
    frame.to_json(tmp_path / "pairs.jsonl", orient="records", lines=True)
    with caplog.at_level(logging.INFO, "polysense"):
        read(tmp_path / "pairs.jsonl")
    assert "reading 'image' from the column 'file' and 'text' from the column 'caption'" in caplog.text


def test_rows_with_one_picture_are_one_sample_with_several_captions(tmp_path: Path, pictures: Write) -> None:
    first, second = pictures(2)
    frame = pd.DataFrame(
        {"image": [first, second, first], "text": ["red", "blue", "crimson"], "n": [1, 2, 3]}
    )
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    pairs = read(tmp_path / "pairs.csv")
    assert captions(pairs) == [["red", "crimson"], ["blue"]]
    assert pairs.table["n"].tolist() == [1, 2]


def test_lists_and_several_columns_are_several_captions() -> None:
    frame = pd.DataFrame(
        {"image": [png(9), png(8)], "en": [["a cat", "cats"], ["a dog"]], "de": ["Katze", None]}
    )
    pairs = read(frame, columns={"text": ["en", "de"]})
    assert captions(pairs) == [["a cat", "cats", "Katze"], ["a dog"]]


def test_bytes_in_a_parquet_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"photo": [png(50), png(60)], "text": ["fifty", "sixty"], "label": ["a", "b"]})
    frame.to_parquet(tmp_path / "pairs.parquet")
    pairs = read(tmp_path / "pairs.parquet")
    assert colours(pairs) == [50, 60]
    assert pairs.label == "label"
    assert pairs.table["text"].tolist() == ["fifty", "sixty"]


def test_a_folder_of_pictures_with_texts_beside_them(tmp_path: Path, pictures: Write) -> None:
    for name in pictures(3, ".jpg"):
        (tmp_path / name).with_suffix(".txt").write_text(f"this is {name}\n", encoding="utf-8")
    assert captions(read(tmp_path)) == [[f"this is picture{i}.jpg"] for i in range(3)]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for number in range(3):
        members = {}
        for sample in (2 * number, 2 * number + 1):
            members |= {f"00{sample}.jpg.png": png(sample), f"00{sample}.txt": f"sample {sample}".encode()}
            members[f"00{sample}.json"] = b"{}"
        write_shard(
            tmp_path / f"shard-{number:03}.tar",
            {k.replace(".jpg.png", ".png"): v for k, v in members.items()},
        )
    return tmp_path


def test_shards_are_counted_and_read_anywhere(shards: Path) -> None:
    pairs = read(str(shards / "shard-{000..002}.tar"))
    assert captions(pairs) == [[f"sample {i}"] for i in range(6)]
    assert colours(pairs) == list(range(6))
    assert pairs.table["name"][5] == "shard-002.tar/005"
    for source in (shards, str(shards / "*.tar"), [str(path) for path in sorted(shards.glob("*.tar"))]):
        assert len(read(source)) == 6


def test_a_shard_that_is_cut_short_or_missing_is_named(shards: Path) -> None:
    whole = (shards / "shard-001.tar").read_bytes()
    (shards / "shard-001.tar").write_bytes(whole[:1300])
    with pytest.raises(PolysenseError, match=r"cannot read .*shard-001.tar as a tar file"):
        read(shards)
    with pytest.raises(PolysenseError, match=r"no such file or folder: .*shard-003.tar"):
        read(str(shards / "shard-{000..003}.tar"))


def test_hugging_face_data_sets() -> None:
    datasets = pytest.importorskip("datasets")
    table = {"image": [{"bytes": png(7)}, {"bytes": png(8)}], "captions": [["seven", "7"], ["eight"]]}
    features = datasets.Features({"image": datasets.Image(), "captions": [datasets.Value("string")]})
    pairs = read(datasets.Dataset.from_dict(table, features=features))
    assert captions(pairs) == [["seven", "7"], ["eight"]]
    assert colours(pairs) == [7, 8]


def test_emoji_have_their_names_and_what_comes_to_mind() -> None:
    pairs = read("builtin:emoji")
    assert (len(pairs), pairs.label, pairs.identity) == (3822, "group", "code")
    first = captions(pairs)[0]
    assert first[0] == "grinning face"
    assert first[1].startswith("grinning face: ")
    assert "cheerful" in first[1]


def test_other_languages_are_other_columns() -> None:
    frame = builtin("emoji").head(3)
    assert captions(read(frame, columns={"text": "name_de"}))[0] == ["grinsendes Gesicht"]


def test_bad_pairs_are_named_counted_and_skipped(
    tmp_path: Path, pictures: Write, caplog: pytest.LogCaptureFixture
) -> None:
    names = pictures(6)
    (tmp_path / names[1]).write_bytes(b"no picture")
    (tmp_path / "bad.csv").write_bytes(
        b"image,text\n"
        + f"{names[0]},fine\n{names[1]},broken\nmissing.png,gone\n{names[2]},\n".encode()
        + f"{names[0]},fine\n{names[3]},fine too\n".encode()
        + f"{names[4]},".encode() + b"caf\xe9\n"
        + f"{names[5]},much, too many\n".encode()
    )  # fmt: skip
    pairs = read(tmp_path / "bad.csv", max_bad=0.8)
    assert captions(pairs) == [["fine"], ["fine too"]]
    reasons = sorted(reason for _, reason in pairs.bad)
    assert reasons == [
        "has 3 fields where the header has 2",
        "has no text",
        "is not utf-8",
        "is the same pair as row 0",
        "no such file",
        "not a picture, or corrupt",
    ]
    with pytest.raises(PolysenseError, match=r"cannot read 6 of 8 pairs \(75.0 %\).*--max-bad 0.75"):
        read(tmp_path / "bad.csv")


def test_equal_captions_are_the_same_thing(tmp_path: Path, pictures: Write) -> None:
    frame = pd.DataFrame({"image": pictures(3), "text": ["a flag", "a cat", "a flag"]})
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    identity = read(tmp_path / "pairs.csv").__getitems__([0, 1, 2]).identity
    assert identity is not None
    assert identity.tolist() == [0, 1, 0]


def test_a_column_that_is_not_there_or_cannot_be_told(tmp_path: Path, pictures: Write) -> None:
    frame = pd.DataFrame({"image": [str(tmp_path / name) for name in pictures(2)], "caption": ["a", "b"]})
    with pytest.raises(
        PolysenseError, match="unknown column of the DataFrame 'captoin'; did you mean 'caption'"
    ):
        read(frame, columns={"text": "captoin"})
    with pytest.raises(PolysenseError, match="unknown part with a column 'txt'; did you mean 'text'"):
        read(frame, columns={"txt": "caption"})
    with pytest.raises(PolysenseError, match=r"no column that is plainly for 'image' \(caption\): name it"):
        read(frame[["caption"]])
    with pytest.raises(PolysenseError, match="pairs lie in several columns: name one for each part"):
        read(frame, column="caption")
    with pytest.raises(PolysenseError, match="unknown column 'group'"):
        read(frame, label="group")


def test_sources_that_hold_no_pairs(tmp_path: Path) -> None:
    for source, message in {
        3: "cannot read pairs from a int; give a CSV",
        "builtin:glosses": "builtin:glosses holds no pairs",
        str(tmp_path): "no file of the parts image, text in",
        str(tmp_path / "nothing.csv"): "no such file or folder",
    }.items():
        with pytest.raises(PolysenseError, match=message):
            read(source)
