from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from polysense.encoders.vit import patchify
from polysense.errors import PolysenseError
from polysense.objectives import DiscreteAutoencoding, MaskedClassification, MaskedReconstruction


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
    with pytest.raises(PolysenseError, match=r"got \[3, 5, 7\] and \[3, 5, 8\]"):
        MaskedReconstruction()(prediction[..., :7], target, mask)
    with pytest.raises(PolysenseError, match=r"True where hidden, but got torch\.float32"):
        MaskedReconstruction()(prediction, target, mask.float())


def test_simmim_is_the_authors_mean_over_hidden_pixels() -> None:
    torch.manual_seed(0)
    pictures, made = torch.randn(2, 2, 3, 4, 4).double()
    mask = torch.tensor([[True, False, False, True], [False, True, False, False]])
    error, pixels = torch.zeros(()).double(), 0
    for b in range(2):
        for row in range(4):
            for column in range(4):
                if mask[b, 2 * (row // 2) + column // 2]:
                    error = error + (pictures[b, :, row, column] - made[b, :, row, column]).abs().sum()
                    pixels += 1
    objective = MaskedReconstruction(normalise=False, distance=functional.l1_loss)
    loss = objective(patchify(made, 2), patchify(pictures, 2), mask)
    torch.testing.assert_close(loss, error / pixels / 3)


def test_smooth_l1_is_the_authors() -> None:
    prediction, target, _ = tensors()
    errors = []
    for difference in (prediction - target).flatten().abs().tolist():
        errors.append(0.5 * difference**2 if difference < 1 else difference - 0.5)
    objective = MaskedReconstruction(normalise=False, distance=functional.smooth_l1_loss)
    torch.testing.assert_close(objective(prediction, target).item(), sum(errors) / len(errors))


def test_words_cost_their_negative_log_probability() -> None:
    logits, _, mask = tensors()
    words = torch.randint(8, (3, 5))
    errors = []
    for b, t in mask.nonzero().tolist():
        chances = logits[b, t].exp() / logits[b, t].exp().sum()
        errors.append(-chances[words[b, t]].log())
    loss = MaskedClassification()(logits, words, mask)
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_discrete_autoencoding_is_error_and_divergence_from_uniform() -> None:
    decoded, target, _ = tensors()
    logits = torch.randn(3, 5, 6).double()
    chances = logits.exp() / logits.exp().sum(-1, keepdim=True)
    divergence = sum(p * math.log(p / (1 / 6)) for p in chances.flatten().tolist()) / 15
    expected = ((decoded - target) ** 2).sum() / target.numel() + 0.1 * divergence
    torch.testing.assert_close(DiscreteAutoencoding(kl=0.1)(decoded, target, logits), expected)


def test_tokens_of_one_value_cannot_be_standardised() -> None:
    prediction, target, mask = tensors()
    with pytest.raises(PolysenseError, match="set normalise=False"):
        MaskedReconstruction()(prediction[..., :1], target[..., :1], mask)
    loss = MaskedReconstruction(normalise=False)(prediction[..., :1], target[..., :1], mask)
    assert loss.isfinite()


def test_words_of_another_shape_are_named() -> None:
    logits, _, mask = tensors()
    with pytest.raises(PolysenseError, match=r"got \[3, 5, 8\] and \[3, 4\]; check the tokenizer"):
        MaskedClassification()(logits, torch.zeros(3, 4, dtype=torch.long), mask)
