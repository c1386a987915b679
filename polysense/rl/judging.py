"""The verdict on embeddings of states: do they tell the true state, the action, the reward, the way to go?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import Protocol as Structural

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.evaluation.judge import MAJORITY, Hits, Judgement, intervals, judge, percent
from polysense.evaluation.linear import LinearProbe
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.retrieval import match_ranks
from polysense.evaluation.texts import spearman
from polysense.modalities.base import Dataset
from polysense.rl.language import Sentences
from polysense.rl.ridge import COMPONENTS, PCA, held_out, principal_components, ridge_predictions, ridge_r2

PIXELS = "pixels"


class Episodes(Dataset, Structural):
    """What is asked of :class:`~.trajectories.Trajectories`."""

    last: NDArray[Any]
    sentences: Sentences | None

    @property
    def states(self) -> list[str]: ...

    @property
    def action(self) -> NDArray[Any] | None: ...


def judge_states(features: Mapping[str, Tensor], trajectories: Episodes, protocol: Protocol) -> Judgement:
    """What linear probes read from frozen features on every fifth episode, before the usual figures.

    ``r2_{variable}`` and their ``r2_mean``: the true state. ``linear_action`` (in percent; ``r2_action_0``, …
    where actions are numbers) and ``r2_reward``: what was done between two frames and what it earned, from
    the features of both. ``recall_instruction_at_1`` and ``_at_5``: which instructions find a clip of theirs,
    by ridge regression from its first and last frame to the sentence. ``goal_correlation``: see
    :func:`goal_correlation`. Pixels are too wide for these probes: their principal components are asked, in a
    row of their own. What the trajectories do not tell is named in the notes.

    Args:
        features: ``[N, D]`` by name, "pixels" among them.
        trajectories: N frames and what is known of them.
        protocol: of the labels, where there are any; see :func:`~polysense.evaluation.judge.judge`.
    """
    usual = judge(features, trajectories, protocol)
    notes = usual.notes if protocol.labels else []
    try:
        questions = Questions(trajectories, protocol.seed)
    except PolysenseError as error:
        return usual._replace(notes=[*notes, str(error)])
    asked = {name: rows for name, rows in features.items() if name != PIXELS}
    if PIXELS in features:
        asked[PCA] = principal_components(features[PIXELS], COMPONENTS, ~questions.test)
    hits = {name: questions.hits(rows) for name, rows in asked.items()} | {MAJORITY: questions.majority()}
    found = {name: questions.numbers(rows) for name, rows in asked.items()}
    results = {
        name: {**found.get(name, {}), **percent(hits.get(name, {})), **usual.results.get(name, {})}
        for name in dict.fromkeys([*asked, *usual.results, *hits])
    }
    near = intervals(hits, protocol.seed)
    return Judgement(
        {name: row for name, row in results.items() if row},
        {name: {**near.get(name, {}), **usual.intervals.get(name, {})} for name in results},
        [*notes, *questions.missing],
    )


class Questions:
    """What trajectories can ask of features ``[N, D]`` of their frames.

    ``test`` ``[N]``: the frames of every fifth episode. ``missing``: what cannot be asked, and why.

    Raises:
        PolysenseError: for less than five episodes.
    """

    def __init__(self, trajectories: Episodes, seed: int = 0) -> None:
        self.table, self.last, self.seed = trajectories.table, trajectories.last, seed
        self.missing: list[str] = []
        self.episode = torch.from_numpy(self.table["episode"].to_numpy(np.int64, copy=True))
        self.test = held_out(self.episode)
        self.steps = torch.from_numpy(np.flatnonzero(np.arange(len(trajectories)) < trajectories.last))
        self.test_steps = self.test[self.steps]
        states = {name.removeprefix("state_"): self._column(name) for name in trajectories.states}
        self.sentences = trajectories.sentences
        self.states = self._varying("true state", states, self.test)
        rewards = {"reward": self._column("reward")[self.steps]} if "reward" in self.table else {}
        self.rewards = self._varying("reward", rewards, self.test_steps)
        taken = trajectories.action
        done = torch.zeros(0, 1) if taken is None else torch.tensor(taken)[self.steps]
        numbers = {f"action_{i}": each for i, each in enumerate(done.T)} if done.is_floating_point() else {}
        choices = {} if done.is_floating_point() else {"action": done}
        self.actions = self._varying(
            "action", {} if taken is None else {**numbers, **choices}, self.test_steps
        )

    def numbers(self, features: Tensor) -> dict[str, float]:
        """R² of each number that is asked for, and :func:`goal_correlation`."""
        found = self._r2(features, self.states, self.episode)
        if found:
            found = {"r2_mean": float(np.mean(list(found.values()))), **found}
        between = {name: each for name, each in self.actions.items() if each.is_floating_point()}
        found |= self._r2(self._pairs(features), {**between, **self.rewards}, self.episode[self.steps])
        return {**found, "goal_correlation": goal_correlation(features[self.test], self.episode[self.test])}

    def hits(self, features: Tensor) -> Hits:
        """At which test steps a linear probe names the action, and which instructions find their clip."""
        found = self._retrieved(features)
        if (action := self._choices()) is None:
            return found
        pairs, test = self._pairs(features), self.test_steps
        probe = LinearProbe(seed=self.seed).fit(pairs[~test], action[~test])
        return {"linear_action": (probe.predict(pairs[test]) == action[test]).numpy(), **found}

    def majority(self) -> Hits:
        """At which test steps the commonest action was taken."""
        if (action := self._choices()) is None:
            return {}
        commonest = action[~self.test_steps].bincount().argmax()
        return {"linear_action": (action[self.test_steps] == commonest).numpy()}

    def _retrieved(self, features: Tensor) -> Hits:
        """Which of the test episodes' instructions find one of theirs among them, where they differ."""
        if self.sentences is None:
            return {}
        starts = torch.from_numpy(np.flatnonzero((self.table["t"] == 0) & (self.sentences.which >= 0)))
        ends = torch.from_numpy(self.last)[starts]
        said, test = torch.from_numpy(self.sentences.which)[starts], self.test[starts]
        asked, meant = said[test].unique(), self.sentences.embeddings
        if len(asked) < 2 or not bool((~test).any()):
            return {}
        clips = torch.cat([features[starts], features[ends]], 1)
        expected = ridge_predictions(clips, meant[said], ~test)[-1][test].float()
        ranks = match_ranks(meant[asked], asked, expected, said[test])
        return {f"recall_instruction_at_{k}": (ranks <= k).numpy() for k in (1, 5)}

    def _choices(self) -> Tensor | None:
        action = self.actions.get("action")
        return action if action is not None and len(action[~self.test_steps].unique()) > 1 else None

    def _pairs(self, features: Tensor) -> Tensor:
        """``[steps, 2 D]``: the features before and after each step."""
        return torch.cat([features[self.steps], features[self.steps + 1]], 1)

    def _column(self, name: str) -> Tensor:
        return torch.from_numpy(self.table[name].to_numpy(np.float32, copy=True))

    def _varying(self, what: str, columns: dict[str, Tensor], test: Tensor) -> dict[str, Tensor]:
        """Those that can be probed at all."""
        varying = {name: each for name, each in columns.items() if bool((each[test] != each[test][0]).any())}
        if not columns:
            self.missing.append(f"the trajectories tell no {what}, so none is probed")
        elif len(varying) < len(columns):
            constant = ", ".join(name for name in columns if name not in varying)
            self.missing.append(f"{constant}: never changes in the test episodes, so it is not probed")
        return varying

    @staticmethod
    def _r2(features: Tensor, wanted: dict[str, Tensor], episode: Tensor) -> dict[str, float]:
        if not wanted:
            return {}
        scores = ridge_r2(features, torch.stack(list(wanted.values()), 1), episode)
        return {f"r2_{name}": score for name, score in zip(wanted, scores, strict=True)}


def goal_correlation(features: Tensor, episode: Tensor) -> float:
    """How steadily features come closer to an episode's last frame: 1 where every step brings them nearer.

    The rank correlation (Spearman) of the time of a frame and its nearness ``-|z(o) - z(goal)|``, which VIP
    and R3M take for a value (https://arxiv.org/abs/2210.00030); the mean over episodes of three frames or
    more, of ``features[N, D]`` and ``episode[N]`` in their order; 0 where there is none.

    >>> places = torch.tensor([[0.0], [1.0], [2.0], [5.0]])
    >>> round(goal_correlation(places, torch.zeros(4)), 6)
    1.0
    """
    correlations = []
    for each in torch.unique(episode):
        frames = features[episode == each]
        if len(frames) < 3:
            continue
        nearness = -torch.linalg.vector_norm(frames[:-1] - frames[-1], dim=1).numpy()
        correlations.append(spearman(np.arange(len(nearness)), nearness))
    return float(np.mean(correlations)) if correlations else 0.0
