"""solo-learn: its loss functions. Its methods need Lightning 1, as do its packages' ``__init__``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.peers.parts import Loss, Options, pair, swapped


def function(module: str, name: str) -> Any:
    """One of its losses, loaded without the ``__init__`` of the packages around it."""
    found = importlib.util.find_spec("solo") if "solo" not in sys.modules else None
    if found is not None and found.origin:
        root = Path(found.origin).parent
        for package, place in (("solo", root), ("solo.utils", root / "utils")):
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = [str(place)]
    return getattr(importlib.import_module(f"solo.losses.{module}"), name)


def moco(o: Options) -> Loss:
    """Its queue lives in its method and stands still here."""
    queue = F.normalize(torch.randn(o["out"], o["queue"]), dim=0)
    loss = function("moco", "moco_loss_func")
    return swapped(lambda q, k: loss(F.normalize(q, dim=-1), F.normalize(k, dim=-1), queue, o["temperature"]))


def dino(o: Options) -> Loss:
    """With our plan of 10 views."""
    temperature = o["teacher_temperature"]
    loss = function("dino", "DINOLoss")(
        o["prototypes"], temperature, temperature, 0, 1, o["student_temperature"], num_large_crops=10
    )
    loss.epoch = 0
    return lambda student, teacher: loss(student.flatten(0, 1), teacher.flatten(0, 1))


STEPS: dict[str, Any] = {}
LOSSES = {
    "simclr": lambda o: pair(function("simclr", "simclr_loss_func"), temperature=o["temperature"]),
    "moco_v2": moco,
    "byol": lambda o: swapped(function("byol", "byol_loss_func")),
    "simsiam": lambda o: swapped(function("simsiam", "simsiam_loss_func")),
    "barlow_twins": lambda o: pair(
        function("barlow", "barlow_loss_func"), lamb=o["off_diagonal"], scale_loss=1.0
    ),
    "vicreg": lambda o: pair(function("vicreg", "vicreg_loss_func")),
    "dino": dino,
}
function("simclr", "simclr_loss_func")  # not installed: say so when this module is imported
