from __future__ import annotations

import io
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from polysense import rl
from polysense.deployment.run import Run
from polysense.errors import PolysenseError
from polysense.evaluation.features import embed_all
from polysense.objectives import BradleyTerry
from polysense.rl import Preferences, RewardModel
from polysense.rl.encoder import StateConv
from polysense.rl.modality import States
from polysense.rl.preference_page import PairServer
from polysense.rl.wrappers import Pixels
from tests.rl.toys import SIDE, Dot, counted

DIM = 6


def compared(count: int, *, seed: int = 0, length: int = 4, **teaching: Any) -> Preferences:
    """Clips whose true reward is the first number of each frame, less the second."""
    rng = torch.Generator().manual_seed(seed)
    first, second = (3 + 2 * torch.randn(count, length, DIM, generator=rng) for _ in range(2))
    returns = [(clip[..., 0] - clip[..., 1]).sum(1).numpy() for clip in (first, second)]
    return Preferences(first, second, rl.scripted_choices(*returns, seed=seed, **teaching))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_loss_is_that_of_bradley_and_terry(noise: float) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 7, dtype=torch.float64)
    share = torch.tensor([1, 0, 0.5, 1, 0, 0.5, 0.2], dtype=torch.float64)
    total = 0.0
    for x, y, s in zip(a.tolist(), b.tolist(), share.tolist(), strict=True):
        p = (1 - noise) * np.exp(x) / (np.exp(x) + np.exp(y)) + noise * 0.5
        total -= s * np.log(p) + (1 - s) * np.log(1 - p)
    assert BradleyTerry(noise)(a, b, share).item() == pytest.approx(total / 7)


def test_the_teacher_answers_as_it_is_scripted() -> None:
    returns = np.linspace(-1, 1, 2001)
    zero = np.zeros_like(returns)
    share = rl.scripted_choices(returns, zero, indifference=0.1).numpy()
    np.testing.assert_array_equal(share, np.where(np.abs(returns) <= 0.1, 0.5, returns > 0))
    wrong = rl.scripted_choices(returns, zero, mistakes=0.2, seed=1).numpy() != (returns > 0)
    assert 0.15 < wrong[returns != 0].mean() < 0.25


def test_a_reward_is_learned_from_answers_with_ties_and_mistakes() -> None:
    torch.manual_seed(0)
    answers = compared(400, indifference=1.0, mistakes=0.1)
    assert {0.0, 0.5, 1.0} == set(answers.share.tolist())
    model = RewardModel(DIM, hidden=0, noise=0.2).fit(answers)
    truth = compared(400, seed=1)
    judged = model.judge(truth)
    assert judged["accuracy"] > 0.9
    assert RewardModel(DIM, hidden=0).judge(truth)["accuracy"] < 0.75  # untrained
    frames = truth.first.flatten(0, 1)
    rewards = model.reward(frames)
    correlation = torch.corrcoef(torch.stack([rewards, frames[:, 0] - frames[:, 1]]))[0, 1]
    assert correlation > 0.9
    assert abs(float(rewards.mean())) < 0.1
    assert 0.8 < float(rewards.std()) < 1.2


def test_probabilities_are_calibrated_on_held_out_pairs() -> None:
    """Answers drawn as the model supposes them; a reward ten times as large is too sure of itself."""
    torch.manual_seed(0)
    clips = torch.randn(2, 3000, 1, DIM)
    margin = (clips[0] - clips[1])[:, 0, 0]
    share = torch.bernoulli(torch.sigmoid(margin))
    answers = Preferences(*clips, share)
    learn, held_out = answers.split(0.5)
    model = RewardModel(DIM, hidden=0).fit(learn)
    good = model.judge(held_out)
    with torch.no_grad():
        model.layers[-1].weight.mul_(10)
    bad = model.judge(held_out)
    assert good["calibration_error"] < 0.06
    assert bad["calibration_error"] > 3 * good["calibration_error"]
    assert good["log_loss"] < 0.65 < bad["log_loss"]


def test_clips_end_with_their_episode() -> None:
    trajectories = counted()
    pairs = rl.clip_pairs(trajectories, 50, 4)
    assert pairs.shape == (50, 2, 4)
    episodes = trajectories.table["episode"].to_numpy()[pairs]
    assert (episodes == episodes[..., :1]).all()
    assert set(np.unique(pairs[..., 0])) == {0, 1, 2, *range(6, 12), 15, 16}
    embeddings = torch.arange(20.0)[:, None]
    made = Preferences.of_clips(embeddings, pairs, torch.ones(50))
    np.testing.assert_array_equal(made.second[..., 0].numpy(), pairs[:, 1])


def test_an_environment_is_rewarded_by_the_model() -> None:
    config = {"data": {"source": None, "was": "frames"}}
    run = Run(StateConv(3, SIDE, dim=DIM), States(size=SIDE), Path("runs/states"), config)
    model = RewardModel(DIM).fit(compared(20))
    env = rl.PreferenceReward(Pixels(Dot(), 3, SIDE), run, model)
    env.reset(seed=0)
    observation, reward, _, _, info = env.step(1)
    expected = model.reward(run.embed(observation[:, None]))
    assert reward == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    assert info["true_reward"] == 1.0
    with pytest.raises(PolysenseError, match=r"observations \[2, 32, 32\] where .* stacks \[3, 1, 32, 32\]"):
        rl.PreferenceReward(Pixels(Dot(), 2, SIDE), run, model)


class Walk(Dot):
    """The reward is how far right the dot is."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, self.place, terminated, truncated, info


def true_return(act: Callable[[Any], int], run: Run, episodes: int = 20) -> float:
    """The mean return of a way to act, by the environment's own reward."""
    env, total = rl.pixels(Walk(), run), 0.0
    for seed in range(episodes):
        observation, ended = env.reset(seed=seed)[0], False
        while not ended:
            observation, reward, ended, _, _ = env.step(act(observation))
            total += reward
    return total / episodes


def test_an_agent_on_the_learned_reward_earns_more_of_the_true_one(tmp_path: Path) -> None:
    """From answers about clips to a policy that never saw the environment's reward."""
    from stable_baselines3 import PPO

    seen = rl.collect(Walk(), out=tmp_path / "frames", steps=600, size=SIDE)
    torch.manual_seed(0)
    states = States(size=SIDE)
    config = {"data": {"source": str(tmp_path / "frames"), "was": "frames"}}
    run = Run(StateConv(3, SIDE, dim=16), states, Path("runs/states"), config).eval()
    pairs = rl.clip_pairs(seen, 200, 3)
    returns = seen.table["state_0"].to_numpy()[pairs].sum(2)
    share = rl.scripted_choices(returns[:, 0], returns[:, 1], indifference=0.05, mistakes=0.05)
    answers = Preferences.of_clips(embed_all(run.encoder, states, seen), pairs, share)
    learn, held_out = answers.split()
    model = RewardModel(16, noise=0.1).fit(learn, steps=150)
    assert model.judge(held_out)["accuracy"] > 0.8

    env = rl.PreferenceReward(rl.pixels(Walk(), run), run, model)
    settings = {"n_steps": 48, "batch_size": 48, "n_epochs": 10, "learning_rate": 1e-2, "gamma": 0.8}
    agent = PPO("MlpPolicy", env, policy_kwargs=rl.features(run), seed=0, device="cpu", **settings)
    agent.learn(960)
    rng = np.random.default_rng(0)
    chance = true_return(lambda _: int(rng.integers(2)), run)
    learned = true_return(lambda seen: int(agent.predict(seen, deterministic=True)[0]), run)
    print(f"true return: {learned:.1f} against {chance:.1f} at random")
    assert learned > chance + 2


def test_a_saved_model_is_the_same_when_loaded(tmp_path: Path) -> None:
    model = RewardModel(DIM, hidden=5, noise=0.1).fit(compared(20))
    loaded = RewardModel.load(model.save(tmp_path / "reward"))
    clips = compared(5, seed=3).first
    torch.testing.assert_close(loaded.reward(clips), model.reward(clips), rtol=0, atol=0)
    assert loaded.judge(compared(9)) == model.judge(compared(9))
    assert sorted(path.name for path in (tmp_path / "reward").iterdir()) == [
        "reward.json",
        "weights.safetensors",
    ]


def test_what_is_no_saved_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match=r"holds no reward model \(no reward.json\)"):
        RewardModel.load(tmp_path)
    RewardModel(DIM).save(tmp_path)
    for content in ('{"dim": 7, "hidden": 64}', '{"width": 1}', "nonsense"):
        (tmp_path / "reward.json").write_text(content)
        with pytest.raises(PolysenseError, match="not those of one reward model"):
            RewardModel.load(tmp_path)
    RewardModel(DIM).save(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"\x80\x04")
    with pytest.raises(PolysenseError, match="a pickle, not safetensors"):
        RewardModel.load(tmp_path)


class LengthRun:
    """Embeds a text as its length."""

    def embed(self, texts: list[str]) -> Tensor:
        return torch.tensor([[float(len(text))] for text in texts])


def test_texts_are_scored_and_the_best_is_chosen() -> None:
    run: Any = LengthRun()
    torch.manual_seed(0)
    answers = Preferences.of_texts(run, ["x" * n for n in range(10, 30)], ["x" * (n % 7) for n in range(20)])
    model = RewardModel(1, hidden=0).fit(answers)
    score = rl.reward_function(run, model)
    short, long = score(prompts=["p", "p"], completions=["ab", [{"role": "assistant", "content": "a" * 40}]])
    assert short < long
    assert rl.best_of([["a", "aaa", "aa"], ["aaaa"]], score) == ["aaa", "aaaa"]


def test_bad_input_is_told_in_a_sentence() -> None:
    clip = torch.zeros(3, 2, DIM)
    with pytest.raises(PolysenseError, match=r"not \[3, 2, 6\], \[3, 2, 6\] and \[2\]"):
        Preferences(clip, clip, torch.ones(2))
    with pytest.raises(PolysenseError, match="shares from 0"):
        Preferences(clip, clip, torch.full((3,), 2.0))
    with pytest.raises(PolysenseError, match="one pair cannot be split"):
        RewardModel(DIM).fit(Preferences(clip[:1], clip[:1], torch.ones(1)))
    with pytest.raises(PolysenseError, match=r"noise is 1\.0"):
        RewardModel(DIM, noise=1.0)
    with pytest.raises(PolysenseError, match=r"by the shares \[B\], but got shapes \[2\], \[3\] and \[2\]"):
        BradleyTerry()(torch.ones(2), torch.ones(3), torch.ones(2))
    with pytest.raises(PolysenseError, match=r"no episode has the 10 frames of a clip; .* at most 9 frames"):
        rl.clip_pairs(counted(), 3, 10)
    with pytest.raises(PolysenseError, match="at least one text"):
        rl.best_of([[]], lambda texts: [])
    with pytest.raises(PolysenseError, match=r"shape \[1\] for 2 texts"):
        rl.best_of([["a", "b"]], lambda texts: [1.0])


@pytest.fixture
def page(tmp_path: Path) -> Iterator[PairServer]:
    trajectories = counted()
    server = PairServer(trajectories, rl.clip_pairs(trajectories, 3, 4), tmp_path / "choices.jsonl")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def answer(page: PairServer, content: bytes, kind: str = "application/json") -> Any:
    request = urllib.request.Request(f"{page.url}/choice", content, {"Content-Type": kind})
    with urllib.request.urlopen(request) as told:
        return json.load(told)


def test_a_person_answers_on_the_page(page: PairServer) -> None:
    with urllib.request.urlopen(page.url) as told:
        assert "Which is better?" in told.read().decode()
    with urllib.request.urlopen(f"{page.url}/film/0/1") as told:
        assert told.headers["Content-Type"] == "image/gif"
        clip = Image.open(io.BytesIO(told.read()))
    assert clip.n_frames == 4
    clip.seek(2)
    assert np.asarray(clip.convert("L"))[5, 5] == page.pairs[0, 1, 2]  # a frame's shade is its number
    assert answer(page, b'{"pair": 0, "choice": "first"}') == {"pair": 1, "done": 1, "all": 3}
    answer(page, b'{"pair": 1, "choice": "skip"}')
    assert answer(page, b'{"pair": 2, "choice": "tie"}')["pair"] is None
    pairs, share = rl.read_choices(page.out, page.pairs)
    np.testing.assert_array_equal(pairs, page.pairs[[0, 2]])
    assert share.tolist() == [1.0, 0.5]
    again = PairServer(page.trajectories, page.pairs, page.out)
    assert again.next_pair() is None
    again.server_close()


@pytest.mark.parametrize(
    ("content", "kind", "status", "why"),
    [
        (
            b'{"pair": 7, "choice": "first"}',
            "application/json",
            400,
            "there is no pair 7; the pairs are 0 to 2",
        ),
        (
            b'{"pair": 0, "choice": "best"}',
            "application/json",
            400,
            "first, tie, second and skip, not 'best'",
        ),
        (b'{"pair": 0, "choice": ["a"]}', "application/json", 400, "not \\['a'\\]"),
        (b"[1]", "application/json", 400, "an answer has a pair and a choice"),
        (b'{"pair": 0, "choice": "first"}', "text/plain", 404, "sent to /choice as application/json"),
        (b" " * 2000, "application/json", 413, "an answer is short"),
    ],
)
def test_other_answers_are_refused(
    page: PairServer, content: bytes, kind: str, status: int, why: str
) -> None:
    with pytest.raises(HTTPError) as refused:
        answer(page, content, kind)
    assert refused.value.code == status
    told = json.loads(refused.value.read())["error"]
    assert re.search(why, told)
    assert not page.out.exists()


@pytest.mark.parametrize("path", ["film/9/0", "film/0/2", "film/x/0", "../etc/passwd"])
def test_what_is_not_there_is_not_shown(page: PairServer, path: str) -> None:
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(f"{page.url}/{path}")
    assert refused.value.code == 404


def test_bad_files_of_answers_are_told_in_a_sentence(tmp_path: Path) -> None:
    trajectories, out = counted(), tmp_path / "choices.jsonl"
    pairs = rl.clip_pairs(trajectories, 3, 4)
    with pytest.raises(PolysenseError, match="there are no answers"):
        rl.read_choices(out, pairs)
    out.write_text('{"pair": 1, "choice": "skip"}\n')
    with pytest.raises(PolysenseError, match="no decision yet"):
        rl.read_choices(out, pairs)
    for line in ('{"pair": 3, "choice": "tie"}', '{"pair": "a"}', "nonsense"):
        out.write_text('{"pair": 1, "choice": "tie"}\n' + line)
        with pytest.raises(PolysenseError, match=r"line 2 of .* is no answer to these 3 pairs"):
            PairServer(trajectories, pairs, out)
    with pytest.raises(PolysenseError, match=r"\[pairs, 2, frames\], not \[3, 4\]"):
        PairServer(trajectories, pairs[:, 0], tmp_path / "new.jsonl")
    busy = PairServer(trajectories, pairs, tmp_path / "new.jsonl")
    with pytest.raises(PolysenseError, match=f"port {busy.server_port} cannot be used"):
        PairServer(trajectories, pairs, tmp_path / "new.jsonl", port=busy.server_port)
    busy.server_close()
