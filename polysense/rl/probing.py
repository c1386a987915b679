"""Do features tell the true state? A linear probe of each of its variables, beside pixels and their PCA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError
from polysense.evaluation.features import embed_all, extract_raw
from polysense.modalities.base import ViewPlan
from polysense.rl.modality import States
from polysense.rl.trajectories import Trajectories

TEST_EVERY = 5
"""Every fifth episode is kept for testing."""

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""The ridge penalties that are tried, as shares of the features' mean variance."""

PCA = "PCA of pixels"
"""The row of the humble baseline."""

COMPONENTS = 64


def probe_states(
    encoders: Mapping[str, Encoder],
    modality: States,
    trajectories: Trajectories,
    *,
    components: int = COMPONENTS,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """How well each variable of the true state can be read from features: R² on every fifth episode.

    Each encoder's pooled embedding of the plain view is probed by ridge regression, and so are the first
    ``components`` principal components of the pixels: print an untrained encoder and those beside any
    result, as positions are nearly free, and only what beats them has been learned.

    Returns:
        A row for each encoder and one for "PCA of pixels", a column for each variable, and their ``mean``.

    Raises:
        PolysenseError: for trajectories without true states, or of less than five episodes.
    """
    truth = _truth(trajectories)
    episode = torch.tensor(trajectories.table["episode"].to_numpy(np.int64))
    features = {
        name: embed_all(encoder, modality, trajectories, device) for name, encoder in encoders.items()
    }
    test = held_out(episode)
    pixels = extract_raw(modality, trajectories, device=device)
    features[PCA] = principal_components(pixels, components, ~test)
    scores = {name: ridge_r2(each, truth, episode) for name, each in features.items()}
    names = [name.removeprefix("state_") for name in trajectories.states]
    table = pd.DataFrame.from_dict(scores, orient="index", columns=names)
    return table.assign(mean=table.mean(axis=1))


def supervised_encoder(
    modality: States,
    trajectories: Trajectories,
    *,
    steps: int = 400,
    batch_size: int = 128,
    lr: float = 1e-3,
    encoder: str = "state_conv",
    seed: int = 0,
) -> Encoder:
    """The ceiling of every probe: an encoder trained to tell the true state, on all but the test episodes.

    Its frames are shifted as for ``state_contrast``, and it regresses the standardised state linearly.

    Raises:
        PolysenseError: for trajectories without true states, or of less than five episodes.
    """
    truth = _truth(trajectories)
    learns = ~held_out(torch.tensor(trajectories.table["episode"].to_numpy(np.int64)))
    rows = learns.nonzero()[:, 0]
    wanted = (truth - truth[rows].mean(0)) / truth[rows].std(0).clamp_min(1e-6)
    shifted = modality.fit(trajectories, ViewPlan(globals_=1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = modality.encoder(encoder)
        head = nn.Linear(tower.dim, wanted.shape[1])
        optimiser = torch.optim.Adam([*tower.parameters(), *head.parameters()], lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            chosen = rows[torch.randint(len(rows), (batch_size,))]
            (view,) = shifted.views(shifted.collate(trajectories.__getitems__(chosen.tolist())))
            loss = F.mse_loss(head(tower(view.data).pooled), wanted[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return tower.eval()


def _truth(trajectories: Trajectories) -> Tensor:
    """``[N, V]``: the true state at each frame."""
    variables = trajectories.states
    if not variables:
        raise PolysenseError(
            "these trajectories hold no true state to probe; collect them from an environment that tells it,"
            " such as CartPole-v1"
        )
    return torch.tensor(trajectories.table[variables].to_numpy(np.float32))


def ridge_r2(features: Tensor, truth: Tensor, episode: Tensor) -> list[float]:
    """R² of ridge regression from ``features[N, D]`` to each column of ``truth[N, V]``, on unseen episodes.

    Features are standardised. The penalty is chosen for each variable on every fifth episode of those that
    are not for testing.

    >>> x = torch.arange(20.0)[:, None]
    >>> [round(score, 3) for score in ridge_r2(x, 2 * x + 1, torch.arange(20) // 2)]
    [1.0]
    """
    test = held_out(episode)
    rest = torch.unique(episode[~test])
    chooses = ~test & torch.isin(episode, rest[TEST_EVERY - 1 :: TEST_EVERY])
    learns = ~test & ~chooses if bool(chooses.any()) else ~test
    tried = _r2(features, truth, learns, chooses if bool(chooses.any()) else ~test)
    scores = _r2(features, truth, ~test, test)
    return scores.gather(0, tried.argmax(0, keepdim=True))[0].tolist()


def principal_components(features: Tensor, count: int, fitted: Tensor) -> Tensor:
    """``[N, count]``: projections on the first principal components of the rows where ``fitted``."""
    return principal_projection(features[fitted], count)(features)


def principal_projection(examples: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """From features ``[N, D]`` to ``[N, count]``, on the first principal components of the examples.

    >>> principal_projection(torch.tensor([[-2.0, 0.1], [0.0, 0.0], [2.0, -0.1]]), 1)(torch.zeros(1, 2)).shape
    torch.Size([1, 1])
    """
    mean = examples.mean(0)
    chosen = examples[:: max(1, len(examples) // 4096)] - mean
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the decomposition starts from random vectors
        _, _, directions = torch.pca_lowrank(chosen, q=min(count + 10, *chosen.shape), center=False, niter=4)
    return lambda features: (features - mean) @ directions[:, :count]


def held_out(episode: Tensor) -> Tensor:
    """``[N]``: True in every fifth episode."""
    episodes: Sequence[int] = torch.unique(episode).tolist()
    if len(episodes) < TEST_EVERY:
        raise PolysenseError(
            f"a probe of states needs at least {TEST_EVERY} episodes, as every fifth is kept for testing, not"
            f" {len(episodes)}; collect more steps"
        )
    return torch.isin(episode, torch.tensor(episodes[TEST_EVERY - 1 :: TEST_EVERY]))


def _r2(features: Tensor, truth: Tensor, learns: Tensor, judges: Tensor) -> Tensor:
    """``[P, V]``: R² on the rows ``judges`` for each penalty and variable, in float64."""
    y = truth.double()
    error = (ridge_predictions(features, truth, learns)[:, judges] - y[judges]).square().sum(1)
    spread = (y[judges] - y[judges].mean(0)).square().sum(0)
    return 1 - error / spread.clamp_min(1e-12)


def ridge_predictions(features: Tensor, truth: Tensor, learns: Tensor) -> Tensor:
    """``[P, N, V]``: what ridge regression on the rows ``learns`` expects, for each penalty, in float64."""
    x, y = features.double(), truth.double()
    mean, std = x[learns].mean(0), x[learns].std(0)
    x = (x - mean) / std.where(std > 1e-5 * std.max(), torch.inf)  # rounding errors are no features
    centre = y[learns].mean(0)
    gram, cross = x[learns].T @ x[learns], x[learns].T @ (y[learns] - centre)
    unit = torch.eye(x.shape[1], dtype=x.dtype) * len(x[learns])
    solutions = torch.stack([torch.linalg.solve(gram + penalty * unit, cross) for penalty in PENALTIES])
    return x @ solutions + centre
