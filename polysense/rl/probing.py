"""Do features tell the true state? A linear probe of each of its variables, beside pixels and their PCA."""

from __future__ import annotations

from collections.abc import Mapping

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
from polysense.rl.ridge import COMPONENTS, PCA, held_out, principal_components, ridge_r2
from polysense.rl.trajectories import Trajectories


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
