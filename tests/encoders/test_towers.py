"""Towers that share a space, and the captioner beside them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.attention_pool import AttentionPool
from polysense.encoders.base import Encoded
from polysense.encoders.captioner import Captioner
from polysense.encoders.towers import Towers, flat, of_part
from polysense.errors import PolysenseError
from tests.toys import RowEncoder


@pytest.fixture
def towers() -> Towers:
    torch.manual_seed(0)
    return Towers({"left": RowEncoder(4), "right": RowEncoder(6)}, dim=8).eval()


def test_a_sample_is_the_mean_of_its_parts_directions(towers: Towers) -> None:
    left, right = torch.randn(3, 4), torch.randn(3, 6)
    a, b = towers.of("left")(left).pooled, towers.of("right")(right).pooled
    torch.testing.assert_close(a.norm(dim=1), torch.ones(3))
    projected = functional.normalize(towers.heads["left"](towers.towers["left"](left)), dim=1)
    torch.testing.assert_close(a, projected)
    there = torch.tensor([True, False, True])
    data = {"left": left, "right": right, "right/present": there}
    expected = torch.stack([a[0] + b[0], a[1], a[2] + b[2]])
    torch.testing.assert_close(towers(data).pooled, functional.normalize(expected, dim=1))
    torch.testing.assert_close(towers({"left": left}).pooled, a)


def test_logits_start_as_in_clip_or_as_asked_unless_they_were_learned(towers: Towers) -> None:
    assert towers.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert towers.logit_bias.item() == 0
    towers.start_logits(10, -10)
    assert (towers.logit_scale.item(), towers.logit_bias.item()) == (pytest.approx(math.log(10)), -10)
    learned = Towers({"left": RowEncoder(4)}, logit_scale=4.6, logit_bias=-12.0)
    learned.start_logits(10, -10)
    assert (learned.logit_scale.item(), learned.logit_bias.item()) == (pytest.approx(4.6), -12)


def test_weights_are_saved_once_and_load_again(towers: Towers) -> None:
    state = towers.state_dict()
    tops = {name.split(".")[0] for name in state}
    assert tops == {"towers", "heads", "logit_scale", "logit_bias"}
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    other = Towers({"left": RowEncoder(4), "right": RowEncoder(6)}, dim=8).eval()
    other.load_state_dict(state)
    data = {"left": torch.randn(2, 4), "right": torch.randn(2, 6)}
    torch.testing.assert_close(other(data).pooled, towers(data).pooled)


def test_parts_are_told_apart_by_their_names() -> None:
    data = flat("text", {"ids": torch.ones(1), "attended": torch.ones(1)}) | flat("image", torch.zeros(1))
    data |= {"text/present": torch.ones(1), "text/choices": torch.ones(1), "texture/ids": torch.ones(1)}
    assert set(of_part(data, "text")) == {"ids", "attended"}
    assert of_part(data, "image") is data["image"]
    assert of_part(data, "sound") is None


def test_what_towers_cannot_do(towers: Towers) -> None:
    with pytest.raises(PolysenseError, match="unknown part 'lefft'; did you mean 'left'"):
        towers.of("lefft")
    with pytest.raises(PolysenseError, match="these samples have none of the parts left, right"):
        towers({"sound": torch.zeros(1)})
    with pytest.raises(PolysenseError, match="cannot hide tokens"):
        towers({"left": torch.zeros(1, 4)}, torch.zeros(1, 4, dtype=torch.bool))


@pytest.fixture
def captioner() -> Captioner:
    torch.manual_seed(0)
    return Captioner(6, vocabulary=20, length=9, width=16, depth=2, heads=2).eval()


def test_a_word_depends_on_those_before_it_and_on_what_is_seen(captioner: Captioner) -> None:
    seen = Encoded(torch.randn(1, 6), torch.randn(1, 5, 6))
    ids = torch.tensor([[1, 4, 7, 2]])
    logits = captioner(seen, ids)
    later = captioner(seen, torch.tensor([[1, 4, 9, 3]]))
    torch.testing.assert_close(logits[:, :2], later[:, :2])
    assert not torch.allclose(logits[:, 2], later[:, 2])
    elsewhere = captioner(Encoded(seen.pooled, torch.randn(1, 5, 6)), ids)
    assert not torch.allclose(logits[:, 0], elsewhere[:, 0])


def test_it_writes_what_it_learned_and_stops_at_the_end(captioner: Captioner) -> None:
    seen = Encoded(torch.randn(2, 6), torch.randn(2, 5, 6))
    texts = torch.tensor([[1, 5, 6, 7, 2, 2], [1, 8, 2, 2, 2, 2]])
    optimiser = torch.optim.AdamW(captioner.parameters(), lr=1e-2)
    for _ in range(60):
        logits = captioner(seen, texts[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert captioner.write(seen, start=1, end=2).tolist() == texts[:, :5].tolist()
    assert captioner.write(seen, start=1, end=19).shape == (2, captioner.length)


def test_beams_find_the_likeliest_text_of_all(captioner: Captioner) -> None:
    seen = Encoded(torch.zeros(8, 6), torch.randn(8, 4, 6))
    captioner.places = nn.Parameter(captioner.places[:3])  # two words at most
    with torch.no_grad():
        captioner.norm.weight *= 20  # or all texts would be about as likely
    texts = torch.tensor([(1, a, b) for a, b in itertools.product(range(20), repeat=2) if a != 2 or b == 2])
    scores = _mean_log_probabilities(captioner, seen, texts)
    found = captioner.write(seen, start=1, end=2, beams=20)
    assert found.tolist() == texts[scores.argmax(1)].tolist()
    greedy = captioner.write(seen, start=1, end=2)
    assert greedy[:, 1].tolist() == captioner(seen, texts[:1, :1].expand(8, 1))[:, 0].argmax(1).tolist()
    assert greedy.tolist() != found.tolist()


def _mean_log_probabilities(captioner: Captioner, seen: Encoded, texts: Tensor) -> Tensor:
    """Of each text's words up to and with the first 2, for each of what was seen."""
    assert seen.tokens is not None
    each = Encoded(seen.pooled, seen.tokens.repeat_interleave(len(texts), 0))
    ids = texts.repeat(len(seen.pooled), 1)
    likely = captioner(each, ids[:, :-1]).log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return torch.where(ids[:, 1] == 2, likely[:, 0], likely.mean(1)).view(-1, len(texts))


def test_a_query_takes_the_tokens_it_attends_to() -> None:
    torch.manual_seed(0)
    pool, tokens = AttentionPool(6, 8, queries=3, heads=2).double(), torch.randn(2, 5, 6).double()
    biases, seen = pool.look.in_proj_bias.chunk(3), pool.norm_seen(tokens)
    query = functional.linear(pool.norm_queries(pool.queries), pool.look.q_proj_weight, biases[0])
    key = functional.linear(seen, pool.look.k_proj_weight, biases[1])
    value = functional.linear(seen, pool.look.v_proj_weight, biases[2])
    halves = []
    for half in (slice(0, 4), slice(4, 8)):  # of two heads
        share = (query[:, half] @ key[..., half].transpose(1, 2) / 4**0.5).softmax(-1)
        halves.append(share @ value[..., half])
    torch.testing.assert_close(pool(tokens), pool.look.out_proj(torch.cat(halves, -1)))
    visible = torch.tensor([[True, True, False, False, False]]).expand(2, -1)
    torch.testing.assert_close(pool(tokens, visible), pool(tokens[:, :2]))


def test_queries_stand_between_what_is_seen_and_the_text() -> None:
    torch.manual_seed(0)
    captioner = Captioner(6, 20, 9, width=16, depth=1, heads=2, queries=4).eval()
    ids, tokens = torch.tensor([[1, 4, 7]]), torch.randn(1, 5, 6)
    logits = captioner(Encoded(torch.zeros(1, 6), tokens), ids)
    assert logits.shape == (1, 3, 20)
    turned = Encoded(torch.zeros(1, 6), tokens.flip(1))
    torch.testing.assert_close(captioner(turned, ids), logits)  # queries see a set
    padded = Encoded(torch.zeros(1, 6), torch.cat([tokens, torch.randn(1, 2, 6)], 1))
    torch.testing.assert_close(captioner(padded, ids, torch.arange(7)[None] < 5), logits)
    with pytest.raises(PolysenseError, match="0 queries see nothing; give at least 1, or none"):
        Captioner(6, 20, 9, width=16, heads=2, queries=0)


def test_what_a_captioner_cannot_do(captioner: Captioner) -> None:
    with pytest.raises(PolysenseError, match="a text is written from the places of a picture"):
        captioner(Encoded(torch.zeros(1, 6)), torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(PolysenseError, match="beams is 21; give from 1 to 20, the number of tokens"):
        captioner.write(Encoded(torch.zeros(1, 6), torch.zeros(1, 1, 6)), start=1, end=2, beams=21)
    with pytest.raises(PolysenseError, match="3 heads cannot share a width of 16"):
        Captioner(6, 20, 9, width=16, heads=3)


def test_heads_may_be_given() -> None:
    class Same(nn.Module):
        def forward(self, encoded: Encoded) -> torch.Tensor:
            return encoded.pooled

    towers = Towers({"left": RowEncoder(4)}, {"left": Same()}, dim=32).eval()
    data = torch.randn(2, 4)
    expected = functional.normalize(towers.towers["left"](data).pooled, dim=1)
    torch.testing.assert_close(towers.of("left")(data).pooled, expected)
