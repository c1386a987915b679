"""Random crops and shifts where an agent replays what it has seen (RAD, DrQ, CURL)."""

from __future__ import annotations

from typing import Any, NamedTuple

from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.rl.encoder import StateConv
from polysense.rl.extractor import Extractor
from polysense.rl.views import Cut, StateViews


class AugmentedSamples(NamedTuple):
    """As Stable-Baselines3 has them, and a second view of the observations where those were asked for."""

    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    dones: Tensor
    rewards: Tensor
    discounts: Tensor | None = None
    positives: Tensor | None = None


class AugmentedReplay(ReplayBuffer):
    """A replay buffer whose pictures are cut anew each time they are replayed; a stack is cut as one.

    ``replay_buffer_kwargs={"crop": 0.84}`` gives RAD's random crops
    (https://arxiv.org/abs/2004.14990), which need a features extractor that cuts out the centre of what
    is not cut yet: :class:`CentreFeatures`. Without a crop, pictures are shifted, the pixels at
    their edge repeated (DrQ, https://arxiv.org/abs/2004.13649).

    Args:
        crop: side of the cut as a share of the picture's.
        shift: up to so many pixels each way, by default those of :class:`~.views.StateViews`.
        pairs: cut the observations a second time, independently, as ``positives``.
    """

    def __init__(
        self,
        *args: Any,
        crop: float = 1.0,
        shift: int | None = None,
        pairs: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        if len(self.obs_shape) != 3 or self.observation_space.dtype != "uint8":
            raise PolysenseError(
                f"random crops need pictures, and the observations are {self.observation_space.dtype}"
                f" {list(self.obs_shape)}; wrap the environment with polysense.rl.pixels"
            )
        self.settings, self.pairs = StateViews(crop=crop, shift=shift), pairs

    def _get_samples(self, batch_inds: Any, env: Any = None) -> AugmentedSamples:  # type: ignore[override]
        replayed = super()._get_samples(batch_inds, env)
        return AugmentedSamples(
            self._cut(replayed.observations),
            replayed.actions,
            self._cut(replayed.next_observations),
            replayed.dones,
            replayed.rewards,
            replayed.discounts,
            self._cut(replayed.observations) if self.pairs else None,
        )

    def _cut(self, pictures: Tensor) -> Tensor:
        size = pictures.shape[-1]
        cut = Cut.draw(self.settings, len(pictures), size, pictures.device)
        return cut.take(pictures, self.settings.side(size))


class CentreFeatures(Extractor):
    """A small convolutional net on the centre of pictures, or on what a replay buffer has cut already.

    Args:
        observation_space: bytes ``[C, S, S]``.
        crop: side of the centre as a share of S.
        dim: of the features.
    """

    def __init__(self, observation_space: Any, crop: float = 0.84, dim: int = 50) -> None:
        super().__init__(observation_space, dim)
        channels, size, _ = observation_space.shape
        self.side = StateViews(crop=crop).side(size)
        self.encoder = StateConv(channels, self.side, dim=dim)

    def forward(self, pictures: Tensor) -> Tensor:
        """``[B, dim]`` of pictures in [0, 1]."""
        edge = (pictures.shape[-1] - self.side) // 2
        centre = pictures[..., edge : edge + self.side, edge : edge + self.side]
        features: Tensor = self.encoder(centre).pooled
        return features
