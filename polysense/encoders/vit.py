"""Vision transformers that can hide tokens, and pictures as patches."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from polysense.encoders.base import Encoded, Encoder
from polysense.errors import PolysenseError

SIZES = {
    "vit_nano": {"width": 128, "depth": 6, "heads": 4},
    "vit_micro": {"width": 192, "depth": 6, "heads": 3},
    "vit": {"width": 192, "depth": 12, "heads": 3},
    "vit_small": {"width": 384, "depth": 12, "heads": 6},
    "vit_base": {"width": 768, "depth": 12, "heads": 12},
}
"""Widths, depths and heads by name; "vit" itself is the ViT-Ti of DeiT."""


class ViTEncoder(Encoder):
    """A tower around timm's ``VisionTransformer``, which leaves out hidden tokens as MAE does.

    Tokens under a mask are dropped before the blocks, so they cost nothing and leave no trace; after
    :meth:`learn_mask_token` a learned vector stands in their places instead, as in BEiT.
    ``tokens`` are the patches without the class and register tokens; ``pooled`` is the trunk's own
    pooling (class token or mean), over what is visible.

    https://arxiv.org/abs/2010.11929, https://arxiv.org/abs/2111.06377

    >>> encoder = build("vit_nano", channels=3, size=32, depth=1)
    >>> hide = torch.arange(64).expand(2, 64) >= 16  # True where hidden
    >>> encoder(torch.zeros(2, 3, 32, 32), hide).tokens.shape
    torch.Size([2, 16, 128])
    """

    trunk: Any

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk
        self.dim = int(trunk.embed_dim)
        self.mask_token: nn.Parameter | None = None
        self.kept_layers = 0
        height, width = trunk.patch_embed.img_size
        _patch_grid(height, width, self._patch)

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode pictures ``[B, C, H, W]``; ``mask`` is ``[B, T]``, as many True in each row."""
        grid = self.grid(data)
        tokens = self._embed(data, mask)
        layers: list[Tensor] = []
        for number, block in enumerate(self.trunk.blocks, start=1):
            tokens = self._through(block, tokens)
            if number > len(self.trunk.blocks) - self.kept_layers:
                layers.append(tokens)
        prefix = self.trunk.num_prefix_tokens
        features = self.trunk.norm(tokens)
        pooled = self.trunk.forward_head(features, pre_logits=True)
        kept = torch.stack(layers, 1)[:, :, prefix:] if layers else None
        return Encoded(pooled, features[:, prefix:], grid, mask, kept)

    def grid(self, data: Tensor) -> tuple[int, int]:
        """How many patches fit into pictures ``[B, C, H, W]``: down, across."""
        return _patch_grid(data.shape[-2], data.shape[-1], self._patch)

    @property
    def token_values(self) -> int:
        """The values of one patch: height times width times channels."""
        height, width = self._patch
        return height * width * int(self.trunk.in_chans)

    def tokenise(self, data: Tensor) -> Tensor:
        """Pictures ``[B, C, H, W]`` as patches ``[B, T, token_values]``, see :func:`patchify`."""
        return patchify(data, self._patch)

    @property
    def _patch(self) -> tuple[int, int]:
        height, width = self.trunk.patch_embed.feat_ratio(as_scalar=False)
        return height, width

    @property
    def token_dim(self) -> int:
        """The width of a patch's embedding, that of the pooled one."""
        return self.dim

    def learn_mask_token(self) -> None:
        """From now on put a learned vector where a patch is hidden."""
        self.mask_token = nn.Parameter(torch.zeros(self.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def keep_layers(self, count: int) -> None:
        """From now on give the patches of the last ``count`` blocks, before the closing norm, too."""
        depth = len(self.trunk.blocks)
        if not 0 <= count <= depth:
            raise PolysenseError(f"this ViT has {depth} blocks and cannot keep {count}; choose 0 to {depth}")
        self.kept_layers = count

    def settle(self) -> None:
        """Put away the mask token and the kept layers."""
        self.mask_token, self.kept_layers = None, 0

    def freeze_stem(self) -> None:
        """Keep the patch projection as it was drawn."""
        self.trunk.patch_embed.requires_grad_(False)

    def _embed(self, data: Tensor, mask: Tensor | None) -> Tensor:
        """Patches with positions and prefix tokens, those under the mask left out or replaced."""
        trunk = self.trunk
        patches = trunk.patch_embed(data)
        if mask is not None and self.mask_token is not None:
            shape = (len(data), math.prod(self.grid(data)))
            if mask.shape != shape:
                raise _wrong_mask(mask, shape)
            hidden = mask.reshape(*patches.shape[:-1], 1)  # patches may still lie on their grid
            patches = torch.where(hidden, self.mask_token.to(patches.dtype), patches)
        tokens = trunk._pos_embed(patches)
        if mask is not None and self.mask_token is None:
            prefix, patches = tokens.tensor_split([trunk.num_prefix_tokens], dim=1)
            places = _visible_places(mask, patches.shape[:2])
            tokens = torch.cat([prefix, patches.take_along_dim(places[..., None], dim=1)], dim=1)
        embedded: Tensor = trunk.norm_pre(trunk.patch_drop(tokens) if mask is None else tokens)
        return embedded

    def _through(self, block: nn.Module, tokens: Tensor) -> Tensor:
        if self.trunk.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, tokens, use_reentrant=False)  # type: ignore[no-any-return]
        return block(tokens)  # type: ignore[no-any-return]


def build(
    name: str,
    *,
    channels: int,
    size: int | None,
    patch: int | None = None,
    freeze_patches: bool = False,
    **options: Any,
) -> ViTEncoder:
    """A ViT of any size: ``width``, ``depth``, ``heads``, ``patch`` in pixels, or timm's own options.

    Without ``patch`` it is 4 up to 40 pixels, 8 up to 96, and 16 above. ``freeze_patches`` keeps the random
    projection of the patches (MoCo v3). Of timm's options, ``reg_tokens`` adds register tokens
    (https://arxiv.org/abs/2309.16588), which are neither patches nor pooled, and ``drop_path_rate`` leaves
    out whole blocks at random in training, the later the likelier (https://arxiv.org/abs/1603.09382).

    >>> build("vit_nano", channels=3, size=32, reg_tokens=4, drop_path_rate=0.1).trunk.num_prefix_tokens
    5
    """
    from timm.models.vision_transformer import VisionTransformer

    side = size or 224
    patch = patch or (4 if side <= 40 else 8 if side <= 96 else 16)
    shape = {part: options.pop(part, value) for part, value in SIZES[name].items()}
    if shape["width"] % shape["heads"]:
        raise PolysenseError(
            f"{shape['heads']} heads cannot share a width of {shape['width']}; choose one they divide"
        )
    trunk = VisionTransformer(
        img_size=side,
        patch_size=patch,
        in_chans=channels,
        num_classes=0,
        embed_dim=shape["width"],
        depth=shape["depth"],
        num_heads=shape["heads"],
        **{"dynamic_img_size": True, **options},  # crops of other sizes interpolate the positions
    )
    encoder = ViTEncoder(trunk)
    if freeze_patches:
        encoder.freeze_stem()
    return encoder


def patchify(pictures: Tensor, patch: int | tuple[int, int]) -> Tensor:
    """Pictures ``[B, C, H, W]`` as patches ``[B, T, patch·patch·C]``, row by row, channels last in each.

    >>> patchify(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 1]
    tensor([2., 3., 6., 7.])
    """
    height, width = (patch, patch) if isinstance(patch, int) else patch
    down, across = _patch_grid(pictures.shape[-2], pictures.shape[-1], (height, width))
    batch, channels = pictures.shape[:2]
    cut = pictures.reshape(batch, channels, down, height, across, width)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, down * across, height * width * channels)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patchify`: ``[B, T, patch·patch·C]`` that lie on ``grid`` as ``[B, C, H, W]``.

    >>> pictures = torch.rand(2, 3, 8, 12)
    >>> torch.equal(unpatchify(patchify(pictures, 4), 4, (2, 3)), pictures)
    True
    """
    batch, (down, across) = len(patches), grid
    cut = patches.reshape(batch, down, across, patch, patch, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, down * patch, across * patch)


def _patch_grid(height: int, width: int, patch: tuple[int, int]) -> tuple[int, int]:
    if height % patch[0] or width % patch[1] or not height or not width:
        raise PolysenseError(
            f"pictures of {height}×{width} pixels cannot be cut into patches of {patch[0]}×{patch[1]}; "
            "choose a size that is a multiple of the patch, or another patch"
        )
    return height // patch[0], width // patch[1]


def _visible_places(mask: Tensor, shape: torch.Size) -> Tensor:
    """``[B, V]``: the places of the tokens that are not hidden, in order."""
    if mask.shape != shape:
        raise _wrong_mask(mask, shape)
    visible = ~mask.bool()
    counts = visible.sum(1)
    fewest, most = int(counts.min()), int(counts.max())
    if fewest != most or not most:
        raise PolysenseError(
            f"the mask leaves {fewest} to {most} tokens visible; leave as many in every row, at least 1"
        )
    return visible.nonzero()[:, 1].view(len(mask), most)


def _wrong_mask(mask: Tensor, shape: tuple[int, ...]) -> PolysenseError:
    return PolysenseError(f"the mask has shape {list(mask.shape)}; the tokens need {list(shape)}")
