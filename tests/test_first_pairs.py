"""A new user's own table: 200 pairs, three mistakes in it, two languages, through the real commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import polysense
from tests.cli_tools import assert_done, command

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "white": (240, 240, 240)}
WORDS = ("--method", "clip", "--encoder", "small+text_nano", "--size", 8, "--batch-size", 50, "--steps", 8)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A missing picture in line 22, no caption in line 52, and Latin-1 in line 125."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,caption,lang"]
    for number in range(200):
        name, colour = list(COLOURS.items())[number % 4]
        pixels = np.array(colour) + rng.integers(-15, 15, (8, 10, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"photos/{number}.png")
        lines.append(f'photos/{number}.png,"a {name} square, number {number}",{"en" if number % 3 else "de"}')
    lines[21] = lines[21].replace("20.png", "gone.png")
    lines[51] = "photos/50.png,,en"
    text = "\n".join(lines).encode().replace(b"a white square, number 123", b"ein wei\xdfes Quadrat")
    (folder / "pairs.csv").write_bytes(text)
    return folder / "pairs.csv"


def test_three_mistakes_are_named_and_nothing_is_trained(table: Path, tmp_path: Path) -> None:
    outcome = command("pretrain", table, *WORDS, "--out", tmp_path / "run")
    assert outcome.code == 2
    told = outcome.err.splitlines()
    assert told[0].startswith(
        "reading 'image' from the column 'file' and 'text' from the column 'caption' of"
    )
    assert told[1] == "the language of captions is read from the column 'lang'"
    assert told[-1].startswith("error: cannot read 3 of 200 pairs (1.5 %): line 125: is not utf-8; ")
    for words in ("photos/50.png: has no text", "photos/gone.png: no such file", "with --max-bad 0.02"):
        assert words in told[-1]
    assert not (tmp_path / "run").exists()


def test_a_quote_that_is_left_open_is_told_by_its_lines(table: Path, tmp_path: Path) -> None:
    broken = table.parent / "quote.csv"
    broken.write_bytes(table.read_bytes().replace(b'square, number 100"', b"square, number 100"))
    outcome = command("pretrain", broken, *WORDS, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "lines 102 to 103: has 4 fields where the header has 3" in outcome.err.splitlines()[-1]


def test_the_other_197_train_and_are_judged_by_language(table: Path, tmp_path: Path) -> None:
    outcome = command("pretrain", table, *WORDS, "--out", tmp_path / "run", "--max-bad", 0.02)
    assert_done(outcome)
    assert "skipped 2 of 200 pairs (1.0 %)" in outcome.err
    assert "skipped 1 of 199 pictures (0.5 %)" in outcome.err
    assert polysense.load(tmp_path / "run").config["data"]["samples"] == 197
    for words in ("among the 197 samples given", "en 131, de 66", "recall image to text at 1 in de"):
        assert words in outcome.told
    results = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))["results"]
    metric = "recall_text_to_image_at_10_in_de"
    assert results["chance"][metric] == pytest.approx(100 * (1 - (65 / 66) ** 10), abs=0.01)
    assert results["pretrained"][metric] > 1.5 * results["chance"][metric]
    renamed = table.parent / "others.csv"
    renamed.write_bytes(table.read_bytes().replace(b"lang", b"tongue", 1))
    reading = ("--reading.language", "tongue", "--max-bad", 0.02)
    assert "en 131, de 66" in command("evaluate", tmp_path / "run", renamed, *reading).told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--reading.columns", '{"text": "capton"}'), "'capton'; did you mean 'caption'?"),
        (("--reading.columns.text", "caption"), "write --reading.columns '{\"text\": …}'"),
        (
            ("--reading.colums", "x"),
            "reading data of the modality 'pair' has no option 'colums'; leave it out",
        ),
        (("--reading.language", "tongue"), "unknown column of"),
        (("--column", "caption"), '--reading.columns \'{"text": "caption"}\''),
    ],
)
def test_an_option_that_does_not_fit_the_table(
    table: Path, tmp_path: Path, words: tuple[str], told: str
) -> None:
    outcome = command("pretrain", table, *WORDS, "--out", tmp_path / "run", *words)
    assert outcome.code == 2
    assert told in outcome.err.splitlines()[-1]
