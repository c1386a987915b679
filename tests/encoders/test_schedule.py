import math

import pytest

from polysense.encoders import PrototypeHead, Scheduled, Teacher, cosine, linear


@pytest.mark.parametrize("schedule", [cosine, linear])
def test_schedules_start_end_and_stay_at_the_end(schedule):
    assert schedule(0.2, 1.0, 0.0) == pytest.approx(0.2)
    assert schedule(0.2, 1.0, 0.5) == pytest.approx(0.6)
    assert schedule(0.2, 1.0, 1.0) == schedule(0.2, 1.0, 1.5) == pytest.approx(1.0)


def test_cosine_is_half_a_wave():
    assert cosine(1.0, 0.0, 1 / 3) == pytest.approx((math.cos(math.pi / 3) + 1) / 2)


def test_modules_with_a_schedule_are_recognised():
    import torch

    assert isinstance(Teacher(), Scheduled)
    assert isinstance(PrototypeHead(4, 4, 4, 4), Scheduled)
    assert not isinstance(torch.nn.Linear(1, 1), Scheduled)
