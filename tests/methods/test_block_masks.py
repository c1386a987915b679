"""What is hidden, and what is asked for, in blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.encoders.vision import build
from polysense.errors import PolysenseError
from polysense.methods.block_masks import BlockMask, ContextAndTargets, blocks_mask
from polysense.methods.maskers import RandomMask
from polysense.modalities.base import View
from tests.toys import CellEncoder

ENCODERS = {patch: build("vit_nano", size=32, depth=1, patch=patch) for patch in (2, 4, 8)}


def view(batch: int = 200) -> View:
    torch.manual_seed(0)
    return View(torch.zeros(batch, 3, 32, 32), "image")


def hidden_by(masker: BlockMask | RandomMask | ContextAndTargets, patch: int = 4) -> Tensor:
    mask = masker(view(), ENCODERS[patch]).mask
    assert mask is not None
    return mask


def is_rectangle(tokens: Tensor) -> bool:
    rows, columns = tokens.any(1), tokens.any(0)
    return bool(tokens[rows][:, columns].all()) and all(
        int(one.nonzero().max() - one.nonzero().min()) + 1 == int(one.sum()) for one in (rows, columns)
    )


@pytest.mark.parametrize("patch", [2, 4, 8])
@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.9])
def test_blocks_hide_equally_many_tokens_in_every_sample(patch: int, ratio: float) -> None:
    mask = hidden_by(BlockMask(ratio), patch)
    assert mask.sum(1).unique().tolist() == [round((32 // patch) ** 2 * ratio)]


def test_hidden_tokens_hang_together_as_random_ones_do_not() -> None:
    def neighbours(mask: Tensor) -> float:
        plane = mask.unflatten(1, (8, 8))
        return float((plane[:, 1:] & plane[:, :-1]).sum() / mask.sum())

    assert neighbours(hidden_by(BlockMask(0.4))) > 1.4 * neighbours(hidden_by(RandomMask(0.4)))


def test_every_place_is_hidden_as_often_as_its_mirror_image() -> None:
    often = blocks_mask((8, 8), torch.full((20_000,), 25)).float().mean(0).view(8, 8)
    assert (often - often.flip(0, 1)).abs().max() < 0.02
    assert (often - often.flip(1)).abs().max() < 0.03
    assert often.min() > 0.1


def test_samples_may_hide_different_numbers_of_tokens() -> None:
    counts = torch.tensor([0, 5, 20, 64])
    assert blocks_mask((8, 8), counts).sum(1).tolist() == counts.tolist()


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_targets_are_blocks_of_the_stated_size_and_the_context_has_none_of_them(patch: int) -> None:
    side = 32 // patch
    for seed in range(5):
        torch.manual_seed(seed)
        seen = ContextAndTargets()(View(torch.zeros(64, 3, 32, 32), "image"), ENCODERS[patch])
        assert seen.mask is not None
        assert seen.asked is not None
        assert seen.asked.shape == (64, 4, side**2)
        sizes = seen.asked.sum(2).unique()
        assert len(sizes) == 1
        assert 0.15 * side**2 - side / 2 - 1 <= sizes.item() <= 0.2 * side**2 + side / 2 + 1
        assert all(is_rectangle(one) for one in seen.asked[:8].flatten(0, 1).unflatten(1, (side, side)))
        visible = (~seen.mask).sum(1).unique()
        assert len(visible) == 1
        if patch < 8:  # 4 x 4 tokens leave some sample no context but what its targets are cut from
            overlap = (seen.asked.any(1) & ~seen.mask).sum(1)
            free = 10 if patch == 4 else 0
            assert int(overlap.max()) <= free
            assert float((overlap == 0).float().mean()) > 0.95


def test_target_places_are_uniform() -> None:
    masker = ContextAndTargets(target_scale=(0.25, 0.25), target_aspect=(1.0, 1.0))
    asked = masker(view(4000), ENCODERS[4]).asked
    assert asked is not None
    corners = asked[:, :, 0].float().mean(), asked[:, :, -1].float().mean()
    for corner in corners:  # a 4 x 4 block has 5 x 5 places
        assert float(corner) == pytest.approx(1 / 25, abs=0.01)


def test_hidden_units_are_squares() -> None:
    mask = hidden_by(RandomMask(0.6, unit=2)).view(-1, 4, 2, 4, 2)
    assert torch.equal(mask.any(2).any(-1), mask.all(2).all(-1))
    assert mask.flatten(1).sum(1).unique().tolist() == [40]  # ten of sixteen units of four tokens


def test_random_masks_round_up_as_the_authors_do() -> None:
    assert hidden_by(RandomMask(0.6), 8).sum(1).unique().tolist() == [10]


def test_what_cannot_be_hidden_is_named() -> None:
    with pytest.raises(PolysenseError, match="units of 3 tokens do not fit a grid of 8×8"):
        RandomMask(0.6, unit=3)(view(), ENCODERS[4])
    with pytest.raises(PolysenseError, match="hides 64 of 64 tokens"):
        BlockMask(1.0)(view(), ENCODERS[4])
    with pytest.raises(PolysenseError, match="lie on 1 dimensions; choose a method that hides tokens one by"):
        BlockMask(0.4)(View(torch.zeros(2, 8), "table"), CellEncoder(8))
    with pytest.raises(PolysenseError, match="a grid of 2×2 tokens is too small"):
        ContextAndTargets()(View(torch.zeros(2, 3, 16, 16), "image"), ENCODERS[8])
