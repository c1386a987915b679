"""What each edit of a text does to what is learned from two views of it: a table of probes.

    .venv/bin/python -m benchmarks.text_views

SimCSE on the definitions of ``builtin:glosses``, each time with the same steps, batch and seed, and each
time with other views: dropout alone, or an edit on both sides on top of it. Judged by the category of the
word that is defined, beside the untrained encoder, the bag of words, and TF-IDF with SVD. What makes the
text illegible (order, hidden words) shows beside what leaves it out (deletion, crops).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

import polysense
from benchmarks.common import environment, report
from polysense.evaluation.features import embed_all, extract_raw
from polysense.evaluation.judge import judge
from polysense.evaluation.protocol import Protocol
from polysense.modalities.base import Dataset
from polysense.modalities.builtin import builtin
from polysense.modalities.text.sources import read_texts

EDITS: dict[str, dict[str, Any]] = {
    "dropout alone": {},
    "deletion 10 %": {"delete": 0.1},
    "deletion 50 %": {"delete": 0.5},
    "crop to 70 to 100 %": {"crop": [0.7, 1.0]},
    "crop to 30 to 70 %": {"crop": [0.3, 0.7]},
    "order, 3 places": {"shuffle": 3},
    "mask 15 %": {"mask": 0.15},
    "mask 50 %": {"mask": 0.5},
}
"""Settings of both views."""


def tf_idf(texts: list[str], dim: int) -> Tensor:
    """``[N, dim]``: TF-IDF, reduced by SVD, of length 1."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    reduced = TruncatedSVD(dim, random_state=0).fit_transform(counts)
    return functional.normalize(torch.from_numpy(reduced).float())


def spread(features: Tensor) -> dict[str, float]:
    """Mean cosine of different texts (near 1 they all point one way) and uniformity on the sphere."""
    unit = functional.normalize(features[:2000].double())
    cosines = (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)]
    return {"mean cosine": float(cosines.mean()), "uniformity": float((4 * cosines - 4).exp().mean().log())}


def row(name: str, features: Tensor, dataset: Dataset) -> dict[str, Any]:
    found = judge({"x": features}, dataset, Protocol(labels=("category",))).results["x"]
    return {"views": name, "knn": found["knn"], "linear": found["linear"], **spread(features)}


def trained(frame: pd.DataFrame, edit: dict[str, Any], steps: int, encoder: str) -> polysense.Run:
    with tempfile.TemporaryDirectory() as folder:
        run = polysense.pretrain(
            frame,
            modality="text",
            column="definition",
            method="simcse",
            encoder=encoder,
            lr=1e-3,
            views=edit,
            steps=steps,
            modality_options={"length": 32},
            out=Path(folder) / "run",
            judge=False,
        )
    assert run is not None
    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--encoder", default="text_nano")
    given = parser.parse_args()
    record = {**environment(0, peers=["scikit-learn", "tokenizers"]), **vars(given)}
    frame = builtin("builtin:glosses").sample(given.samples, random_state=0)
    dataset = read_texts(frame, column="definition")
    rows = []
    for name, edit in {"untrained": None, **EDITS}.items():
        run = trained(frame, edit or {}, given.steps if edit is not None else 1, given.encoder)
        if edit is None:
            torch.manual_seed(0)
            run.encoder = run.modality.encoder(given.encoder)
            rows.append(row("(bag of words)", extract_raw(run.modality, dataset), dataset))
            rows.append(row("(TF-IDF, SVD)", tf_idf(list(dataset.texts), run.encoder.dim), dataset))
        rows.append(row(name, embed_all(run.encoder, run.modality, dataset), dataset))
    report("text_views", rows, record)


if __name__ == "__main__":
    main()
