"""An objective over prefixes of the dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polysense.errors import PolysenseError
from polysense.objectives import Matryoshka, NTXent, PairContrast
from tests.objectives.cases import random_views


def test_it_is_the_sum_over_prefixes_each_normalised_behind_the_cut() -> None:
    z = random_views(dimensions=6)
    expected = z.new_zeros(())
    for width in (2, 3, 6):
        cut = z[..., :width]
        unit = (cut / cut.square().sum(-1, keepdim=True).sqrt()).flatten(0, 1)
        half = len(unit) // 2
        for i in range(len(unit)):
            scores = [torch.dot(unit[i], unit[j]) / 0.2 for j in range(len(unit)) if j != i]
            partner = torch.dot(unit[i], unit[(i + half) % len(unit)]) / 0.2
            expected = expected + (torch.stack(scores).logsumexp(0) - partner) / half
    torch.testing.assert_close(Matryoshka(NTXent(0.2), [3, 2])(z), expected)


def test_the_whole_counts_once_and_masks_are_not_cut() -> None:
    a, b = random_views(batch=4)
    present = torch.tensor([True, True, False, True])  # as many as there are dimensions
    objective = PairContrast(nn.Parameter(torch.tensor(1.0)))
    whole, half = objective(a, b, present), objective(a[:, :2], b[:, :2], present)
    torch.testing.assert_close(Matryoshka(objective, [4])(a, b, present), whole)
    torch.testing.assert_close(Matryoshka(objective, [2, 4])(a, b, present), whole + half)


def test_widths_that_do_not_fit_are_told() -> None:
    with pytest.raises(PolysenseError, match=r"the widths are \[0, 2\]; give numbers of dimensions from 1"):
        Matryoshka(NTXent(), [0, 2])
    with pytest.raises(PolysenseError, match="no prefix of 4 dimensions has 9; choose widths up to 4"):
        Matryoshka(NTXent(), [9])(random_views())
