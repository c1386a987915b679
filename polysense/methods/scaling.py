"""From published defaults to the batch, data and encoder in hand: the stated rules.

Papers train for hundreds of thousands of steps, on more than a million pictures, with a 2,048-wide
encoder and batches of thousands. Each rule here says what becomes of a published value elsewhere;
``polysense methods NAME`` shows both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from polysense.methods.optimisation import Optimisation

LARGE_BATCH = 1024
MANY_SAMPLES = 100_000


@dataclass(frozen=True)
class Circumstances:
    """What the rules go by. ``steps`` is None under a time budget, ``actions`` 0 where there are none.

    ``sentence_dim``: the width of what embeds the data's instructions, 0 where there are none.
    """

    batch: int = 256
    samples: int = 4096
    steps: int | None = None
    actions: int = 0
    sentence_dim: int = 0


@dataclass(frozen=True)
class Rule:
    """How one option follows the circumstances, in words and as a function of the published value."""

    words: str
    apply: Callable[[Any, Circumstances], Any]


def _width(published: int, here: Circumstances) -> int:
    return published if here.samples >= MANY_SAMPLES else min(published, 512)


def _quarter(published: int, here: Circumstances) -> int:
    return published if here.samples >= MANY_SAMPLES else max(1, published // 4)


def _prototypes(published: int, here: Circumstances) -> int:
    return min(published, 1 << int(math.log2(max(2, here.samples // 2))))


def _bias(published: float, here: Circumstances) -> float:
    return max(published, -round(math.log(here.batch), 2))


def _momentum(published: float, here: Circumstances) -> float:
    if here.steps is None:
        return min(published, 0.99)
    return min(published, max(0.5, round(1 - 10 / here.steps, 4)))


RULES: dict[str, Rule] = {
    "hidden": Rule(f"at most 512 below {MANY_SAMPLES:,} samples", _width),
    "out": Rule(f"at most 512 below {MANY_SAMPLES:,} samples", _width),
    **{
        f"{part}_{size}": Rule(f"a quarter below {MANY_SAMPLES:,} samples", _quarter)
        for part in ("decoder", "predictor")
        for size in ("width", "depth")
    },
    "prototypes": Rule("the largest power of two up to half the number of samples", _prototypes),
    "queue": Rule("the largest power of two up to half the number of samples", _prototypes),
    "samples": Rule("the number of samples in the data", lambda published, here: here.samples),
    "actions": Rule("the number of actions in the data", lambda published, here: here.actions or published),
    "sentence_dim": Rule(
        "the width of the data's embedded instructions; 0 without any",
        lambda published, here: here.sentence_dim,
    ),
    "bias": Rule("of a batch one pair in each row is true: at least -ln(batch)", _bias),
    "momentum": Rule(
        "the teacher remembers a tenth of training: 1 - 10/steps; 0.99 under a time budget", _momentum
    ),
}

OPTIMISER_RULE = (
    f"LARS from a batch of {LARGE_BATCH} on, SGD from {MANY_SAMPLES:,} samples on; below them AdamW with lr"
    " 0.002 x sqrt(batch/256), weight decay 1e-4, warm-up over a tenth; AdamW's own lr is at least"
    f" 0.0005 x sqrt(batch/256) below a batch of {LARGE_BATCH}"
)


def scaled_options(published: dict[str, Any], here: Circumstances) -> dict[str, Any]:
    """The options that a rule changes here.

    >>> scaled_options({"hidden": 2048, "temperature": 0.1}, Circumstances(samples=4000))
    {'hidden': 512}
    """
    scaled = {name: RULES[name].apply(value, here) for name, value in published.items() if name in RULES}
    return {name: value for name, value in scaled.items() if value != published[name]}


def scaled_optimisation(published: Optimisation, here: Circumstances) -> Optimisation:
    """The optimiser here: LARS is made for large batches and SGD for long training; AdamW is kept awake.

    >>> scaled_optimisation(Optimisation("lars", lr=0.3), Circumstances(batch=256)).name
    'adamw'
    """
    if here.batch >= LARGE_BATCH:
        return published
    share = math.sqrt(here.batch / 256)
    if published.name == "lars" or (published.name == "sgd" and here.samples < MANY_SAMPLES):
        return replace(
            published, name="adamw", lr=0.002 * share, per=here.batch, weight_decay=1e-4, warmup=0.1
        )
    return replace(published, lr=max(published.rate(here.batch), 5e-4 * share), per=here.batch)
