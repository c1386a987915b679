"""States of games as a modality: stacks of frames at moments of an episode, and the moments after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.modalities.base import Batch, View, ViewPlan
from polysense.rl.trajectories import Moments, Trajectories, read_trajectories
from polysense.rl.views import CLIPS, Cut, StateViews

if TYPE_CHECKING:
    from polysense.encoders.base import Encoder

RAW_SIDE = 32
"""As raw features, frames are averaged down to at most this side."""


@dataclass(frozen=True)
class Scene:
    """One view of the plan: its kind, and which of the batch's moments it shows."""

    kind: str
    moment: int


class States:
    """Stacks of the latest frames of an episode: a :class:`~polysense.modalities.base.Modality`.

    ``plan.options["state"]`` sets fields of :class:`.StateViews`. A plan with one global view and a setting
    ``ahead`` has that view at time t and views of kind "next" at t + ahead; with two global views, the
    second one is at t + ahead. In both cases ``Batch.known["action"]`` holds the actions between, ``[B,
    ahead]`` integers or ``[B, ahead, A]``, and ``View.present`` is False where the episode ends before. Where
    episodes have a mission, ``Batch.known`` holds ``instruction`` and ``sentence``, see :class:`.Sentences`.

    Args:
        stack: how many frames make a state; motion cannot be seen in one.
        size: side of the frames in pixels, as they were collected.
        channels: of one frame.
        plan: which views to make.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"name": list("abcd"), "episode": 0, "t": range(4)})
    >>> episode = Trajectories(np.zeros((4, 1, 16, 16), np.uint8), table, {})
    >>> states = States(size=16, plan=ViewPlan(globals_=1, options={"state": {"ahead": 1}}))
    >>> now, later = states.views(states.collate(episode.__getitems__([0, 3])))
    >>> later.kind, tuple(later.data.shape), later.present
    ('next', (2, 3, 16, 16), tensor([ True, False]))
    """

    name = "state"
    raw_name = "pixels"
    default_encoder = "state_conv"

    def __init__(
        self,
        stack: int = 3,
        size: int = 64,
        channels: int = 1,
        plan: ViewPlan = ViewPlan(),  # noqa: B008 - frozen
    ) -> None:
        for name, value in {"stack": stack, "size": size, "channels": channels}.items():
            if value < 1:
                raise PolysenseError(f"{name} is {value}; it must be at least 1")
        self.stack, self.size, self.channels, self.plan = stack, size, channels, plan
        self.settings_of_views = StateViews.of(plan.options.get(self.name, {}))
        self.side = self.settings_of_views.side(size)

    def read(self, source: Any, **reading: Any) -> Trajectories:
        """The trajectories of a folder; for ``label`` and ``text`` see :func:`.read_trajectories`."""
        wanted = {name: reading[name] for name in ("label", "text") if name in reading}
        return read_trajectories(source, **wanted)

    def fit(self, dataset: Trajectories, plan: ViewPlan | None = None) -> States:
        """The same modality for frames of the data's size and channels, with ``plan`` if given."""
        return States(self.stack, dataset.side, dataset.channels, self.plan if plan is None else plan)

    def batch(self, items: Sequence[Any]) -> Batch:
        """A batch of a few states: each ``[F, S, S]`` or ``[F, C, S, S]`` bytes, oldest frame first.

        A state of less than ``stack`` frames is filled up with its first one, as at an episode's start.

        Raises:
            PolysenseError: if one has another shape.
        """
        expected = [self.stack, self.channels, self.size, self.size]
        states = []
        for place, item in enumerate(items):
            frames = np.asarray(item)
            frames = frames[:, None] if frames.ndim == 3 else frames
            fits = frames.dtype == np.uint8 and list(frames.shape[1:]) == expected[1:]
            if not fits or not 1 <= len(frames) <= self.stack:
                raise PolysenseError(
                    f"state {place} of the list is {np.asarray(item).dtype} {list(np.shape(item))} where"
                    f" bytes {expected} (frames, channels, height, width) were expected"
                )
            states.append(np.concatenate([frames[:1].repeat(self.stack - len(frames), 0), frames]))
        pixels = torch.from_numpy(np.stack(states)[:, None])
        return Batch({"pixels": pixels}, torch.arange(len(states)))

    def collate(self, samples: Moments) -> Batch:
        """The moments' frames ``[B, M, stack, C, S, S]``, the first of M their own, and what is known."""
        trajectories, rows = samples.trajectories, samples.rows
        if (trajectories.side, trajectories.channels) != (self.size, self.channels):
            raise self._unfit(trajectories.channels, trajectories.side)
        wanted, present = self.settings_of_views.moments(trajectories, rows)
        data = {
            "pixels": torch.from_numpy(samples.stacks(wanted, self.stack)),
            "present": torch.from_numpy(present),
        }
        return Batch(data, torch.from_numpy(rows), self._known(trajectories, rows))

    def _known(self, trajectories: Trajectories, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        said = {} if trajectories.sentences is None else trajectories.sentences.known(rows)
        actions, ahead = trajectories.action, self.settings_of_views.ahead
        if actions is None or not ahead:
            return said
        steps = np.minimum(rows[:, None] + np.arange(ahead), trajectories.last[rows][:, None])
        return {"action": torch.from_numpy(actions[steps]), **said}

    def scenes(self) -> list[Scene]:
        """Which views are made, in order."""
        settings, count = self.settings_of_views, self.plan.globals_
        if settings.clip is not None:
            return [Scene(kind, moment) for moment, kind in enumerate(CLIPS[settings.clip])]
        if count == 1:
            later = [Scene("next", moment) for moment in range(1, settings.count)]
            return [Scene("global", 0), *later]
        return [Scene("global", view % settings.count) for view in range(count)]

    def views(self, batch: Batch) -> list[View]:
        """The plan's views: float32 in [0, 1], ``[B, stack * C, side, side]``, a stack cut as one."""
        pixels, scenes = self._pixels(batch), self.scenes()
        needed = 1 + max(scene.moment for scene in scenes)
        if pixels.shape[1] < needed:
            raise PolysenseError(
                f"these views need {needed} moments of each episode, and the batch holds {pixels.shape[1]};"
                " train on trajectories"
            )
        assert isinstance(batch.data, dict)
        present = batch.data.get("present")
        settings = self.settings_of_views
        together = Cut.draw(settings, len(pixels), self.size, pixels.device) if settings.together else None
        made = []
        for scene in scenes:
            cut = together or Cut.draw(settings, len(pixels), self.size, pixels.device)
            states = cut.make(pixels[:, scene.moment].flatten(1, 2), self.side)
            there = present[:, scene.moment] if present is not None and scene.moment else None
            made.append(View(states, self.name, scene.kind, present=there))
        return made

    def plain(self, batch: Batch) -> View:
        """The moment's own stack, cut in its centre."""
        pixels = self._pixels(batch)[:, 0].flatten(1, 2)
        edge = (self.size - self.side) // 2
        centre = pixels[..., edge : edge + self.side, edge : edge + self.side]
        return View(centre.to(torch.float32) / 255, self.name)

    def raw(self, batch: Batch) -> Tensor:
        """``[B, F]``: the plain view's pixels, averaged down to a side of at most 32."""
        states = self.plain(batch).data
        assert isinstance(states, Tensor)
        return F.adaptive_avg_pool2d(states, min(RAW_SIDE, self.side)).flatten(1)

    def show(self, view: View) -> NDArray[Any]:
        """The latest frame of each stack as bytes ``[B, h, w, 3]``."""
        assert isinstance(view.data, Tensor)
        latest = view.data[:, -self.channels :]
        if self.channels != 3:
            latest = latest.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        shown: NDArray[Any] = (latest.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return shown

    def encoder(self, spec: str | nn.Module, **options: Any) -> Encoder:
        """The tower for these stacks: "state_conv", see :class:`.StateConv`, or any encoder of pictures."""
        channels = self.stack * self.channels
        if spec == "state_conv":
            from polysense.rl.encoder import StateConv

            return StateConv(channels, self.side, **options)
        from polysense.encoders.vision import build

        return build(spec, channels=channels, size=self.side, **options)

    def settings(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_settings` rebuilds this modality."""
        options = dict(self.plan.options.get(self.name, {}))
        plan = {"globals": self.plan.globals_, "options": options}
        return {"stack": self.stack, "size": self.size, "channels": self.channels, "plan": plan}

    def attachments(self) -> dict[str, str]:
        """None: the settings hold everything."""
        return {}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], attachments: Mapping[str, str]) -> States:
        """The modality that gave these :meth:`settings`.

        >>> States.from_settings(States(stack=4).settings(), {}).stack
        4
        """
        plan = ViewPlan(settings["plan"]["globals"], options={cls.name: settings["plan"]["options"]})
        return cls(**{**settings, "plan": plan})

    def _pixels(self, batch: Batch) -> Tensor:
        assert isinstance(batch.data, dict)
        pixels = batch.data["pixels"]
        found, expected = pixels.shape[2:], (self.stack, self.channels, self.size, self.size)
        if tuple(found) != expected:
            raise PolysenseError(
                f"the states have shape {list(found)} (frames, channels, height, width) where"
                f" {list(expected)} was expected; use states like those the run was trained on"
            )
        return pixels

    def _unfit(self, channels: int, side: int) -> PolysenseError:
        return PolysenseError(
            f"the trajectories have frames [{channels}, {side}, {side}] where [{self.channels}, {self.size},"
            f" {self.size}] was expected; collect them with the size and colours that the run was trained on"
        )
