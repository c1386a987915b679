"""CURL's updates and steps per second beside the published loop, stated again in plain torch.

    OMP_NUM_THREADS=1 python -m benchmarks.rl_update [--repeats N] [--size PIXELS]

Both play Pendulum, drawn from its state, have the same networks and optimisers, and the replay buffer of the
authors' size and kind: bytes, of which a batch is cropped by index in numpy and sent to the device. An update
is critic and contrast, and every second time actor, temperature and targets. A step is one in the
environment, an action for it, and an update.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from stable_baselines3 import SAC
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from benchmarks.common import compare, environment, report
from polysense import rl
from polysense.rl.encoder import StateConv
from polysense.rl.rendering import pendulum

BATCH, HIDDEN, DIM, CROP, FILLED = 128, 1024, 50, 0.84, 400
GAMMA, TAU, ENCODER_TAU = 0.99, 0.01, 0.05


class PlainCurl:
    """The authors' loop for one action between -2 and 2."""

    def __init__(self, env: Any) -> None:
        self.env, self.size = env, env.observation_space.shape[-1]
        self.side = round(CROP * self.size)
        self.encoder, self.actor_head = (
            StateConv(3, self.side, dim=DIM),
            StateConv(3, self.side, dim=DIM).trunk[1],
        )
        self.actor = layers(DIM, 2)
        self.q = nn.ModuleList([layers(DIM + 1, 1), layers(DIM + 1, 1)])
        self.keys, self.q_target = copy.deepcopy(self.encoder), copy.deepcopy(self.q)
        self.bilinear = nn.Parameter(torch.rand(DIM, DIM))
        self.log_alpha = torch.tensor(np.log(0.1), requires_grad=True)
        self.of_critic = torch.optim.Adam([*self.encoder.parameters(), *self.q.parameters()], 1e-3)
        self.of_actor = torch.optim.Adam([*self.actor_head.parameters(), *self.actor.parameters()], 1e-3)
        self.of_alpha = torch.optim.Adam([self.log_alpha], 1e-4, betas=(0.5, 0.999))
        self.of_encoder = torch.optim.Adam(self.encoder.parameters(), 1e-3)
        self.of_contrast = torch.optim.Adam([*self.encoder.parameters(), self.bilinear], 1e-3)
        self.replayed: list[tuple[Any, ...]] = []
        self.updates, self.observation = 0, env.reset(seed=0)[0]

    def step(self) -> None:
        """Act, keep what came of it, and learn."""
        self.play(self.act())
        self.update()

    def act(self) -> NDArray[Any]:
        """An action for the centre of what is seen."""
        edge = (self.size - self.side) // 2
        centre = self.observation[:, edge : edge + self.side, edge : edge + self.side]
        with torch.no_grad():
            action, _ = self.policy(torch.from_numpy(centre.astype(np.float32))[None] / 255)
        return action[0].numpy()

    def play(self, action: NDArray[Any]) -> None:
        """One step of the environment."""
        after, reward, terminated, truncated, _ = self.env.step(2 * action)
        self.replayed.append((self.observation, action, after, reward, terminated))
        self.observation = self.env.reset()[0] if terminated or truncated else after

    def policy(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """A squashed Gaussian action and its log-probability; the convolutions get no gradient."""
        with torch.no_grad():
            seen = self.encoder.trunk[0](pictures.contiguous(memory_format=torch.channels_last))
        mean, log_std = self.actor(self.actor_head(seen)).chunk(2, 1)
        gaussian = Normal(mean, log_std.clamp(-10, 2).exp())
        raw = gaussian.rsample()
        action = raw.tanh()
        return action, (gaussian.log_prob(raw) - (1 - action.square() + 1e-6).log()).sum(1)

    def crop(self, pictures: NDArray[Any]) -> Tensor:
        """A random crop of each, all frames of a stack alike."""
        windows = sliding_window_view(pictures, (self.side, self.side), (2, 3))
        top, left = np.random.randint(0, self.size - self.side, (2, len(pictures)))
        return torch.from_numpy(windows[np.arange(len(pictures)), :, top, left].astype(np.float32)) / 255

    def update(self) -> None:
        """Critic, actor, targets, contrast."""
        rows = np.random.randint(0, len(self.replayed), BATCH)
        columns = zip(*(self.replayed[row] for row in rows), strict=True)
        before, action, after, reward, terminated = (np.stack(column) for column in columns)
        anchors, later, positives = self.crop(before), self.crop(after), self.crop(before)
        actions = torch.from_numpy(action)
        rewards, ended = torch.tensor(reward).float(), torch.tensor(terminated).float()
        self.updates += 1
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            next_action, log_probability = self.policy(later)
            future = self.values(self.q_target, self.keys(later).pooled, next_action).amin(1)
            wanted = rewards + (1 - ended) * GAMMA * (future - alpha * log_probability)
        values = self.values(self.q, self.encoder(anchors).pooled, actions)
        stepped(self.of_critic, (values - wanted[:, None]).square().mean(0).sum())
        if self.updates % 2 == 0:
            self.update_actor(anchors, alpha)
            follow(self.q, self.q_target, TAU)
            follow(self.encoder, self.keys, ENCODER_TAU)
        with torch.no_grad():
            keys = self.keys(positives).pooled
        logits = self.encoder(anchors).pooled @ (self.bilinear @ keys.T)
        logits = logits - logits.max(1, keepdim=True).values
        stepped(self.of_contrast, F.cross_entropy(logits, torch.arange(BATCH)), self.of_encoder)

    def update_actor(self, anchors: Tensor, alpha: Tensor) -> None:
        """Actor and temperature."""
        action, log_probability = self.policy(anchors)
        with torch.no_grad():
            seen = self.encoder(anchors).pooled
        value = self.values(self.q, seen, action).amin(1)
        stepped(self.of_actor, (alpha * log_probability - value).mean())
        stepped(self.of_alpha, (self.log_alpha.exp() * (1 - log_probability).detach()).mean())

    def values(self, networks: nn.ModuleList, seen: Tensor, actions: Tensor) -> Tensor:
        """``[B, 2]``."""
        return torch.cat([network(torch.cat([seen, actions], 1)) for network in networks], 1)


def layers(inputs: int, outputs: int) -> nn.Sequential:
    """The networks of actor and critic."""
    hidden = (nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(HIDDEN, outputs))


def stepped(optimiser: torch.optim.Optimizer, loss: Tensor, *others: torch.optim.Optimizer) -> None:
    """One step of each optimiser on the gradient of the loss."""
    optimiser.zero_grad()
    loss.backward()
    for each in (optimiser, *others):
        each.step()


@torch.no_grad()
def follow(live: nn.Module, target: nn.Module, share: float) -> None:
    """Move the target a share of the way."""
    for own, theirs in zip(target.parameters(), live.parameters(), strict=True):
        own.lerp_(theirs, share)


def main() -> None:
    """Fill both buffers, then take turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--size", type=int, default=100, help="side of the frames; crops are .84 of it")
    asked = parser.parse_args()
    record = environment(0, peers=["stable_baselines3"])

    def game() -> Any:
        return rl.pixels(gym.make("Pendulum-v1"), stack=3, size=asked.size, renderer=pendulum)

    options = {"buffer_size": 5000, "learning_starts": FILLED, "batch_size": BATCH, "device": "cpu"}
    ours: Any = rl.CURL(SAC, game(), **options).learn(FILLED)
    plain = PlainCurl(game())
    for _ in range(FILLED):
        plain.play(np.random.uniform(-1, 1, 1).astype(np.float32))
    updates = {"polysense": lambda: ours.train(2, BATCH), "plain": lambda: [plain.update() for _ in range(2)]}
    steps = {
        "polysense": lambda: ours.learn(10, reset_num_timesteps=False),
        "plain": lambda: [plain.step() for _ in range(10)],
    }
    rows = []
    for name, cases, count in (("updates/s", updates, 2), ("steps/s", steps, 10)):
        timings = compare(cases, repeats=asked.repeats)
        rates = {who: count / timing.median for who, timing in timings.items()}
        rows.append({"": name, **rates, "ratio": rates["polysense"] / rates["plain"]})
    report("rl_update", rows, {**record, "size": asked.size, "batch": BATCH})


if __name__ == "__main__":
    main()
