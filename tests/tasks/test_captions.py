"""Captions that a run writes, and pairs that are sorted out, through the commands."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import polysense
from polysense.encoders.attention_pool import QueryHead
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.modalities import make
from polysense.modalities.builtin import builtin
from tests.cli_tools import assert_done, assert_refused, command

NAMES = ("red apple", "grapes", "melon", "banana")


@pytest.fixture(scope="module")
def fruits() -> pd.DataFrame:
    return builtin("emoji").query("vendor == 'noto' and name in @NAMES").reset_index(drop=True)


@pytest.fixture(scope="module")
def folder(fruits: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures as files."""
    folder = tmp_path_factory.mktemp("fruits")
    for name, image in zip(fruits["name"], fruits["image"], strict=True):
        (folder / f"{name}.png").write_bytes(image["bytes"])
    return folder


@pytest.fixture(scope="module")
def trained(fruits: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned the names by heart."""
    frame = pd.concat([fruits[["image", "name"]]] * 4)
    frame["image"] = [{"bytes": image["bytes"] + bytes(i)} for i, image in enumerate(frame["image"])]
    out = tmp_path_factory.mktemp("runs") / "coca"
    polysense.pretrain(
        frame,
        method="coca",
        encoder="small+text_nano+captioner",
        reading={"columns": {"text": "name"}},
        modality_options={"parts": {"image": {"size": 16}, "text": {"length": 12, "vocabulary": 1024}}},
        encoder_options={"captioner": {"width": 64, "depth": 1, "queries": 8}},
        views={"image": {"scale": (1.0, 1.0)}},
        out=out,
        batch_size=16,
        steps=40,
        lr=5e-3,
        judge=False,
    )
    return out


@pytest.mark.parametrize("beams", [1, 3])
def test_a_run_writes_the_captions_it_has_learned(trained: Path, fruits: pd.DataFrame, beams: int) -> None:
    run = polysense.load(trained).train()
    written = run.caption(fruits["image"].tolist(), beams=beams, batch_size=3)
    assert written == fruits["name"].tolist()
    assert run.training
    assert run.caption(fruits["image"][0]) == written[:1]


def test_one_more_query_makes_what_is_matched(trained: Path, fruits: pd.DataFrame) -> None:
    run = polysense.load(trained)
    assert isinstance(run.encoder, Towers)
    assert isinstance(run.encoder.heads["image"], QueryHead)
    pictures, names = (run.part("image").embed(fruits["image"].tolist()), run.part("text").embed(list(NAMES)))
    found = (pictures @ names.T).argmax(1)
    assert [NAMES[place] for place in found] == fruits["name"].tolist()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_the_command_prints_and_writes_them(trained: Path, folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"captions.{suffix}"
    outcome = command("caption", trained, folder, "--beams", 2, "--out", out)
    assert_done(outcome)
    assert [line.split("\t") for line in outcome.out.splitlines()[:-1]] == [
        [f"{name}.png", name] for name in sorted(NAMES)
    ]
    assert outcome.out.splitlines()[-1] == f"wrote {out}"
    read = {
        "csv": pd.read_csv,
        "parquet": pd.read_parquet,
        "jsonl": lambda path: pd.read_json(path, lines=True),
    }
    assert read[suffix](out)["caption"].tolist() == sorted(NAMES)
    assert_refused(command("caption", trained, folder, "--out", out), f"{out} exists; choose another out")
    assert_done(command("caption", trained, folder, "--out", out, "--overwrite"))


def test_what_cannot_be_captioned(trained: Path, folder: Path, tmp_path: Path) -> None:
    assert_refused(command("caption", trained, folder, "--out", "a.txt"), "cannot write a table as 'a.txt'")
    assert_refused(command("caption", trained, folder, "--beams", 0), "beams is 0; give from 1 to")
    assert_refused(command("caption", trained, tmp_path / "none"), "no such file or folder")
    run = polysense.load(trained)
    with pytest.raises(PolysenseError, match="there is nothing to caption"):
        run.caption([])
    run.config = {**run.config, "method": "clip", "options": {}}
    with pytest.raises(PolysenseError, match=r"this run \(clip\) writes no captions; train one that does"):
        run.caption(folder / "melon.png")


NOISY = {
    "a.png": ["a red apple on a plate", "IMG_0231"],
    "b.png": ["apple"],
    "c.png": ["a green apple, seen from above"],
    "missing.png": ["an apple that is not there"],
    "d.png": [""],
}


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """Pairs of which two are fine, in a table beside their pictures."""
    for name in "abcd":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    rows = [(name, text, name[0].upper()) for name, texts in NOISY.items() for text in texts]
    table = pd.DataFrame(rows, columns=["path", "caption", "kind"])
    table.to_csv(tmp_path / "pairs.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_noisy_pairs_are_told_and_the_others_kept(noisy: Path, suffix: str) -> None:
    out, why = noisy / "kept" / f"pairs.{suffix}", noisy / "fallen.csv"
    outcome = command("filter", noisy / "pairs.csv", "--out", out, "--why", why)
    assert_done(outcome)
    assert outcome.out.splitlines()[0] == "kept 2 of 6 pairs"
    assert sorted(line.strip() for line in outcome.out.splitlines()[1:5]) == [
        "1  has less than 3 words",
        "1  has no text",
        "1  is an address or a file name",
        "1  no such file",
    ]
    fallen = pd.read_csv(why)
    assert dict(zip(fallen["text"].fillna(""), fallen["rule"], strict=True)) == {
        "IMG_0231": "is an address or a file name",
        "apple": "has less than 3 words",
        "an apple that is not there": "no such file",
        "": "has no text",
    }
    pairs = make("pair", {"size": 8}).read(out)
    assert pairs.table["text"].tolist() == [NOISY["a.png"][0], NOISY["c.png"][0]]
    assert pairs.table["kind"].tolist() == ["A", "C"]


def test_in_python_the_kept_pairs_are_a_table(noisy: Path) -> None:
    kept, fallen = polysense.filter_pairs(noisy / "pairs.csv", least=6, alt_rules=False)
    assert kept["text"].tolist() == ["a red apple on a plate", "a green apple, seen from above"]
    assert fallen["rule"].tolist().count("has less than 6 words") == 2
    assert Path(kept["image"][0]).resolve() == noisy / "a.png"


def test_pictures_of_shards_go_with_a_parquet_file(noisy: Path) -> None:
    with tarfile.open(noisy / "shard.tar", "w") as shard:
        for name, texts in list(NOISY.items())[:3]:
            shard.add(noisy / name, name)
            about = tarfile.TarInfo(f"{name[0]}.txt")
            about.size = len(texts[0])
            shard.addfile(about, io.BytesIO(texts[0].encode()))
    with pytest.raises(
        PolysenseError, match=r"no files of their own, and kept.csv cannot hold them; end it in"
    ):
        polysense.filter_pairs(noisy / "shard.tar", out=noisy / "kept.csv")
    kept, _ = polysense.filter_pairs(noisy / "shard.tar", out=noisy / "kept.parquet")
    assert kept["image"][0]["bytes"] == (noisy / "a.png").read_bytes()
    assert len(make("pair", {"size": 8}).read(noisy / "kept.parquet")) == 2


def test_what_cannot_be_filtered(noisy: Path) -> None:
    for words, told in {
        ("--least", "9"): "none of the 6 pairs is left (most often: has less than 9 words); loosen",
        ("--least", "9", "--most", "4"): "no text can have from 9 to 4 words",
        ("--out", "kept.txt"): "cannot write a table as 'kept.txt'; end it in .csv",
        ("--out", str(noisy / "pairs.csv")): "exists; choose another out",
        ("--columns.text", "captoin"): "unknown column of",
    }.items():
        outcome = command("filter", noisy / "pairs.csv", *words)
        assert outcome.code == 2
        assert told in outcome.err.splitlines()[-1]
    frame = pd.DataFrame({"image": [np.zeros((4, 4, 3), np.uint8)], "text": [NOISY["a.png"][0]]})
    assert len(polysense.filter_pairs(frame).kept) == 1
    with pytest.raises(PolysenseError, match="these pictures are no files and cannot be written"):
        polysense.filter_pairs(frame, out=noisy / "kept.parquet")
