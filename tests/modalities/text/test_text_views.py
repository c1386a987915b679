"""Views of texts: what each edit keeps, how often it acts, and that nothing else happens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.modalities.text.tokenizer import Tokenizer
from polysense.modalities.text.views import RandomView, ViewSettings

TOKENIZER = Tokenizer.train(["a b c d e f g h i j"] * 3, vocabulary=512)
LENGTH, SHORT = 20, 4


def texts(count: int = 2000) -> tuple[Tensor, Tensor]:
    """Every other text has 20 tokens and the others 4, all different, between a start and an end."""
    ids = torch.full((count, LENGTH + 2), TOKENIZER.pad)
    lengths = torch.tensor([LENGTH, SHORT]).repeat(count // 2)
    for row, length in zip(ids, lengths.tolist(), strict=True):
        ends = torch.tensor([TOKENIZER.start]), torch.tensor([TOKENIZER.end])
        row[: length + 2] = torch.cat([ends[0], torch.arange(100, 100 + length), ends[1]])
    return ids, ids != TOKENIZER.pad


def view(seed: int = 0, count: int = 2000, **settings: Any) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    ids, attended = RandomView(ViewSettings(**settings), TOKENIZER)(*texts(count))
    assert torch.equal(attended, ids != TOKENIZER.pad)
    assert (attended.int().diff(dim=1) <= 0).all()  # padding stays on the right
    assert (ids[:, 0] == TOKENIZER.start).all()
    last = ids.gather(1, attended.sum(1, keepdim=True) - 1)
    assert (last == TOKENIZER.end).all()
    return ids, attended


def kept(ids: Tensor) -> list[list[int]]:
    return [[number - 100 for number in row if number >= 100] for row in ids.tolist()]


def test_without_settings_the_view_is_the_text() -> None:
    ids, attended = view()
    assert torch.equal(ids, texts()[0])
    assert torch.equal(attended, texts()[1])


def test_a_crop_is_one_run_of_the_stated_share() -> None:
    rows = kept(view(crop=(0.25, 0.75))[0])
    assert all(row == list(range(row[0], row[0] + len(row))) for row in rows)
    long = rows[::2]
    lengths = torch.tensor([len(row) for row in long])
    assert (lengths.min(), lengths.max()) == (5, 15)
    assert abs(lengths.float().mean() - 10) < 0.3
    starts = torch.tensor([row[0] for row in long if len(row) == 10])
    assert set(starts.tolist()) == set(range(11))
    assert {len(row) for row in rows[1::2]} == {1, 2, 3}


def test_a_cropped_batch_is_as_narrow_as_its_longest_text() -> None:
    ids, attended = view(crop=(0.25, 0.5))
    assert ids.shape[1] == attended.sum(1).max() == 12


def test_deletion_takes_its_share_and_leaves_at_least_one_in_order() -> None:
    rows = kept(view(delete=0.6)[0])
    assert all(row == sorted(row) and row for row in rows)
    share = sum(map(len, rows[::2])) / (LENGTH * len(rows[::2]))
    assert abs(share - 0.4) < 0.01
    first = sum(row[0] == 0 for row in rows[::2]) / len(rows[::2])
    assert abs(first - 0.4) < 0.04


def test_almost_everything_deleted_leaves_any_one() -> None:
    rows = kept(view(delete=0.999)[0])
    left = torch.tensor([row[0] for row in rows[1::2]]).bincount(minlength=SHORT)
    assert all(row for row in rows)
    assert left.min() > 200  # each of four in about 250 of 1,000


def test_the_mask_hides_its_share_and_no_end() -> None:
    ids, attended = view(mask=0.15)
    hidden = ids == TOKENIZER.mask
    assert torch.equal(attended, texts()[1])
    assert torch.equal(ids.masked_fill(hidden, 0), texts()[0].masked_fill(hidden, 0))
    inner = attended.sum() - 2 * len(ids)
    assert abs(hidden.sum() / inner - 0.15) < 0.01


def test_shuffling_moves_tokens_by_less_than_the_window() -> None:
    ids, attended = view(shuffle=3)
    rows = kept(ids)
    assert torch.equal(attended, texts()[1])
    assert all(sorted(row) == list(range(len(row))) for row in rows)
    moves = torch.tensor([[number - place for place, number in enumerate(row)] for row in rows[::2]])
    assert moves.abs().max() == 2
    assert 0.2 < (moves == 0).float().mean() < 0.6
    assert torch.equal(view(shuffle=1)[0], texts()[0])


def test_views_differ_from_call_to_call_and_repeat_with_the_seed() -> None:
    assert torch.equal(view(3, delete=0.3)[0], view(3, delete=0.3)[0])
    assert kept(view(3, delete=0.3)[0]) != kept(view(4, delete=0.3)[0])
    rows = kept(view(delete=0.3)[0])
    assert len({tuple(row) for row in rows[::2]}) > 900  # each text has its own draw


def test_all_edits_together() -> None:
    ids, attended = view(crop=(0.5, 1.0), delete=0.2, shuffle=2, mask=0.1)
    assert ids.shape == attended.shape
    assert (TOKENIZER.inner(ids, attended).sum(1) + (ids == TOKENIZER.mask).sum(1) >= 1).all()


def test_a_text_of_nothing_but_its_ends() -> None:
    for settings in ({"delete": 0.5}, {"crop": (0.5, 0.5)}, {"shuffle": 3}, {"mask": 0.5}):
        ids = torch.tensor([[TOKENIZER.start, TOKENIZER.end]])
        made, attended = RandomView(ViewSettings(**settings), TOKENIZER)(ids, ids > 0)
        assert torch.equal(made, ids)
        assert attended.all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": (0.0, 0.5)}, "crop is (0.0, 0.5); give the least and greatest share kept"),
        ({"crop": [0.8, 0.5]}, "crop is [0.8, 0.5]"),
        ({"crop": [0.8]}, "crop is [0.8]"),
        ({"delete": 1.0}, "delete is 1.0; give a probability from 0 to below 1"),
        ({"mask": -0.1}, "mask is -0.1"),
        ({"shuffle": -1}, "shuffle is -1; give a number of places"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolysenseError) as error:
        ViewSettings(**settings)
    assert str(error.value).startswith(message)


def test_adjacent_spans_follow_each_other_and_make_up_the_text() -> None:
    ids, attended = texts(500)
    maker = RandomView(ViewSettings(adjacent=True), TOKENIZER)
    torch.manual_seed(0)
    first, second, third = (kept(span) for span, _ in maker.spans(ids, attended, 3))
    for whole, a, b, c in zip(kept(ids), first, second, third, strict=True):
        if len(whole) < 6:
            assert a == b == c == whole
        else:
            assert a + b + c == whole
            assert min(len(a), len(b), len(c)) > 0
    shares = [len(a) / len(whole) for whole, a in zip(kept(ids), first, strict=True) if len(whole) == LENGTH]
    assert min(shares) < 0.25 < max(shares)
