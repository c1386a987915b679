from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.evaluation import LinearProbe


def split_digits(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    features, labels = torch.tensor(images, dtype=dtype)[order], torch.tensor(digits)[order]
    return features[:1257], labels[:1257], features[1257:], labels[1257:]


def noisy_clusters(rows: int, dim: int, classes: int, noise: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(classes, (rows,))
    return torch.randn(classes, dim)[labels] + noise * torch.randn(rows, dim), labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_accurate_as_scikit_learn(dtype: torch.dtype) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, labels, test, wanted = split_digits(dtype)
    scaler = StandardScaler().fit(features.numpy())
    peer = LogisticRegression(max_iter=1000).fit(scaler.transform(features.numpy()), labels.numpy())
    accuracy = LinearProbe().fit(features, labels).accuracy(test, wanted)
    assert abs(accuracy - peer.score(scaler.transform(test.numpy()), wanted.numpy())) < 0.01
    assert accuracy > 0.95


def test_finds_the_minimum_that_scikit_learn_finds() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, labels = noisy_clusters(400, 8, 3, noise=2.0)
    scaled = StandardScaler().fit_transform(features.numpy())
    peer = LogisticRegression(C=1 / (0.1 * 400)).fit(scaled, labels.numpy())
    probe = LinearProbe(weight_decays=[0.1]).fit(features, labels)
    agreement = probe.predict(features) == torch.tensor(peer.predict(scaled))
    assert agreement.float().mean() > 0.99


def test_chooses_more_weight_decay_for_noise_than_for_signal() -> None:
    clean = LinearProbe().fit(*noisy_clusters(500, 32, 4, noise=0.3)).weight_decay
    noise = LinearProbe().fit(*noisy_clusters(200, 128, 4, noise=30.0)).weight_decay
    assert noise == 1.0
    assert clean < 0.1


def test_the_chosen_weight_decay_beats_none_on_few_wide_rows() -> None:
    features, labels = noisy_clusters(2000, 60, 4, noise=4.0)
    train, test = slice(0, 150), slice(150, None)
    chosen = LinearProbe().fit(features[train], labels[train]).accuracy(features[test], labels[test])
    bare = LinearProbe(weight_decays=[1e-5]).fit(features[train], labels[train])
    assert chosen > bare.accuracy(features[test], labels[test]) + 0.03


def test_gives_back_the_classes_it_was_given() -> None:
    features, labels = noisy_clusters(200, 8, 3, noise=0.1)
    probe = LinearProbe().fit(features, 10 * labels + 7)
    assert probe.classes.tolist() == [7, 17, 27]
    assert probe.accuracy(features, 10 * labels + 7) == 1


def test_the_same_data_give_the_same_probe_and_leave_the_random_state_alone() -> None:
    features, labels = noisy_clusters(300, 16, 3, noise=2.0)
    before = torch.get_rng_state()
    first, second = LinearProbe().fit(features, labels), LinearProbe().fit(features, labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.weight_decay == second.weight_decay
    probe = torch.randn(50, 16)
    assert torch.equal(first.predict(probe), second.predict(probe))


def test_constant_features_are_ignored() -> None:
    features, labels = noisy_clusters(300, 8, 3, noise=0.5)
    padded = torch.cat([features, torch.full((300, 2), 0.1), torch.zeros(300, 1)], dim=1)
    probe = LinearProbe().fit(padded, labels)
    plain = LinearProbe().fit(features, labels)
    assert torch.equal(probe.predict(padded), plain.predict(features))
    padded[:, -3:] = 1e6
    assert torch.equal(probe.predict(padded), plain.predict(features))


def test_all_constant_features_predict_one_class() -> None:
    probe = LinearProbe().fit(torch.ones(10, 4), torch.tensor([0] * 3 + [1] * 7))
    assert probe.predict(torch.ones(2, 4)).tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_takes_half_precision(dtype: torch.dtype) -> None:
    features, labels = noisy_clusters(300, 8, 3, noise=0.2)
    assert LinearProbe().fit(features.to(dtype), labels).accuracy(features.to(dtype), labels) > 0.99


def test_works_in_inference_mode_and_under_autocast() -> None:
    features, labels = noisy_clusters(300, 8, 3, noise=2.0)
    plain = LinearProbe().fit(features, labels).predict(features)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LinearProbe().fit(features.clone(), labels).predict(features), plain)


def test_is_quick() -> None:
    features, labels = noisy_clusters(3000, 256, 10, noise=8.0)
    LinearProbe().fit(features[:50], labels[:50])  # torch loads its optimisers at first use
    start = time.process_time()
    LinearProbe().fit(features, labels)
    assert time.process_time() - start < 3 * max(1, torch.get_num_threads())


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.ones(3, 2), torch.tensor([0, 1]), "3 rows of features need as many labels, not 2"),
        (torch.ones(2, 2), torch.tensor([4, 4]), "at least two classes"),
        (torch.full((2, 2), torch.nan), torch.tensor([0, 1]), "NaN"),
    ],
)
def test_says_what_is_wrong(features: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(PolysenseError, match=message):
        LinearProbe().fit(features, labels)


def test_says_when_it_is_not_fitted_or_fits_not() -> None:
    with pytest.raises(PolysenseError, match="call fit first"):
        LinearProbe().predict(torch.ones(1, 2))
    probe = LinearProbe().fit(torch.eye(2), torch.tensor([0, 1]))
    with pytest.raises(PolysenseError, match="fitted to 2 features, not 3"):
        probe.predict(torch.ones(1, 3))
    with pytest.raises(PolysenseError, match="weight_decays"):
        LinearProbe(weight_decays=[])
