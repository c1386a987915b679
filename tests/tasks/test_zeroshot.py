"""Classes and searches by words, through the commands, with a run that was trained on a few pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import polysense
from polysense.errors import PolysenseError
from polysense.tasks.zeroshot import classify, search
from tests.cli_tools import command

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "white": (240, 240, 240)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty squares of four colours, and a table of what they are."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    rows = []
    for place in range(40):
        name, colour = list(COLOURS.items())[place % 4]
        noisy = np.clip(np.array(colour) + rng.integers(-15, 15, (12, 12, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{place}.png")
        rows.append((f"{place}.png", f"a {name} square number {place}"))
    pd.DataFrame(rows, columns=["path", "caption"]).to_csv(folder / "pairs.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def trained(pictures: Path) -> Path:
    out = pictures / "run"
    polysense.pretrain(
        pictures / "pairs.csv",
        method="clip",
        towers={"image": "small", "text": "text_nano"},
        modality_options={"parts": {"image": {"size": 8}, "text": {"length": 12, "vocabulary": 512}}},
        out=out,
        batch_size=20,
        steps=40,
        lr=2e-3,
        judge=False,
    )
    return out


def test_classes_by_their_names(trained: Path, pictures: Path) -> None:
    found = classify(
        polysense.load(trained), str(pictures / "*.png"), list(COLOURS), templates=["a {} square"]
    )
    right = [list(COLOURS)[int(Path(name).stem) % 4] for name in found["name"]]
    assert (found["class"] == right).mean() > 0.9
    assert np.allclose(found[list(COLOURS)].sum(1), 1, atol=1e-5)


def test_a_search_finds_the_colour_and_draws_a_grid(trained: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.png"
    found = search(trained, "a red square", str(pictures / "*.png"), count=9, out=out)
    assert np.mean([int(Path(name).stem) % 4 == 0 for name in found["name"]]) > 0.8
    assert found["similarity"].is_monotonic_decreasing
    assert Image.open(out).size == (3 * 128, 3 * 144)
    red, green, blue = np.asarray(Image.open(out))[64, 64].astype(int)
    assert red > 150 > green + blue - 100


def test_the_commands(trained: Path, pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    classes = tmp_path / "names.txt"
    classes.write_text("\n".join(COLOURS))
    done = command("zeroshot", trained, pictures / "*.png", "--classes", classes, "--out", table)
    assert done.code == 0, done.err
    assert len(pd.read_csv(table)) == 40
    done = command("search", trained, "blue", pictures / "*.png", "--count", "2", "--out", tmp_path / "g.png")
    assert done.code == 0, done.err
    assert len(done.out.strip().splitlines()) == 2


def test_a_run_with_one_tower_has_no_parts(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 3), dtype=np.uint8)
    run = polysense.pretrain(arrays, out=tmp_path / "one", size=8, batch_size=8, steps=1, judge=False)
    with pytest.raises(PolysenseError, match="has one tower, for 'image', and no parts"):
        search(run, "red", arrays)


def test_a_method_for_one_tower_refuses_pairs(pictures: Path) -> None:
    with pytest.raises(PolysenseError, match="simclr trains one tower, and samples of 2 parts"):
        polysense.pretrain(pictures / "pairs.csv", method="simclr", modality="pair", out=pictures / "no")


def test_templates_come_from_a_file_or_are_refused(trained: Path, pictures: Path, tmp_path: Path) -> None:
    broken = tmp_path / "templates.json"
    broken.write_text('{"a": 1}')
    done = command("zeroshot", trained, pictures / "*.png", "--classes", "red,blue", "--templates", broken)
    assert done.code == 2
    assert "no JSON list of texts" in done.err
