"""Sentences about rows, read as conditions by a causal language model that the user brings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from polysense.conditions import Condition
from polysense.errors import PolysenseError, require
from polysense.tabular.columns import as_floats
from polysense.tabular.schema import LEVELLED, Column, Schema

Writer = Callable[[str], Sequence[str]]
"""From a prompt to how it may go on, the likeliest first."""

BEAMS = 4
"""So many continuations are looked at."""

MOST_TOKENS = 64
"""Of a condition."""

_SHOWN = 12
"""So many levels of a column are named in the prompt."""


def understand_by_model(
    sentence: str, frame: pd.DataFrame, schema: Schema, model: str | Path | Writer
) -> str:
    """The condition that a language model reads in a sentence.

    It is shown the columns and a few examples, and its answer goes through the parser that a condition of the
    user's goes through: the first continuation is taken that is a condition on columns and levels that there
    are, and that some value of each column it names satisfies. Whether that is what the sentence says is for
    the user to see: the condition is told.

    Args:
        sentence: in any language that the model knows.
        frame: the table.
        schema: of its columns.
        model: a causal language model of transformers, by its folder or name, or a function from a prompt to
            continuations.

    Raises:
        PolysenseError: for a model that cannot be loaded, or whose continuations are no such condition.

    >>> frame = pd.DataFrame({"carat": [0.3, 0.9, 1.1], "cut": ["Fair", "Ideal", "Fair"]})
    >>> understand_by_model("big ones", frame, Schema.infer(frame), lambda prompt: [" carat > 1"])
    'carat > 1'
    """
    write = model if callable(model) else causal_model(model)
    why: PolysenseError | None = None
    for continuation in write(instructions(sentence, frame, schema)):
        query = continuation.strip().partition("\n")[0].strip()
        try:
            _check(Condition(query, schema.names), frame, schema)
        except PolysenseError as error:
            why = why or error
        else:
            return query
    raise PolysenseError(
        f"the language model read no condition on this table in {sentence!r} ({why or 'it wrote nothing'});"
        " say it by columns, or as where"
    )


def instructions(sentence: str, frame: pd.DataFrame, schema: Schema) -> str:
    """The prompt: what the columns hold, conditions on them as examples, and the sentence.

    >>> frame = pd.DataFrame({"carat": [0.3, 0.9, 1.1], "cut": ["Fair", "Ideal", "Fair"]})
    >>> print(instructions("big ones", frame, Schema.infer(frame)))
    Columns of a table:
    carat: number from 0.3 to 1.1
    cut: category, one of 'Fair', 'Ideal'
    <BLANKLINE>
    Sentences about its rows, as conditions:
    Sentence: carat above 0.9
    Condition: carat > 0.9
    Sentence: cut is Fair
    Condition: cut == 'Fair'
    Sentence: big ones
    Condition:
    """
    numbers, levels = schema.of_kind("number", "integer"), schema.of_kind(*LEVELLED)
    examples = [_example(column, frame[column.name]) for column in (*numbers[:2], *levels[:2])]
    return "\n".join(
        [
            "Columns of a table:",
            *map(_described, schema.of_kind("number", "integer", "date", *LEVELLED)),
            "\nSentences about its rows, as conditions:",
            *(f"Sentence: {said}\nCondition: {condition}" for said, condition in examples),
            f"Sentence: {' '.join(sentence.split())}",
            "Condition:",
        ]
    )


def causal_model(name: str | Path) -> Writer:
    """A causal language model of transformers, as what it writes; by beam search, so that it repeats itself.

    Raises:
        PolysenseError: without transformers, or where there is no such model.
    """
    transformers: Any = require("transformers", "transformers", "a language model")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        # weights that are a pickle are not opened
        model = transformers.AutoModelForCausalLM.from_pretrained(name, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PolysenseError(f"cannot load the language model {str(name)!r}: {reason}") from error

    most = getattr(model.config, "max_position_embeddings", None) or math.inf
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @torch.inference_mode()
    def write(prompt: str) -> list[str]:
        encoded = tokenizer(prompt, return_tensors="pt")
        tokens, mask = encoded["input_ids"], encoded["attention_mask"]
        length = tokens.shape[1]
        if length + MOST_TOKENS > most:
            raise PolysenseError(
                f"the columns take {length} tokens and an answer {MOST_TOKENS}, but the language model reads"
                f" {most}; leave out columns, or choose a model that reads more"
            )
        beams = {"num_beams": BEAMS, "num_return_sequences": BEAMS, "do_sample": False}
        written = model.generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=MOST_TOKENS, pad_token_id=pad, **beams
        )
        texts: list[str] = tokenizer.batch_decode(written[:, length:], skip_special_tokens=True)
        return texts

    return write


def _check(condition: Condition, frame: pd.DataFrame, schema: Schema) -> None:
    """Refuse levels that there are not, and ranges in which nothing lies."""
    for box in condition.boxes():
        for name, allowed in box.columns.items():
            column, among = schema[name], allowed.among or ()
            strange = [value for value in among if column.levels is not None and value not in column.levels]
            if strange:
                raise PolysenseError(f"{name} has {column.describe()}, and not {strange[0]!r}")
            if not allowed.mask(frame[name]).any():
                raise PolysenseError(f"{condition.text!r} allows no value of {name} that was seen")


def _described(column: Column) -> str:
    if column.levels is None:
        low, _, high = column.describe().partition(" to ")
        return f"{column.name}: {column.kind} from {low} to {high}"
    shown = ", ".join(map(repr, column.levels[:_SHOWN])) + (", …" if len(column.levels) > _SHOWN else "")
    return f"{column.name}: {column.kind}, one of {shown}"


def _example(column: Column, values: pd.Series[Any]) -> tuple[str, str]:
    """A sentence about one column, and the condition that it means."""
    name = column.name if column.name.isidentifier() else f"`{column.name}`"
    if column.levels:
        return f"{column.name} is {column.levels[0]}", f"{name} == {column.levels[0]!r}"
    middle = f"{np.nanmedian(as_floats(values)):.6g}"
    return f"{column.name} above {middle}", f"{name} > {middle}"
