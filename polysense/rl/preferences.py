"""A reward from preferences: which of two clips, or of two texts, somebody finds better (RLHF)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from polysense.deployment.folder import read_weights, write_json, write_weights
from polysense.deployment.run import Run
from polysense.errors import PolysenseError
from polysense.objectives.preferences import BradleyTerry
from polysense.rl.trajectories import Trajectories

CALIBRATION_BINS = 10

MODEL = "reward.json"
"""Beside the weights: what the model is made with."""


def clip_pairs(trajectories: Trajectories, count: int, length: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Pairs of clips to compare, as the rows of their frames: ``[count, 2, length]``.

    No clip crosses the end of an episode.

    Raises:
        PolysenseError: when no episode has ``length`` frames.
    """
    starts = np.flatnonzero(trajectories.last - np.arange(len(trajectories)) >= length - 1)
    if not len(starts) or length < 1:
        raise PolysenseError(
            f"no episode has the {length} frames of a clip; choose clips of at least 1 and at most"
            f" {int((trajectories.last - trajectories.first).max()) + 1} frames"
        )
    drawn = np.random.default_rng(seed).choice(starts, (count, 2))
    rows: NDArray[np.int64] = drawn[..., None] + np.arange(length)
    return rows


def scripted_choices(
    first: ArrayLike,
    second: ArrayLike,
    *,
    indifference: float = 0.0,
    mistakes: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """What a teacher who knows the true returns ``[N]`` of two things answers: 1, 0, or 1/2 for a tie.

    It finds returns equal that differ by at most ``indifference``, and errs in a share of ``mistakes``.

    >>> scripted_choices([3.0, 1.0, 2.0], [1.0, 3.0, 2.0]).tolist()
    [1.0, 0.0, 0.5]
    """
    margin = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    share = np.where(np.abs(margin) <= indifference, 0.5, margin > 0)
    wrong = np.random.default_rng(seed).random(len(share)) < mistakes
    return torch.from_numpy(np.where(wrong, 1 - share, share)).float()


@dataclass(frozen=True)
class Preferences:
    """Compared pairs: embeddings ``first`` and ``second`` ``[N, T, D]``, and ``share`` ``[N]``.

    T is how many things make a clip: frames, or 1 for a text. ``share`` is 1 where the first was preferred,
    0 where the second was, 1/2 for a tie.

    Raises:
        PolysenseError: where the shapes do not fit, or a share is not from 0 to 1.
    """

    first: Tensor
    second: Tensor
    share: Tensor

    def __post_init__(self) -> None:
        if (
            self.first.ndim != 3
            or self.first.shape != self.second.shape
            or len(self.share) != len(self.first)
        ):
            raise PolysenseError(
                "preferences have embeddings [N, T, D] of both clips and N shares, not"
                f" {list(self.first.shape)}, {list(self.second.shape)} and {list(self.share.shape)}"
            )
        if len(self) < 1 or not bool(((self.share >= 0) & (self.share <= 1)).all()):
            raise PolysenseError(
                "preferences need at least one pair, and shares from 0 (the second is better) to 1"
            )

    def __len__(self) -> int:
        return len(self.share)

    @classmethod
    def of_clips(cls, embeddings: Tensor, pairs: NDArray[np.int64], share: Tensor) -> Preferences:
        """From embeddings ``[N, D]`` of all frames and the rows of :func:`clip_pairs`."""
        rows = torch.from_numpy(pairs)
        return cls(embeddings[rows[:, 0]], embeddings[rows[:, 1]], share)

    @classmethod
    def of_texts(cls, run: Run, chosen: list[str], rejected: list[str]) -> Preferences:
        """From texts that were preferred to others, embedded by a run of texts."""
        return cls(run.embed(chosen)[:, None], run.embed(rejected)[:, None], torch.ones(len(chosen)))

    def split(self, held_out: float = 0.2, *, seed: int = 0) -> tuple[Preferences, Preferences]:
        """Pairs to learn from, and a share of ``held_out`` to judge by; at least one each.

        Raises:
            PolysenseError: for less than two pairs.
        """
        if len(self) < 2:
            raise PolysenseError("one pair cannot be split into some to learn from and some to judge by")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        count = min(max(1, round(held_out * len(self))), len(self) - 1)
        return self._pick(order[count:]), self._pick(order[:count])

    def _pick(self, rows: Tensor) -> Preferences:
        return Preferences(self.first[rows], self.second[rows], self.share[rows])


class RewardModel(nn.Module):
    """A reward for embeddings of a frozen encoder, learned from preferences (Bradley and Terry).

    The reward of a clip is the sum of its frames'. Preferences tell only differences, so :meth:`reward` is
    standardised by what the model was fitted on.

    Args:
        dim: of the embeddings.
        hidden: width of one hidden layer; 0 for a linear reward.
        noise: the share of answers that are taken to be given at random.

    >>> clips = torch.randn(2, 64, 5, 3)
    >>> model, pairs = RewardModel(3), Preferences(*clips, share=torch.full((64,), 0.5))
    >>> model.reward(pairs.first).shape, sorted(model.judge(pairs))
    (torch.Size([64, 5]), ['accuracy', 'calibration_error', 'log_loss'])
    """

    mean: Tensor
    std: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, dim: int, *, hidden: int = 64, noise: float = 0.0) -> None:
        super().__init__()
        self.made_with = {"dim": dim, "hidden": hidden, "noise": noise}
        self.loss = BradleyTerry(noise)
        layers = [nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, 1)] if hidden else [nn.Linear(dim, 1)]
        self.layers = nn.Sequential(*layers)
        for name, value in {"mean": torch.zeros(dim), "std": torch.ones(dim)}.items():
            self.register_buffer(name, value)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, embeddings: Tensor) -> Tensor:
        """The reward as it was learned, ``[...]`` of embeddings ``[..., D]``."""
        rewards: Tensor = self.layers((embeddings - self.mean) / self.std)
        return rewards[..., 0]

    @torch.no_grad()
    def reward(self, embeddings: Tensor) -> Tensor:
        """The reward in standard deviations from its mean, ``[...]`` of embeddings ``[..., D]``."""
        standardised: Tensor = (self(embeddings) - self.centre) / self.spread
        return standardised

    def fit(
        self,
        preferences: Preferences,
        *,
        steps: int = 300,
        lr: float = 3e-3,
        weight_decay: float = 0.1,
        seed: int = 0,
    ) -> RewardModel:
        """Learn from all pairs at once; of a fifth of them that is held out, the best step is kept.

        Raises:
            PolysenseError: for less than two pairs.
        """
        learn, check = preferences.split(0.2, seed=seed)
        seen = torch.cat([learn.first, learn.second]).flatten(0, 1)
        std = seen.std(0)
        self.mean.copy_(seen.mean(0))
        self.std.copy_(std.where(std > 1e-6, 1.0))
        optimiser = torch.optim.AdamW(self.parameters(), lr, weight_decay=weight_decay)
        best, kept = float("inf"), copy.deepcopy(self.layers.state_dict())
        for _ in range(steps):
            loss = self._loss(learn)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                found = float(self._loss(check))
            if found < best:
                best, kept = found, copy.deepcopy(self.layers.state_dict())
        self.layers.load_state_dict(kept)
        with torch.no_grad():
            rewards = self(seen)
            self.centre.copy_(rewards.mean())
            self.spread.copy_(rewards.std().clamp_min(1e-6))
        return self

    @torch.no_grad()
    def judge(self, preferences: Preferences) -> dict[str, float]:
        """How well held-out pairs are foreseen.

        ``accuracy``: the share of pairs, without ties, in which the preferred one has the greater reward.
        ``calibration_error``: by how much the expected shares are off the true ones, on average over ten
        bins of as many pairs. ``log_loss``: log 2 = 0.693 is chance.
        """
        first, second = self._returns(preferences)
        share, decided = preferences.share, preferences.share != 0.5
        right = (first > second) == (share > 0.5)
        accuracy = float(right[decided].float().mean()) if bool(decided.any()) else float("nan")
        expected = torch.sigmoid(first - second)
        order = expected.argsort()
        bins = order.tensor_split(min(CALIBRATION_BINS, len(order)))
        off = sum(len(each) * abs(float(expected[each].mean() - share[each].mean())) for each in bins)
        log_loss = float(self.loss(first, second, share))
        return {"accuracy": accuracy, "calibration_error": off / len(order), "log_loss": log_loss}

    def save(self, folder: str | Path) -> Path:
        """Write the model into a folder, as safetensors and JSON.

        Raises:
            PolysenseError: when the disk refuses.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        write_weights(path, self.state_dict(), about={"format": "pt"})
        write_json(path / MODEL, self.made_with)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The model that :meth:`save` wrote.

        Raises:
            PolysenseError: when the folder holds none, or its files are damaged or of different models.
        """
        path = Path(folder)
        if not (path / MODEL).is_file():
            raise PolysenseError(
                f"{path} holds no reward model (no {MODEL}); write one with RewardModel.save"
            )
        try:
            model = cls(**json.loads((path / MODEL).read_text(encoding="utf-8")))
            model.load_state_dict(read_weights(path))
        except (ValueError, TypeError, RuntimeError) as error:
            raise PolysenseError(
                f"the files in {path} are not those of one reward model ({str(error).splitlines()[0]});"
                " fit and save it again"
            ) from error
        return model

    def _returns(self, preferences: Preferences) -> tuple[Tensor, Tensor]:
        return self(preferences.first).sum(1), self(preferences.second).sum(1)

    def _loss(self, preferences: Preferences) -> Tensor:
        loss: Tensor = self.loss(*self._returns(preferences), preferences.share)
        return loss


def best_of(candidates: Sequence[Sequence[str]], score: Callable[[list[str]], Sequence[float]]) -> list[str]:
    """Of each list of candidates the one that ``score`` finds best; all are scored in one call (best of n).

    Raises:
        PolysenseError: for an empty list, or a ``score`` that gives other than one number for each text.

    >>> best_of([["a", "bbb"], ["cc", "d"]], lambda texts: [len(text) for text in texts])
    ['bbb', 'cc']
    """
    texts = [text for group in candidates for text in group]
    if not all(len(group) for group in candidates):
        raise PolysenseError("each list of candidates needs at least one text to choose from")
    scores = np.asarray(score(texts), np.float64)
    if scores.shape != (len(texts),):
        raise PolysenseError(
            f"score gave numbers of shape {list(scores.shape)} for {len(texts)} texts; give one for each"
        )
    ends = np.cumsum([len(group) for group in candidates])[:-1]
    found = np.split(scores, ends)
    return [group[int(each.argmax())] for group, each in zip(candidates, found, strict=True)]


def reward_function(run: Run, model: RewardModel) -> Callable[..., list[float]]:
    """The model as a reward function for texts, as TRL's trainers and :func:`best_of` call it.

    It takes ``completions``, texts or conversations whose last message counts, and by name whatever else a
    trainer tells, such as ``prompts``, which it does not read.
    """

    def reward(completions: Sequence[Any], **_: Any) -> list[float]:
        texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
        rewards: list[float] = model.reward(run.embed(texts)).tolist()
        return rewards

    return reward
