"""What `make demo-text` does: three minutes on dictionary definitions, a table, and a report.

    .venv/bin/python examples/demo_text.py

Two views of a definition lack half of its words each, and must find each other among all others (SimCLR on
texts): what is learned is which words go together. The table has the categories of the words defined (kNN
and linear probe) and whether a definition finds its usage example, beside the untrained encoder, the bag of
words, and TF-IDF with SVD.
"""

from __future__ import annotations

import argparse
import json
import logging

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

import polysense
from polysense.deployment.run import build_encoder
from polysense.evaluation.judge import Judgement, judge
from polysense.evaluation.judge import table as judge_table
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.retrieval import recall_at
from polysense.modalities.builtin import builtin
from polysense.modalities.text.modality import Text
from polysense.modalities.text.sources import read_texts

SAMPLES = 20_000


def tf_idf(texts: list[str], others: list[str], dim: int) -> tuple[Tensor, Tensor]:
    """TF-IDF of both, reduced by an SVD that is fitted to the first: ``[N, dim]`` and ``[M, dim]``."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), TruncatedSVD(dim, random_state=0))
    fitted = model.fit_transform(texts)
    return torch.from_numpy(fitted).float(), torch.from_numpy(model.transform(others)).float()


def found(definitions: Tensor, examples: Tensor) -> float:
    """How often the right definition is among the ten nearest to an example, in percent."""
    places = torch.arange(len(definitions))
    return 100 * recall_at([10], examples, places, definitions, places)[10]


def tell_spread(features: Tensor) -> None:
    """Warn when embeddings of different texts all point one way."""
    unit = functional.normalize(features[:2000], dim=1)
    cosine = float((unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)].mean())
    if cosine > 0.5:
        logging.getLogger("polysense").warning(
            "texts that have nothing in common have a cosine of %.2f on average: compare by rank, not by"
            " value, or subtract the mean",
            cosine,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-time", default="3min")
    parser.add_argument("--out", default="runs/demo-text")
    given = parser.parse_args()
    frame = builtin("builtin:glosses").sample(SAMPLES, random_state=0)
    run = polysense.pretrain(
        frame,
        modality="text",
        column="definition",
        label="category",
        method="simclr",
        encoder="text_nano",
        encoder_options={"depth": 1},
        views={"delete": 0.5},
        modality_options={"length": 32},
        options={"hidden": 512},
        max_time=given.max_time,
        out=given.out,
        overwrite=True,
    )
    if run is None:
        return
    with_example = frame[frame["examples"].map(len) > 0].head(2000)
    definitions = with_example["definition"].tolist()
    examples = [many[0] for many in with_example["examples"]]
    dim = run.encoder.dim
    text = run.modality
    assert isinstance(text, Text)
    untrained = polysense.Run(build_encoder(run.config, text), text, run.path, run.config).eval()
    rows = {
        name: (each.embed(definitions), each.embed(examples))
        for name, each in (("pretrained", run), ("untrained", untrained))
    }
    rows[text.raw_name] = text.raw(text.batch(definitions)), text.raw(text.batch(examples))
    rows["TF-IDF, SVD"] = tf_idf(definitions, examples, dim)
    tell_spread(rows["pretrained"][0])

    table = Table("features", "example finds its definition among the first 10, percent")
    for name, pair in rows.items():
        table.add_row(name, f"{found(*pair):.1f}")
    console = Console()
    console.print(table)
    content = json.loads((run.path / "evaluation.json").read_text(encoding="utf-8"))
    results = {**content["results"], "TF-IDF, SVD": judged_tf_idf(frame, dim)}
    console.print(judge_table(Judgement(results, content["intervals"], content["notes"])))
    console.print(f"nearest definitions: {run.path / 'report.html'}")


def judged_tf_idf(frame: object, dim: int) -> dict[str, float]:
    """The probes of the report, on TF-IDF."""
    dataset = read_texts(frame, column="definition", label="category")
    features, _ = tf_idf(list(dataset.texts), list(dataset.texts[:1]), dim)
    return judge({"it": features}, dataset, Protocol.of(dataset)).results["it"]


if __name__ == "__main__":
    main()
