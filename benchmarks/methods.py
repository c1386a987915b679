"""Every method that a peer has too: the time of its loss and of a whole step, side by side on one thread.

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 \\
        .venv-bench/bin/python -m benchmarks.methods [METHOD ...]

A loss is its forward and backward pass on what our method gave its objective in a step. A step is
encoding ready-made views, heads, loss, backward, AdamW and whatever follows the step, a moving average
say; the views themselves are benchmarks.views' affair. All run the same encoder on the same pictures,
with heads of the same sizes, those of our recipe for so little data, and take turns. Peers use their own
parts, see benchmarks.peers, and encode view by view as their examples do.

The two variables let glibc keep the memory of each step for the next: without them a transformer's step
spends a tenth of its time on getting pages again, whoever's it is, which drowns the differences.

What two more promises cost is measured at the end: the share of a full forward pass that an encoder
takes for a picture hidden by 75 % (MAE), and how often multi-crop calls the encoder.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import compare, environment, report
from polysense.encoders import build
from polysense.encoders.base import Encoder
from polysense.methods.engine import Branch, Method
from polysense.methods.recipes import Recipe
from polysense.methods.scaling import Circumstances, scaled_options
from polysense.methods.table import recipes
from polysense.modalities.base import View

BATCH, SIZE, LOCAL_SIZE = 256, 32, 16
HERE = Circumstances(batch=BATCH, samples=4096, steps=1000)
HALFWAY = 0.5  # the share of training done: past every warm-up
PEERS = {"lightly": "lightly_ssl", "solo-learn": "solo_learn", "stable-pretraining": "spt"}
SMALL_DECODER = {"decoder_width": 128, "decoder_depth": 2, "decoder_heads": 4}


@dataclass(frozen=True)
class Setting:
    """Which encoder a method trains here, and the options in which the peers' defaults are ours."""

    encoder: str = "small"
    encoder_options: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def build_encoder(self) -> Encoder:
        return build(self.encoder, size=SIZE, **self.encoder_options)


FIXED_SIZE = {"dynamic_img_size": False}  # stable-pretraining reads the patches of no other ViT
SETTINGS = {
    "swav": Setting(options={"queue_from": 1.0}),  # the peers' steps have no queue
    "mae": Setting("vit_nano", FIXED_SIZE, SMALL_DECODER),
    "simmim": Setting("vit_nano", FIXED_SIZE),
    "msn": Setting("vit_nano"),
}


class Ours(nn.Module):
    """One of our methods as the peers' are: views in, loss out, and what follows a step."""

    def __init__(self, method: Method, views: list[View]) -> None:
        super().__init__()
        self.method, self.views = method, views
        self.known = {"index": torch.arange(BATCH)}
        method.at(HALFWAY)

    def forward(self, pictures: list[Tensor]) -> Tensor:
        loss: Tensor = self.method(self.views, self.known).loss
        return loss

    def after_step(self) -> None:
        self.method.after_step()


def loaded_peers() -> tuple[dict[str, ModuleType], dict[str, str]]:
    """The peers that can be imported, and why the others cannot."""
    found, missing = {}, {}
    for library, module in PEERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[library] = importlib.import_module(f"benchmarks.peers.{module}")
        except Exception as error:  # whatever a foreign package raises is the reason to print
            missing[library] = f"{type(error).__name__}: {error}"
    return found, missing


def random_views(recipe: Recipe) -> list[View]:
    whole = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(BATCH, 2, 2)
    kinds = [("global", SIZE)] * recipe.views.globals_ + [("local", LOCAL_SIZE)] * recipe.views.locals_
    return [View(torch.randn(BATCH, 3, side, side), "image", kind, region=whole) for kind, side in kinds]


def step(model: Any, pictures: list[Tensor]) -> Callable[[], None]:
    """One whole step, which can be called again and again."""
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=1e-4)

    def run() -> None:
        optimiser.zero_grad()
        model(pictures).backward()
        optimiser.step()
        model.after_step()

    return run


def loss_alone(loss: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Callable[[], None]:
    """Forward and backward of a loss on these tensors, with gradients for those that had one."""

    def run() -> None:
        fresh = [each.detach().requires_grad_(each.requires_grad) for each in tensors]
        loss(*fresh).backward()

    return run


def given_to(branch: Branch, model: Ours) -> tuple[Tensor, ...]:
    """What the branch's objective gets in a step."""
    seen: list[tuple[Tensor, ...]] = []
    hook = branch.objective.register_forward_pre_hook(lambda module, tensors: seen.append(tensors))
    model([])
    hook.remove()
    return seen[0]


def milliseconds(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The fastest of the repeats, in processor time: other jobs on the machine can only add to it."""
    timings = compare(cases, repeats, clock=time.process_time)
    return {name: 1e3 * timing.min for name, timing in timings.items()}


def measure(recipe: Recipe, peers: Mapping[str, ModuleType], repeats: int) -> list[dict[str, Any]]:
    """A row for each peer that has the method."""
    torch.manual_seed(0)
    setting = SETTINGS.get(recipe.name, Setting())
    options = recipe.options(setting.options, scaled_options(recipe.published, HERE))
    views = random_views(recipe)
    pictures = [view.data for view in views if isinstance(view.data, Tensor)]
    ours = Ours(recipe.build(setting.build_encoder(), "image", **options), views)
    (branch, *others) = ours.method.branches.values()
    assert isinstance(branch, Branch)

    losses = {
        name: peer.LOSSES[recipe.name](options) for name, peer in peers.items() if recipe.name in peer.LOSSES
    }
    tensors = given_to(branch, ours) if losses and not others else ()
    loss_cases = {"polysense": branch.objective, **losses} if tensors else {}
    steps = {
        name: step(peer.STEPS[recipe.name](setting.build_encoder(), options, losses.get(name)), pictures)
        for name, peer in peers.items()
        if recipe.name in peer.STEPS
    }
    loss_ms = milliseconds(
        {name: loss_alone(loss, tensors) for name, loss in loss_cases.items()}, 2 * repeats
    )
    step_ms = milliseconds({"polysense": step(ours, pictures), **steps} if steps else {}, repeats)
    return [
        {
            "method": recipe.name,
            "peer": name,
            "loss ms": loss_ms["polysense"] if name in loss_ms else None,
            "its loss ms": loss_ms.get(name),
            "loss x": loss_ms[name] / loss_ms["polysense"] if name in loss_ms else None,
            "step ms": step_ms["polysense"] if name in step_ms else None,
            "its step ms": step_ms.get(name),
            "step x": step_ms[name] / step_ms["polysense"] if name in step_ms else None,
        }
        for name in peers
        if name in loss_ms or name in step_ms
    ]


def masked_share(repeats: int) -> float:
    """The time of encoding the visible quarter of each picture, as a share of encoding all of it."""
    encoder, pictures = build("vit_nano", size=SIZE).eval(), torch.randn(BATCH, 3, SIZE, SIZE)
    hidden = torch.rand(BATCH, 64).argsort(1) >= 16

    def forward(mask: Tensor | None) -> Callable[[], object]:
        return lambda: encoder(pictures, mask)

    with torch.no_grad():
        ms = milliseconds({"whole": forward(None), "masked": forward(hidden)}, repeats)
    return ms["masked"] / ms["whole"]


def multi_crop_calls() -> int:
    """How often DINO's student encodes in a step with crops of two sizes."""
    recipe, encoder = recipes()["dino"], build("small", size=SIZE)
    model = Ours(recipe.build(encoder, "image", prototypes=64, hidden=64), random_views(recipe))
    calls: list[int] = []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    model([])
    return len(calls)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", help="some methods only")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peers, missing = loaded_peers()
    record = environment(0, peers=[*PEERS, "timm"]) | {"batch": BATCH, "size": SIZE, "missing": missing}
    chosen = [each for name, each in recipes().items() if not arguments.methods or name in arguments.methods]
    rows = [row for recipe in chosen for row in measure(recipe, peers, arguments.repeats)]

    summary = {
        f"{statistic.__name__} {what}": statistic(ratios)
        for what in ("loss x", "step x")
        if (ratios := [row[what] for row in rows if row[what]])
        for statistic in (statistics.median, min)
    }
    summary["masked encoder's share"] = masked_share(arguments.repeats)
    summary["encoder calls for 2 sizes of crops"] = multi_crop_calls()
    report("methods", rows, record | summary | {"load": os.getloadavg()[0]})
    for library, reason in missing.items():
        print(f"{library} could not be imported: {reason}")


if __name__ == "__main__":
    main()
