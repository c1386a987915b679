import copy
import math

import pytest
import torch
from torch import nn

from polysense.encoders import Teacher, build
from polysense.encoders.teacher import FrozenTeacher
from polysense.errors import PolysenseError


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 4, 5))


def step(module: nn.Module) -> None:
    """As an optimiser does it: change the parameters and, by a forward, BatchNorm's statistics."""
    module.train()(torch.randn(8, 3, 4, 4))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_update_equals_the_loop_over_parameters_exactly():
    module = student()
    teacher = Teacher(0.9).follow({"image": module})
    expected = copy.deepcopy(module)
    for progress in (0.0, 0.3, 0.6):
        teacher.at(progress)
        step(module)
        teacher.update()
        with torch.no_grad():
            for own, live in zip(expected.parameters(), module.parameters(), strict=True):
                own.lerp_(live, 1 - teacher.momentum)
    for own, wanted in zip(teacher["image"].parameters(), expected.parameters(), strict=True):
        assert torch.equal(own, wanted)


def test_update_is_the_moving_average_of_the_papers():
    module = nn.Linear(3, 3)
    teacher = Teacher(0.75, schedule="constant").follow({"image": module})
    before = teacher["image"].weight.clone()
    nn.init.normal_(module.weight)
    teacher.update()
    torch.testing.assert_close(teacher["image"].weight, 0.75 * before + 0.25 * module.weight.detach())


def test_buffers_are_copied_integers_too():
    module = student()
    teacher = Teacher().follow({"image": module})
    step(module)
    step(module)
    assert teacher["image"][1].num_batches_tracked == 0
    teacher.update()
    own, live = teacher["image"][1], module[1]
    assert own.num_batches_tracked == 2
    assert own.num_batches_tracked.dtype == torch.int64
    assert torch.equal(own.running_mean, live.running_mean)
    assert torch.equal(own.running_var, live.running_var)
    assert own.running_mean.data_ptr() != live.running_mean.data_ptr()


def test_no_gradient_and_no_second_registration():
    module = student()
    teacher = Teacher().follow({"image": module})
    method = nn.ModuleDict({"tower": module, "teacher": teacher})
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    count = len(list(module.parameters()))
    assert len(list(method.parameters())) == 2 * count
    assert len(method.state_dict()) == 2 * len(module.state_dict())
    teacher["image"](torch.randn(2, 3, 4, 4)).sum()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_shared_modules_stay_shared_and_move_once():
    shared = nn.Linear(2, 2)
    teacher = Teacher(0.5, schedule="constant").follow({"image": shared, "text": shared})
    before = teacher["image"].weight.clone()
    nn.init.zeros_(shared.weight)
    teacher.update()
    assert teacher["image"] is teacher["text"]
    torch.testing.assert_close(teacher["text"].weight, before / 2)


def test_state_dict_round_trip_continues_bit_for_bit():
    module = student()
    teacher = Teacher(0.9).follow({"image": module})
    step(module)
    teacher.update()
    other_module = student()
    other = Teacher(0.9).follow({"image": other_module})
    other.load_state_dict(teacher.state_dict())
    other_module.load_state_dict(module.state_dict())
    for each in (teacher, other):
        each.at(0.5)
        each.update()
    for mine, theirs in zip(teacher.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_copied_method_has_its_own_student():
    method = nn.ModuleDict({"tower": nn.Linear(2, 2)})
    method["teacher"] = Teacher(0.5, schedule="constant").follow({"image": method["tower"]})
    twin = copy.deepcopy(method)
    nn.init.zeros_(twin["tower"].weight)
    before = twin["teacher"]["image"].weight.clone()
    twin["teacher"].update()
    torch.testing.assert_close(twin["teacher"]["image"].weight, before / 2)


def test_momentum_is_byols_at_every_step():
    teacher, steps = Teacher(0.996), 50
    for k in range(steps + 1):
        teacher.at(k / steps)
        assert teacher.momentum == pytest.approx(1 - (1 - 0.996) * (math.cos(math.pi * k / steps) + 1) / 2)


def test_other_schedules():
    linear, constant = Teacher(0.9, schedule="linear"), Teacher(0.999, schedule="constant")
    linear.at(0.5)
    constant.at(0.5)
    assert linear.momentum == pytest.approx(0.95)
    assert constant.momentum == 0.999


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_parameters_are_refused_because_they_would_stall(dtype):
    own = torch.ones(1, dtype=dtype)
    moved = own.lerp(torch.full_like(own, 1.05), 0.004)
    assert torch.equal(moved, own)  # the trap: a move of 0.0002 is lost, at every step anew
    module = nn.Linear(2, 2).to(dtype)
    teacher = Teacher().follow({"image": module})
    with pytest.raises(PolysenseError, match="bf16-mixed"):
        teacher.update()


def test_double_precision_and_mixed_types_are_grouped():
    module = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2).double()])
    teacher = Teacher(0.0, schedule="constant").follow({"image": module})
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    teacher.update()
    for own, live in zip(teacher.parameters(), module.parameters(), strict=True):
        assert own.dtype == live.dtype
        assert torch.equal(own, live)


def test_the_copies_follow_the_mode_of_the_whole():
    teacher = Teacher().follow({"image": build("small", size=32)})
    assert teacher["image"].training
    teacher.eval()
    assert not teacher["image"].training


def test_wrong_settings_say_what_to_do():
    with pytest.raises(PolysenseError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        Teacher(schedule="cosin")
    with pytest.raises(PolysenseError, match=r"momentum is 99.*from 0 to 1"):
        Teacher(99)


def test_a_frozen_teacher_follows_nobody():
    module = student().train()
    teacher = FrozenTeacher({"image": module}, {"match": nn.Identity()}).follow({"towers": student()}).train()
    before = copy.deepcopy(module.state_dict())
    teacher.at(0.5)
    teacher.update()
    teacher["towers"]["image"](torch.randn(8, 3, 4, 4))
    assert not module.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
