"""Retrieval: is another sample of the same thing among the nearest?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.evaluation.knn import SIMILARITIES_AT_ONCE, check_identities, similarities, unit_rows


def match_ranks(
    queries: Tensor,
    query_identity: Tensor,
    bank: Tensor,
    bank_identity: Tensor,
    *,
    own: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """At which rank, from 1, each query finds the nearest row of the bank with its own identity.

    Similarity is the cosine. A tie counts against the match, so that collapsed features, all equal,
    find nothing.

    Args:
        queries, bank: ``[Q, D]`` and ``[N, D]`` features of any floating type.
        query_identity, bank_identity: ``[Q]`` and ``[N]`` integer codes.
        own: ``[Q]`` the place in the bank of each query itself, which is left out, where the queries
            are part of the bank.
        chunk: queries compared at once; by default as many as need about 64 MB.

    Returns:
        ``[Q]`` ranks, 0 where the bank holds no other row of that identity.

    Raises:
        PolysenseError: for codes that do not fit the rows, or features that are not finite.

    >>> bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> match_ranks(bank, torch.tensor([7, 7, 8]), bank, torch.tensor([7, 7, 8]), own=torch.arange(3))
    tensor([1, 2, 0])
    """
    check_identities(bank, bank_identity, queries, query_identity)
    queries, bank = unit_rows(queries, "queries"), unit_rows(bank, "bank")
    chunk = chunk or max(1, SIMILARITIES_AT_ONCE // max(len(bank), 1))
    ranks = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for rows, similarity in similarities(queries, bank, chunk):
        match = query_identity[rows, None] == bank_identity
        if own is not None:
            match.scatter_(1, own[rows, None], False)
            similarity.scatter_(1, own[rows, None], -torch.inf)
        best = similarity.masked_fill(~match, -torch.inf).amax(dim=1, keepdim=True)
        nearer = ((similarity >= best) & ~match).sum(dim=1)
        ranks[rows] = (nearer + 1) * match.any(dim=1)
    return ranks


def recall_at(
    ks: Iterable[int],
    queries: Tensor,
    query_identity: Tensor,
    bank: Tensor,
    bank_identity: Tensor,
    *,
    own: Tensor | None = None,
    chunk: int | None = None,
) -> dict[int, float]:
    """The share of queries with a row of their own identity among the ``k`` nearest, for each ``k``.

    Queries whose identity the bank does not hold are not counted. The arguments are those of
    :func:`match_ranks`, which finds the ranks once for all ``ks``.

    >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> queries = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    >>> recall_at([1, 2], queries, torch.tensor([0, 1]), bank, torch.tensor([0, 1]))
    {1: 0.5, 2: 1.0}
    """
    ranks = match_ranks(queries, query_identity, bank, bank_identity, own=own, chunk=chunk)
    ranks = ranks[ranks > 0]
    if len(ranks) == 0:
        raise PolysenseError("no query has its identity in the bank, so there is nothing to retrieve")
    return {k: (ranks <= k).double().mean().item() for k in ks}
