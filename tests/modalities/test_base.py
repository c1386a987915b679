"""Where in the sample a view's tokens lie."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.modalities.base import View


def view(*regions: list[list[float]]) -> View:
    return View(torch.zeros(len(regions), 3, 8, 8), "image", region=torch.tensor(regions))


def test_the_whole_sample_has_its_tokens_at_their_centres_row_by_row() -> None:
    places = view([[0, 0], [1, 1]]).places((2, 3))
    down, across = [0.25] * 3 + [0.75] * 3, [1 / 6, 0.5, 5 / 6] * 2
    torch.testing.assert_close(places, torch.tensor([down, across]).T[None])


def test_each_sample_has_its_own_crop() -> None:
    places = view([[0.5, 0.0], [0.5, 0.2]], [[0.0, 0.4], [1.0, 0.6]]).places((1, 2))
    expected = torch.tensor([[[0.75, 0.05], [0.75, 0.15]], [[0.5, 0.55], [0.5, 0.85]]])
    torch.testing.assert_close(places, expected)


def test_a_mirrored_view_runs_backwards() -> None:
    upright = view([[0.1, 0.2], [0.4, 0.6]]).places((3, 4))
    mirrored = view([[0.1, 0.8], [0.4, -0.6]]).places((3, 4))

    def flip(places: Tensor) -> Tensor:
        return places.reshape(1, 3, 4, 2).flip(2).flatten(1, 2)

    torch.testing.assert_close(mirrored, flip(upright))


def test_a_line_of_tokens_has_one_coordinate() -> None:
    frames = View(torch.zeros(1, 10), "audio", region=torch.tensor([[[0.25], [0.5]]]))
    torch.testing.assert_close(frames.places((2,)), torch.tensor([[[0.375], [0.625]]]))


def test_a_view_that_does_not_know_its_place_says_so() -> None:
    with pytest.raises(PolysenseError, match="use views without rotation"):
        View(torch.zeros(1, 3), "image").places((2, 2))


def test_hiding_tokens_keeps_the_place() -> None:
    hidden = view([[0, 0], [1, 1]]).hide(torch.ones(1, 4, dtype=torch.bool))
    assert hidden.region is not None
