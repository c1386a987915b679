from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.objectives import MaskedReconstruction


def tensors(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    mask = torch.rand(3, 5) < 0.6
    mask[0, 0] = True
    return torch.randn(3, 5, 8).double(), 2 + 3 * torch.randn(3, 5, 8).double(), mask


@pytest.mark.parametrize("normalise", [True, False])
def test_loss_is_the_authors(normalise: bool) -> None:
    prediction, target, mask = tensors()
    errors = []
    for b, t in mask.nonzero().tolist():
        truth = target[b, t]
        if normalise:
            mean = truth.sum() / 8
            truth = (truth - mean) / (((truth - mean) ** 2).sum() / 7 + 1e-6) ** 0.5
        errors.append(((prediction[b, t] - truth) ** 2).sum() / 8)
    loss = MaskedReconstruction(normalise)(prediction, target, mask)
    torch.testing.assert_close(loss, torch.stack(errors).mean(), rtol=1e-12, atol=1e-12)


def test_visible_tokens_do_not_count() -> None:
    prediction, target, mask = tensors()
    prediction.requires_grad_()
    MaskedReconstruction()(prediction, target, mask).backward()
    assert prediction.grad is not None
    assert prediction.grad[~mask].abs().max() == 0
    assert prediction.grad[mask].abs().min() > 0


def test_target_gets_no_gradient() -> None:
    prediction, target, mask = tensors()
    target.requires_grad_()
    assert not MaskedReconstruction()(prediction, target, mask).requires_grad


def test_nothing_hidden_is_zero() -> None:
    prediction, target, mask = tensors()
    assert MaskedReconstruction()(prediction, target, torch.zeros_like(mask)) == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scale=st.floats(0.1, 1e3), shift=st.floats(-10, 10), seed=st.integers(0, 1000))
def test_normalised_targets_ignore_brightness_and_contrast(scale: float, shift: float, seed: int) -> None:
    prediction, target, mask = tensors(seed)
    objective = MaskedReconstruction()
    changed = objective(prediction, scale * target + shift, mask)
    torch.testing.assert_close(changed, objective(prediction, target, mask), rtol=1e-4, atol=1e-4)


def test_wrong_shapes_and_masks_are_named() -> None:
    prediction, target, mask = tensors()
    with pytest.raises(PolysenseError, match=r"got \[3, 5, 7\], \[3, 5, 8\] and \[3, 5\]"):
        MaskedReconstruction()(prediction[..., :7], target, mask)
    with pytest.raises(PolysenseError, match=r"True where hidden, but got torch\.float32"):
        MaskedReconstruction()(prediction, target, mask.float())
