from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import polysense
from polysense.deployment.run import build_encoder
from polysense.errors import PolysenseError
from polysense.rl import collect, probe_states, rendering, supervised_encoder
from polysense.rl.modality import States
from polysense.rl.ridge import principal_components, ridge_r2
from polysense.rl.trajectories import Trajectories
from tests.rl.toys import counted

EPISODES = torch.arange(100) // 4


def test_what_is_linear_is_found_and_noise_is_not() -> None:
    torch.manual_seed(0)
    features = torch.randn(100, 3)
    truth = torch.stack([features @ torch.tensor([1.0, -2.0, 0.5]) + 3, torch.randn(100)], 1)
    linear, noise = ridge_r2(features, truth, EPISODES)
    assert linear > 0.999
    assert noise < 0.2


def test_scores_are_those_of_ridge_regression_on_every_fifth_episode() -> None:
    """sklearn's ridge, with each penalty, the best on the choosing episodes."""
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 30))
    y = x[:, 0] + 2 * rng.normal(size=100)
    episode = EPISODES.numpy()
    test = episode % 5 == 4
    rest = np.unique(episode[~test])
    choose = np.isin(episode, rest[4::5])

    def score(penalty: float, learn: np.ndarray, judge: np.ndarray) -> float:
        mean, std = x[learn].mean(0), x[learn].std(0, ddof=1)
        model = Ridge(alpha=penalty * learn.sum()).fit((x[learn] - mean) / std, y[learn])
        return float(model.score((x[judge] - mean) / std, y[judge]))

    penalties = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    best = max(penalties, key=lambda penalty: score(penalty, ~test & ~choose, choose))
    found = ridge_r2(torch.from_numpy(x), torch.from_numpy(y)[:, None], EPISODES)
    np.testing.assert_allclose(found[0], score(best, ~test, test), rtol=1e-6)


def test_principal_components_are_those_of_the_fitted_rows() -> None:
    torch.manual_seed(0)
    features = torch.randn(60, 5) * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.1])
    fitted = torch.arange(60) < 40
    found = principal_components(features, 2, fitted)
    centred = features - features[fitted].mean(0)
    directions = torch.linalg.svd(centred[fitted], full_matrices=False).Vh[:2]
    torch.testing.assert_close(found.abs(), (centred @ directions.T).abs(), rtol=1e-3, atol=1e-3)


def test_the_table_names_encoders_and_variables() -> None:
    trajectories = counted((8,) * 10)
    modality = States(size=trajectories.side)
    table = probe_states({"untrained": modality.encoder("state_conv")}, modality, trajectories)
    assert list(table.index) == ["untrained", "PCA of pixels"]
    assert list(table.columns) == ["number", "square", "mean"]
    assert table.loc["PCA of pixels", "number"] > 0.95  # brightness is the number


def test_the_ceiling_is_above_the_untrained_encoder_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    trajectories = counted((8,) * 20)
    noise = rng.integers(0, 200, (160, 1, 32, 32))
    frames = noise.astype(np.uint8)
    frames[..., 12:20, 12:20] = rng.permutation(160).astype(np.uint8)[:, None, None, None]
    shade = frames[:, 0, 16, 16].astype(np.float32)
    table = trajectories.table.assign(state_number=shade).drop(columns="state_square")
    seen = Trajectories(frames, table, trajectories.about)
    modality = States(size=32)
    torch.manual_seed(0)
    encoders = {"untrained": modality.encoder("state_conv")}
    before = torch.get_rng_state()
    encoders["supervised"] = supervised_encoder(modality, seen, steps=80, batch_size=64)
    assert torch.equal(before, torch.get_rng_state())
    scores = probe_states(encoders, modality, seen)["number"]
    assert scores["supervised"] > scores["untrained"] + 0.1
    again = supervised_encoder(modality, seen, steps=2).state_dict()
    once = supervised_encoder(modality, seen, steps=2).state_dict()
    torch.testing.assert_close(dict(once), dict(again))


@pytest.mark.parametrize(
    ("trajectories", "words"),
    [
        (counted((5, 5)), "at least 5 episodes, .* not 2"),
        (
            Trajectories(
                np.zeros((2, 1, 32, 32), np.uint8),
                pd.DataFrame({"name": ["a", "b"], "episode": [0, 0], "t": [0, 1]}),
                {},
            ),
            "hold no true state to probe",
        ),
    ],
)
def test_what_cannot_be_probed_is_told(trajectories: Trajectories, words: str) -> None:
    with pytest.raises(PolysenseError, match=words):
        probe_states({}, States(size=32), trajectories)


def test_state_contrast_learns_velocity_where_the_untrained_encoder_has_little(tmp_path: Path) -> None:
    """Pendulum: the angle is nearly free, its velocity is what time teaches."""
    seen = collect("Pendulum-v1", out=tmp_path / "a", steps=3000, size=32, renderer=rendering.pendulum)
    run = polysense.pretrain(
        tmp_path / "a",
        modality="state",
        method="state_contrast",
        out=tmp_path / "run",
        batch_size=64,
        steps=200,
        judge=False,
    )
    assert run is not None
    encoders = {"untrained": build_encoder(run.config, run.modality), "trained": run.encoder}
    table = probe_states(encoders, run.modality, seen)
    print(table.round(2))
    velocity = table["angular_velocity"]
    assert velocity["trained"] > velocity["untrained"] + 0.1
