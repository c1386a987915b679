from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import NTXent, SupCon, contrastive
from tests.objectives.cases import random_views

LABELS = torch.tensor([0, 1, 0, -1, 5, 0, -1])


def l_out(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Anchor by anchor from the paper's equation (2), averaged over anchors."""
    views, batch = z.shape[:2]
    all_ = [(v, n) for v in range(views) for n in range(batch)]
    unit = {i: z[i] / z[i].norm() for i in all_}
    terms = []
    for i in all_:
        others = [j for j in all_ if j != i]
        crowd = torch.stack([unit[i] @ unit[j] / temperature for j in others]).exp().sum().log()
        same = [j for j in others if j[1] == i[1] or labels[j[1]] == labels[i[1]] >= 0]
        terms.append(torch.stack([crowd - unit[i] @ unit[p] / temperature for p in same]).mean())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("chunk", [1, 2**20])
def test_loss_and_gradient_are_the_authors(
    views: int, temperature: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "_CHUNK", chunk)
    z, reference = (random_views(views, 7).requires_grad_() for _ in range(2))
    loss, expected = SupCon(temperature)(z, LABELS), l_out(reference, LABELS, temperature)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(z.grad, reference.grad, rtol=1e-10, atol=1e-12)


def test_without_classes_it_is_half_of_simclr() -> None:
    z = random_views()
    torch.testing.assert_close(SupCon(0.3)(z, torch.full((6,), -1)), NTXent(0.3)(z) / 2)


def test_with_one_class_all_others_are_partners() -> None:
    z = random_views()
    torch.testing.assert_close(
        SupCon(0.3)(z, torch.zeros(6, dtype=torch.long)), l_out(z, torch.zeros(6), 0.3)
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(scale=st.floats(1e-3, 1e3), shift=st.integers(0, 100), seed=st.integers(0, 1000))
def test_only_directions_and_equality_of_classes_count(scale: float, shift: int, seed: int) -> None:
    z = random_views(2, 7, seed=seed)
    renamed = torch.where(LABELS < 0, LABELS, 100 - LABELS + shift)
    torch.testing.assert_close(SupCon()(scale * z, renamed), SupCon()(z, LABELS))


@pytest.mark.parametrize("labels", [torch.zeros(5, dtype=torch.long), torch.zeros(6), torch.zeros(2, 6)])
def test_labels_that_do_not_fit(labels: Tensor) -> None:
    with pytest.raises(PolysenseError, match="SupCon takes one whole number per sample as its class, 6 of"):
        SupCon()(random_views(), labels)


def test_too_little_to_compare() -> None:
    with pytest.raises(PolysenseError, match="SupCon compares at least 2 views"):
        SupCon()(random_views(1), torch.zeros(6, dtype=torch.long))
