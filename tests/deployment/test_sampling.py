"""A run completes half pictures: the given half stays, the rest is drawn from the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import polysense
from polysense.deployment.run import Run
from polysense.deployment.sampling import complete
from polysense.encoders import build
from polysense.encoders.pixels import PixelEncoder
from polysense.errors import PolysenseError

TINY = {"side": 8, "width": 32, "depth": 2, "heads": 2, "colours": 16}


def stripes(count: int = 64, side: int = 8) -> np.ndarray:
    """Pictures of one plain colour out of three each: what is above tells what is below."""
    colours = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)
    return np.broadcast_to(colours[np.arange(count) % 3][:, None, None], (count, side, side, 3)).copy()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    found = polysense.pretrain(
        stripes(), method="image_gpt", encoder_options={**TINY, "colours": 4}, size=8, batch_size=32,
        steps=60, lr=0.01, judge=False, accelerator="cpu", out=tmp_path_factory.mktemp("run") / "run",
    )  # fmt: skip
    assert found is not None
    return polysense.load(found.path)


def test_half_pictures_are_completed(run: Run) -> None:
    pictures = stripes(6)
    torch.manual_seed(0)
    completed = run.sample(list(pictures), temperature=0.5)
    assert completed.shape == (6, 8, 8, 3)
    assert completed.dtype == np.uint8
    error = np.abs(completed.astype(int) - pictures.astype(int)).mean((1, 2, 3))
    assert (error < 10).all()  # red goes on red
    assert run.sample(pictures[0], given=0.25).shape == (1, 8, 8, 3)


def test_the_same_seed_draws_the_same(run: Run) -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(run.sample(list(stripes(3)), given=0.0, temperature=5.0))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_the_given_rows_stay_and_the_rest_is_as_likely_as_the_model_says() -> None:
    torch.manual_seed(0)
    encoder = build("pixel_gpt_nano", size=8, **{**TINY, "side": 2, "colours": 3})
    assert isinstance(encoder, PixelEncoder)
    torch.nn.init.normal_(encoder.trunk.predict.weight, std=0.3)
    picture = torch.randn(1, 3, 8, 8)
    known = encoder.colours(picture)
    drawn = encoder.colours(complete(encoder, picture.expand(4000, -1, -1, -1)))
    assert (drawn[:, :2] == known[:, :2]).all()
    third = encoder.trunk.predict(encoder.trunk(known)[0])[0, 2].softmax(0)
    torch.testing.assert_close(drawn[:, 2].bincount(minlength=3) / 4000, third, rtol=0, atol=0.04)
    for colour in range(3):
        begun = torch.cat([known[:, :2], torch.tensor([[colour, 0]])], 1)
        fourth = encoder.trunk.predict(encoder.trunk(begun)[0])[0, 3].softmax(0)
        rows = drawn[drawn[:, 2] == colour, 3]
        torch.testing.assert_close(rows.bincount(minlength=3) / len(rows), fourth, rtol=0, atol=0.06)


def test_what_cannot_be_completed(run: Run, tmp_path: Path) -> None:
    picture = torch.zeros(1, 3, 8, 8)
    both = build("pixel_gpt_nano", size=8, causal=False, **TINY)
    for encoder in (both, build("small", size=8)):
        with pytest.raises(PolysenseError, match=r"does not predict the next pixel.*train image_gpt"):
            complete(encoder, picture)
    with pytest.raises(PolysenseError, match="given is 2"):
        run.sample(stripes(1)[0], given=2)
    with pytest.raises(PolysenseError, match="temperature 0; give"):
        run.sample(stripes(1)[0], temperature=0)
    with pytest.raises(PolysenseError, match="nothing to complete"):
        run.sample([])
