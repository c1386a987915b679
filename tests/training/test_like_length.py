"""Batches of like length: little padding, and otherwise as good as batches drawn by chance."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import polysense
from polysense.modalities.base import Batch, View, sample_lengths
from polysense.modalities.text.modality import Text
from polysense.training.loader import StepSampler, padding_share


def uneven(samples: int) -> torch.Tensor:
    return torch.randint(3, 200, (samples,), generator=torch.Generator().manual_seed(0))


def test_batches_of_like_length_hold_every_sample_once_and_little_padding() -> None:
    lengths = uneven(1003)
    sampler = StepSampler(1003, 10, seed=3, lengths=lengths)
    first, second = sampler.permutation(0), sampler.permutation(1)
    assert len(first.unique()) == len(first) == 1000
    assert set(first.tolist()) != set(second.tolist())  # others are left out, whatever their length
    chance = StepSampler(1003, 10, seed=3).permutation(0)
    assert padding_share(lengths, chance, 10) > 0.3
    assert padding_share(lengths, first, 10) < 0.05
    places = [sorted(first.tolist()).index(sample) // 10 for sample in first[:50].tolist()]
    assert len(set(places)) > 20  # batches are mixed anew, not cut from the data in their order


def test_batches_of_like_length_follow_in_any_order_and_differ_between_epochs() -> None:
    lengths = uneven(640)
    batches = list(itertools.islice(StepSampler(640, 8, seed=0, lengths=lengths), 160))
    means = torch.stack([lengths[batch].float().mean() for batch in batches[:80]])
    rank = means.argsort().argsort().float()
    assert abs(float(torch.corrcoef(torch.stack([rank, torch.arange(80.0)]))[0, 1])) < 0.4
    assert {frozenset(batch) for batch in batches[:80]} != {frozenset(batch) for batch in batches[80:]}


def test_batches_of_like_length_are_those_of_a_run_that_was_not_stopped() -> None:
    lengths = uneven(50)
    whole = list(itertools.islice(StepSampler(50, 4, seed=4, lengths=lengths), 30))
    for start in (1, 11, 12, 25):  # the second epoch begins at step 12
        assert next(iter(StepSampler(50, 4, seed=4, start=start, lengths=lengths))) == whole[start]


def test_processes_get_equal_parts_of_a_batch_of_like_length() -> None:
    lengths = uneven(400)
    whole = list(itertools.islice(StepSampler(400, 8, lengths=lengths), 50))
    ranks = [
        list(itertools.islice(StepSampler(400, 8, rank=rank, world=2, lengths=lengths), 50))
        for rank in (0, 1)
    ]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in whole]
    assert {len(part) for part in ranks[0] + ranks[1]} == {4}
    widest = [lengths[torch.tensor(parts)].amax(1).float() for parts in ranks]
    assert float((widest[0] - widest[1]).abs().mean()) < 5  # no process waits for another's long texts


class Told:
    """A modality that tells these lengths."""

    def __init__(self, *lengths: int) -> None:
        self.told = np.array(lengths)

    def lengths(self, dataset: object, views: bool) -> NDArray[np.int64] | None:
        return None if views else self.told


def test_lengths_count_only_where_they_are_told_and_differ() -> None:
    assert sample_lengths(object(), []) is None  # type: ignore[arg-type]
    assert sample_lengths(Told(4, 4), []) is None  # type: ignore[arg-type]
    found = sample_lengths(Told(4, 5), [])  # type: ignore[arg-type]
    assert found is not None
    assert found.tolist() == [4, 5]
    assert sample_lengths(Told(4, 5), [], views=True) is None  # type: ignore[arg-type]


class KilledError(Exception):
    pass


def uneven_texts() -> list[str]:
    words = np.random.default_rng(0).choice(["red", "green", "blue", "boat", "house", "bird"], (44, 12))
    return [" ".join(row[: 1 + place % 12]) for place, row in enumerate(words)]


def pretrain(out: Path, steps: int = 16, **options: Any) -> polysense.Run | None:
    return polysense.pretrain(
        uneven_texts(),
        modality="text",
        method="mlm",
        encoder="text_nano",
        encoder_options={"width": 16, "depth": 1, "heads": 1},
        modality_options={"vocabulary": 512},
        batch_size=4,
        steps=steps,
        checkpoint_steps=3,
        out=out,
        judge=False,
        **options,
    )


def test_a_run_killed_in_mid_epoch_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(tmp_path / "whole")
    assert whole is not None
    views, left = Text.views, iter(range(14))  # an epoch has 11 steps

    def dying(self: Text, batch: Batch) -> list[View]:
        if next(left, None) is None:
            raise KilledError
        return views(self, batch)

    monkeypatch.setattr(Text, "views", dying)
    with pytest.raises(KilledError):
        pretrain(tmp_path / "cut")
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    again = polysense.resume(tmp_path / "cut", data=uneven_texts())
    assert again is not None
    for name, weight in whole.encoder.state_dict().items():
        assert torch.equal(weight, again.encoder.state_dict()[name]), name


def test_the_padding_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "polysense"):
        pretrain(tmp_path / "like", steps=1)
    assert "batches of like length: 2 % of them is padding, 31 % if drawn by chance" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "polysense"):
        pretrain(tmp_path / "chance", steps=1, bucket=False)
    assert "batches of like length" not in caplog.text
