from __future__ import annotations

import numpy as np

from polysense.rl import rendering


def centre(frame: np.ndarray) -> tuple[float, float]:
    """Where the ink is, in pixels: down and across."""
    ink = 255.0 - frame
    rows, columns = np.indices(frame.shape)
    return float((ink * rows).sum() / ink.sum()), float((ink * columns).sum() / ink.sum())


def test_a_line_covers_its_area() -> None:
    line = np.array([[[[-0.5, 0.0], [0.5, 0.0]]]])
    drawn = rendering.draw(line, (0.4,), (0.0,), 200)
    area = (1 - drawn / 255).sum() * (2 / 200) ** 2
    np.testing.assert_allclose(area, 0.4 * 1.0 + np.pi * 0.2**2, rtol=0.01)


def test_a_tenth_of_a_pixel_shows() -> None:
    states = np.zeros((2, 4))
    states[1, 0] = 0.1 * 2.4 * 2 / 48  # a tenth of a pixel of 48 across 4.8 units
    before, after = rendering.cartpole(states, 48)[:, 0]
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(centre(after)[1] - centre(before)[1], 0.1, atol=0.06)


def test_the_pendulum_points_where_its_angle_says() -> None:
    up, left, down = rendering.pendulum(np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0]]), 48)[:, 0]
    assert centre(up)[0] < 20
    assert centre(down)[0] > 27
    assert centre(left)[1] < 20  # gymnasium turns counter-clockwise, too


def test_the_acrobot_hangs_down_at_rest_and_folds_back() -> None:
    rest, folded = rendering.acrobot(np.array([[1, 0, 1, 0, 0, 0], [1, 0, -1, 0, 0, 0]]), 48)[:, 0]
    assert centre(rest)[0] > centre(folded)[0] > 24


def test_many_frames_are_drawn_as_each_alone() -> None:
    states = np.random.default_rng(0).normal(size=(70, 4))
    together = rendering.cartpole(states, 16)
    assert np.array_equal(together, np.concatenate([rendering.cartpole(state[None], 16) for state in states]))
