from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from polysense.errors import PolysenseError
from polysense.modalities.base import Modality, ViewPlan
from polysense.rl.modality import States
from polysense.rl.views import Cut, StateViews
from tests.rl.toys import SIDE, counted, numbers_of


def states(globals_: int = 1, stack: int = 3, **options: Any) -> States:
    return States(stack, SIDE, plan=ViewPlan(globals_, options={"state": {"shift": 0, **options}}))


def seen(modality: States, rows: list[int]) -> list[list[list[int]]]:
    """The frame numbers that each view of each sample shows."""
    views = modality.views(modality.collate(counted().__getitems__(rows)))
    return [numbers_of(view.data).tolist() for view in views]


def test_it_is_a_modality() -> None:
    modality: Modality = States()
    assert modality.name == "state"


def test_a_view_is_the_stack_of_the_latest_frames() -> None:
    assert seen(states(), [0, 1, 5, 6, 14]) == [[[0, 0, 0], [0, 0, 1], [3, 4, 5], [6, 6, 6], [12, 13, 14]]]


def test_the_next_view_is_so_many_steps_on_and_never_in_another_episode() -> None:
    modality = states(ahead=2)
    batch = modality.collate(counted().__getitems__([1, 3, 4, 5, 6]))
    now, later = modality.views(batch)
    assert (now.kind, later.kind) == ("global", "next")
    assert numbers_of(later.data)[:, 2].tolist() == [3, 5, 5, 5, 8]
    assert later.present is not None
    assert later.present.tolist() == [True, True, False, False, True]
    # action n is n % 3, and -1 at the ends, where the last one stays
    assert batch.known["action"].tolist() == [[1, 2], [0, 1], [1, -1], [-1, -1], [0, 1]]


def test_every_step_on_the_way_can_be_shown() -> None:
    modality = states(ahead=3, every=True)
    views = modality.views(modality.collate(counted().__getitems__([0, 4])))
    assert [view.kind for view in views] == ["global", "next", "next", "next"]
    assert [numbers_of(view.data)[:, 2].tolist() for view in views] == [[0, 4], [1, 5], [2, 5], [3, 5]]


def test_two_global_views_are_a_pair_in_time_where_ahead_is_set() -> None:
    assert [view[0][2] for view in seen(states(globals_=2, ahead=3), [1])] == [1, 4]
    assert [view[0][2] for view in seen(states(globals_=2), [1])] == [1, 1]


@pytest.mark.parametrize("clip", ["goal", "order"])
def test_clips_stay_in_their_episode_and_in_order(clip: str) -> None:
    trajectories = counted((20, 30))
    settings = StateViews(clip=clip)
    rows = np.arange(50)
    drawn = np.concatenate([settings.moments(trajectories, np.roll(rows, shift))[0] for shift in range(20)])
    first, last = trajectories.first[drawn[:, 0]], trajectories.last[drawn[:, 0]]
    assert ((first[:, None] <= drawn) & (drawn <= last[:, None])).all()
    if clip == "goal":
        now, after, start, goal = drawn.T
        assert (after == np.minimum(now + 1, last)).all()
        assert ((start <= now) & (goal >= after)).all()
        assert {0, 20} <= set(start.tolist())
        assert {19, 49} <= set(goal.tolist())
    else:
        now, earlier, later, start, end = drawn.T
        assert set((start - first).tolist()) == {*range(int(0.2 * 29) + 1)}
        assert set((last - end).tolist()) == {*range(int(0.2 * 29) + 1)}
        assert (earlier < now)[now > first].all()
        assert (later > now)[now < last].all()


def test_clips_are_drawn_alike_for_the_same_batch_whatever_ran_before() -> None:
    settings, rows = StateViews(clip="goal"), np.arange(10)
    first = settings.moments(counted(), rows)[0]
    torch.rand(5)
    np.random.default_rng().random(5)
    assert np.array_equal(settings.moments(counted(), rows)[0], first)


def ramp(channels: int = 3) -> torch.Tensor:
    """Each pixel tells its row and column."""
    place = torch.arange(8)
    return (16 * place[:, None] + place).byte().expand(5, channels, 8, 8)


def test_a_stack_is_cut_as_one_and_each_sample_elsewhere() -> None:
    torch.manual_seed(0)
    settings = StateViews(crop=0.5)
    cut = Cut.draw(settings, 5, 8, torch.device("cpu")).make(ramp(), settings.side(8)) * 255
    assert cut.shape == (5, 3, 4, 4)
    assert (cut == cut[:, :1]).all()
    corners = cut[:, 0, 0, 0].round().long()
    assert len(corners.unique()) > 1
    for sample, corner in zip(cut, corners.tolist(), strict=True):
        top, left = divmod(corner, 16)
        torch.testing.assert_close(sample, ramp()[0, :, top : top + 4, left : left + 4].float())


def test_every_corner_of_a_crop_is_drawn() -> None:
    boxes = Cut.draw(StateViews(crop=0.5), 500, 8, torch.device("cpu")).boxes
    assert boxes[:, :2].unique().tolist() == [0, 1, 2, 3, 4]


def test_a_shift_repeats_the_edge_as_padding_and_cropping_does() -> None:
    torch.manual_seed(0)
    pixels = torch.randint(256, (200, 2, 8, 8), dtype=torch.uint8)
    cut = Cut.draw(StateViews(shift=2), 200, 8, torch.device("cpu"))
    shifted = cut.make(pixels, 8) * 255
    padded = torch.nn.functional.pad(pixels.float(), (2, 2, 2, 2), mode="replicate")
    offsets = cut.boxes[:, :2] + 2
    assert offsets.unique().tolist() == [0, 1, 2, 3, 4]
    for sample, whole, (down, right) in zip(shifted, padded, offsets.tolist(), strict=True):
        torch.testing.assert_close(sample, whole[:, down : down + 8, right : right + 8])


def test_the_usual_shift_is_drqs_share() -> None:
    assert StateViews().reach(84) == 4
    assert StateViews(crop=0.84).reach(84) == 0


@pytest.mark.parametrize("together", [True, False])
def test_one_cut_for_all_views_of_a_sample_where_asked(together: bool) -> None:
    torch.manual_seed(0)
    trajectories = counted()
    trajectories.frames = np.broadcast_to(
        np.arange(SIDE**2, dtype=np.uint8).reshape(SIDE, SIDE), (20, 1, SIDE, SIDE)
    )
    modality = states(ahead=1, shift=4, together=together)
    now, later = modality.views(modality.collate(trajectories.__getitems__(range(12))))
    assert torch.equal(now.data, later.data) == together  # type: ignore[arg-type]


def test_random_resized_crops_and_brightness() -> None:
    torch.manual_seed(0)
    modality = states(scale=(0.2, 1.0), intensity=0.05)
    (view,) = modality.views(modality.collate(counted().__getitems__([10] * 400)))
    assert isinstance(view.data, torch.Tensor)
    assert view.data.shape == (400, 3, SIDE, SIDE)
    brightness = view.data[:, 2].mean((1, 2)) * 25.5
    assert 0.03 < brightness.std() < 0.06
    assert 0.89 < brightness.min() < brightness.max() < 1.11


def test_the_plain_view_is_the_centre_of_the_moment_itself() -> None:
    modality = states(crop=0.5, ahead=3)
    trajectories = counted()
    trajectories.frames = trajectories.frames.copy()
    trajectories.frames[..., :8, :] = 255
    view = modality.plain(modality.collate(trajectories.__getitems__([2, 5])))
    assert numbers_of(view.data).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert view.data.shape == (2, 3, 16, 16)  # type: ignore[union-attr]
    assert modality.raw(modality.collate(trajectories.__getitems__([2]))).shape == (1, 3 * 16 * 16)


def test_few_frames_in_memory_are_filled_up_as_at_an_episodes_start() -> None:
    frames = np.arange(2, dtype=np.uint8)[:, None, None].repeat(SIDE, 1).repeat(SIDE, 2)
    view = states().plain(states().batch([frames, frames[:1]]))
    assert numbers_of(view.data).tolist() == [[0, 0, 1], [0, 0, 0]]
    assert states().show(view).shape == (2, SIDE, SIDE, 3)
    assert states().show(view)[0].max() == 1


def test_settings_bring_it_back() -> None:
    modality = states(globals_=2, ahead=3, crop=0.84)
    again = States.from_settings(modality.settings(), modality.attachments())
    assert again.settings() == modality.settings()
    assert again.side == modality.side == 27


def test_it_takes_size_and_colours_from_the_data() -> None:
    fitted = States().fit(counted(channels=3, side=16), ViewPlan(1))
    assert (fitted.size, fitted.channels, fitted.plan.globals_) == (16, 3, 1)


@pytest.mark.parametrize("name", ["state_conv", "small", "vit_nano"])
def test_any_encoder_of_pictures_reads_the_stack(name: str) -> None:
    modality = states()
    encoder = modality.encoder(name)
    encoded = encoder(modality.plain(modality.collate(counted().__getitems__([3, 4]))).data)
    assert encoded.pooled.shape == (2, encoder.dim)
    assert encoded.tokens is not None
    assert encoded.tokens.shape[-1] == encoder.token_dim


def of_another_size() -> None:
    states().collate(counted(side=16).__getitems__([0]))


def of_another_stack() -> None:
    states(stack=4).plain(states().collate(counted().__getitems__([0])))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (of_another_size, r"frames \[1, 16, 16\] where \[1, 32, 32\] was expected"),
        (of_another_stack, r"shape \[3, 1, 32, 32\] .* where \[4, 1, 32, 32\] was expected"),
        (
            lambda: states().batch([np.zeros((4, 32, 32), np.uint8)]),
            r"uint8 \[4, 32, 32\] where bytes \[3, 1,",
        ),
        (lambda: states().batch([np.zeros((3, 32, 32))]), r"float64 \[3, 32, 32\] where bytes"),
        (lambda: states(ahead=1).views(states().batch([np.zeros((3, 32, 32), np.uint8)])), "need 2 moments"),
        (lambda: States(stack=0), "stack is 0; it must be at least 1"),
        (lambda: states(crop=1.5), "'crop' is 1.5; give a share"),
        (lambda: states(ahead=-1), "'ahead' is -1; give a number from 0 up"),
        (lambda: states(ahaed=1), "unknown view setting 'ahaed'; did you mean 'ahead'"),
        (lambda: states(clip="gaol"), "unknown clip 'gaol'; did you mean 'goal'"),
        (lambda: States(size=16).encoder("state_conv"), "16 x 16 pixels are too small"),
    ],
)
def test_what_does_not_fit_is_told(fault: Any, words: str) -> None:
    with pytest.raises(PolysenseError, match=words):
        fault()
