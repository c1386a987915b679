"""Contrast of pairs: the authors' formulas, in chunks, with missing parts and learned parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from polysense.errors import PolysenseError
from polysense.objectives import OneWayContrast, PairContrast, PairSigmoid, pairs
from tests.objectives.cases import random_views

Formula = Callable[..., Tensor]
PRESENT = torch.tensor([True, False, True, True, False, True, True])
CAPTIONS = torch.tensor([3, 3, 5, 3, 5, 9, 5])


def cosines(a: Tensor, b: Tensor) -> Tensor:
    a, b = (side / torch.linalg.vector_norm(side, dim=1, keepdim=True) for side in (a, b))
    return a @ b.T


def clip(a: Tensor, b: Tensor, scale: Tensor, smoothing: float = 0.0) -> Tensor:
    """CLIP's pseudo-code, cross-entropy with (smoothed) targets written out row by row."""
    logits, n = cosines(a, b) * scale.exp(), len(a)
    total = torch.zeros((), dtype=a.dtype)
    for direction in (logits, logits.T):
        for i, row in enumerate(direction):
            target = torch.full((n,), smoothing / n, dtype=a.dtype)
            target[i] += 1 - smoothing
            total = total - (target * (row - row.exp().sum().log())).sum()
    return total / (2 * n)


def align(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    return clip(a, b, scale, smoothing=0.1)


def one_way(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """CLAP's loss from sounds to texts: -log of the share that the right text has, row by row."""
    shares = (cosines(a, b) * scale.exp()).exp()
    return -sum((row[i] / row.sum()).log() for i, row in enumerate(shares)) / len(a)  # type: ignore[return-value]


def siglip(a: Tensor, b: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's pseudo-code: labels 2 eye(n) - 1, -log sigmoid summed, over n."""
    logits = cosines(a, b) * scale.exp() + bias
    labels = 2 * torch.eye(len(a), dtype=a.dtype) - 1
    return -(1 / (1 + (-labels * logits).exp())).log().sum() / len(a)


OBJECTIVES: dict[str, tuple[Callable[..., pairs.PairObjective], Formula]] = {
    "clip": (PairContrast, clip),
    "align": (lambda scale: PairContrast(scale, label_smoothing=0.1), align),
    "one_way": (OneWayContrast, one_way),
    "siglip": (PairSigmoid, siglip),
}
every = pytest.mark.parametrize("name", OBJECTIVES)


def learned(name: str, scale: float = 1.5, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    """The objective's own parameters: scale, and SigLIP's bias."""
    values = [scale, -2.0] if name == "siglip" else [scale]
    return [nn.Parameter(torch.tensor(value, dtype=dtype)) for value in values]


def sides(n: int = 7, k: int = 4) -> tuple[Tensor, Tensor]:
    a, b = random_views(2, n, k)
    return a.clone().requires_grad_(), b.clone().requires_grad_()


def loss_and_gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The loss, and the gradients of three times it."""
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(3 * value, inputs)]


@every
@pytest.mark.parametrize("chunk", [1, 25, 2**20])
def test_loss_and_gradients_are_the_authors(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_CHUNK", chunk)
    make, formula = OBJECTIVES[name]
    parameters = learned(name)
    ours = loss_and_gradients(lambda a, b, *_: make(*parameters)(a, b), *sides(), *parameters)
    theirs = loss_and_gradients(formula, *sides(), *parameters)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@every
@pytest.mark.parametrize("scale", [math.log(10), math.log(100)])
def test_float32_in_chunks_equals_the_plain_formula(
    name: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "_CHUNK", 3000)
    make, formula = OBJECTIVES[name]
    double, single = learned(name, scale), learned(name, scale, torch.float32)
    whole, halved = sides(150, 32), [side.detach().float().requires_grad_() for side in sides(150, 32)]
    ours = loss_and_gradients(lambda a, b, *_: make(*single)(a, b), *halved, *single)
    theirs = loss_and_gradients(formula, *whole, *double)
    for mine, exact in zip(ours, theirs, strict=True):
        error = (mine - exact).norm() / exact.norm()
        assert error < 1e-6 * max(1.0, scale)  # of float32's own: logits of 100 have errors of 4e-6


@every
def test_every_input_passes_gradcheck(name: str) -> None:
    make = OBJECTIVES[name][0]
    parameters = learned(name)
    a, b = sides(5)
    assert torch.autograd.gradcheck(
        lambda a, b, *_: make(*parameters)(a, b, PRESENT[:5], CAPTIONS[:5]), (a, b, *parameters)
    )


@every
def test_missing_parts_are_as_if_the_pairs_were_not_there(name: str) -> None:
    make = OBJECTIVES[name][0]
    parameters = learned(name)
    a, b = sides()
    with torch.no_grad():
        b[~PRESENT] = torch.nan  # whatever stands there
    ours = loss_and_gradients(lambda a, b, *_: make(*parameters)(a, b, PRESENT), a, b, *parameters)
    rest = loss_and_gradients(
        lambda a, b, *_: make(*parameters)(a[PRESENT], b[PRESENT]), *sides(), *parameters
    )
    torch.testing.assert_close(ours, rest, rtol=1e-12, atol=1e-12)


@every
def test_a_batch_without_a_whole_pair_teaches_nothing(name: str) -> None:
    parameters = learned(name)
    objective = OBJECTIVES[name][0](*parameters)
    nobody = torch.zeros(7, dtype=torch.bool)
    loss, *gradients = loss_and_gradients(lambda a, b, *_: objective(a, b, nobody), *sides(), *parameters)
    assert loss == 0
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("chunk", [7, 2**20])
def test_equal_captions_are_not_held_against_each_other(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_CHUNK", chunk)
    scale, bias = learned("siglip")
    a, b = sides()
    logits = cosines(a, b) * scale.exp()
    allowed = CAPTIONS[:, None] != CAPTIONS
    allowed.fill_diagonal_(True)
    total = torch.zeros((), dtype=torch.float64)
    for scores, ok in ((logits, allowed), (logits.T, allowed.T)):
        for i in range(7):
            total = total - scores[i, i] + scores[i][ok[i]].exp().sum().log()
    ours = PairContrast(scale)(a, b, identity=CAPTIONS)
    torch.testing.assert_close(ours, total / 14)
    labels = 2 * torch.eye(7, dtype=torch.float64) - 1
    judged = -F.logsigmoid(labels * (logits + bias))[allowed].sum() / 7
    torch.testing.assert_close(PairSigmoid(scale, bias)(a, b, identity=CAPTIONS), judged)


@every
def test_opposite_partners_at_the_largest_scale_are_finite(name: str) -> None:
    """In float32 exp(-200) is 0: no sum may rest on it alone."""
    a = F.normalize(torch.randn(6, 1), dim=-1) * torch.eye(1, 4) + 1e-3 * torch.randn(6, 4)
    parameters = learned(name, math.log(100), torch.float32)
    inputs = (a.requires_grad_(), -a.detach(), *parameters)
    inputs[1].requires_grad_()
    make, formula = OBJECTIVES[name]
    ours = loss_and_gradients(lambda a, b, *_: make(*parameters)(a, b), *inputs)
    assert all(tensor.isfinite().all() for tensor in ours)
    expected = formula(*(tensor.double() for tensor in inputs))
    torch.testing.assert_close(ours[0].double(), expected.detach(), rtol=1e-5, atol=1e-5)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor had."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@every
def test_no_tensor_is_larger_than_a_chunk_or_the_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_CHUNK", 4096)
    objective = OBJECTIVES[name][0](*learned(name))
    a, b = sides(512, 4)
    with Largest() as largest:
        objective(a, b, identity=torch.arange(512)).backward()
    assert largest.numbers == 4096  # of 262,144 pairs


@every
def test_without_gradients_the_loss_is_the_same(name: str) -> None:
    objective = OBJECTIVES[name][0](*learned(name))
    a, b = sides()
    with torch.no_grad():
        loss = objective(a, b)
    assert not loss.requires_grad
    assert torch.equal(loss, objective(a, b).detach())


@every
def test_after_a_step_the_scale_is_kept_between_1_and_100(name: str) -> None:
    for given, kept in ((-0.5, 0.0), (2.0, 2.0), (5.0, math.log(100))):
        parameters = learned(name, given)
        OBJECTIVES[name][0](*parameters).after_step()
        assert parameters[0].item() == pytest.approx(kept)


@every
def test_second_derivative_is_refused(name: str) -> None:
    a, b = sides()
    with pytest.raises(PolysenseError, match="differentiable once only; do not ask for create_graph"):
        torch.autograd.grad(OBJECTIVES[name][0](*learned(name))(a, b), a, create_graph=True)


@pytest.mark.parametrize(
    ("one", "other"), [((3, 4), (3, 5)), ((3, 4), (2, 4)), ((1, 4), (1, 4)), ((2, 3, 4), (2, 3, 4))]
)
def test_shapes_that_do_not_fit_are_named(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(PolysenseError) as refused:
        PairContrast(*learned("clip"))(torch.ones(one), torch.ones(other))
    assert str(refused.value) == (
        "PairContrast compares two sides of at least 2 pairs, both [pairs, dimensions], but got shapes"
        f" {list(one)} and {list(other)}; check the heads and the batch size"
    )


@pytest.mark.parametrize("known", ["present", "identity"])
def test_what_is_known_must_be_known_of_every_pair(known: str) -> None:
    with pytest.raises(
        PolysenseError, match=f"'{known}' must hold one value for each of the 7 pairs, but has"
    ):
        PairSigmoid(*learned("siglip"))(*sides(), **{known: torch.ones(6, dtype=torch.bool)})


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_is_a_share(smoothing: float) -> None:
    with pytest.raises(PolysenseError, match=rf"label_smoothing is {smoothing}; choose a share in \[0, 1\)"):
        PairContrast(*learned("clip"), label_smoothing=smoothing)
