"""Contrastive objectives for pairs of two modalities: a picture and its sentence among all others."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from polysense.errors import PolysenseError
from polysense.objectives.base import Objective
from polysense.objectives.distributed import gather, mean_over_processes, rank, world_size

_CHUNK = 2**22  # logits held at once, 16 MB in float32: long rows for the products, and still in cache


class PairObjective(Objective):
    """A sum over pairs of samples, of which pair i of ``a`` and ``b`` is true and all others are false.

    The logits are cosines times exp(``logit_scale``), a 0-d parameter that is kept in [0, ln 100] after
    each optimiser step, as CLIP does. ``b`` is gathered from all processes and each scores its own rows of
    ``a``. The N x N logits exist only a few rows at a time and the gradient is worked out beside the loss,
    so memory is that of the inputs. Differentiable once.
    """

    def __init__(self, logit_scale: nn.Parameter) -> None:
        super().__init__()
        self.logit_scale = logit_scale

    def forward(
        self, a: Tensor, b: Tensor, present: Tensor | None = None, identity: Tensor | None = None
    ) -> Tensor:
        """The loss of ``a`` and ``b``, ``[B, K]`` each, not normalised.

        ``present`` ``[B]`` is False where either part is missing: such a pair takes no part at all.
        Pairs of equal ``identity`` ``[B]`` (the same caption) are not held against each other.
        """
        self._check(a, b, present=present, identity=identity)
        first, b = rank() * len(a), gather(b)
        identity = gather(identity) if identity is not None else None
        if present is not None:
            everyone = gather(present)
            first, a, b = int(everyone[:first].sum()), a[present], b[everyone]
            identity = identity[everyone] if identity is not None else None
        inputs = (a, b, *self.parameters())
        differentiate = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        with torch.no_grad():
            total, gradients = self.total(Logits(a, b, self.logit_scale, first, identity), differentiate)
        total = _WithGradients.apply(total, gradients, *inputs)
        return mean_over_processes(total * (world_size() / max(1, len(b))))

    def total(self, logits: Logits, differentiate: bool) -> tuple[Tensor, list[Tensor]]:
        """The sum over this process's rows and, where wanted, its gradients at a, b and the parameters."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Keep the scale between 1 and 100."""
        with torch.no_grad():
            self.logit_scale.clamp_(0.0, math.log(100.0))

    def _check(self, a: Tensor, b: Tensor, **known: Tensor | None) -> None:
        if a.ndim != 2 or a.shape != b.shape or len(a) * world_size() < 2:
            raise PolysenseError(
                f"{type(self).__name__} compares two sides of at least 2 pairs, both [pairs, dimensions], but"
                f" got shapes {list(a.shape)} and {list(b.shape)}; check the heads and the batch size"
            )
        for name, tensor in known.items():
            if tensor is not None and tensor.shape != a.shape[:1]:
                raise PolysenseError(
                    f"{name!r} must hold one value for each of the {len(a)} pairs, but has shape"
                    f" {list(tensor.shape)}; give a tensor of shape [{len(a)}]"
                )


class PairContrast(PairObjective):
    """Symmetric InfoNCE of two modalities: CLIP's loss, and with label smoothing ALIGN's.

    With s(i, j) = exp(logit_scale) * cosine(a_i, b_j) over the N pairs of all processes::

        loss = mean over i of (-s(i, i) + log sum over j of exp s(i, j)) / 2
             + mean over j of (-s(j, j) + log sum over i of exp s(i, j)) / 2

    Label smoothing spreads that share of each target evenly over all N. See :class:`PairObjective`.

    https://arxiv.org/abs/2103.00020, https://arxiv.org/abs/2102.05918

    >>> objective = PairContrast(nn.Parameter(torch.tensor(0.0)))
    >>> objective(torch.eye(4), torch.eye(4)).exp()  # (e + 3) / e
    tensor(2.1036, grad_fn=<ExpBackward0>)

    Raises PolysenseError for a smoothing outside [0, 1), shapes that do not fit, or fewer than 2 pairs.
    """

    def __init__(self, logit_scale: nn.Parameter, *, label_smoothing: float = 0.0) -> None:
        super().__init__(logit_scale)
        if not 0 <= label_smoothing < 1:
            raise PolysenseError(f"label_smoothing is {label_smoothing}; choose a share in [0, 1)")
        self.label_smoothing = label_smoothing

    def total(self, logits: Logits, differentiate: bool) -> tuple[Tensor, list[Tensor]]:
        """Two sweeps, since a softmax over rows needs all of them; a single part is kept in between."""
        queries, keys, parts = logits.queries, logits.keys, logits.parts()
        true, by_row = queries.new_empty(len(queries)), queries.new_empty(2, len(queries))
        by_column = _no_sums(keys)
        for part in parts:
            scores = logits.of(part)
            true[part] = logits.true(scores, part)
            by_row[:, part] = _sums_of_exp(scores, 1)
            column_sums = _sums_of_exp(scores, 0)
            by_column = _added(by_column, column_sums) if part.start else column_sums
        by_column = reduce(_added, gather(by_column[None]))
        both = torch.stack([by_row, by_column.narrow(1, logits.first, len(queries))])
        total = (both[:, 0] - true + both[:, 1].log()).sum() / 2
        if self.label_smoothing:
            total += self.label_smoothing * (true.sum() - (queries @ keys.mean(0)).sum())
        if not differentiate:
            return total, []
        grad_queries, grad_keys = torch.empty_like(queries), torch.zeros_like(keys)
        row_weight, column_weight = 0.5 / by_row[1], 0.5 / by_column[1]
        for part in parts:
            if len(parts) > 1:
                scores = logits.of(part)
            error = (scores - by_row[0, part, None]).exp_().mul_(row_weight[part, None])
            error.addcmul_(scores.sub_(by_column[0]).exp_(), column_weight)
            logits.true(error, part).sub_(1.0 - self.label_smoothing)
            torch.mm(error, keys, out=grad_queries[part])
            grad_keys.addmm_(error.T, queries[part])
        if self.label_smoothing:
            grad_queries -= self.label_smoothing * keys.mean(0)
            grad_keys -= self.label_smoothing / max(1, len(keys)) * queries.sum(0)
        return total, logits.gradients(grad_queries, grad_keys)


class OneWayContrast(PairObjective):
    """InfoNCE from one modality to the other: CLAP's loss is its sum over both ways, each with its own scale.

    With s(i, j) = exp(logit_scale) * cosine(a_i, b_j) over the N pairs of all processes::

        loss = mean over i of -s(i, i) + log sum over j of exp s(i, j)

    See :class:`PairObjective`.

    https://arxiv.org/abs/2211.06687

    >>> objective = OneWayContrast(nn.Parameter(torch.tensor(0.0)))
    >>> objective(torch.eye(4), torch.eye(4)).exp()  # (e + 3) / e
    tensor(2.1036, grad_fn=<ExpBackward0>)

    Raises PolysenseError for shapes that do not fit or fewer than 2 pairs.
    """

    def total(self, logits: Logits, differentiate: bool) -> tuple[Tensor, list[Tensor]]:
        """One sweep: a softmax over a row needs that row alone."""
        queries, keys, total = logits.queries, logits.keys, logits.queries.new_zeros(())
        grad_queries, grad_keys = torch.empty_like(queries), torch.zeros_like(keys)
        for part in logits.parts():
            scores = logits.of(part)
            total += scores.logsumexp(1).sum() - logits.true(scores, part).sum()
            if differentiate:
                error = scores.softmax(1)
                logits.true(error, part).sub_(1.0)
                torch.mm(error, keys, out=grad_queries[part])
                grad_keys.addmm_(error.T, queries[part])
        return total, logits.gradients(grad_queries, grad_keys) if differentiate else []


class PairSigmoid(PairObjective):
    """SigLIP's loss: each of the N x N pairs is judged on its own, true or false.

    With s(i, j) = exp(logit_scale) * cosine(a_i, b_j) + logit_bias over the N pairs of all processes, and
    y(i, j) = 1 where i = j, else -1::

        loss = sum over i and j of -log sigmoid(y(i, j) s(i, j)) / N

    ``logit_bias`` is a 0-d parameter; the published start is logit_scale = ln 10 and logit_bias = -10. See
    :class:`PairObjective`.

    https://arxiv.org/abs/2303.15343

    >>> objective = PairSigmoid(nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0)))
    >>> objective(torch.eye(4), torch.eye(4)).exp()  # 2 * 2 * 2 * (1 + 1 / e)
    tensor(10.9430, grad_fn=<ExpBackward0>)

    Raises PolysenseError for shapes that do not fit or fewer than 2 pairs.
    """

    def __init__(self, logit_scale: nn.Parameter, logit_bias: nn.Parameter) -> None:
        super().__init__(logit_scale)
        self.logit_bias = logit_bias

    def total(self, logits: Logits, differentiate: bool) -> tuple[Tensor, list[Tensor]]:
        """One sweep: no pair needs to know of another."""
        queries, keys = logits.queries, logits.keys
        total, grad_bias = queries.new_zeros(()), queries.new_zeros(())
        grad_queries, grad_keys = torch.empty_like(queries), torch.zeros_like(keys)
        for part in logits.parts():
            scores = logits.of(part).add_(self.logit_bias)
            total += softplus(scores, threshold=40.0).sum() - logits.true(scores, part).sum()
            if differentiate:
                error = scores.sigmoid_()
                logits.true(error, part).sub_(1.0)
                grad_bias += error.sum()
                torch.mm(error, keys, out=grad_queries[part])
                grad_keys.addmm_(error.T, queries[part])
        return total, [*logits.gradients(grad_queries, grad_keys), grad_bias] if differentiate else []


class Logits:
    """The logits of this process's pairs, ``[n, N]``, a part of the rows at a time.

    Args:
        a, b: ``[n, K]``, this process's, and ``[N, K]``, everybody's.
        logit_scale: the logarithm of what cosines are multiplied by.
        first: the column that is the first row's partner.
        identity: ``[N]``, see :class:`PairObjective`.
    """

    def __init__(
        self, a: Tensor, b: Tensor, logit_scale: Tensor, first: int, identity: Tensor | None
    ) -> None:
        self.scale, self.first, self.identity = logit_scale.exp(), first, identity
        self.length_a, self.length_b = _lengths(a), _lengths(b)
        self.queries, self.keys = a * (self.scale / self.length_a), b / self.length_b

    def parts(self) -> list[slice]:
        """Rows, few enough to hold their logits."""
        rows = max(1, _CHUNK // max(1, len(self.keys)))
        return [slice(start, start + rows) for start in range(0, len(self.queries), rows)]

    def of(self, part: slice) -> Tensor:
        """Some rows of the logits; false pairs of the same identity get the lowest number there is."""
        scores = self.queries[part] @ self.keys.T
        if self.identity is not None:
            own = self.identity.narrow(0, self.first, len(self.queries))[part]
            same = own[:, None] == self.identity
            self.true(same, part).fill_(False)
            scores.masked_fill_(same, torch.finfo(scores.dtype).min)
        return scores

    def true(self, matrix: Tensor, part: slice) -> Tensor:
        """The entries of the true pairs in some rows of a matrix like the logits, to read or write."""
        return matrix.diagonal(self.first + part.start)

    def gradients(self, grad_queries: Tensor, grad_keys: Tensor) -> list[Tensor]:
        """The gradients at a, b and the logarithm of the scale, from those at queries and keys."""
        grad_a = _through_length(self.scale * grad_queries, self.queries / self.scale, self.length_a)
        grad_b = _through_length(grad_keys, self.keys, self.length_b)
        return [grad_a, grad_b, (grad_queries * self.queries).sum()]


def _lengths(x: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return lengths.clamp_(min=1e-12)


def _through_length(grad: Tensor, unit: Tensor, length: Tensor) -> Tensor:
    """The gradient at x, from that at unit = x / length: what lies along x changes nothing."""
    along = torch.linalg.vecdot(grad, unit)[:, None]
    return grad.addcmul(unit, along, value=-1.0).div_(length)


def _sums_of_exp(scores: Tensor, dim: int) -> Tensor:
    """``[2, n]``: the peaks along ``dim``, and the sums of exp of all scores less the peak."""
    peaks = scores.amax(dim, keepdim=True)
    return torch.stack([peaks.squeeze(dim), (scores - peaks).exp_().sum(dim)])


def _no_sums(keys: Tensor) -> Tensor:
    """Sums of exp over nothing, one for each key."""
    none = keys.new_zeros(2, len(keys))
    none[0] = torch.finfo(keys.dtype).min
    return none


def _added(some: Tensor, more: Tensor) -> Tensor:
    """Sums of exp, as :func:`_sums_of_exp` gives them, of both together."""
    peaks = torch.maximum(some[0], more[0])
    return torch.stack([peaks, some[1] * (some[0] - peaks).exp() + more[1] * (more[0] - peaks).exp()])


class _WithGradients(torch.autograd.Function):
    """A value whose gradients at the inputs were worked out beside it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *_: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise PolysenseError("pairs are differentiable once only; do not ask for create_graph=True")
        return None, None, *(grad * gradient for gradient in ctx.saved_tensors)
