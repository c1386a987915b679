from __future__ import annotations

import io
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polysense.errors import PolysenseError
from polysense.objectives.queue import Queue


@settings(max_examples=40, deadline=None, derandomize=True)
@given(size=st.integers(1, 9), batches=st.lists(st.integers(1, 20), max_size=6))
def test_it_holds_the_latest_keys_whatever_the_batch(size: int, batches: list[int]) -> None:
    queue, expected = Queue(size, 1), deque[float](maxlen=size)
    expected.extend(queue.keys[:, 0].tolist())
    count = 0
    for batch in batches:
        keys = torch.arange(count, count + batch).float()
        queue.push(keys[:, None])
        expected.extend(keys.tolist())
        count += batch
    ring = queue.keys[:, 0].roll(-int(queue.position))  # the oldest first
    assert ring.tolist() == list(expected)


def test_views_lie_one_behind_the_other() -> None:
    queue = Queue(6, 2)
    keys = torch.randn(2, 3, 2)
    queue.push(keys)
    assert torch.equal(queue.keys, torch.cat([keys[0], keys[1]]))


def test_it_begins_with_random_directions() -> None:
    torch.manual_seed(0)
    keys = Queue(1000, 3).keys
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(1000))
    assert keys.mean(0).norm() < 0.1


def test_keys_may_be_pushed_before_the_backward_pass() -> None:
    torch.manual_seed(0)
    queue, queries = Queue(4, 3), torch.randn(2, 3, requires_grad=True)
    expected = queue.keys.sum(0).expand(2, 3).clone()
    scores = queue.similarities(queries)
    queue.push(torch.randn(4, 3))
    scores.sum().backward()
    torch.testing.assert_close(queries.grad, expected)


def test_nearest_is_the_key_of_the_largest_product() -> None:
    torch.manual_seed(0)
    queue, queries = Queue(20, 3).double(), torch.randn(2, 5, 3, dtype=torch.float64)
    nearest = queue.nearest(queries)
    for view in range(2):
        for i in range(5):
            best = max(queue.keys, key=lambda key: float(key @ queries[view, i]))
            assert torch.equal(nearest[view, i], best)


def test_it_survives_save_and_load() -> None:
    saved, loaded, file = Queue(5, 2), Queue(5, 2), io.BytesIO()
    saved.push(torch.randn(3, 2))
    torch.save(saved.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file))
    assert torch.equal(loaded.keys, saved.keys)
    assert int(loaded.position) == 3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PolysenseError, match="a queue of 0 keys remembers nothing; use at least 1"):
        Queue(0, 2)
    message = r"keys of 2 dimensions, but got a tensor of shape \[4, 3\]; make the head's last dimension 2"
    for use in (Queue(5, 2).push, Queue(5, 2).similarities, Queue(5, 2).nearest):
        with pytest.raises(PolysenseError, match=message):
            use(torch.ones(4, 3))
