"""One verdict on a pretrained encoder, beside the untrained one and the raw input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, runtime_checkable
from typing import Protocol as Structural

import torch
from torch import Tensor

from polysense.encoders.base import Encoder
from polysense.encoders.towers import Towers
from polysense.evaluation.features import embed_all, extract_raw
from polysense.evaluation.joint import judge_joint
from polysense.evaluation.judge import Judgement, judge
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.texts import MatchedTexts
from polysense.modalities.base import Dataset, Modality
from polysense.modalities.pairs.dataset import Pairs
from polysense.modalities.pairs.modality import Paired
from polysense.modalities.pairs.texts import TextPairs


@runtime_checkable
class JudgesItself(Structural):
    """A dataset that knows more to ask of features than its labels, such as the true states of a game."""

    def judge(self, features: Mapping[str, Tensor], protocol: Protocol) -> Judgement:
        """What :func:`~.judge.judge` gives, and its own figures before it."""
        ...


def verdict(
    encoders: Mapping[str, Encoder],
    modality: Modality,
    dataset: Dataset,
    protocol: Protocol,
    *,
    device: torch.device | str = "cpu",
) -> tuple[Judgement, dict[str, Any]]:
    """Judge encoders and the raw input on a dataset, or how the parts of its samples find each other.

    Args:
        encoders: by the name of their row, such as "pretrained" and "untrained".
        modality: makes the plain views and the raw input, whose row bears its ``raw_name``.
        dataset: the samples and what is known of them.
        protocol: which probes, on which rows.
        device: where the encoders run.

    Returns:
        The judgement, and the same as plain values for ``evaluation.json``.
    """
    samples = len(dataset)
    if isinstance(modality, TextPairs):
        modality = modality.text
        dataset = MatchedTexts(dataset) if isinstance(dataset, Pairs) else dataset
    if isinstance(modality, Paired):
        towers = {name: encoder for name, encoder in encoders.items() if isinstance(encoder, Towers)}
        assert isinstance(dataset, Pairs)
        judgement = judge_joint(towers, modality, dataset, seed=protocol.seed, device=device)
    else:
        features = {name: embed_all(encoder, modality, dataset, device) for name, encoder in encoders.items()}
        features[modality.raw_name] = extract_raw(modality, dataset, device=device)
        if isinstance(dataset, JudgesItself):
            judgement = dataset.judge(features, protocol)
        else:
            judgement = judge(features, dataset, protocol)
    return judgement, {
        "results": _rounded(judgement.results),
        "intervals": {
            name: {metric: [round(end, 2) for end in ends] for metric, ends in row.items()}
            for name, row in judgement.intervals.items()
        },
        "protocol": asdict(protocol),
        "samples": samples,
        "notes": judgement.notes,
    }


def _rounded(results: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {metric: round(value, 2) for metric, value in row.items()} for name, row in results.items()}
