from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from polysense.errors import PolysenseError
from polysense.evaluation import Protocol
from polysense.evaluation.protocol import class_codes, held_out_rows, identity_codes

from .fakes import Vectors

EMOJI = {
    "labels": ["group", "subgroup"],
    "bank": {"vendor": "twemoji"},
    "queries": {"vendor": "noto"},
    "identity": "code",
    "k": 10,
    "temperature": 0.1,
}
COLUMNS = {
    "vendor": ["noto", "twemoji"] * 10,
    "code": [i // 2 for i in range(20)],
    "group": ["a"] * 10 + ["b"] * 10,
    "subgroup": [i // 4 for i in range(20)],
}


def test_takes_the_protocol_that_a_dataset_brings() -> None:
    dataset = Vectors(torch.ones(20, 2), COLUMNS, label="group", identity="code", evaluation=EMOJI)
    protocol = Protocol.of(dataset)
    assert protocol == Protocol(
        ("group", "subgroup"), "code", ("vendor", "twemoji"), ("vendor", "noto"), k=10, temperature=0.1
    )
    assert Protocol.of(dataset, label="subgroup").labels == ("subgroup",)
    parts = protocol.parts(dataset.table)
    assert set(dataset.table.vendor[parts.bank]) == {"twemoji"}
    assert set(dataset.table.vendor[parts.queries]) == {"noto"}
    assert (parts.bank.sum(), parts.queries.sum()) == (10, 10)


def test_the_linear_probe_is_never_tested_on_an_identity_it_was_trained_on() -> None:
    dataset = Vectors(torch.ones(20, 2), COLUMNS, label="group", identity="code", evaluation=EMOJI)
    parts = Protocol.of(dataset).parts(dataset.table)
    trained, tested = set(dataset.table.code[parts.train]), set(dataset.table.code[parts.test])
    assert tested
    assert trained.isdisjoint(tested)
    assert len(trained) + len(tested) == 10
    assert not (parts.train & ~parts.bank).any()
    assert not (parts.test & ~parts.queries).any()


def test_holds_out_a_share_of_each_class() -> None:
    dataset = Vectors(torch.ones(200, 2), {"kind": ["a"] * 150 + ["b"] * 50}, label="kind")
    protocol = Protocol.of(dataset)
    parts = protocol.parts(dataset.table)
    assert dataset.table.kind[parts.queries].value_counts().to_dict() == {"a": 30, "b": 10}
    assert (parts.bank ^ parts.queries).all()
    assert np.array_equal(parts.queries, protocol.parts(dataset.table).queries)
    other = Protocol(labels=("kind",), seed=1).parts(dataset.table)
    assert not np.array_equal(parts.queries, other.queries)


def test_holds_out_whole_identities() -> None:
    who = np.arange(200) // 4
    dataset = Vectors(torch.ones(200, 2), {"kind": who % 2, "who": who}, label="kind", identity="who")
    parts = Protocol.of(dataset).parts(dataset.table)
    assert parts.queries.reshape(50, 4).all(axis=1).sum() == 10
    assert parts.queries.sum() == 40


@pytest.mark.parametrize("test", ["test", "val", "Validation"])
def test_reads_a_split_column(test: str) -> None:
    dataset = Vectors(torch.ones(4, 2), {"kind": [0, 1, 0, 1], "part": ["Train", "Train", test, test]})
    protocol = Protocol.of(dataset, label="kind", split="part")
    assert (protocol.bank, protocol.queries) == (("part", "Train"), ("part", test))
    assert protocol.parts(dataset.table).queries.tolist() == [False, False, True, True]


def test_prefers_test_to_val() -> None:
    dataset = Vectors(torch.ones(3, 2), {"part": ["val", "test", "train"]})
    assert Protocol.of(dataset, split="part").queries == ("part", "test")


def test_a_class_of_one_stays_in_training() -> None:
    held_out = held_out_rows(np.array([0, 0, 0, 1]), 0.2, seed=0)
    assert held_out.tolist().count(True) == 1
    assert not held_out[3]


def test_codes() -> None:
    table = pd.DataFrame({"n": [2, None, 10], "s": ["y", None, "x"], "b": [True, False, True]})
    assert class_codes(table, "s").tolist() == [1, -1, 0]
    assert class_codes(table, "n")[1] == -1
    assert class_codes(table, "b").tolist() == [1, 0, 1]
    assert len(set(identity_codes(table, "s"))) == 3


def test_says_what_is_wrong() -> None:
    dataset = Vectors(torch.ones(4, 2), {"kind": [0, 1, 0, 1], "part": ["x", "x", "y", "y"]})
    with pytest.raises(PolysenseError, match="unknown column 'kinds'; did you mean 'kind'"):
        Protocol.of(dataset, label="kinds")
    with pytest.raises(PolysenseError, match=r"'part' must hold 'train' and 'test'.*'x', 'y'"):
        Protocol.of(dataset, split="part")
    with pytest.raises(PolysenseError, match="no row has 'z' in the column 'part'"):
        Protocol(bank=("part", "z"), queries=("part", "x")).parts(dataset.table)
    with pytest.raises(PolysenseError, match="share 1 rows"):
        Protocol(bank=("part", "x"), queries=("kind", "1")).parts(dataset.table)
    with pytest.raises(PolysenseError, match="held_out"):
        Protocol(held_out=1.0)
    with pytest.raises(PolysenseError, match="both a bank and queries"):
        Protocol(bank=("part", "x"))
