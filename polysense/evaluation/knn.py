"""Nearest-neighbour classification of frozen features: the probe without a training of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from polysense.errors import PolysenseError

SIMILARITIES_AT_ONCE = 2**24
"""How many similarities are held in memory together where nothing else is asked for: 64 MB."""


def knn_predict(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    k: int = 10,
    temperature: float = 0.1,
    classes: int | None = None,
    bank_identity: Tensor | None = None,
    query_identity: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Classify each query by the vote of its ``k`` nearest rows of the bank.

    The weighted vote of InstDisc (https://arxiv.org/abs/1805.01978), which DINO made the custom:
    similarity ``s`` is the cosine, and a neighbour's vote weighs ``exp(s / temperature)``. Figures
    compare only under one ``k`` and one ``temperature``. Of neighbours equally near the earlier row of
    the bank is taken; of classes with equal votes the lower wins.

    Args:
        bank: ``[N, D]`` features of any floating type; compared in float32.
        labels: ``[N]`` integer classes of the bank, from 0.
        queries: ``[Q, D]`` features.
        k: neighbours that vote; fewer where the bank has fewer.
        temperature: a lower one lets the nearest decide.
        classes: how many classes there are, at least; by default as many as the bank shows.
        bank_identity, query_identity: ``[N]`` and ``[Q]`` integer codes, both or neither: rows of the
            bank with the query's own code have no vote.
        chunk: queries compared at once; by default as many as need about 64 MB. It changes no answer.

    Returns:
        ``[Q]`` predicted classes, -1 where no row of the bank may vote.

    Raises:
        PolysenseError: for shapes that do not fit, negative labels, features that are not finite.

    >>> bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> knn_predict(bank, torch.tensor([0, 0, 1]), torch.tensor([[1.0, 0.2], [0.1, 1.0]]), k=1)
    tensor([0, 1])
    """
    _check(bank, labels, queries, k, temperature)
    if bank_identity is not None and query_identity is not None:
        check_identities(bank, bank_identity, queries, query_identity)
    elif bank_identity is not None or query_identity is not None:
        raise PolysenseError("give both bank_identity and query_identity, or neither")
    labels = labels.long()
    classes = max(classes or 0, int(labels.max()) + 1)
    bank, queries = unit_rows(bank, "bank"), unit_rows(queries, "queries")
    k = min(k, len(bank))
    chunk = chunk or max(1, SIMILARITIES_AT_ONCE // max(len(bank), classes))
    predicted = torch.empty(len(queries), dtype=torch.long, device=queries.device)
    for rows, similarity in similarities(queries, bank, chunk):
        if bank_identity is not None and query_identity is not None:
            own = query_identity[rows, None] == bank_identity
            similarity.masked_fill_(own, -torch.inf)
        near, index = _nearest(similarity, k)
        best = near.amax(dim=1, keepdim=True)
        # Relative to the nearest, so that a low temperature cannot overflow; the winner is the same.
        weight = ((near - best) / temperature).exp()
        votes = weight.new_zeros(len(near), classes).scatter_add_(1, labels[index], weight)
        predicted[rows] = votes.argmax(dim=1).where(best[:, 0] > -torch.inf, -1)
    return predicted


def knn_accuracy(
    bank: Tensor, labels: Tensor, queries: Tensor, query_labels: Tensor, **options: Any
) -> float:
    """The share of queries that :func:`knn_predict`, with its ``options``, classifies rightly, 0 to 1.

    >>> bank = torch.eye(2)
    >>> knn_accuracy(bank, torch.tensor([0, 1]), bank, torch.tensor([0, 0]), k=1)
    0.5
    """
    predicted = knn_predict(bank, labels, queries, **options)
    return (predicted == query_labels).double().mean().item()


def unit_rows(features: Tensor, name: str) -> Tensor:
    """``[N, D]`` features in float32, each row of length 1 (rows of zeros stay so).

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), "bank")
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    if features.ndim != 2:
        raise PolysenseError(f"the {name} must be features of shape [N, D], not {list(features.shape)}")
    features = features.float()
    length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    if not length.isfinite().all():
        row = int((~length.isfinite()).nonzero()[0, 0])
        raise PolysenseError(
            f"row {row} of the {name} holds NaN or infinite features; check whether the training diverged"
        )
    unit: Tensor = features / length.clamp_min(torch.finfo(length.dtype).tiny)
    return unit


def similarities(queries: Tensor, bank: Tensor, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """Products of unit rows, ``chunk`` queries at a time: which queries, and their ``[chunk, N]``."""
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        # Full precision also inside a training step's autocast: in bfloat16 neighbours would tie.
        with torch.autocast(queries.device.type, enabled=False):
            yield rows, queries[rows] @ bank.T


def _nearest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` highest of each row with their places; at equal similarity the earlier places."""
    near, index = similarity.topk(min(k + 1, similarity.shape[1]))
    if near.shape[1] > k:
        # topk leaves open which of equals it takes: where the k-th and the next tie, decide by place.
        tied = near[:, k - 1] == near[:, k]
        near, index = near[:, :k], index[:, :k]
        if tied.any():
            rows, last = similarity[tied], near[tied, -1:]
            at_last = rows == last
            room = k - (rows > last).sum(dim=1, keepdim=True)
            chosen = (rows > last) | (at_last & (at_last.cumsum(dim=1) <= room))
            index[tied] = chosen.nonzero()[:, 1].view(-1, k)
            near[tied] = rows[chosen].view(-1, k)
    return near, index


def _check(bank: Tensor, labels: Tensor, queries: Tensor, k: int, temperature: float) -> None:
    if k < 1 or temperature <= 0:
        raise PolysenseError(
            f"kNN needs k of at least 1 and a temperature above 0, not {k} and {temperature}"
        )
    if len(bank) == 0:
        raise PolysenseError("the bank of the kNN probe is empty; give it at least one labelled sample")
    if bank.shape[-1] != queries.shape[-1]:
        raise PolysenseError(
            f"the bank has {bank.shape[-1]} features and the queries {queries.shape[-1]}; "
            "make both with the same encoder"
        )
    if len(labels) != len(bank) or labels.is_floating_point() or labels.min() < 0:
        raise PolysenseError(
            f"labels must be {len(bank)} integers from 0, one for each row of the bank; "
            f"these are {len(labels)} of {labels.dtype}, the lowest {labels.min().item()}"
        )


def check_identities(bank: Tensor, bank_identity: Tensor, queries: Tensor, query_identity: Tensor) -> None:
    """Raise where the codes are not one for each row."""
    if len(bank_identity) != len(bank) or len(query_identity) != len(queries):
        raise PolysenseError(
            f"identities must be one for each row: {len(bank)} for the bank and {len(queries)} for the "
            f"queries, not {len(bank_identity)} and {len(query_identity)}"
        )
