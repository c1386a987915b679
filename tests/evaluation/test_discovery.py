"""LOST, TokenCut and attention against the papers' rules, restated naively."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from polysense.encoders.vision import build
from polysense.errors import PolysenseError
from polysense.evaluation.discovery import (
    Found,
    attended,
    class_attention,
    heat,
    lost,
    outline,
    pca_colours,
    token_cut,
)


def planted(batch: int = 4, side: int = 6) -> tuple[Tensor, list[tuple[int, int]]]:
    """Noisy tokens of a background, and a 2 x 3 object of others at known places."""
    torch.manual_seed(0)
    tokens = 0.1 * torch.randn(batch, side, side, 16) + torch.randn(16)
    places = [(number % 4, (2 * number) % 3) for number in range(batch)]
    for picture, (top, left) in zip(tokens, places, strict=True):
        picture[top : top + 2, left : left + 3] = torch.randn(16) + 0.1 * torch.randn(2, 3, 16)
    return tokens.flatten(1, 2), places


@pytest.mark.parametrize("method", [lost, token_cut])
def test_a_planted_object_is_found_to_the_token(method) -> None:  # type: ignore[no-untyped-def]
    tokens, places = planted()
    masks, boxes = outline(method(tokens, (6, 6)), (6, 6))
    for mask, box, (top, left) in zip(masks, boxes.tolist(), places, strict=True):
        assert box == [left, top, left + 3, top + 2]
        assert mask.sum() == 6


def test_lost_follows_the_paper() -> None:
    torch.manual_seed(1)
    tokens = torch.randn(2, 12, 5)
    found = lost(tokens, (3, 4), seeds=0.25)
    for row in range(2):
        features = (tokens[row] - tokens[row].mean(0)).double().numpy()
        similar = features @ features.T
        degree = [sum(similar[p, q] > 0 for q in range(12)) for p in range(12)]
        lowest = sorted(range(12), key=lambda p: degree[p])[:3]
        voters = [q for q in lowest if similar[lowest[0], q] > 0]
        assert int(found.seed[row]) == lowest[0]
        expected = [sum(similar[p, q] for q in voters) for p in range(12)]
        np.testing.assert_allclose(found.score[row].flatten(), expected, atol=1e-4)


def test_token_cut_follows_the_paper() -> None:
    tokens, _ = planted(2)
    found = token_cut(tokens, (6, 6))
    for row in range(2):
        features = (tokens[row] - tokens[row].mean(0)).double().numpy()
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        edges = np.where(features @ features.T > 0.2, 1.0, 1e-5)
        degrees = np.diag(edges.sum(1))
        _, vectors = linalg.eigh(degrees - edges, degrees, subset_by_index=[1, 1])
        second = vectors[:, 0]
        seed = np.abs(second).argmax()
        side = second > second.mean()
        if not side[seed]:
            side = ~side
        np.testing.assert_array_equal(found.score[row].flatten().numpy() > 0, side)
        assert side[int(found.seed[row])]


@pytest.mark.parametrize("method", [lost, token_cut])
def test_neither_scale_nor_a_common_offset_matters(method) -> None:  # type: ignore[no-untyped-def]
    tokens, _ = planted()
    plain, moved = method(tokens, (6, 6)), method(3 * tokens + 5, (6, 6))
    assert torch.equal(plain.score > 0, moved.score > 0)


@pytest.mark.parametrize("method", [lost, token_cut])
def test_features_that_are_all_alike_give_a_box_all_the_same(method) -> None:  # type: ignore[no-untyped-def]
    _, boxes = outline(method(torch.ones(1, 16, 3), (4, 4)), (8, 8))
    left, top, right, bottom = boxes[0].tolist()
    assert 0 <= left < right <= 8
    assert 0 <= top < bottom <= 8


def test_attention_keeps_the_asked_share() -> None:
    torch.manual_seed(2)
    attention = torch.rand(3, 20)
    found = attended(attention, (4, 5), mass=0.6)
    for row in range(3):
        share = attention[row] / attention[row].sum()
        kept = found.score[row].flatten() > 0
        assert share[kept].sum() >= 0.6
        assert share[kept].sum() - share[kept].min() < 0.6
        assert share[kept].min() > share[~kept].max()
        assert found.seed[row] == share.argmax()


def test_class_attention_is_that_of_the_last_block() -> None:
    torch.manual_seed(3)
    encoder = build("vit_nano", size=16, depth=2).eval()
    pictures = torch.randn(2, 3, 16, 16)
    attention = encoder.trunk.blocks[-1].attn  # type: ignore[index, union-attr]
    heard: list[Tensor] = []
    hook = attention.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))  # type: ignore[operator, union-attr]
    encoder(pictures)
    hook.remove()
    query, key, _ = attention.qkv(heard[0]).chunk(3, dim=-1)  # type: ignore[operator, union-attr]
    expected = torch.zeros(2, 17)
    width = query.shape[-1] // 4
    for head in range(4):
        part = slice(head * width, (head + 1) * width)
        logits = (query[:, :1, part] * key[..., part]).sum(-1) / width**0.5
        expected += logits.softmax(-1) / 4
    torch.testing.assert_close(class_attention(encoder, pictures), expected[:, 1:])


def test_an_encoder_without_a_class_token_is_told() -> None:
    with pytest.raises(PolysenseError, match=r"SmallConvNet has no class token .* token_cut or lost"):
        class_attention(build("small", size=16), torch.zeros(1, 3, 16, 16))


def test_the_box_is_that_of_the_part_around_the_seed() -> None:
    score = torch.tensor([[[1.0, 1, -1, 2], [-1, -1, -1, 2], [1, -1, -1, -1]]])
    masks, boxes = outline(Found(score, torch.tensor([0])), (3, 4))
    assert boxes.tolist() == [[0, 0, 2, 1]]
    assert torch.equal(masks, score > 0)
    _, boxes = outline(Found(score, torch.tensor([7])), (6, 8))
    assert boxes.tolist() == [[6, 0, 8, 4]]


def test_heat_runs_from_0_to_1() -> None:
    shown = heat(Found(torch.randn(2, 3, 3), torch.zeros(2, dtype=torch.long)), (6, 6))
    assert (shown.amin((1, 2)).tolist(), shown.amax((1, 2)).tolist()) == ([0, 0], [1, 1])


def test_like_tokens_have_like_colours_and_unlike_ones_others() -> None:
    tokens = torch.eye(3).repeat_interleave(4, 0)[None]
    colours = pca_colours(tokens, (3, 4))[0]
    assert all((row == row[0]).all() for row in colours)
    assert len(colours[:, 0].unique(dim=0)) == 3
    assert pca_colours(torch.randn(1, 4, 2), (2, 2)).shape == (1, 2, 2, 3)  # fewer than three dimensions
