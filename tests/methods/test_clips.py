"""What clips are told: which frames are scored against which, and what has no instruction does not count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.scaling import Circumstances, scaled_options
from polysense.methods.table import find
from polysense.modalities.base import View
from tests.toys import RowEncoder

B, DIM, SENTENCE = 6, 8, 5
ORDER = ("global", "global", "global", "start", "end")
INSTRUCTION = torch.tensor([0, 1, -1, 2, 1, 3])


def method(name: str, **options: float) -> Method:
    torch.manual_seed(0)
    return find(name).build(RowEncoder(4, DIM), "state", **options).eval()


def views(kinds: tuple[str, ...]) -> list[View]:
    torch.manual_seed(1)
    return [View(torch.randn(B, 4), "state", kind) for kind in kinds]


def told() -> dict[str, Tensor]:
    torch.manual_seed(2)
    sentences = torch.randn(4, SENTENCE)
    return {"instruction": INSTRUCTION, "sentence": sentences[INSTRUCTION.clamp_min(0)]}


def test_frames_are_scored_for_the_instruction_as_in_r3m() -> None:
    """With every other clip as a negative, sample by sample, those of the same instruction left out."""
    built = method("r3m", negatives=B - 1, sentence_dim=SENTENCE, hidden=7)
    outcome = built(views(ORDER), told())
    now, earlier, later, start, end = (one.pooled for one in outcome.seen.student)
    score, sentence = built.branches["language"].predictor, told()["sentence"]

    def g(clip: int, frame: Tensor, of: int) -> Tensor:
        return score(torch.cat([start[clip], frame[clip], sentence[of]])).exp()[0]

    losses = []
    for b in range(B):
        if INSTRUCTION[b] < 0:
            continue
        others = [c for c in range(B) if c != b and INSTRUCTION[c] != INSTRUCTION[b]]
        for right, wrong in ((end, start), (now, earlier), (later, now)):
            crowd = g(b, right, b) + g(b, wrong, b) + sum(g(c, right, b) for c in others)
            losses.append(-torch.log(g(b, right, b) / crowd))
    torch.testing.assert_close(outcome.parts["language"], torch.stack(losses).mean())


def test_a_clip_is_never_its_own_negative() -> None:
    built = method("r3m", negatives=3, sentence_dim=SENTENCE, hidden=7)
    reads = built.branches["language"].reads
    for seed in range(20):
        torch.manual_seed(seed)
        right, wrong, present = reads(built.branches["language"], built.look(views(ORDER), told()), None)
        assert wrong.shape == (3, 4, B)
        assert not (wrong[:, 1:] == right[:, None]).any()
        assert present.tolist() == (INSTRUCTION >= 0).tolist()


def test_without_words_r3m_needs_no_start_and_no_end() -> None:
    outcome = method("r3m")(views(ORDER))
    assert set(outcome.parts) == {"order", "sparsity"}
    with pytest.raises(LookupError):
        outcome.seen.student[4]


def test_liv_finds_goals_by_sentences_and_both_are_goals() -> None:
    built = method("liv", sentence_dim=SENTENCE)
    outcome = built(views(("global",) * 4), told())
    z = torch.stack([one.pooled for one in outcome.seen.student])
    texts = built.branches["match"].reads.texts
    assert texts is built.branches["language"].reads.texts
    text, there = texts(told()["sentence"]), INSTRUCTION >= 0
    a, b = (torch.nn.functional.normalize(side[there], dim=1) for side in (z[3], text))
    logits, same = a @ b.T, INSTRUCTION[there][:, None] == INSTRUCTION[there]
    others = same & ~torch.eye(len(a), dtype=torch.bool)
    logits = logits.masked_fill(others, -torch.inf)
    names = torch.arange(len(a))
    cross = torch.nn.functional.cross_entropy
    torch.testing.assert_close(outcome.parts["match"], (cross(logits, names) + cross(logits.T, names)) / 2)
    value = built.branches["value"].objective
    torch.testing.assert_close(outcome.parts["value"], value(z))
    torch.testing.assert_close(outcome.parts["language"], value(torch.stack([*z[:3], text]), there))
    outcome.loss.backward()
    assert texts.weight.grad is not None
    built.after_step()
    assert built.branches["match"].objective.logit_scale == 0


def test_the_width_of_sentences_follows_the_data() -> None:
    assert scaled_options(find("r3m").published, Circumstances(sentence_dim=9))["sentence_dim"] == 9
    assert scaled_options(find("liv").published, Circumstances())["sentence_dim"] == 0


def test_data_that_tell_no_instruction_are_told() -> None:
    with pytest.raises(PolysenseError, match="learns from instructions, which the data do not tell"):
        method("liv", sentence_dim=0)
    with pytest.raises(PolysenseError, match="learns from instructions, which the data do not tell"):
        method("r3m", sentence_dim=SENTENCE)(views(ORDER))
