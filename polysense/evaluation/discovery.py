"""Finding the object of a picture in dense features alone: LOST, TokenCut, and a ViT's attention.

Each method gives a score for every token, above 0 where it sees the object, and the token it is surest
of; :func:`outline` makes a mask and a box of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from polysense.encoders.base import Encoder
from polysense.encoders.vit import ViTEncoder
from polysense.errors import PolysenseError


@dataclass(frozen=True)
class Found:
    """``score``: ``[B, h, w]``, above 0 on the object; ``seed``: ``[B]``, the surest token's place."""

    score: Tensor
    seed: Tensor


def lost(tokens: Tensor, grid: tuple[int, ...], *, seeds: float = 0.14) -> Found:
    """LOST: the object begins at the token that is similar to the fewest others.

    With F the tokens less the picture's mean and A = F Fᵀ: the seed is the token with the fewest
    positive entries in A. Of the share ``seeds`` of tokens with the fewest, those that are similar to
    the seed vote: score_p = Σ_q A_pq. (The paper takes 100, a seventh of a VOC picture's patches.) The
    mean is taken off because features that are never negative (behind a ReLU) would all be similar; the
    paper's keys need it not.

    https://arxiv.org/abs/2109.14279

    Args:
        tokens: ``[B, T, E]``.
        grid: how they lie, ``(h, w)``.
        seeds: the share of the tokens that may vote.

    >>> picture = torch.zeros(1, 16, 2)
    >>> picture[:, [5, 6]] = torch.tensor([1.0, 0.0])
    >>> picture[:, [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15]] = torch.tensor([0.0, 1.0])
    >>> (lost(picture, (4, 4)).score > 0).nonzero()[:, 1:].tolist()
    [[1, 1], [1, 2]]
    """
    features = tokens.float() - tokens.float().mean(1, keepdim=True)
    similar = features @ features.mT
    degree = (similar > 0).sum(2)
    order = degree.argsort(dim=1, stable=True)[:, : max(1, round(seeds * tokens.shape[1]))]
    seed = order[:, 0]
    to_seed = similar.take_along_dim(seed[:, None, None], 1)[:, 0]
    votes = torch.zeros_like(to_seed).scatter(1, order, 1.0) * (to_seed > 0)
    return Found((votes[:, None] @ similar).reshape(-1, *grid), seed)


def token_cut(tokens: Tensor, grid: tuple[int, ...], *, threshold: float = 0.2) -> Found:
    """TokenCut: split the graph of tokens in two by a normalised cut; the object holds the extreme token.

    Edges W are 1 where the cosine of two tokens exceeds ``threshold`` and 1e-5 elsewhere, D their sums.
    The second smallest solution of (D - W) y = λ D y is cut at its mean; the side of the entry with the
    largest |y| is the object, and that entry the seed. The cosine is of tokens less the picture's mean,
    see :func:`lost`.

    https://arxiv.org/abs/2202.11539

    Args:
        tokens: ``[B, T, E]``.
        grid: how they lie, ``(h, w)``.
        threshold: the paper's τ.

    >>> picture = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 7)[None]
    >>> (token_cut(picture, (3, 3)).score[0] > 0).int().tolist()
    [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    """
    features = F.normalize(tokens.float() - tokens.float().mean(1, keepdim=True), dim=2)
    # Double precision: the weak edges are 1e-5 of the strong ones.
    weights = torch.where(features @ features.mT > threshold, 1.0, 1e-5).double()
    scale = weights.sum(2).rsqrt()
    # D^(-1/2) W D^(-1/2) has the same eigenvectors as the normalised Laplacian, in reverse order.
    vectors = torch.linalg.eigh(scale[:, :, None] * weights * scale[:, None]).eigenvectors
    split = vectors[:, :, -2] * scale
    seed = split.abs().argmax(1)
    score = split - split.mean(1, keepdim=True)
    score = score * score.take_along_dim(seed[:, None], 1).sign()
    return Found(score.float().reshape(-1, *grid), seed)


def attended(attention: Tensor, grid: tuple[int, ...], *, mass: float = 0.6) -> Found:
    """The places that hold the share ``mass`` of a class token's attention, as DINO's authors show it.

    https://arxiv.org/abs/2104.14294

    Args:
        attention: ``[B, T]``, not negative.
        grid: how the tokens lie, ``(h, w)``.
        mass: the share of the attention that is kept.

    >>> (attended(torch.tensor([[0.1, 0.5, 0.3, 0.1]]), (2, 2)).score > 0).tolist()
    [[[False, True], [True, False]]]
    """
    share = attention.float() / attention.float().sum(1, keepdim=True)
    falling, order = share.sort(dim=1, descending=True)
    kept = falling.cumsum(1) - falling < mass
    least = torch.where(kept, falling, 1.0).amin(1, keepdim=True)
    beyond = torch.where(kept, 0.0, falling).amax(1, keepdim=True)
    return Found((share - (least + beyond) / 2).reshape(-1, *grid), order[:, 0])


@torch.no_grad()
def class_attention(encoder: Encoder, pictures: Tensor) -> Tensor:
    """``[B, T]``: how much the class token attends to each patch in a ViT's last block, mean of the heads.

    Raises:
        PolysenseError: for an encoder without a class token.
    """
    if not isinstance(encoder, ViTEncoder) or encoder.trunk.cls_token is None:
        raise PolysenseError(
            f"the encoder {type(encoder.trunk).__name__} has no class token whose attention could be shown;"
            " choose a ViT, or find by token_cut or lost"
        )
    attention = encoder.trunk.blocks[-1].attn
    heard: list[Tensor] = []
    listener = attention.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    try:
        encoder(pictures)
    finally:
        listener.remove()
    batch, count, _ = heard[0].shape
    each = attention.qkv(heard[0]).view(batch, count, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, keys = attention.q_norm(each[0, :, :, :1]), attention.k_norm(each[1])
    weights: Tensor = (query @ keys.mT * attention.scale).softmax(-1)
    return weights[:, :, 0, encoder.trunk.num_prefix_tokens :].mean(1)


def outline(found: Found, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Masks ``[B, H, W]`` of all that scores above 0, and boxes ``[B, 4]`` of the part around the seed.

    The score is enlarged to ``size`` = (H, W) pixels before it is cut at 0, so that outlines are finer
    than tokens. Boxes are left, top, right, bottom in pixels, the ends exclusive.

    >>> found = Found(torch.tensor([[[1.0, -1.0, 1.0]]]), torch.tensor([2]))
    >>> [part.tolist() for part in outline(found, (1, 3))]
    [[[[True, False, True]]], [[2, 0, 3, 1]]]
    """
    from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

    masks = _enlarged(found.score, size) > 0
    start = F.one_hot(found.seed, found.score[0].numel()).view_as(found.score).float()
    starts = F.interpolate(start[:, None], size, mode="nearest-exact")[:, 0] > 0
    boxes = []
    for mask, begun in zip((masks | starts).cpu().numpy(), starts.cpu().numpy(), strict=True):
        regions, _ = ndimage.label(mask)
        part = regions == regions[begun][0]
        rows, columns = part.any(1).nonzero()[0], part.any(0).nonzero()[0]
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return masks, torch.tensor(boxes)


def heat(found: Found, size: tuple[int, int]) -> Tensor:
    """The score of each pixel for the eye, ``[B, H, W]`` from 0 to 1."""
    score = _enlarged(found.score, size)
    low, high = score.amin((1, 2), keepdim=True), score.amax((1, 2), keepdim=True)
    shown: Tensor = (score - low) / (high - low).clamp(min=1e-12)
    return shown


def pca_colours(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The three main directions of all tokens as red, green and blue: ``[B, h, w, 3]`` from 0 to 1.

    The directions are those of the whole batch, so that like parts have like colours in all pictures.

    >>> pca_colours(torch.randn(2, 12, 8), (3, 4)).shape
    torch.Size([2, 3, 4, 3])
    """
    flat = tokens.float().flatten(0, 1)
    flat = flat - flat.mean(0)
    directions = torch.linalg.eigh(flat.mT @ flat).eigenvectors[:, -3:].flip(1)
    # An eigenvector's sign is arbitrary: let its largest entry be positive.
    directions = directions * directions.take_along_dim(directions.abs().argmax(0)[None], 0).sign()
    colours = F.pad(flat @ directions, (0, 3 - directions.shape[1]))
    ends = torch.tensor([0.02, 0.98], device=flat.device)
    low, high = colours.quantile(ends, dim=0)
    spread: Tensor = ((colours - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return spread.reshape(len(tokens), *grid, 3)


def _enlarged(score: Tensor, size: tuple[int, int]) -> Tensor:
    larger: Tensor = F.interpolate(score[:, None], size, mode="bilinear", align_corners=False)
    return larger[:, 0]
