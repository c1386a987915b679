"""Masked language modelling on texts of uneven lengths: polysense beside the Trainer of transformers.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.text_step

Both train the same small BERT of transformers from nothing, with the same tokenizer on the same definitions,
tokenized beforehand, the same share of hidden tokens, batch and optimiser; once in batches drawn by chance,
once in batches of like length, which both have. The ways take turns. A step is all of it: loader, masks,
forward, backward, optimiser, and the loop around them; polysense with its journal, checkpoints and online
probes, the Trainer without logging and saving. Tokens are those of the texts, not the padding; seconds are
the processor's, so that other jobs on it do not count. The Trainer's model scores the vocabulary at every
place, polysense at the hidden ones.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.common import environment, report
from polysense.deployment.joint_export import fast_tokenizer
from polysense.methods.optimisation import Optimisation
from polysense.methods.table import find
from polysense.modalities.builtin import builtin
from polysense.modalities.text.modality import Text
from polysense.modalities.text.store import Texts
from polysense.training.budget import Budget
from polysense.training.fit import Settings, fit

RATE, DECAY, MASKED, WARMUP = 1e-3, 0.01, 0.15, 3


@dataclass
class Stopwatch:
    """When a model was called, once in every step, and how many tokens of texts it was given."""

    times: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    padded: list[int] = field(default_factory=list)

    def watch(self, model: torch.nn.Module) -> None:
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, model: torch.nn.Module, given: Any, named: dict[str, Any]) -> None:
        self.times.append(time.process_time())
        self.tokens.append(int(named["attention_mask"].sum()))
        self.padded.append(named["attention_mask"].numel())

    def rate(self) -> float:
        """Tokens a second, without the first steps and up to the beginning of the last."""
        return sum(self.tokens[WARMUP:-1]) / (self.times[-1] - self.times[WARMUP])

    def padding(self) -> float:
        """The share of what the model was given that is no token of a text."""
        return 1 - sum(self.tokens) / sum(self.padded)


@dataclass(frozen=True)
class Task:
    """What both train on, and for how long."""

    text: Text
    dataset: Texts
    batch: int
    steps: int

    def config(self) -> Any:
        """A small BERT."""
        return transformers.BertConfig(
            vocab_size=self.text.tokenizer.size,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=512,
            max_position_embeddings=self.text.length,
        )


def train_polysense(task: Task, stopwatch: Stopwatch, *, like_length: bool) -> None:
    encoder = task.text.encoder(transformers.BertModel(task.config()))
    stopwatch.watch(encoder.trunk)
    recipe = find("mlm")
    with tempfile.TemporaryDirectory() as folder:
        fit(
            recipe.build(encoder, "text", mask_ratio=MASKED),
            task.text,
            task.dataset,
            optimisation=Optimisation("adamw", lr=RATE, per=task.batch, weight_decay=DECAY, clip=1.0),
            budget=Budget(steps=task.steps),
            settings=Settings(task.batch, accelerator="cpu", devices=1, bucket=like_length),
            folder=Path(folder),
            recipe=recipe,
        )


def train_trainer(task: Task, stopwatch: Stopwatch, *, like_length: bool) -> None:
    model = transformers.BertForMaskedLM(task.config())
    stopwatch.watch(model.bert)
    tokens = task.dataset.tokens(task.text.tokenizer, task.text.length)
    texts = [{"input_ids": ids.tolist()} for ids in _pieces(tokens)]
    tokenizer = fast_tokenizer(task.text.tokenizer, task.text.length)
    with tempfile.TemporaryDirectory() as folder:
        how = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=task.batch,
            max_steps=task.steps,
            learning_rate=RATE,
            weight_decay=DECAY,
            lr_scheduler_type="cosine",
            train_sampling_strategy="group_by_length" if like_length else "random",
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
        )
        transformers.Trainer(
            model,
            how,
            data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED),
            train_dataset=texts,
        ).train()


def _pieces(tokens: Any) -> list[Any]:
    return [tokens.ids[start:end] for start, end in zip(tokens.starts, tokens.starts[1:], strict=False)]


Way = Callable[[Task, Stopwatch], None]

WAYS: dict[str, Way] = {
    "polysense, like length": partial(train_polysense, like_length=True),
    "polysense, by chance": partial(train_polysense, like_length=False),
    "Trainer, like length": partial(train_trainer, like_length=True),
    "Trainer, by chance": partial(train_trainer, like_length=False),
}


def measure(task: Task, rounds: int) -> list[dict[str, Any]]:
    """A row for each way: the median over the rounds, in which the ways take turns."""
    watches: dict[str, list[Stopwatch]] = {name: [] for name in WAYS}
    for turn in range(rounds):
        for name, train in WAYS.items():
            torch.manual_seed(turn)
            watches[name].append(Stopwatch())
            train(task, watches[name][-1])
    medians = {name: statistics.median(watch.rate() for watch in each) for name, each in watches.items()}
    return [
        {
            "way": name,
            "tokens/s (median)": medians[name],
            "tokens/s (min)": min(watch.rate() for watch in each),
            "tokens/s (max)": max(watch.rate() for watch in each),
            "padding, %": 100 * statistics.mean(watch.padding() for watch in each),
            "x the Trainer by chance": medians[name] / medians["Trainer, by chance"],
        }
        for name, each in watches.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for library in ("transformers", "lightning.pytorch"):
        logging.getLogger(library).setLevel(logging.ERROR)
    record = {
        **environment(0, peers=["transformers", "accelerate"]),
        **vars(given),
        "load": os.getloadavg()[0],
    }
    frame = builtin("builtin:glosses").sample(given.samples, random_state=0)
    texts = Text(length=128, tokenizer="wordpiece")
    dataset = texts.read(frame, column="definition")
    task = Task(texts.fit(dataset), dataset, given.batch, given.steps)
    report("text_step", measure(task, given.rounds), record)


if __name__ == "__main__":
    main()
