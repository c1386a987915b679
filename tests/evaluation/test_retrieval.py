from __future__ import annotations

import pytest
import torch

from polysense.errors import PolysenseError
from polysense.evaluation import match_ranks, recall_at


def test_ranks_follow_a_sort() -> None:
    torch.manual_seed(0)
    bank, queries = torch.randn(80, 8), torch.randn(40, 8)
    bank_identity, query_identity = torch.randint(15, (80,)), torch.randint(18, (40,))
    wanted = []
    for query, code in zip(queries, query_identity, strict=True):
        order = torch.cosine_similarity(query[None], bank).argsort(descending=True)
        hits = (bank_identity[order] == code).nonzero()
        wanted.append(int(hits[0]) + 1 if len(hits) else 0)
    assert 0 in wanted
    for chunk in (None, 1, 7):
        assert match_ranks(queries, query_identity, bank, bank_identity, chunk=chunk).tolist() == wanted
    counted = [rank for rank in wanted if rank]
    recall = recall_at([1, 5, 80], queries, query_identity, bank, bank_identity)
    assert recall == {k: sum(rank <= k for rank in counted) / len(counted) for k in (1, 5, 80)}
    assert recall[80] == 1


def test_a_sample_does_not_find_itself() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    identity = torch.tensor([0, 0, 1])
    assert recall_at([1, 2], bank, identity, bank, identity, own=torch.arange(3)) == {1: 0.0, 2: 1.0}


def test_collapsed_features_find_nothing() -> None:
    features, identity = torch.ones(20, 4), torch.arange(20)
    assert recall_at([1, 5], features, identity, features, identity) == {1: 0.0, 5: 0.0}


def test_half_precision_is_compared_in_full() -> None:
    torch.manual_seed(0)
    features = torch.randn(50, 8).bfloat16()
    identity = torch.arange(50)
    assert recall_at([1], features, identity, features, identity) == {1: 1.0}


def test_says_what_is_wrong() -> None:
    features = torch.eye(2)
    with pytest.raises(PolysenseError, match="nothing to retrieve"):
        recall_at([1], features, torch.tensor([0, 1]), features, torch.tensor([2, 3]))
    with pytest.raises(PolysenseError, match="one for each row"):
        recall_at([1], features, torch.tensor([0]), features, torch.tensor([2, 3]))
