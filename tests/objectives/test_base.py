from __future__ import annotations

import torch
from torch import Tensor

from polysense.objectives import Objective


class Product(Objective):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a @ b).sum()


def test_precision_inside_an_objective() -> None:
    torch.manual_seed(0)
    a = torch.randn(4, 4)
    full = (a @ a).sum()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Product()(a, b=a), full)
        assert Product()(a.half(), b=a.bfloat16()).dtype == torch.float32
        assert Product()(a.double(), b=a.double()).dtype == torch.float64


def test_masks_of_booleans_and_indices_pass_unchanged() -> None:
    class Kind(Objective):
        def forward(self, mask: Tensor, index: Tensor) -> tuple[torch.dtype, torch.dtype]:
            return mask.dtype, index.dtype

    assert Kind()(torch.ones(2, dtype=torch.bool), torch.ones(2, dtype=torch.long)) == (
        torch.bool,
        torch.long,
    )


def test_a_schedule_is_optional() -> None:
    Product().at(0.5)
