"""Shards whose captions stand in JSON files, shards that are piped in, and runs on both that were killed."""

from __future__ import annotations

import gzip
import io
import json
import logging
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import polysense
from polysense.errors import PolysenseError
from polysense.modalities.base import Batch, View
from polysense.modalities.pairs.dataset import Pairs
from polysense.modalities.pairs.modality import Paired
from tests.cli_tools import Outcome, assert_done, assert_refused, command
from tests.shard_tools import png, write_shard


def read(source: Any, **reading: Any) -> Pairs:
    return Paired(size=8).read(source, **reading)


def captions(pairs: Pairs) -> list[list[str]]:
    texts, members = pairs.parts["text"], pairs.members["text"]
    rows = [members.rows[members.starts[i] : members.starts[i + 1]] for i in range(len(pairs))]
    return [[texts.texts[row] for row in own] for own in rows]  # type: ignore[attr-defined]


def told(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Ten pairs in two shards, whose samples have the same names."""
    return [
        write_shard(
            tmp_path / f"{number}.tar",
            {
                f"{sample}.{suffix}": content
                for sample in range(5)
                for suffix, content in {
                    "png": png(20 * sample + number),
                    "json": told(caption=f"grey number {sample} of shard {number}", key=sample),
                }.items()
            },
        )
        for number in range(2)
    ]


def test_captions_in_json_files(tmp_path: Path) -> None:
    members = {
        "a.png": png(1), "a.json": told(caption="told by json", label="x", language="en", nested={"no": 1}),
        "b.png": png(2), "b.json": told(text=["one", "two"], label="y", language="de"),
        "c.png": png(3), "c.json": told(txt="not this"), "c.txt": b"from its own file",
    }  # fmt: skip
    pairs = read(write_shard(tmp_path / "a.tar", members))
    assert captions(pairs) == [["told by json"], ["one", "two"], ["from its own file"]]
    assert pairs.table["label"].tolist()[:2] == ["x", "y"]
    assert pairs.label == "label"
    assert "nested" not in pairs.table
    assert pairs.parts["text"].table["language"].tolist()[:3] == ["en", "de", "de"]
    for name, content in members.items():
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    assert captions(read(tmp_path / "folder")) == captions(pairs)


def test_a_field_is_named_like_a_column(tmp_path: Path) -> None:
    members = {"a.png": png(1), "a.json": told(caption="short", alt="what is wanted"), "a.txt": b"nor this"}
    shard = write_shard(tmp_path / "a.tar", members)
    assert captions(read(shard, columns={"text": "alt"})) == [["what is wanted"]]
    with pytest.raises(PolysenseError, match=r"extension or JSON field of .*a.tar 'atl'; did you mean 'alt'"):
        read(shard, columns={"text": "atl"})
    with pytest.raises(PolysenseError, match="unknown part with a column 'txt'; did you mean 'text'"):
        read(shard, columns={"txt": "alt"})


def test_broken_json_is_named_and_counted(tmp_path: Path) -> None:
    members = {
        "good.png": png(1), "good.json": told(caption="good"),
        "broken.png": png(2), "broken.json": b'{"caption": "half',
        "list.png": png(3), "list.json": b"[1]",
        "mute.png": png(4), "mute.json": told(url="u"),
        "binary.png": png(5), "binary.txt": b"a\0b",
    }  # fmt: skip
    pairs = read(write_shard(tmp_path / "a.tar", members), max_bad=0.9)
    assert dict(pairs.bad) == {
        "a.tar/broken": "its .json is no JSON object",
        "a.tar/list": "its .json is no JSON object",
        "a.tar/mute": "has no text",
        "a.tar/binary": "is binary, no text",
    }


def test_shards_that_are_piped_in(shards: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    stream = io.BytesIO(b"".join(path.read_bytes() for path in shards))
    with caplog.at_level(logging.INFO, "polysense"):
        piped = read(stream)
    assert "10 samples in the stream" in caplog.text
    filed = read([str(path) for path in shards])
    assert captions(piped) == captions(filed)
    assert piped.table["name"].tolist()[::5] == ["shard 0/0", "shard 1/0"]
    pixels = [pairs.__getitems__(range(10)).parts["image"]["pixels"] for pairs in (piped, filed)]
    assert torch.equal(*pixels)
    with subprocess.Popen(["cat", *map(str, shards)], stdout=subprocess.PIPE) as cat:
        assert captions(read(cat.stdout)) == captions(filed)


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (lambda whole: whole[:700], "unexpected end of data"),
        (lambda whole: whole[:1300], "unexpected end of data"),
        (lambda whole: whole[:2048], "unexpected end of data"),
        (lambda whole: whole + b"rubbish" * 100, ""),
        (gzip.compress, ".*; unpack it if it is compressed"),
    ],
    ids=["in a file", "in a header", "between files", "rubbish behind", "compressed"],
)
def test_a_stream_that_is_no_tar_file_or_cut_short(shards: list[Path], cut: Any, reason: str) -> None:
    with pytest.raises(PolysenseError, match=rf"cannot read the stream as a tar file \(.*{reason}"):
        read(io.BytesIO(cut(shards[0].read_bytes())))


def test_an_empty_stream_and_commands_are_told(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match="the stream is empty; pipe tar files into it"):
        read(io.BytesIO())
    mark = tmp_path / "mark"
    with pytest.raises(PolysenseError, match=r"runs no command .*, as in touch \S+ \| polysense pretrain -"):
        read(f"pipe:touch {mark}")
    assert not mark.exists()


class KilledError(Exception):
    """Stands for a kill."""


def train(source: Any, out: Path) -> None:
    polysense.pretrain(
        source,
        method="clip",
        towers={"image": "vit_nano", "text": "text_nano"},
        modality_options={"parts": {"image": {"size": 8}, "text": {"length": 12, "vocabulary": 512}}},
        out=out,
        batch_size=4,  # of ten pairs, so that an epoch is two steps and a half
        steps=7,
        checkpoint_steps=3,
        judge=False,
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(polysense.load(run).state_dict())


def test_a_run_on_shards_killed_within_an_epoch_ends_with_the_same_weights(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped() -> io.BytesIO:
        return io.BytesIO(b"".join(path.read_bytes() for path in shards))

    def views_of_five_steps(self: Paired, batch: Batch) -> list[View]:
        if next(steps, None) is None:
            raise KilledError
        return views(self, batch)

    train([str(path) for path in shards], tmp_path / "whole")
    steps, views = iter(range(5)), Paired.views
    with monkeypatch.context() as patch:
        patch.setattr(Paired, "views", views_of_five_steps)
        with pytest.raises(KilledError):
            train(piped(), tmp_path / "cut")
    with pytest.raises(
        PolysenseError, match="data were a BytesIO, which is not kept: give them again, as data="
    ):
        polysense.resume(tmp_path / "cut")
    polysense.resume(tmp_path / "cut", data=piped())
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []


def test_the_command_trains_on_what_is_piped_in(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = ("--method", "clip", "--encoder", "vit_nano+text_nano", "--size", 8, "--steps", 1, "--out", run)

    def piped(*, terminal: bool) -> Outcome:
        stream = io.BytesIO(b"".join(path.read_bytes() for path in shards))
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream, isatty=lambda: terminal))
        return command("pretrain", "-", *words, "--batch-size", 5, "--judge", "false")

    assert_refused(piped(terminal=True), "nothing is piped in", "| polysense pretrain -")
    outcome = piped(terminal=False)
    assert_done(outcome)
    assert "10 samples in the stream" in outcome.err
    assert polysense.load(run).config["data"] == {"source": None, "was": "a stream", "samples": 10}
    assert_refused(command("resume", run), "data were a stream, which is not kept: give them again")
