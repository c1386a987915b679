"""A pretrained run as the eyes of an agent: a features extractor for Stable-Baselines3."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.deployment.run import Run, load
from polysense.errors import PolysenseError
from polysense.evaluation.features import extract
from polysense.modalities.base import Batch, Modality
from polysense.modalities.vision.modality import Vision
from polysense.rl.modality import States


def features(
    run: str | Path | Run, *, freeze: bool = True, standardise: bool = True, data: Any = None
) -> dict[str, Any]:
    """The ``policy_kwargs`` with which PPO, DQN or SAC of Stable-Baselines3 see through a run of ours.

    As in ``PPO("MlpPolicy", rl.pixels("CartPole-v1", run), policy_kwargs=rl.features(run))``.

    Args:
        run: a run folder or loaded run of states (:func:`~.wrappers.pixels` makes an environment show what
            it reads) or of pictures.
        freeze: leave the encoder as it is; otherwise the agent trains it further.
        standardise: subtract the features' mean over the data and divide by their standard deviation,
            without which an agent on frozen features learns slowly.
        data: what to standardise by, where the run's own training data were in memory.

    Raises:
        PolysenseError: for a run that reads neither states nor pictures, or whose data cannot be read.
    """
    loaded = run if isinstance(run, Run) else load(run)
    if not isinstance(loaded.modality, States | Vision):
        raise PolysenseError(
            f"the run {loaded.path} reads {loaded.modality.name!r}, which no environment shows; use a run of"
            " states or pictures"
        )
    scale = _scale(loaded, data) if standardise else Standardise(torch.zeros(1), torch.ones(1))
    told = {"run": loaded, "freeze": freeze, "scale": scale}
    # as bytes: each modality scales its pixels itself
    return {
        "features_extractor_class": RunFeatures,
        "features_extractor_kwargs": told,
        "normalize_images": False,
    }


class Standardise(nn.Module):
    """Features as distances from their mean, in standard deviations.

    >>> Standardise.by(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))(torch.tensor([[2.0, 5.0]]))
    tensor([[0., 0.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @classmethod
    def by(cls, examples: Tensor) -> Standardise:
        """As ``examples[N, D]`` say; what does not vary among them is only centred."""
        std = examples.std(0)
        return cls(examples.mean(0), std.where(std > 1e-6, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        """``[B, D]``."""
        return (features - self.mean) / self.std


def _scale(run: Run, data: Any) -> Standardise:
    source = run.config["data"]["source"] if data is None else data
    if source is None:
        raise PolysenseError(
            f"the data of the run {run.path} were in memory, so its features cannot be standardised by them:"
            " give them again, as data="
        )
    return Standardise.by(extract(run, run.modality, run.modality.read(source)))


class Extractor(BaseFeaturesExtractor):
    """A features extractor that keeps the weights it was made with."""

    def apply(self, fn: Any) -> Self:
        """Nothing: this is how PPO would draw new weights for all it trains."""
        return self


class RunFeatures(Extractor):
    """The standardised embeddings of a run, see :func:`features`.

    Raises:
        PolysenseError: when the environment does not show what the run reads.
    """

    def __init__(self, observation_space: Any, *, run: Run, freeze: bool, scale: Standardise) -> None:
        _check_observations(run, tuple(observation_space.shape or ()))
        super().__init__(observation_space, run.encoder.dim)
        self.modality, self.frozen = run.modality, freeze
        self.encoder = copy.deepcopy(run.encoder).requires_grad_(not freeze)
        self.scale = copy.deepcopy(scale)
        self.train()

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, D]`` of observations ``[B, C, H, W]`` in 0 … 255."""
        view = self.modality.plain(observed(self.modality, observations.byte()))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            encoded: Tensor = self.scale(self.encoder(view.data).pooled)
        return encoded

    def train(self, mode: bool = True) -> RunFeatures:
        """A frozen encoder stays in eval mode."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self


def observed(modality: Modality, observations: Tensor) -> Batch:
    """What an environment shows, bytes ``[B, C, H, W]``, as a modality of states or pictures keeps it.

    >>> observed(States(size=16), torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).data["pixels"].shape
    torch.Size([2, 1, 3, 1, 16, 16])
    """
    index = torch.arange(len(observations), device=observations.device)
    if isinstance(modality, States):
        shape = (modality.stack, modality.channels, modality.size, modality.size)
        return Batch({"pixels": observations.view(-1, 1, *shape)}, index)
    height, width = observations.shape[2:]
    side = max(height, width)
    canvas = F.pad(observations, (0, side - width, 0, side - height))
    size = torch.tensor([height, width], device=observations.device).expand(len(observations), 2)
    return Batch({"pixels": canvas, "size": size}, index)


def _check_observations(run: Run, found: tuple[int, ...]) -> None:
    modality = run.modality
    if isinstance(modality, States):
        stacked = modality.stack * modality.channels
        expected: list[Any] = [stacked, modality.size, modality.size]
        reads = f"stacks of {modality.stack} frames of {modality.channels} channels, that is {expected}"
        fits = list(found) == expected
        mend = "wrap it with polysense.rl.pixels(env, run)"
    else:
        assert isinstance(modality, Vision)
        reads = f"pictures [{modality.channels}, height, width]"
        fits = len(found) == 3 and found[0] == modality.channels
        mend = "choose one with pictures as observations"
    if not fits:
        raise PolysenseError(
            f"the run {run.path} reads {reads}, and the environment shows observations {list(found)}; {mend}"
        )
