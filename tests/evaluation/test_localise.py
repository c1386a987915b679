"""CorLoc and mask IoU: by hand, for finders that know everything or nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.encoders.vision import build
from polysense.errors import PolysenseError
from polysense.evaluation.discovery import Found, outline
from polysense.evaluation.localise import (
    WAYS,
    box_iou,
    centre,
    colour_contrast,
    corloc_hits,
    dense,
    localisation,
    mask_iou,
    whole,
)
from polysense.modalities.vision.modality import Vision
from polysense.modalities.vision.sources import read_pictures

SCENES = "builtin:scenes?count=24&size=32&seed=3"


def test_box_iou_agrees_with_counting_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 8, (20, 2, 2), generator=generator).sort(dim=1).values
    boxes = torch.cat([corners[:, 0], corners[:, 1] + 1], 1)
    drawn = torch.zeros(20, 9, 9, dtype=torch.bool)
    for page, (left, top, right, bottom) in zip(drawn, boxes.tolist(), strict=True):
        page[top:bottom, left:right] = True
    counted = mask_iou(drawn[:1].expand(20, -1, -1), drawn)
    torch.testing.assert_close(box_iou(boxes[0], boxes), counted)


def test_any_of_the_objects_counts_from_half_an_overlap_on() -> None:
    known = [[[0, 0, 4, 4], [6, 6, 8, 8]]] * 3
    boxes = torch.tensor([[0, 0, 4, 2], [0, 0, 4, 1], [6, 6, 8, 8]])
    assert corloc_hits(boxes, known).tolist() == [True, False, True]


def test_who_knows_the_truth_has_full_marks_and_a_blind_one_few() -> None:
    scenes, vision = read_pictures(SCENES, size=32), Vision(size=32)
    masks = [torch.from_numpy(mask) for mask in scenes.table["mask"]]
    shown = iter(range(len(scenes)))

    def knows(pictures: Tensor) -> Found:
        truth = torch.stack([masks[next(shown)] for _ in pictures])
        return Found((truth > 0).float() - 0.5, (truth == 1).flatten(1).float().argmax(1))

    def blind(pictures: Tensor) -> Found:
        return Found(pictures[:, 0] * 0 - 1, torch.zeros(len(pictures), dtype=torch.long))

    known = localisation(knows, vision, scenes, batch_size=7)
    assert known["mask_iou"] == 100
    assert known["corloc"] > 60  # touching objects are one part
    assert localisation(blind, vision, scenes) == {"corloc": 0, "mask_iou": 0}


def test_the_humble_baselines() -> None:
    pictures = torch.zeros(2, 3, 16, 16)
    pictures[:, :, 2:6, 8:12] = 1
    _, boxes = outline(centre(pictures), (16, 16))
    assert boxes.tolist() == [[4, 4, 12, 12]] * 2
    _, boxes = outline(colour_contrast(pictures), (16, 16))
    assert boxes.tolist() == [[8, 2, 12, 6]] * 2


@pytest.mark.parametrize("name", ["small", "vit_nano", "resnet18"])
@pytest.mark.parametrize("way", ["token_cut", "lost"])
def test_every_kind_of_encoder_can_be_asked_at_a_larger_size(name: str, way: str) -> None:
    scenes, vision = read_pictures("builtin:scenes?count=4&size=32", size=32), Vision(size=32)
    encoder = build(name, size=32).eval()
    shares = localisation(lambda pictures: WAYS[way](encoder, pictures), vision, scenes, size=64)
    assert all(0 <= share <= 100 for share in shares.values())


def test_whole_pictures_are_squeezed_and_normalised() -> None:
    vision = Vision(size=8, mean=[0.5] * 3, std=[0.25] * 3)
    wide = torch.zeros(8, 32, 3, dtype=torch.uint8)
    wide[:, 16:] = 255
    seen = whole(vision, vision.batch([wide]), 8)
    assert seen.shape == (1, 3, 8, 8)
    torch.testing.assert_close(seen[..., 0], torch.full((1, 3, 8), -2.0))
    torch.testing.assert_close(seen[..., -1], torch.full((1, 3, 8), 2.0))
    square = vision.batch([torch.randint(0, 255, (16, 16, 3), dtype=torch.uint8)])
    torch.testing.assert_close(whole(vision, square, 8), vision.plain(square).data)


def test_data_without_boxes_and_encoders_without_places_are_told() -> None:
    plain = read_pictures([torch.zeros(8, 8, 3)], size=8)
    with pytest.raises(PolysenseError, match="without boxes and masks; measure on builtin:scenes"):
        localisation(centre, Vision(size=8), plain)
    flat = build(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)), size=8)
    with pytest.raises(PolysenseError, match=r"no features on a grid .* 'vit_nano'"):
        dense(flat, torch.zeros(1, 3, 8, 8))


def test_the_rim_of_a_plain_picture_does_not_stand_out() -> None:
    encoder = build("small", size=32).eval()
    plain = torch.full((1, 3, 32, 32), 2.0)
    tokens, _ = dense(encoder, plain)
    torch.testing.assert_close(tokens, tokens[:, :1].expand_as(tokens))
    framed = encoder(plain).tokens
    assert framed is not None
    assert (framed - framed[:, :1]).abs().max() > 1e-3  # as in training: the encoder is left as it was
