"""Prompts read by a language model: what it writes is a condition that was checked, or an error."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from polysense.errors import PolysenseError
from polysense.tabular.language_model import BEAMS, causal_model, instructions, understand_by_model
from polysense.tabular.schema import Schema
from tests.tabular.remembering import readings, remembering
from tests.tabular.toy_table import stones

transformers = pytest.importorskip("transformers")

FRAME = stones(60)
SCHEMA = Schema.infer(FRAME)


def written(*continuations: str) -> str:
    return understand_by_model("what I mean", FRAME, SCHEMA, lambda prompt: continuations)


def test_the_model_is_shown_the_columns_examples_and_the_sentence() -> None:
    prompt = instructions("cheap\nones", FRAME, SCHEMA)
    assert "\ncut: category, one of 'fair', 'good', 'ideal', 'rough'\n" in prompt
    assert "\nwhen: date from 2024-" in prompt
    assert "\nCondition: cut == 'fair'\n" in prompt
    assert prompt.endswith("Sentence: cheap ones\nCondition:")
    for line in prompt.splitlines():
        if line.startswith("Condition: "):
            FRAME.query(line.removeprefix("Condition: "))  # the examples are conditions


def test_the_first_continuation_that_is_a_condition_is_taken() -> None:
    assert written(" price < 0 and cut in ['good']\nSentence: more") == "price < 0 and cut in ['good']"
    assert written("rows with a low price", "cut == 'perfect'", "prize < 0", "price < 5") == "price < 5"


@pytest.mark.parametrize(
    ("continuation", "why"),
    [
        ("a low price", "is not written as one"),
        ("__import__('os').system('true')", "compares nothing"),
        ("prize < 5", "did you mean 'price'"),
        ("cut == 'perfect'", "cut has 4 levels: fair, good, ideal, rough, and not 'perfect'"),
        ("price > 1e9", "allows no value of price that was seen"),
        ("price > 5 and price < 4", "contradicts itself"),
        ("price > 'much'", "compare like with like"),
        ("", "is not written as one"),
    ],
)
def test_what_is_no_condition_is_told_and_never_ignored(continuation: str, why: str) -> None:
    with pytest.raises(PolysenseError, match="read no condition on this table in 'what I mean'") as caught:
        written(continuation)
    assert why in str(caught.value)
    with pytest.raises(PolysenseError, match="it wrote nothing"):
        written()


def test_rows_are_drawn_by_what_the_model_read(caplog: pytest.LogCaptureFixture) -> None:
    generator = remembering(readings())
    with caplog.at_level("INFO"):
        rows = generator.sample(
            30, prompt="sehr hoch", where="low > 6", language_model=lambda prompt: ["high > 8"]
        )
    assert (rows.high > 8).all()
    assert rows.attrs["report"]["query"] == "low > 6 and high > 8"
    assert "the prompt was understood as: high > 8" in caplog.text
    with pytest.raises(PolysenseError, match="words are for prompts that are read by rules"):
        generator.sample(3, prompt="high", words={"high": "high > 8"}, language_model=lambda prompt: [])
    with pytest.raises(PolysenseError, match="a language model reads prompts: give one"):
        generator.sample(3, language_model=lambda prompt: [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with random weights and an alphabet of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    shape = {"vocab_size": len(letters), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 1024}
    config = transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0)
    path = tmp_path_factory.mktemp("model")
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=letters[0]).save_pretrained(
        path
    )
    return path


def test_a_model_of_transformers_is_loaded_and_its_nonsense_refused(folder: Path) -> None:
    write = causal_model(folder)
    prompt = instructions("cheap ones", FRAME[["price", "cut"]], Schema.infer(FRAME[["price", "cut"]]))
    texts = write(prompt)
    assert len(texts) == BEAMS
    assert texts == write(prompt)
    assert not any(prompt[:20] in text for text in texts)  # what follows the prompt, without it
    with pytest.raises(PolysenseError, match="the language model read no condition on this table"):
        understand_by_model("cheap ones", FRAME[["price"]], Schema.infer(FRAME[["price"]]), folder)


def test_a_table_that_is_too_wide_for_the_model(folder: Path) -> None:
    wide = pd.DataFrame({f"column {at}": [0.5, 1.5] for at in range(50)})
    with pytest.raises(PolysenseError, match="but the language model reads 1024; leave out columns"):
        understand_by_model("cheap ones", wide, Schema.infer(wide), folder)


def test_a_model_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PolysenseError, match="cannot load the language model"):
        understand_by_model("cheap", FRAME, SCHEMA, tmp_path)


def test_weights_that_are_a_pickle_are_not_opened(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(PolysenseError, match="cannot load the language model"):
        causal_model(tmp_path)
