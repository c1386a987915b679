"""CURL as its authors have it: the contrast is trained with the agent (https://arxiv.org/abs/2004.04136)."""

from __future__ import annotations

from typing import Any, cast

import torch
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.encoders.teacher import Teacher
from polysense.errors import PolysenseError
from polysense.objectives.temporal import DotInfoNCE
from polysense.rl.augmented import AugmentedReplay, AugmentedSamples, CentreFeatures

ENCODER_MOMENTUM = 0.95
"""How much of the keys' encoder stays when it follows, every second update."""

ADAM: dict[str, Any] = {"fused": True}
"""One pass over a parameter and its state instead of many."""

PUBLISHED: dict[type, dict[str, Any]] = {
    SAC: {
        "learning_rate": 1e-3,
        "buffer_size": 100_000,
        "learning_starts": 1000,
        "batch_size": 128,
        "tau": 0.01,
        "target_update_interval": 2,
        "ent_coef": "auto_0.1",
    },
    DQN: {"buffer_size": 100_000, "batch_size": 32},
}


def CURL(  # noqa: N802 - reads as the algorithm it makes
    algorithm: type, env: Any, *, crop: float = 0.84, dim: int = 50, **options: Any
) -> CurlSAC | CurlDQN:
    """An agent of Stable-Baselines3 that learns to see by contrast while it learns to act.

    It is trained on random crops of what it replays, sees the centre when it acts, and after each update its
    encoder learns to find a slow copy's embedding of another crop. For ``SAC`` all is as published (see
    :class:`CurlSAC`); ``DQN`` keeps the defaults of Stable-Baselines3. The authors' first convolution alone
    has a stride; here the first three have one, as in :class:`~.encoder.StateConv`, which is faster.

    Args:
        algorithm: ``SAC`` or ``DQN``.
        env: shows stacks of frames, see :func:`~.wrappers.pixels`; the authors' are of 100 x 100 pixels.
        crop: side of the crops as a share of the frame's.
        dim: of the embedding.
        options: of the algorithm. The buffer keeps ``buffer_size`` pairs of stacks in memory.

    Raises:
        PolysenseError: for another algorithm, or an environment without pictures.
    """
    if algorithm not in _AGENTS:
        name = getattr(algorithm, "__name__", algorithm)
        raise PolysenseError(f"CURL trains with SAC (continuous actions) or DQN (discrete ones), not {name}")
    space = getattr(env, "observation_space", None)
    if space is None or not is_image_space(space):
        raise PolysenseError(
            f"CURL learns from pictures, and the environment's observations are {space}; wrap it with"
            " polysense.rl.pixels(env, size=100)"
        )
    policy = {
        "features_extractor_class": CentreFeatures,
        "features_extractor_kwargs": {"crop": crop, "dim": dim},
        "optimizer_kwargs": ADAM,
        **({"net_arch": [1024, 1024]} if algorithm is SAC else {}),
        **options.pop("policy_kwargs", {}),
    }
    replay = {
        "replay_buffer_class": AugmentedReplay,
        "replay_buffer_kwargs": {"crop": crop, "pairs": True},
    }
    agent, policy_class = _AGENTS[algorithm]
    made = agent(policy_class, env, policy_kwargs=policy, **{**PUBLISHED[algorithm], **replay, **options})
    return cast("CurlSAC | CurlDQN", made)


class Contrast(nn.Module):
    """Finds the key of another crop of the same pictures by a learned bilinear product.

    With embeddings z of one crop and keys k of the other, ``DotInfoNCE(z W, k)``. Two optimisers step on its
    gradient, as published: the encoder's own, and one of encoder and W together.

    ``encoder`` embeds pictures in [0, 1]; ``keys`` is a slow copy of it that somebody moves.
    """

    def __init__(self, encoder: nn.Module, keys: nn.Module, dim: int, lr: float) -> None:
        super().__init__()
        self.encoder, self.keys = encoder, keys
        self.bilinear = nn.Parameter(torch.rand(dim, dim))
        self.loss = DotInfoNCE()
        self.of_encoder = torch.optim.Adam(encoder.parameters(), lr, **ADAM)
        self.of_all = torch.optim.Adam([*encoder.parameters(), self.bilinear], lr, **ADAM)

    def forward(self, anchors: Tensor, positives: Tensor) -> Tensor:
        """The loss of two crops of the same pictures, bytes ``[B, C, S, S]`` each."""
        with torch.no_grad():
            keys = self.keys(positives / 255)
        queries = self.encoder(anchors / 255) @ self.bilinear
        loss: Tensor = self.loss(queries[None], keys[None])
        return loss

    def step(self, samples: Any) -> float:
        """One update on replayed samples; the loss before it."""
        assert samples.positives is not None
        loss = self(samples.observations, samples.positives)
        self.of_all.zero_grad()
        loss.backward()
        self.of_encoder.step()
        self.of_all.step()
        return float(loss.item())


class Borrowed(nn.Module):
    """Another's module, without gradient, and not among the parameters of whoever borrows it.

    ``made``: what it made last, for those who need the same.
    """

    made: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._held = [module]  # in a list, where nn.Module does not look

    @torch.no_grad()
    def forward(self, data: Tensor) -> Tensor:
        """What the module makes of it."""
        self.made = self._held[0](data)
        return self.made


class CurlPolicy(SACPolicy):
    """The actor sees through the critic's convolutions; its linear layer and LayerNorm are its own."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        seen, seeing = _trunk(self.critic), _trunk(self.actor)
        seeing[0] = Borrowed(seen[0])
        self.actor.optimizer = self.optimizer_class(
            self.actor.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )


def _trunk(part: Any) -> nn.Sequential:
    """Convolutions, then linear layer and LayerNorm, of what the actor or critic sees through."""
    trunk: nn.Sequential = part.features_extractor.encoder.trunk
    return trunk


class CurlSAC(SAC):
    """SAC on pixels with CURL's contrast, made by :func:`CURL`.

    The critic trains the encoder, then the contrast does; the actor never. Actor, temperature and targets
    follow every ``target_update_interval`` updates, the target's encoder at its own pace.
    """

    def _setup_model(self) -> None:
        super()._setup_model()
        encoder, keys = self.critic.features_extractor, self.critic_target.features_extractor
        lr = self.lr_schedule(1)
        self.contrast = Contrast(encoder, keys, encoder.features_dim, lr).to(self.device)
        if self.log_ent_coef is not None:
            self.ent_coef_optimizer = torch.optim.Adam([self.log_ent_coef], lr=1e-4, betas=(0.5, 0.999))

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Critic, actor, targets, contrast: on the same samples."""
        assert self.replay_buffer is not None
        self.policy.set_training_mode(True)
        contrast = [self.contrast.of_encoder, self.contrast.of_all]
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer, *contrast])
        for _ in range(gradient_steps):
            samples = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            self._n_updates += 1
            self._train_critic(cast(AugmentedSamples, samples))
            if self._n_updates % self.target_update_interval == 0:
                self._train_actor(samples.observations)
                self._move_targets()
            self.logger.record("train/contrast_loss", self.contrast.step(samples))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _train_critic(self, samples: AugmentedSamples) -> None:
        with torch.no_grad():
            actions, log_probability = self.actor.action_log_prob(samples.next_observations)
            future = torch.cat(self.critic_target(samples.next_observations, actions), 1).amin(
                1, keepdim=True
            )
            future = future - self._temperature() * log_probability[:, None]
            wanted = samples.rewards + (1 - samples.dones) * self.gamma * future
        loss = sum(F.mse_loss(q, wanted) for q in self.critic(samples.observations, samples.actions))
        assert isinstance(loss, Tensor)
        self.critic.optimizer.zero_grad()
        loss.backward()
        self.critic.optimizer.step()
        self.logger.record("train/critic_loss", loss.item())

    def _train_actor(self, observations: Tensor) -> None:
        actions, log_probability = self.actor.action_log_prob(observations)
        with torch.no_grad():  # the actor has just convolved the same pictures with the same weights
            features = _trunk(self.critic)[1](_trunk(self.actor)[0].made)
        seen = torch.cat([features, actions], 1)
        value = torch.cat([q(seen) for q in self.critic.q_networks], 1).amin(1)
        loss = (self._temperature() * log_probability - value).mean()
        self.actor.optimizer.zero_grad()
        loss.backward()
        self.actor.optimizer.step()
        self.logger.record("train/actor_loss", loss.item())
        if self.ent_coef_optimizer is not None and self.log_ent_coef is not None:
            surplus = log_probability.detach() + float(self.target_entropy)
            self.ent_coef_optimizer.zero_grad()
            (-self.log_ent_coef.exp() * surplus).mean().backward()
            self.ent_coef_optimizer.step()

    def _temperature(self) -> Tensor:
        if self.log_ent_coef is None:
            return self.ent_coef_tensor
        return self.log_ent_coef.detach().exp()

    def _move_targets(self) -> None:
        """The target's Q networks by ``tau``, its encoder, which gives the contrast's keys, faster."""
        live, target = self.critic, self.critic_target
        for network, follower in zip(live.q_networks, target.q_networks, strict=True):
            polyak_update(network.parameters(), follower.parameters(), self.tau)
        encoder, keys = live.features_extractor, target.features_extractor
        polyak_update(encoder.parameters(), keys.parameters(), 1 - ENCODER_MOMENTUM)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "contrast"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return _with_contrast(super()._get_torch_save_params())


class CurlDQN(DQN):
    """DQN on pixels with CURL's contrast, made by :func:`CURL`."""

    def _setup_model(self) -> None:
        super()._setup_model()
        encoder = self.q_net.features_extractor
        self.teacher = Teacher(ENCODER_MOMENTUM, schedule="constant").follow({"encoder": encoder})
        keys, lr = self.teacher["encoder"], self.lr_schedule(1)
        self.contrast = Contrast(encoder, keys, encoder.features_dim, lr).to(self.device)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """The Q network, then the contrast on samples of its own; every second time the keys' encoder."""
        assert self.replay_buffer is not None
        for _ in range(gradient_steps):
            super().train(1, batch_size)
            self._update_learning_rate([self.contrast.of_encoder, self.contrast.of_all])
            loss = self.contrast.step(self.replay_buffer.sample(batch_size))
            self.logger.record("train/contrast_loss", loss)
            if self._n_updates % 2 == 0:
                self.teacher.update()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "contrast", "teacher"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return _with_contrast(super()._get_torch_save_params())


def _with_contrast(saved: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    modules, tensors = saved
    return [*modules, "contrast", "contrast.of_encoder", "contrast.of_all"], tensors


_AGENTS: dict[type, tuple[type, type]] = {SAC: (CurlSAC, CurlPolicy), DQN: (CurlDQN, DQNPolicy)}
