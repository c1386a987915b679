"""Ways to train an encoder in part: frozen, through low-rank adapters, its lower layers at lower rates."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from polysense.encoders.base import Encoder
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError, require, unknown


@dataclass(frozen=True)
class Tuning:
    """Which parts of an encoder learn, how fast, and from which memory; by default all of it alike.

    Of :class:`~polysense.encoders.towers.Towers` each tower that learns is adapted, graded and checkpointed
    by itself; heads and logit scale learn at the full rate in any case.

    Args:
        freeze: names of the trunk's modules or parameters that stay as they are, see :func:`freeze`; a tower
            has the name of its part.
        lora: the rank of :func:`with_lora`.
        layer_decay: that of :func:`layerwise_rates`.
        gradient_checkpointing: see :func:`checkpoint_blocks`.
    """

    freeze: Sequence[str] = ()
    lora: int | None = None
    layer_decay: float | None = None
    gradient_checkpointing: bool = False

    def apply(self, encoder: Encoder) -> None:
        """Prepare an encoder, in place.

        Raises:
            PolysenseError: where the encoder has no such part, nothing is left to learn, or it cannot be
                trained in this way.

        >>> from polysense.encoders import build
        >>> encoder = build("vit_nano", size=32, depth=2)
        >>> Tuning(freeze=["patch_embed", "blocks.0"], lora=4).apply(encoder)
        >>> sorted({name.split(".")[1] for name, p in encoder.trunk.named_parameters() if p.requires_grad})
        ['1']
        """
        for name in self.freeze:
            _freeze_part(encoder, name)
        if not _learns(encoder):
            raise PolysenseError(
                f"without {', '.join(self.freeze)} nothing of the encoder learns; freeze less of it"
            )
        towers = list(encoder.towers.values()) if isinstance(encoder, Towers) else [encoder]
        for tower in filter(_learns, towers):
            assert isinstance(tower, Encoder)
            if self.lora is not None:
                with_lora(tower, self.lora)
            if self.layer_decay is not None:
                layerwise_rates(tower, self.layer_decay)
            if self.gradient_checkpointing:
                checkpoint_blocks(tower)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _freeze_part(encoder: Encoder, name: str) -> None:
    """Freeze a module or a parameter of the trunk by its name."""
    modules = {path: module for path, module in encoder.trunk.named_modules() if path}
    parameters = dict(encoder.trunk.named_parameters())
    if name in parameters:
        parameters[name].requires_grad_(False)
    elif name in modules:
        freeze(modules[name])
    else:
        raise unknown("part of the encoder to freeze", name, modules)


def freeze(module: nn.Module) -> nn.Module:
    """Keep a tower or a part of one as it is: no gradients, and eval mode whatever the tower is put into.

    So running statistics of norms do not move and dropout drops nothing (LiT,
    https://arxiv.org/abs/2111.07991). It is changed in place.

    >>> from polysense.encoders.module import ModuleEncoder
    >>> tower = ModuleEncoder(nn.BatchNorm2d(3), dim=3)
    >>> freeze(tower.trunk).training, tower.train().trunk.training, tower.trunk.weight.requires_grad
    (False, False, False)
    """
    module.is_frozen = True  # type: ignore[assignment]  # Encoder.train reads it
    return module.requires_grad_(False).eval()


def with_lora(tower: Encoder, rank: int = 8, *, scale: float = 2.0) -> Encoder:
    """Train a low-rank change of a tower's linear and attention layers, and nothing else of it (LoRA).

    Beside each weight ``W`` stands ``scale * B @ A``, ``A`` of ``rank`` rows drawn at random and ``B`` zero,
    so that training starts where the tower is. The tower is changed in place; :func:`merge_lora` makes plain
    weights of it again, which needs no peft to be loaded. Layers that are frozen get none.

    https://arxiv.org/abs/2106.09685

    Args:
        tower: any with linear or attention layers.
        rank: of the change.
        scale: of the change; alpha over rank in the paper.

    Raises:
        PolysenseError: when peft is not there, the rank is none, or there is no such layer.
    """
    peft: Any = require("peft", "peft", "training through low-rank adapters")
    if rank < 1:
        raise PolysenseError(f"low-rank adapters of rank {rank} change nothing; give 1 or more")
    names = _adaptable(tower.trunk)
    if not names:
        raise PolysenseError(
            f"the encoder {type(tower.trunk).__name__} has no linear or attention layers to put low-rank"
            " adapters beside; choose a transformer such as 'vit_nano', or leave out lora"
        )
    tower.requires_grad_(False)
    exactly = "|".join(map(re.escape, names))  # of a list peft would take the ends of names, too
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=exactly), tower.trunk
    )
    return tower


def _adaptable(trunk: nn.Module) -> list[str]:
    """The names of all linear and attention layers that learn; those inside attention belong to it."""
    learning = {name: module for name, module in trunk.named_modules() if _learns(module)}
    attention = [name for name, module in learning.items() if isinstance(module, nn.MultiheadAttention)]
    inside = tuple(f"{name}." for name in attention)
    linear = [name for name, module in learning.items() if isinstance(module, nn.Linear)]
    return attention + [name for name in linear if not name.startswith(inside)]


def merge_lora(module: nn.Module) -> None:
    """Add what :func:`with_lora` has learned to the weights themselves, and take the adapters away.

    A module without adapters is left alone.
    """
    if "peft" not in sys.modules:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, parent in list(module.named_modules()):
        if isinstance(parent, BaseTunerLayer) or "base_layer" in name:
            continue
        for place, child in parent.named_children():
            if isinstance(child, BaseTunerLayer):
                setattr(parent, place, _merged(child))


def _merged(layer: Any) -> nn.Module:
    if hasattr(layer, "unload_and_optionally_merge_module"):  # attention, whose weights are not plain layers
        merged: nn.Module = layer.unload_and_optionally_merge_module(
            merge=True, safe_merge=False, adapter_names=None
        )
    else:
        layer.merge()
        merged = layer.get_base_layer()
    return merged.requires_grad_(True)


def checkpoint_blocks(tower: Encoder) -> None:
    """Keep of each block only what comes in, and compute it again for the gradient: less memory, more time.

    The gradients are the same (https://arxiv.org/abs/1604.06174). Models of timm, open_clip and transformers
    do it as they offer it; of others the stack of equal blocks is checkpointed, where there is one. Running
    statistics of batch norm move in both passes.

    Raises:
        PolysenseError: for a model that neither offers it nor is such a stack.
    """
    trunk: Any = tower.trunk
    try:
        if hasattr(trunk, "gradient_checkpointing_enable"):  # transformers
            trunk.gradient_checkpointing_enable()
        elif hasattr(trunk, "set_grad_checkpointing"):  # timm, open_clip
            trunk.set_grad_checkpointing()
        else:
            for block in _blocks(tower)[1]:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    except (AssertionError, ValueError) as error:  # timm's, transformers'
        raise PolysenseError(
            f"{type(trunk).__name__} offers no gradient checkpointing; choose another encoder, or encode in"
            " chunks"
        ) from error


def layerwise_rates(tower: Encoder, decay: float) -> None:
    """Let layers learn the slower the lower they lie: block i of n at ``decay ** (n - i)`` of the rate.

    What lies before the first block (embeddings) counts as block 0, what lies behind the last learns at the
    full rate. Optimisers read it from an attribute ``lr_scale`` of the parameters (ELECTRA, BEiT;
    https://arxiv.org/abs/2003.10555).

    Raises:
        PolysenseError: for a decay outside (0, 1], or a tower that is no stack of equal blocks.

    >>> from polysense.encoders import build
    >>> tower = build("vit_nano", size=32, depth=2)
    >>> layerwise_rates(tower, 0.5)
    >>> tower.trunk.pos_embed.lr_scale, tower.trunk.blocks[0].norm1.weight.lr_scale
    (0.25, 0.5)
    """
    if not 0 < decay <= 1:
        raise PolysenseError(f"rates decay by {decay} from layer to layer; choose a number above 0, up to 1")
    stack, blocks = _blocks(tower)
    depth, level = len(blocks), 0
    for name, parameter in tower.trunk.named_parameters():
        if name.startswith(f"{stack}."):
            level = 1 + int(name.removeprefix(f"{stack}.").partition(".")[0])
        elif level:
            level = depth  # behind the blocks
        parameter.lr_scale = decay ** (depth - level)  # type: ignore[attr-defined]


def _blocks(tower: Encoder) -> tuple[str, Sequence[nn.Module]]:
    """The longest stack of equal blocks that holds all blocks of their kind, and its name."""
    modules = dict(tower.trunk.named_modules())
    kinds = Counter(type(module) for module in modules.values())
    stacks = {
        name: list(module)
        for name, module in modules.items()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and len(module) > 1
        and kinds[type(module[0])] == len(module) == sum(type(one) is type(module[0]) for one in module)
    }
    if not stacks:
        raise PolysenseError(
            f"the encoder {type(tower.trunk).__name__} is no stack of equal blocks; choose a transformer"
        )
    name = max(stacks, key=lambda name: len(stacks[name]))
    return name, stacks[name]
