"""How well an encoder finds objects by itself: CorLoc and mask IoU on scenes whose objects are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError
from polysense.evaluation.discovery import Found, attended, class_attention, lost, outline, token_cut
from polysense.modalities.base import Batch
from polysense.modalities.vision import geometry
from polysense.modalities.vision.modality import Vision
from polysense.modalities.vision.store import Pictures

Finder = Callable[[Tensor], Found]
"""Finds an object in each of the normalised pictures ``[B, C, S, S]``."""


def dense(encoder: Encoder, pictures: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The tokens ``[B, T, E]`` of pictures and how they lie, ``(h, w)``; the encoder is in eval mode.

    Convolutions meanwhile repeat the pictures' rim instead of padding it with zeros: a frame of zeros stands
    out from everything and would be taken for the object.

    Raises:
        PolysenseError: for an encoder whose tokens do not lie on a grid of two sides.
    """
    with torch.no_grad(), repeated_rim(encoder):
        encoded = encoder(pictures)
    if encoded.tokens is None or encoded.grid is None or len(encoded.grid) != 2:
        raise PolysenseError(
            f"the encoder {type(encoder.trunk).__name__} has no features on a grid to find things in; choose"
            " a conv net or a ViT, such as 'small', 'resnet18' or 'vit_nano'"
        )
    return encoded.tokens, encoded.grid


@contextmanager
def repeated_rim(encoder: nn.Module) -> Iterator[None]:
    """Pad by repetition where convolutions pad with zeros.

    >>> convolution = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    >>> with repeated_rim(convolution):
    ...     seen = convolution(torch.ones(1, 1, 4, 4))
    >>> bool(seen.std() < 1e-6), convolution.padding_mode
    (True, 'zeros')
    """
    padded = [
        part for part in encoder.modules() if isinstance(part, nn.Conv2d) and part.padding_mode == "zeros"
    ]
    for part in padded:
        part.padding_mode = "replicate"
    try:
        yield
    finally:
        for part in padded:
            part.padding_mode = "zeros"


def by_token_cut(encoder: Encoder, pictures: Tensor) -> Found:
    """Find by a normalised cut of the encoder's tokens, see :func:`.discovery.token_cut`."""
    return token_cut(*dense(encoder, pictures))


def by_lost(encoder: Encoder, pictures: Tensor) -> Found:
    """Find by the tokens that are like few others, see :func:`.discovery.lost`."""
    return lost(*dense(encoder, pictures))


def by_attention(encoder: Encoder, pictures: Tensor) -> Found:
    """Find by the class token's attention, see :func:`.discovery.attended`."""
    _, grid = dense(encoder, pictures)
    return attended(class_attention(encoder, pictures), grid)


WAYS: Mapping[str, Callable[[Encoder, Tensor], Found]] = {
    "token_cut": by_token_cut,
    "lost": by_lost,
    "attention": by_attention,
}
"""How an encoder may be asked where things are."""


def centre(pictures: Tensor) -> Found:
    """The humblest guess: half the width and height, in the middle."""
    side = pictures.shape[-1]
    away = ((torch.arange(side, device=pictures.device) + 0.5) / side - 0.5).abs()
    score = 0.25 - torch.maximum(away[:, None], away)
    seed = torch.full((len(pictures),), side * (side // 2) + side // 2, device=pictures.device)
    return Found(score.expand(len(pictures), -1, -1), seed)


def colour_contrast(pictures: Tensor) -> Found:
    """What stands out in colour: pixels further than the average from the mean colour of the border."""
    border = torch.cat(
        [pictures[:, :, 0], pictures[:, :, -1], pictures[:, :, :, 0], pictures[:, :, :, -1]], dim=2
    )
    away = (pictures - border.mean(2)[:, :, None, None]).square().sum(1).sqrt()
    return Found(away - away.mean((1, 2), keepdim=True), away.flatten(1).argmax(1))


def whole(vision: Vision, batch: Batch, size: int) -> Tensor:
    """Whole pictures, squeezed to ``size`` x ``size`` pixels and normalised: ``[B, C, size, size]``."""
    assert isinstance(batch.data, dict)
    sizes = batch.data["size"]
    boxes = torch.cat([torch.zeros_like(sizes), sizes], 1)
    pictures = geometry.crop_resize(batch.data["pixels"], boxes, size)
    mean, std = (pictures.new_tensor(values)[:, None, None] for values in (vision.mean, vision.std))
    return pictures.sub_(mean).div_(std)


def localisation(
    find: Finder, vision: Vision, scenes: Pictures, *, size: int | None = None, batch_size: int = 64
) -> dict[str, float]:
    """How well ``find`` finds the objects of scenes, in percent.

    ``corloc``: the share of scenes whose box has an IoU of at least 0.5 with the box of any object.
    ``mask_iou``: the mean IoU of the mask with all objects together.

    Args:
        find: makes a score of pictures.
        vision: how the pictures are normalised.
        scenes: read from ``builtin:scenes``; the table holds their ``boxes`` and ``mask``.
        size: the side at which the pictures are looked at, by default the modality's own.
        batch_size: pictures at a time.

    Raises:
        PolysenseError: for data without known boxes and masks.
    """
    if not {"boxes", "mask"} <= set(scenes.table.columns):
        raise PolysenseError("these pictures come without boxes and masks; measure on builtin:scenes")
    hits: list[Tensor] = []
    overlaps: list[Tensor] = []
    for start in range(0, len(scenes), batch_size):
        rows = range(start, min(start + batch_size, len(scenes)))
        pictures = whole(vision, vision.collate(scenes.__getitems__(rows)), size or vision.size)
        truth = torch.from_numpy(np.stack(scenes.table["mask"].iloc[list(rows)].tolist())) > 0
        masks, boxes = outline(find(pictures), (truth.shape[1], truth.shape[2]))
        known = scenes.table["boxes"].iloc[list(rows)]
        hits.append(corloc_hits(boxes, known.tolist()))
        overlaps.append(mask_iou(masks.cpu(), truth))
    return {
        "corloc": 100 * torch.cat(hits).double().mean().item(),
        "mask_iou": 100 * torch.cat(overlaps).double().mean().item(),
    }


def corloc_hits(boxes: Tensor, known: Sequence[Sequence[Sequence[int]]], least: float = 0.5) -> Tensor:
    """``[N]``: whether each box ``[N, 4]`` has an IoU of ``least`` or more with any of its picture's.

    >>> known = [[[5, 5, 6, 6], [0, 0, 2, 3]], [[0, 0, 3, 3]]]
    >>> corloc_hits(torch.tensor([[0, 0, 2, 2], [0, 0, 1, 1]]), known)
    tensor([ True, False])
    """
    return torch.stack(
        [
            (box_iou(box, torch.tensor(others)) >= least).any()
            for box, others in zip(boxes, known, strict=True)
        ]
    )


def box_iou(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of one box ``[4]`` with others ``[K, 4]``: left, top, right, bottom.

    >>> box_iou(torch.tensor([0, 0, 2, 2]), torch.tensor([[1, 0, 3, 2]]))
    tensor([0.3333])
    """
    sides = torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])
    shared = sides.clamp(min=0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)


def mask_iou(masks: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of boolean masks ``[N, H, W]``, pair by pair: ``[N]``; 0 for two empty ones.

    >>> mask_iou(torch.tensor([[[True, True, False]]]), torch.tensor([[[False, True, True]]]))
    tensor([0.3333])
    """
    shared, either = (masks & truth).sum((1, 2)), (masks | truth).sum((1, 2))
    return shared / either.clamp(min=1)
