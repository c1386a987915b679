"""Ways to train a tower in part: frozen, through low-rank adapters, its lower layers at lower rates."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.errors import PolysenseError, require

TARGETS = ("attn", "c_fc", "c_proj", "qkv", "proj", "fc1", "fc2", "query", "value", "q_proj", "v_proj")
"""The layers that adapters stand beside, as open_clip, timm and transformers call them."""


class Frozen(Encoder):
    """A tower that stays as it is: no gradients, and eval mode whatever is asked for.

    So running statistics of norms do not move and dropout drops nothing (LiT,
    https://arxiv.org/abs/2111.07991). The tower itself is not wrapped up: it is shared.
    """

    def __init__(self, tower: Encoder) -> None:
        super().__init__()
        self.tower, self.dim = tower.requires_grad_(False), tower.dim
        self.train(False)

    @property
    def trunk(self) -> nn.Module:  # type: ignore[override]  # an attribute would be saved twice
        """The tower's own."""
        return self.tower.trunk

    def forward(self, data: Any, mask: Tensor | None = None) -> Encoded:
        """Encode without gradients."""
        with torch.no_grad():
            encoded: Encoded = self.tower(data, mask)
        return encoded

    def grid(self, data: Any) -> tuple[int, ...]:
        """The tower's."""
        return self.tower.grid(data)

    @property
    def token_dim(self) -> int:
        """The tower's."""
        return self.tower.token_dim

    def settle(self) -> None:
        """Settle the tower."""
        self.tower.settle()

    def train(self, mode: bool = True) -> Frozen:
        """Remain in eval mode."""
        super().train(False)
        return self


def freeze(tower: Encoder) -> Frozen:
    """The same tower for a method that must not change it, see :class:`Frozen`.

    >>> from polysense.encoders.module import ModuleEncoder
    >>> frozen = freeze(ModuleEncoder(nn.BatchNorm2d(3), dim=3)).train()
    >>> frozen.tower.training, frozen(torch.ones(2, 3, 4, 4)).pooled.requires_grad
    (False, False)
    """
    return Frozen(tower)


def with_lora(
    tower: Encoder, rank: int = 8, *, scale: float = 2.0, targets: Sequence[str] = TARGETS
) -> Encoder:
    """Freeze a tower and train a low-rank change of its layers instead (LoRA).

    Beside each weight ``W`` stands ``scale * B @ A``, ``A`` of ``rank`` rows drawn at random and ``B`` zero,
    so that training starts where the tower is. The tower is changed in place; :func:`merge_lora` makes plain
    weights of it again, which needs no peft to be loaded.

    https://arxiv.org/abs/2106.09685

    Args:
        tower: any with linear or attention layers.
        rank: of the change.
        scale: of the change; alpha over rank in the paper.
        targets: last parts of the names of the layers to change; those that the tower lacks do not matter.

    Raises:
        PolysenseError: when peft is not there, the rank is none, or no layer has such a name.
    """
    peft: Any = require("peft", "peft", "training through low-rank adapters")
    if rank < 1:
        raise PolysenseError(f"low-rank adapters of rank {rank} change nothing; give 1 or more")
    names = [
        name
        for name, module in tower.trunk.named_modules()
        if name.rpartition(".")[2] in targets and isinstance(module, nn.Linear | nn.MultiheadAttention)
    ]
    if not names:
        raise PolysenseError(
            f"the encoder {type(tower.trunk).__name__} has no linear or attention layers called"
            f" {', '.join(targets)}; name some of its own, or choose a transformer"
        )
    tower.requires_grad_(False)
    config = peft.LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=names)
    peft.inject_adapter_in_model(config, tower.trunk)
    return tower


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

    The gradients are the same (https://arxiv.org/abs/1604.06174).

    Raises:
        PolysenseError: for a model that does not offer it.
    """
    trunk: Any = tower.trunk
    if hasattr(trunk, "set_grad_checkpointing"):  # timm, open_clip
        trunk.set_grad_checkpointing()
    elif hasattr(trunk, "gradient_checkpointing_enable"):  # transformers
        trunk.gradient_checkpointing_enable()
    else:
        raise PolysenseError(
            f"the encoder {type(trunk).__name__} offers no gradient checkpointing; choose a transformer of"
            " timm, open_clip or transformers, or encode in chunks"
        )


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
