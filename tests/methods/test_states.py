"""The recipes for states: who answers whom, by which product, through which actions, and what counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polysense.encoders.base import Encoded
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.scaling import Circumstances, scaled_options
from polysense.methods.states import Dynamics, Foreseen
from polysense.methods.table import find
from polysense.modalities.base import View
from tests.toys import RowEncoder

B, DIM = 6, 8

PUBLISHED: dict[str, dict[str, Any]] = {
    "curl": {"momentum": 0.95, "out": 50},
    "state_contrast": {"momentum": 0.99, "hidden": 512, "out": 128, "with_actions": False},
    "spr": {"momentum": 0.99, "out": 256},
    "vip": {"discount": 0.98, "sparsity": 1e-3},
    "r3m": {"negatives": 3, "sparsity": 1e-5, "language": 1.0, "hidden": 1024},
    "liv": {"discount": 0.98},
    "inverse_dynamics": {"hidden": 256},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_defaults(name: str) -> None:
    published = find(name).published
    assert {option: published[option] for option in PUBLISHED[name]} == PUBLISHED[name]


def test_published_views() -> None:
    assert find("curl").views.options["state"] == {"crop": 0.84}  # 84 of 100
    assert find("state_contrast").views.options["state"] == {"ahead": 3}
    assert find("spr").views.options["state"] == {"ahead": 5, "every": True, "intensity": 0.05}
    for name in ("vip", "r3m", "liv"):
        assert find(name).views.options["state"]["together"]


def method(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    return find(name).build(RowEncoder(4, DIM), "state", **options).eval()


def views(kinds: tuple[str, ...], absent: Mapping[int, list[int]] | None = None) -> list[View]:
    """Random rows as views; of view number v the samples ``absent[v]`` are not there."""
    torch.manual_seed(1)
    made = []
    for place, kind in enumerate(kinds):
        present = torch.ones(B, dtype=torch.bool)
        present[(absent or {}).get(place, [])] = False
        made.append(View(torch.randn(B, 4), "state", kind, present=present))
    return made


def embed(built: Method, view: View, head: nn.Module | None = None) -> Tensor:
    data = view.data
    assert isinstance(data, Tensor)
    encoded = built.towers["state"](data)
    return encoded.pooled if head is None else head(encoded)


def pick(logits: Tensor, rows: list[int] | None = None) -> Tensor:
    rows = list(range(len(logits))) if rows is None else rows
    return F.cross_entropy(logits[rows], torch.tensor(rows))


def test_curl_is_the_authors_in_both_directions() -> None:
    built = method("curl", out=5)
    both = views(("global", "global"))
    branch = built.branches["match"]
    w = branch.predictor.weight.T
    assert 0 <= w.min() < 0.1 < 0.9 < w.max() <= 1  # uniform(0, 1)
    first, second = (embed(built, view, branch.head) for view in both)  # the teacher is still a copy
    expected = (pick(first @ w @ second.T) + pick(second @ w @ first.T)) / 2
    torch.testing.assert_close(built(both).loss, expected)


def test_state_contrast_is_the_authors_and_ends_of_episodes_stay_as_negatives() -> None:
    built = method("state_contrast", out=5, hidden=7)
    pair = views(("global", "next"), absent={1: [2, 4]})
    branch = built.branches["match"]
    anchor, later = (embed(built, view, branch.head) for view in pair)
    residual = branch.predictor
    mapped = (anchor + residual.mlp(anchor)) @ residual.bilinear.weight.T
    torch.testing.assert_close(built(pair).loss, pick(mapped @ later.T, [0, 1, 3, 5]))


def test_spr_predicts_every_step_through_the_actions_up_to_the_episodes_end() -> None:
    built = method("spr", out=5, hidden=7, actions=3)
    steps = views(("global", "next", "next"), absent={1: [0], 2: [0, 3]})
    actions = torch.tensor([[-1, -1], [0, 1], [2, 2], [1, -1], [0, 0], [1, 2]])
    branch = built.branches["predict"]
    dynamics = branch.reads.dynamics
    latent, losses = embed(built, steps[0]), []
    for k in range(2):
        one_hot = F.one_hot(actions[:, k].clamp_min(0), 3).float()
        latent = dynamics.norm(latent + dynamics.mlp(torch.cat([latent, one_hot], 1)))
        predicted = F.normalize(branch.predictor(branch.head(Encoded(latent))), dim=1)
        target = F.normalize(embed(built, steps[k + 1], branch.head), dim=1)
        present = steps[k + 1].present
        losses += (predicted - target).square().sum(1)[present]
    torch.testing.assert_close(built(steps, {"action": actions}).loss, torch.stack(losses).mean())


class Counting(RowEncoder):
    """Counts the rows it encodes, those with gradients first."""

    def __init__(self) -> None:
        super().__init__(4, DIM)
        self.rows = [0, 0]

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        self.rows[not torch.is_grad_enabled()] += len(data)
        return super().forward(data, mask)


@pytest.mark.parametrize(("name", "later"), [("state_contrast", 1), ("spr", 5)])
def test_the_student_encodes_only_what_it_foresees_from(
    name: str, later: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(name: str) -> tuple[list[int], Tensor, list[Tensor]]:
        torch.manual_seed(0)
        encoder = Counting()
        built = find(name).build(encoder, "state", hidden=8, out=5).eval()
        assert built.teacher is not None
        taught: Any = built.teacher["towers"]
        loss = built(views(("global",) + later * ("next",)), {"action": torch.zeros(B, later).long()}).loss
        loss.backward()
        gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
        return encoder.rows + taught["state"].rows, loss.detach(), gradients

    rows, loss, gradients = step(name)
    assert rows == [B, 0, 0, later * B]
    monkeypatch.setattr(Foreseen, "of_student", lambda self, view: True)
    rows_of_all, loss_of_all, gradients_of_all = step(name)
    assert rows_of_all == [(1 + later) * B, 0, 0, later * B]
    assert torch.equal(loss, loss_of_all)
    assert gradients
    torch.testing.assert_close(gradients, gradients_of_all)


def test_actions_change_what_is_foreseen() -> None:
    built = method("state_contrast", with_actions=True, actions=2)
    pair = views(("global", "next"))
    one, other = (built(pair, {"action": torch.full((B, 3), action)}).loss for action in (0, 1))
    assert one != other


def test_continuous_actions_are_read_as_they_are() -> None:
    built = method("spr", actions=2)
    loss = built(views(("global", "next")), {"action": torch.randn(B, 1, 2)}).loss
    assert loss.isfinite()


def test_foreseeing_one_moment_goes_through_all_actions_on_the_way() -> None:
    dynamics = Dynamics(DIM, 2, 4).eval()
    built = method("state_contrast")
    pair = views(("global", "next"))
    actions = torch.randint(2, (B, 3))
    seen = built.look(pair, {"action": actions})
    (latent,) = Foreseen(dynamics).foresee(seen, 1)
    expected = seen.student[0].pooled
    for action in actions.unbind(1):
        expected = dynamics(expected, action)
    torch.testing.assert_close(latent, expected)


def test_inverse_dynamics_reads_both_states() -> None:
    built = method("inverse_dynamics", hidden=7, actions=3)
    pair = views(("global", "next"), absent={1: [5]})
    action = torch.tensor([[0], [1], [2], [0], [1], [-1]])
    together = torch.cat([embed(built, view) for view in pair], 1)
    logits = built.branches["predict"].predictor(together)
    expected = F.cross_entropy(logits[:5], action[:5, 0])
    torch.testing.assert_close(built(pair, {"action": action}).loss, expected)


@pytest.mark.parametrize(("name", "moments"), [("vip", 4), ("r3m", 3)])
def test_clips_are_compared_in_the_embedding_itself(name: str, moments: int) -> None:
    built = method(name)
    outcome = built(views(("global",) * moments))
    assert len(outcome.parts) == 2
    z = torch.stack([one.pooled for one in outcome.seen.student])
    weight = find(name).published["sparsity"]
    norms = z.abs().sum(-1).mean() + z.square().sum(-1).sqrt().mean()
    torch.testing.assert_close(outcome.parts["sparsity"], weight * norms)


def test_how_many_actions_there_are_follows_the_data() -> None:
    published = find("spr").published
    assert scaled_options(published, Circumstances(actions=4))["actions"] == 4
    assert "actions" not in scaled_options(published, Circumstances())


def test_only_the_teacher_and_the_student_of_the_first_moment_learn() -> None:
    built = method("spr", actions=2)
    steps = views(("global", "next"))
    data = [view.data.requires_grad_() for view in steps]  # type: ignore[union-attr]
    built(steps, {"action": torch.zeros(B, 1, dtype=torch.long)}).loss.backward()
    assert data[0].grad is not None
    assert data[0].grad.abs().sum() > 0
    assert data[1].grad is None or not data[1].grad.any()


@pytest.mark.parametrize(
    ("name", "kinds", "known", "words"),
    [
        ("state_contrast", ("global",), {}, "predicts later moments, and the views show none"),
        ("spr", ("global", "next"), {}, "learns from actions, which the data do not tell"),
        ("spr", ("global", "next"), {"action": torch.full((B, 1), 18)}, "for 18 actions, .* one number 18"),
        ("spr", ("global", "next"), {"action": torch.zeros(B, 1, 2)}, "for 18 actions, .* one of 2 numbers"),
        ("inverse_dynamics", ("global", "next"), {"action": torch.full((B, 1), 20)}, "one number 20"),
    ],
)
def test_what_does_not_fit_is_told(name: str, kinds: Any, known: Any, words: str) -> None:
    with pytest.raises(PolysenseError, match=words):
        method(name)(views(kinds), known)
