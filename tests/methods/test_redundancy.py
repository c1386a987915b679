from __future__ import annotations

import torch
from torch import Tensor

from polysense.encoders import build
from polysense.methods.redundancy import AndGlobals
from polysense.methods.table import find
from polysense.modalities.base import View


def test_lejepa_gives_all_views_and_the_global_ones_again_with_their_gradient() -> None:
    method = find("lejepa").build(build("small", size=16), hidden=8, out=4, slices=3)
    branch = method.branches["match"]
    given: list[tuple[Tensor, ...]] = []
    branch.objective.register_forward_pre_hook(lambda module, tensors: given.append(tensors))
    kinds = [("global", 16), ("local", 8), ("global", 16), ("local", 8)]
    method([View(torch.randn(6, 3, side, side), "image", kind) for kind, side in kinds])
    ((views, whole),) = given
    assert isinstance(branch.reads, AndGlobals)
    assert views.shape == (4, 6, 4)
    assert torch.equal(whole, views[[0, 2]])
    assert whole.requires_grad


def test_lejepa_asks_for_two_global_and_six_local_crops() -> None:
    views = find("lejepa").views
    assert (views.globals_, views.locals_) == (2, 6)
    assert views.options["image"]["scale"] == (0.3, 1.0)
    assert views.options["image"]["local"]["scale"] == (0.05, 0.3)
