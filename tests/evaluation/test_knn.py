from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.evaluation import knn_accuracy, knn_predict


def clusters(rows: int, classes: int = 5, dim: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(7)
    centres = torch.randn(classes, dim)
    torch.manual_seed(seed)
    labels = torch.randint(classes, (rows,))
    return centres[labels] + 1.5 * torch.randn(rows, dim), labels


def by_hand(bank, labels, queries, k, temperature, bank_identity=None, query_identity=None):
    """The definition, one query at a time, in float64."""
    bank, queries = bank.double().numpy(), queries.double().numpy()
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    answers = []
    for place, query in enumerate(queries):
        similarity = bank @ query
        rows = np.arange(len(bank))
        if bank_identity is not None:
            rows = rows[bank_identity.numpy() != query_identity[place].item()]
        near = rows[np.argsort(-similarity[rows], kind="stable")[:k]]
        votes = np.zeros(int(labels.max()) + 1)
        for row in near:
            votes[labels[row]] += np.exp(similarity[row] / temperature)
        answers.append(votes.argmax() if len(near) else -1)
    return torch.tensor(answers)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (10, 0.1), (20, 0.07), (50, 1.0)])
def test_follows_the_definition(k: int, temperature: float) -> None:
    (bank, labels), (queries, _) = clusters(120), clusters(60, seed=1)
    found = knn_predict(bank, labels, queries, k=k, temperature=temperature)
    assert torch.equal(found, by_hand(bank, labels, queries, k, temperature))


def test_agrees_with_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    (bank, labels), (queries, wanted) = clusters(200), clusters(80, seed=1)
    peer = KNeighborsClassifier(
        15, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1), algorithm="brute"
    ).fit(bank.numpy(), labels.numpy())
    found = knn_predict(bank, labels, queries, k=15)
    assert found.tolist() == peer.predict(queries.numpy()).tolist()
    accuracy = knn_accuracy(bank, labels, queries, wanted, k=15)
    assert accuracy == pytest.approx(peer.score(queries.numpy(), wanted.numpy()))
    assert 0.3 < accuracy < 1


def test_weights_decide_where_counts_would_not() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.5, 1.0]])
    labels, query = torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.05]])
    assert knn_predict(bank, labels, query, k=3, temperature=0.1).item() == 0
    assert knn_predict(bank, labels, query, k=3, temperature=10.0).item() == 1


@pytest.mark.parametrize("chunk", [1, 7, 60, 1000])
def test_chunks_change_nothing(chunk: int) -> None:
    (bank, labels), (queries, _) = clusters(90), clusters(60, seed=1)
    assert torch.equal(
        knn_predict(bank, labels, queries, k=9, chunk=chunk), knn_predict(bank, labels, queries, k=9)
    )


def test_leaves_out_every_row_of_the_own_identity() -> None:
    (bank, labels), (queries, _) = clusters(120), clusters(60, seed=1)
    generator = torch.Generator().manual_seed(3)
    # 4 identities only: each query loses some 30 rows, far more than k.
    bank_identity = torch.randint(4, (120,), generator=generator)
    query_identity = torch.randint(4, (60,), generator=generator)
    identities = {"bank_identity": bank_identity, "query_identity": query_identity}
    found = knn_predict(bank, labels, queries, k=10, **identities)
    assert torch.equal(found, by_hand(bank, labels, queries, 10, 0.1, bank_identity, query_identity))
    assert not torch.equal(found, knn_predict(bank, labels, queries, k=10))


def test_a_query_with_nobody_left_to_vote_gets_no_class() -> None:
    bank = torch.eye(3)
    found = knn_predict(
        bank,
        torch.tensor([0, 1, 1]),
        bank[:2],
        bank_identity=torch.tensor([5, 5, 5]),
        query_identity=torch.tensor([5, 6]),
    )
    assert found.tolist() == [-1, 1]


def test_k_beyond_the_bank_lets_all_vote() -> None:
    (bank, labels), (queries, _) = clusters(12), clusters(30, seed=1)
    assert torch.equal(knn_predict(bank, labels, queries, k=200), knn_predict(bank, labels, queries, k=12))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_takes_half_precision(dtype: torch.dtype) -> None:
    (bank, labels), (queries, _) = clusters(120), clusters(60, seed=1)
    bank, queries = bank.to(dtype), queries.to(dtype)
    assert torch.equal(knn_predict(bank, labels, queries), knn_predict(bank.float(), labels, queries.float()))


def test_autocast_lowers_no_precision() -> None:
    (bank, labels), (queries, _) = clusters(300), clusters(100, seed=1)
    plain = knn_predict(bank, labels, queries, k=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(knn_predict(bank, labels, queries, k=1), plain)


def test_of_equally_near_rows_the_earlier_vote() -> None:
    bank = torch.ones(50, 4)
    labels = torch.tensor([3] * 2 + [1] * 48)
    assert knn_predict(bank, labels, torch.ones(1, 4), k=3).item() == 3
    assert knn_predict(bank, labels, torch.ones(1, 4), k=5).item() == 1


def test_of_equal_votes_the_lower_class_wins() -> None:
    assert knn_predict(torch.ones(2, 4), torch.tensor([1, 0]), torch.ones(1, 4), k=2).item() == 0


def test_a_low_temperature_does_not_overflow() -> None:
    (bank, labels), (queries, _) = clusters(50), clusters(20, seed=1)
    found = knn_predict(bank, labels, queries, k=10, temperature=1e-3)
    nearest = knn_predict(bank, labels, queries, k=1)
    assert (found == nearest).float().mean() > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k of at least 1"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"bank": torch.zeros(0, 2), "labels": torch.zeros(0, dtype=torch.long)}, "is empty"),
        ({"queries": torch.ones(1, 3)}, "the bank has 2 features and the queries 3"),
        ({"labels": torch.tensor([0, -1])}, "the lowest -1"),
        ({"labels": torch.tensor([0])}, "must be 2 integers"),
        ({"bank": torch.tensor([[1.0, 0.0], [torch.nan, 0.0]])}, "row 1 of the bank holds NaN"),
        ({"bank_identity": torch.tensor([0, 1])}, "both bank_identity and query_identity"),
        (
            {"bank_identity": torch.tensor([0]), "query_identity": torch.tensor([0])},
            "one for each row: 2 for the bank",
        ),
    ],
)
def test_says_what_is_wrong(change: dict, message: str) -> None:
    given = {"bank": torch.eye(2), "labels": torch.tensor([0, 1]), "queries": torch.ones(1, 2)} | change
    with pytest.raises(PolysenseError, match=message):
        knn_predict(**given)
