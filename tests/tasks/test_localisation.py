"""The command that draws where an encoder sees things."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import polysense
from polysense.modalities.vision.scenes import scenes
from tests.cli_tools import assert_done, assert_refused, command


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "vit"
    data = np.stack(scenes(16, 32)["image"].tolist())
    options = {"depth": 1, "patch": 8}
    polysense.pretrain(
        data, encoder="vit_nano", encoder_options=options, out=folder, batch_size=8, steps=2, judge=False
    )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{name}.png" for name in ("cat", "dog")]
    for path, picture, size in zip(paths, scenes(2, 64)["image"], ((64, 64), (90, 40)), strict=True):
        Image.fromarray(picture).resize(size).save(path)
    return paths


@pytest.mark.parametrize("by", ["token_cut", "lost", "attention"])
def test_it_draws_and_tells_boxes_in_the_pictures_pixels(
    run: Path, pictures: list[Path], tmp_path: Path, by: str
) -> None:
    out = tmp_path / "out"
    outcome = command("localise", run, *pictures, "--by", by, "--out", out)
    assert_done(outcome)
    told = json.loads(outcome.out)
    assert told == json.loads((out / "boxes.json").read_text())
    assert told == pd.read_parquet(out / "boxes.parquet").to_dict("records")
    assert [row["name"] for row in told] == ["cat.png", "dog.png"]
    for row, (width, height) in zip(told, ((64, 64), (90, 40)), strict=True):
        assert 0 <= row["left"] < row["right"] <= width
        assert 0 <= row["top"] < row["bottom"] <= height
    assert Image.open(out / "0000 cat.png").size == (4 * 320 + 12, 320)
    assert Image.open(out / "0001 dog.png").size == (4 * 320 + 12, round(320 * 40 / 90))


def test_it_sees_a_square_on_a_plain_ground(run: Path, tmp_path: Path) -> None:
    picture = np.full((64, 64, 3), 30, np.uint8)
    picture[16:40, 24:48] = (250, 200, 40)
    found = polysense.localise(polysense.load(run), [picture], out=tmp_path / "out").iloc[0]
    assert found["name"] == "picture 0"
    edges = [found[edge] for edge in ("left", "top", "right", "bottom")]
    assert np.abs(np.array(edges) - [24, 16, 48, 40]).max() <= 8


def test_what_does_not_fit_is_told(run: Path, pictures: list[Path], tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert_refused(command("localise", run, pictures[0], "--by", "tokencut", *out), "'token_cut'")
    assert_refused(command("localise", run, *out), "pictures")
    assert_refused(command("localise", run, tmp_path / "no.png", *out), "cannot read picture", "no such file")
    assert_refused(command("localise", tmp_path, pictures[0], *out), "is not a run folder")
    assert not (tmp_path / "out").exists()
    assert_done(command("localise", run, pictures[0], *out))
    assert_refused(command("localise", run, pictures[0], *out), "exists", "--overwrite")
    assert_done(command("localise", run, pictures[0], *out, "--overwrite"))
