"""What reads the state of CartPole in front of a drifting texture: R² of a linear probe, idea by idea.

    OMP_NUM_THREADS=1 python -m benchmarks.rl_background [--ideas IDEA ...] [--quick]

Each episode draws a texture anew and moves it (see ``rl_return``). A contrast in time tells moments apart by
it, and learns nothing else. Tried here: negatives of the same episode (a batch is 8 episodes of 16 moments),
a longer way ahead, predictions by the actions, actions told from what they did (inverse dynamics, also over
several steps), and with it the return of the rest of the episode, which is no longer learning without a
reward. Beside them the untrained encoder, the principal components, and the encoder that is told the state.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import environment, report
from benchmarks.rl_return import random_play
from polysense.encoders.base import Encoder
from polysense.encoders.heads import Pooled, mlp
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.table import find
from polysense.modalities.base import ViewPlan
from polysense.objectives import ActionPrediction
from polysense.rl import Trajectories, probe_states, supervised_encoder
from polysense.rl.modality import States

UNTRAINED, SUPERVISED = "untrained", "supervised"

EPISODES, MOMENTS = 8, 16
"""Of a batch of whole episodes."""


@dataclass(frozen=True)
class Idea:
    """A recipe, its views and options, which moments make a batch, and whether the return is predicted."""

    method: str
    views: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    by_episode: bool = False
    with_return: bool = False


CONTRAST = Idea("state_contrast", {"ahead": 2}, {"momentum": 0.975})
PREDICTION = Idea("spr", {"ahead": 2}, {"momentum": 0.975, "actions": 2})
INVERSE = Idea("inverse_dynamics", {"ahead": 1}, {"actions": 2})

IDEAS = {
    "state_contrast": CONTRAST,
    "state_contrast, same episode": replace(CONTRAST, by_episode=True),
    "state_contrast, 10 ahead": replace(CONTRAST, views={"ahead": 10}),
    "state_contrast, actions": replace(
        CONTRAST, options={**CONTRAST.options, "with_actions": True, "actions": 2}
    ),
    "spr": PREDICTION,
    "spr, same episode": replace(PREDICTION, by_episode=True),
    "inverse_dynamics": INVERSE,
    "inverse_dynamics, 4 ahead": replace(INVERSE, views={"ahead": 4}),
    "inverse_dynamics and return": replace(INVERSE, with_return=True),
}


class RestOfEpisode(Reads):
    """What the embedding tells of the return that is still to come."""

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """The prediction ``[B, 1]`` and the return."""
        return branch.predictor(seen.student[0].pooled), seen.known["return"]


def main() -> None:
    """Collect once; train and probe each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ideas", nargs="+", choices=[*IDEAS, SUPERVISED], default=[*IDEAS, SUPERVISED])
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=48, help="side of the frames in pixels")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/rl_background"))
    parser.add_argument("--quick", action="store_true", help="few frames and steps: does it run at all?")
    asked = parser.parse_args()
    if asked.quick:
        asked.frames, asked.steps = 1500, 10
        asked.out = asked.out / "quick"
    record = environment(asked.seed, peers=["gymnasium"])
    seen = random_play("drifting", asked.seed, asked)
    states = States().fit(seen)
    torch.manual_seed(asked.seed)
    rows = rows_of(UNTRAINED, states.encoder("state_conv"), states, seen)
    told = {"steps": asked.steps, "seed": asked.seed}
    for name in asked.ideas:
        make = partial(supervised_encoder, states, seen, **told)
        if name != SUPERVISED:
            make = partial(train, IDEAS[name], seen, asked)
        rows += timed(name, make, states, seen)
    budget = {name: getattr(asked, name) for name in ("frames", "size", "steps")}
    report("rl_background" + ("_quick" if asked.quick else ""), rows, {**record, **budget})


def timed(name: str, make: Callable[[], Encoder], states: States, seen: Trajectories) -> list[dict[str, Any]]:
    """The row of an encoder that is made now."""
    start = time.perf_counter()
    encoder = make()
    return rows_of(name, encoder, states, seen, time.perf_counter() - start)


def rows_of(
    name: str, encoder: Encoder, states: States, seen: Trajectories, seconds: float | None = None
) -> list[dict[str, Any]]:
    """R² of each variable; of the untrained encoder behind those of the principal components."""
    table = probe_states({name: encoder}, states, seen).iloc[::-1]
    table = table if name == UNTRAINED else table.loc[[name]]
    print(table.round(2).to_string(header=name == UNTRAINED), flush=True)
    return [{"encoder": row, **scores, "seconds": seconds} for row, scores in table.T.to_dict().items()]


def train(idea: Idea, seen: Trajectories, asked: argparse.Namespace) -> Encoder:
    """The encoder after ``steps`` steps of Adam, the rate falling as a cosine."""
    torch.manual_seed(asked.seed)
    rng = np.random.default_rng(asked.seed)
    recipe = find(idea.method)
    options = {**recipe.views.options["state"], **idea.views}
    states = States().fit(seen, ViewPlan(globals_=recipe.views.globals_, options={"state": options}))
    encoder = states.encoder("state_conv")
    method = recipe.build(encoder, "state", **idea.options)
    if idea.with_return:
        predict = method.branches["predict"]
        assert isinstance(predict, Branch)
        method = Method({"state": encoder}, {"predict": predict, "return": return_branch(encoder.dim)})
    rest = standardised(seen.last - np.arange(len(seen)))
    learning = [each for each in method.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(learning, 1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, asked.steps)
    for _ in range(asked.steps):
        batch = states.collate(seen.__getitems__(moments(seen, rng, by_episode=idea.by_episode)))
        known = {**batch.known, "return": rest[batch.index]}
        loss = method(states.views(batch), known).loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 10.0)
        optimiser.step()
        schedule.step()
        method.after_step()
    return encoder.eval()


def return_branch(dim: int) -> Branch:
    """CartPole's reward is 1 a step: its return is how long the episode goes on."""
    return Branch(Pooled(), ActionPrediction(), RestOfEpisode(), predictor=mlp(dim, 256, 1, norm="none"))


def standardised(values: np.ndarray) -> Tensor:
    """``[N, 1]``."""
    found = torch.from_numpy(values).float()[:, None]
    return (found - found.mean()) / found.std()


def moments(seen: Trajectories, rng: np.random.Generator, *, by_episode: bool) -> list[int]:
    """The rows of a batch: anywhere, or of a few episodes."""
    if not by_episode:
        return [int(row) for row in rng.integers(len(seen), size=EPISODES * MOMENTS)]
    episodes = rng.choice(np.flatnonzero(seen.table["t"] == 0), EPISODES, replace=False)
    return [int(row) for first in episodes for row in rng.integers(first, seen.last[first] + 1, MOMENTS)]


if __name__ == "__main__":
    main()
