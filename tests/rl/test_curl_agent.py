from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC
from torch.nn import functional as F

from polysense.errors import PolysenseError
from polysense.rl import CURL, AugmentedReplay
from polysense.rl.curl_agent import CurlDQN, CurlSAC
from polysense.rl.wrappers import Pixels
from tests.rl.toys import Dot

SIZE, SIDE, BATCH = 40, 34, 16


class Force(gym.ActionWrapper[Any, Any, Any]):
    """The dot is pushed by as much as one likes."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def action(self, action: Any) -> Any:
        return int(action[0] > 0)


def agent(algorithm: type = SAC, **options: Any) -> Any:
    world = Dot() if algorithm is DQN else Force(Dot())
    fixed = {"buffer_size": 200, "learning_starts": 20, "batch_size": BATCH, "seed": 0, "device": "cpu"}
    small = {"policy_kwargs": {"net_arch": [32]}, **fixed, **options}
    return CURL(algorithm, Pixels(world, 3, SIZE), dim=8, **small)


@pytest.fixture(scope="module")
def played() -> CurlSAC:
    """An agent whose buffer is filled, before its first update."""
    made: CurlSAC = agent(learning_starts=60)
    return made.learn(60)


@pytest.fixture
def curl(played: CurlSAC) -> Any:
    """The same, to be trained as the test likes."""
    torch.manual_seed(0)
    fresh = agent()
    fresh.replay_buffer = played.replay_buffer
    fresh.set_logger(played.logger)
    return fresh


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(before: list[torch.Tensor], module: torch.nn.Module) -> list[bool]:
    return [not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True)]


def test_the_actor_sees_through_the_critics_convolutions(curl: CurlSAC) -> None:
    pictures = torch.rand(2, 3, SIDE, SIDE)
    own, theirs = (part.features_extractor.encoder.trunk for part in (curl.actor, curl.critic))
    torch.testing.assert_close(own[0](pictures), theirs[0](pictures))
    with torch.no_grad():
        next(theirs[0].parameters()).mul_(2)
    torch.testing.assert_close(own[0](pictures), theirs[0](pictures))
    borrowed = {id(parameter) for parameter in theirs[0].parameters()}
    assert not borrowed & {id(parameter) for parameter in curl.actor.parameters()}


def test_the_actors_loss_moves_its_own_layers_and_nothing_of_the_critic(curl: CurlSAC) -> None:
    critic, head = weights(curl.critic), weights(curl.actor.features_extractor)
    curl.critic.zero_grad()
    curl._train_actor(curl.replay_buffer.sample(BATCH).observations)
    assert not any(moved(critic, curl.critic))
    assert all(moved(head, curl.actor.features_extractor))
    assert all(each.grad is None for each in curl.critic.features_extractor.parameters())


def test_the_critics_loss_moves_the_encoder(curl: CurlSAC) -> None:
    before, keys = weights(curl.critic.features_extractor), weights(curl.critic_target)
    curl._train_critic(curl.replay_buffer.sample(BATCH))
    assert all(moved(before, curl.critic.features_extractor))
    assert not any(moved(keys, curl.critic_target))


def test_the_critics_targets_are_those_of_soft_actor_critic(curl: CurlSAC) -> None:
    """With the target network's smaller value, less the entropy's price, where the episode went on."""
    samples = curl.replay_buffer.sample(BATCH)
    torch.manual_seed(1)
    with torch.no_grad():
        actions, log_probability = curl.actor.action_log_prob(samples.next_observations)
        first, second = curl.critic_target(samples.next_observations, actions)
        entropy = 0.1 * log_probability
        values = torch.minimum(first, second)[:, 0] - entropy
        wanted = samples.rewards[:, 0] + (1 - samples.dones[:, 0]) * 0.99 * values
        q = curl.critic(samples.observations, samples.actions)
        expected = sum((each[:, 0] - wanted).square().mean() for each in q)
    torch.manual_seed(1)
    curl._train_critic(samples)
    assert curl.logger.name_to_value["train/critic_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_the_contrast_is_the_authors(curl: CurlSAC) -> None:
    """z W k, the row's maximum subtracted, and cross-entropy to the diagonal; two optimisers step on it."""
    samples, contrast = curl.replay_buffer.sample(BATCH), curl.contrast
    z = contrast.encoder(samples.observations / 255).double()
    k = contrast.keys(samples.positives / 255).double().detach()
    logits = z @ (contrast.bilinear.double() @ k.T)
    logits = logits - logits.max(1, keepdim=True).values
    expected = F.cross_entropy(logits, torch.arange(BATCH))
    assert contrast(samples.observations, samples.positives).item() == pytest.approx(
        expected.item(), rel=1e-5
    )

    twin = copy.deepcopy(contrast.encoder)
    parameters = list(contrast.encoder.parameters())
    gradients = torch.autograd.grad(contrast(samples.observations, samples.positives), parameters)
    for each, gradient in zip(twin.parameters(), gradients, strict=True):
        each.grad = gradient
    lr = curl.lr_schedule(1)
    torch.optim.Adam(twin.parameters(), lr).step()
    torch.optim.Adam(twin.parameters(), lr).step()
    bilinear, keys = contrast.bilinear.detach().clone(), weights(contrast.keys)
    contrast.step(samples)
    for own, wanted in zip(contrast.encoder.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, wanted)
    assert not torch.equal(bilinear, contrast.bilinear)
    assert not any(moved(keys, contrast.keys))


def test_the_keys_encoder_follows_every_second_update_by_a_twentieth(curl: CurlSAC) -> None:
    keys, target = weights(curl.contrast.keys), weights(curl.critic_target.q_networks[0])
    curl.train(1, BATCH)
    assert not any(moved(keys, curl.contrast.keys))
    curl._train_critic(curl.replay_buffer.sample(BATCH))
    curl._move_targets()
    for old, own, live in zip(
        keys, curl.contrast.keys.parameters(), curl.critic.features_extractor.parameters(), strict=True
    ):
        torch.testing.assert_close(own, 0.95 * old + 0.05 * live)
    follower, leader = curl.critic_target.q_networks[0], curl.critic.q_networks[0]
    for old, own, live in zip(target, follower.parameters(), leader.parameters(), strict=True):
        torch.testing.assert_close(own, 0.99 * old + 0.01 * live)


def test_what_is_published_is_set() -> None:
    made = agent()
    assert (made.tau, made.target_update_interval, made.learning_rate) == (0.01, 2, 1e-3)
    assert made.log_ent_coef.exp().item() == pytest.approx(0.1)
    group = made.ent_coef_optimizer.param_groups[0]
    assert (group["lr"], group["betas"][0]) == (1e-4, 0.5)


def test_a_stack_is_cut_as_one_and_pairs_are_cut_apart() -> None:
    made = agent(DQN)
    buffer = made.replay_buffer
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (1, 1, SIZE, SIZE), dtype=np.uint8)
    for _ in range(40):
        stack = frame.repeat(3, 1)
        buffer.add(stack, stack, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    samples = buffer.sample(32)
    for cut in (samples.observations, samples.next_observations, samples.positives):
        assert cut.shape == (32, 3, SIDE, SIDE)
        assert cut.dtype == torch.uint8
        assert torch.equal(cut[:, 0], cut[:, 2])  # the frames are alike, and are cut alike
    same = (samples.observations == samples.positives).flatten(1).all(1)
    assert int(same.sum()) < 8
    corners = {tuple(each[0, 0, :4].tolist()) for each in samples.observations}
    assert len(corners) > 8


def test_the_shift_of_drq_repeats_the_edge() -> None:
    env = Pixels(Dot(), 3, SIZE)
    kwargs = {"shift": 4}
    made = DQN(
        "CnnPolicy", env, replay_buffer_class=AugmentedReplay, replay_buffer_kwargs=kwargs, buffer_size=50
    )
    row = np.arange(SIZE, dtype=np.uint8)
    picture = np.broadcast_to(row, (1, 3, SIZE, SIZE))
    for _ in range(20):
        made.replay_buffer.add(picture, picture, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    for shifted in made.replay_buffer.sample(16).observations[:, 0, 0].long():
        shift = int(shifted[SIZE // 2]) - SIZE // 2
        assert abs(shift) <= 4
        assert torch.equal(shifted, (torch.arange(SIZE) + shift).clamp(0, SIZE - 1))


@pytest.mark.parametrize("algorithm", [SAC, DQN])
def test_the_contrast_learns_while_the_agent_plays_and_survives_saving(
    algorithm: type, tmp_path: Path
) -> None:
    made = agent(algorithm, learning_rate=1e-3, train_freq=1).learn(60)
    losses = [made.contrast.step(made.replay_buffer.sample(BATCH)) for _ in range(30)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    keys = weights(made.contrast.keys)
    made.train(2, BATCH)
    assert all(moved(keys, made.contrast.keys))
    made.save(tmp_path / "agent.zip")
    loaded = {SAC: CurlSAC, DQN: CurlDQN}[algorithm].load(tmp_path / "agent.zip", env=made.env, device="cpu")
    picture = made.env.reset()
    np.testing.assert_allclose(
        loaded.predict(picture, deterministic=True)[0], made.predict(picture, deterministic=True)[0]
    )
    assert not any(moved(weights(made.contrast), loaded.contrast))
    assert loaded.contrast.of_all.state_dict()["state"]
    keys = weights(loaded.contrast.keys)
    loaded.replay_buffer = made.replay_buffer
    loaded.learn(4, reset_num_timesteps=False)
    assert all(moved(keys, loaded.contrast.keys))


def test_bad_input_is_told_in_a_sentence() -> None:
    with pytest.raises(PolysenseError, match=r"CURL trains with SAC .* or DQN .*, not PPO"):
        CURL(PPO, Pixels(Dot(), 3, SIZE))
    with pytest.raises(PolysenseError, match=r"observations are Box\(-1.0, 1.0, \(1,\), float32\); wrap it"):
        CURL(SAC, Force(Dot()))
    with pytest.raises(PolysenseError, match=r"random crops need pictures, .* float32 \[1\]"):
        DQN("MlpPolicy", Dot(), replay_buffer_class=AugmentedReplay, buffer_size=10)
