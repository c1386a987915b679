"""Data sets side by side: whose rows belong together, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polysense.errors import PolysenseError
from polysense.modalities.base import Dataset
from polysense.modalities.pairs.dataset import Members, Pairs
from tests.toys import Rows


def rows(*values: float, label: str | None = None) -> Rows:
    dataset = Rows(torch.tensor(values)[:, None], [f"kind {value:.0f}" for value in values])
    dataset.label = label
    return dataset


def test_members_fetch_every_row_of_a_sample_and_keep_the_place_of_those_that_have_none() -> None:
    members = Members.of(np.array([3, 0, 0, -1, 2]), 4)
    assert members.counts.tolist() == [2, 0, 1, 1]
    found, places = members.fetch(np.array([2, 0, 1]))
    owned = [found[row[row >= 0]].tolist() for row in places]
    assert owned == [[4], [1, 2], [0]]  # row 0 stands in for what sample 1 lacks


def test_parts_are_read_side_by_side() -> None:
    pairs = Pairs.of({"left": rows(0, 1, 2), "right": rows(10, 11, 12, label="kind")})
    samples = pairs.__getitems__([2, 0])
    assert samples.parts["left"][0].flatten().tolist() == [2, 0]
    assert samples.parts["right"][0].flatten().tolist() == [12, 10]
    assert (samples.choices, samples.present, samples.identity) == ({}, {}, None)
    assert isinstance(pairs, Dataset)
    assert (len(pairs), pairs.label) == (3, "kind")


def test_a_part_that_some_samples_lack_holds_only_those_that_have_it() -> None:
    pairs = Pairs.of({"left": rows(0, 1, 2), "right": rows(10, 12)}, {"right": [True, False, True]})
    samples = pairs.__getitems__([2, 1])
    assert samples.parts["right"][0].flatten().tolist() == [12, 10]
    assert samples.present["right"].tolist() == [True, False]
    assert "left" not in samples.present


def test_names_come_from_the_parts_that_have_the_sample() -> None:
    left = rows(1, 2)
    pairs = Pairs.of({"left": left, "right": rows(9, 8, 7)}, {"left": [False, True, True]})
    assert pairs.table["kind"].tolist() == ["kind 9", "kind 1", "kind 2"]


def test_samples_of_one_thing_have_one_number_and_those_of_nothing_one_each() -> None:
    left = rows(1, 2, 3, 4)
    left.table["code"] = ["a", None, "a", None]
    left.identity = "code"
    identity = Pairs.of({"left": left, "right": rows(1, 2, 3, 4)}).__getitems__(range(4)).identity
    assert identity is not None
    assert identity[0] == identity[2]
    assert len(identity.unique()) == 3


@pytest.mark.parametrize(
    ("parts", "present", "message"),
    [
        ({"left": 3}, None, "a pair has two parts or more, but only left given"),
        ({"left": 3, "right": 2}, None, "the part 'right' has 2 rows where 3 of 3 samples have it"),
        ({"left": 3, "right": 2}, {"right": [True, False, False]}, "'right' has 2 rows where 1 of 3"),
        ({"left": 3, "right": 3}, {"sound": [True]}, "present names 'sound', which is no part"),
    ],
)
def test_what_does_not_fit_is_refused(parts: dict[str, int], present: object, message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        Pairs.of({part: rows(*range(count)) for part, count in parts.items()}, present)  # type: ignore[arg-type]
