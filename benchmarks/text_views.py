"""What each edit of a text does to what is learned from two views of it: a table of probes.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.text_views

SimCSE on the definitions of ``builtin:glosses``, each time with the same tokenizer, steps, batch and seed,
and each time with other views: dropout alone, or an edit on both sides on top of it. Judged by the category
of the word that is defined, beside the untrained encoder, the bag of words, and TF-IDF with SVD. What makes
the text illegible to people (any order, scrambled letters) shows beside what leaves some of it out (deletion,
crops). Scrambled letters are on one side: the definition is to find its own scrambled self (``mnrl``).
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

import polysense
from benchmarks.common import environment, report
from polysense.encoders.base import Encoder
from polysense.evaluation.features import embed_all, extract_raw
from polysense.evaluation.judge import judge
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.sphere import mean_cosine, uniformity
from polysense.modalities.base import Dataset
from polysense.modalities.builtin import builtin
from polysense.modalities.text.modality import Text
from polysense.modalities.text.sources import read_texts

EDITS: dict[str, dict[str, Any]] = {
    "dropout alone": {},
    "deletion 50 %": {"delete": 0.5},
    "crop to 30 to 70 %": {"crop": [0.3, 0.7]},
    "order, 3 places": {"shuffle": 3},
    "any order": {"shuffle": 64},
    "mask 50 %": {"mask": 0.5},
}
"""Settings of both views."""
SCRAMBLED = "letters scrambled, one side"


def tf_idf(texts: list[str], dim: int) -> Tensor:
    """``[N, dim]``: TF-IDF, reduced by SVD, of length 1."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    reduced = TruncatedSVD(dim, random_state=0).fit_transform(counts)
    return functional.normalize(torch.from_numpy(reduced).float())


def scrambled(text: str, chance: random.Random) -> str:
    """The letters of each word in any order: what people cannot read.

    >>> sorted(scrambled("abc", random.Random(0)))
    ['a', 'b', 'c']
    """
    return " ".join("".join(chance.sample(word, len(word))) for word in text.split())


def row(name: str, features: Tensor, dataset: Dataset) -> dict[str, Any]:
    found = judge({"x": features}, dataset, Protocol(labels=("category",))).results["x"]
    spread = {"mean cosine": mean_cosine(features), "uniformity": uniformity(features)}
    return {"views": name, "knn": found["knn"], "linear": found["linear"], **spread}


def trained(frame: pd.DataFrame, how: dict[str, Any], steps: int, encoder: str) -> Encoder:
    """The encoder after so many steps; ``how`` says by what method, on which views or parts."""
    with tempfile.TemporaryDirectory() as folder:
        run = polysense.pretrain(
            frame,
            encoder=encoder,
            lr=1e-3,
            batch_size=128,
            steps=steps,
            out=Path(folder) / "run",
            judge=False,
            **how,
        )
    assert run is not None
    return run.encoder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--encoder", default="text_nano")
    given = parser.parse_args()
    record = {**environment(0, peers=["scikit-learn", "tokenizers"]), **vars(given)}
    frame = builtin("builtin:glosses").sample(given.samples, random_state=0)
    dataset = read_texts(frame, column="definition")
    text = Text(length=32).fit(dataset)
    untrained = text.encoder(given.encoder)
    rows = [
        row("(bag of words)", extract_raw(text, dataset), dataset),
        row("(TF-IDF, SVD)", tf_idf(list(dataset.texts), untrained.dim), dataset),
        row("(untrained)", embed_all(untrained, text, dataset), dataset),
    ]
    chance, settings = random.Random(0), {"length": 32, "tokenizer": text.tokenizer}
    illegible = frame.assign(scrambled=[scrambled(one, chance) for one in frame["definition"]])
    on_one_side = {
        "method": "mnrl",
        "modality_options": {"parts": ["definition", "scrambled"], "text": settings},
    }
    plain = {"method": "simcse", "modality": "text", "column": "definition", "modality_options": settings}
    ways = {**{name: {**plain, "views": edit} for name, edit in EDITS.items()}, SCRAMBLED: on_one_side}
    for name, how in ways.items():
        encoder = trained(illegible, how, given.steps, given.encoder)
        rows.append(row(name, embed_all(encoder, text, dataset), dataset))
    report("text_views", rows, record)


if __name__ == "__main__":
    main()
