"""What sits on an encoder: a head is an ``nn.Module`` from ``Encoded`` to a tensor.

A predictor goes from tensor to tensor: :func:`mlp` makes those.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded
from polysense.errors import PolysenseError

Norm = Literal["batch", "none"]
LastNorm = Literal[False, "batch", "batch_no_affine"]


def mlp(
    dim: int,
    hidden: int,
    out: int,
    layers: int = 2,
    *,
    norm: Norm = "batch",
    activation: type[nn.Module] = nn.ReLU,
    last_norm: LastNorm = False,
    last_bias: bool = True,
) -> nn.Sequential:
    """Linear layers ``dim → hidden → … → out`` with a normalisation and an activation between them.

    A layer before BatchNorm has no bias, for the norm would subtract it. ``last_norm`` puts BatchNorm
    after the last layer: "batch", or "batch_no_affine" as in SimSiam and MoCo v3. ``last_bias=False``
    is for Barlow Twins and VICReg.

    >>> mlp(512, 2048, 128)(torch.randn(4, 512)).shape
    torch.Size([4, 128])
    """
    if layers < 1:
        raise PolysenseError(f"an MLP of {layers} layers is none; use at least 1")
    sizes = [dim] + [hidden] * (layers - 1) + [out]
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        parts.append(nn.Linear(inputs, outputs, bias=norm == "none"))
        if norm == "batch":
            parts.append(nn.BatchNorm1d(outputs))
        parts.append(activation())
    parts.append(nn.Linear(sizes[-2], out, bias=last_bias and not last_norm))
    if last_norm:
        parts.append(nn.BatchNorm1d(out, affine=last_norm == "batch"))
    return nn.Sequential(*parts)


class Projector(nn.Module):
    """An :func:`mlp` on the pooled embedding: ``[B, out]``. Options are those of :func:`mlp`.

    >>> Projector(512, 2048, 128)(Encoded(torch.randn(4, 512))).shape
    torch.Size([4, 128])
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        out: int,
        layers: int = 2,
        *,
        norm: Norm = "batch",
        activation: type[nn.Module] = nn.ReLU,
        last_norm: LastNorm = False,
        last_bias: bool = True,
    ) -> None:
        super().__init__()
        self.mlp = mlp(
            dim,
            hidden,
            out,
            layers,
            norm=norm,
            activation=activation,
            last_norm=last_norm,
            last_bias=last_bias,
        )

    def forward(self, encoded: Encoded) -> Tensor:
        """The projection of ``encoded.pooled``."""
        projected: Tensor = self.mlp(encoded.pooled)
        return projected


class PrototypeHead(nn.Module):
    """DINO's head: an MLP to a bottleneck, then the cosine to each of many learned prototypes.

    Until ``frozen_until`` of training is done the prototypes get a gradient of zeros, in DINO for the
    first epoch (zeros and not none: distributed training waits for every parameter's gradient).
    SwAV's head is the same with ``layers=2, norm="batch", activation=nn.ReLU``.

    https://arxiv.org/abs/2104.14294, https://arxiv.org/abs/2006.09882

    >>> head = PrototypeHead(192, hidden=64, bottleneck=16, prototypes=100)
    >>> bool(head(Encoded(torch.randn(4, 192))).abs().max() <= 1)
    True
    """

    def __init__(
        self,
        dim: int,
        hidden: int = 2048,
        bottleneck: int = 256,
        prototypes: int = 65536,
        layers: int = 3,
        *,
        norm: Norm = "none",
        activation: type[nn.Module] = nn.GELU,
        frozen_until: float = 0.0,
    ) -> None:
        super().__init__()
        self.mlp = mlp(dim, hidden, bottleneck, layers, norm=norm, activation=activation)
        self.prototypes = nn.Linear(bottleneck, prototypes, bias=False)
        self.frozen_until = frozen_until
        self.frozen = frozen_until > 0
        for part in self.mlp:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def at(self, progress: float) -> None:
        """Freeze or free the prototypes: ``progress`` is steps done over all steps."""
        self.frozen = progress < self.frozen_until

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, prototypes]``: the cosines of the pooled embedding."""
        return self.cosines(encoded.pooled)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """``[..., prototypes]`` for embeddings ``[..., dim]``: tokens too, as iBOT shares its head."""
        weight = self.prototypes.weight
        if self.frozen:
            weight = weight.detach() + 0 * weight
        # eps 1e-6: the default 1e-12 is zero in float16
        bottleneck = functional.normalize(self.mlp(embeddings), dim=-1, eps=1e-6)
        return functional.linear(bottleneck, functional.normalize(weight, dim=-1, eps=1e-6))


class MaskedDecoder(nn.Module):
    """MAE's decoder: sees the visible tokens, predicts ``out`` values for every one.

    A learned mask token stands in for each hidden one, fixed sine-cosine positions on the encoder's
    ``grid`` (a plane ``(h, w)`` or a line ``(t,)``) tell them apart, and the pooled embedding goes in
    front, where MAE has its class token. The answer is ``[B, T, out]`` in the original order. Tokens
    from an encoder that replaces instead of dropping go in as they are.

    https://arxiv.org/abs/2111.06377

    >>> hide = torch.tensor([[False, True, True, False]])
    >>> encoded = Encoded(torch.randn(1, 8), torch.randn(1, 2, 8), (2, 2), hide)
    >>> MaskedDecoder(8, width=16, depth=1, heads=2, out=48)(encoded).shape
    torch.Size([1, 4, 48])
    """

    def __init__(
        self, encoder_dim: int, width: int = 512, depth: int = 8, heads: int = 16, *, out: int
    ) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        if width % heads:
            raise PolysenseError(
                f"{heads} heads cannot share a decoder width of {width}; choose one they divide"
            )
        layer_norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.embed = nn.Linear(encoder_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        blocks = [Block(width, heads, qkv_bias=True, norm_layer=layer_norm) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks, layer_norm(width))
        self.predict = nn.Linear(width, out)
        nn.init.normal_(self.mask_token, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, T, out]``: a prediction for every token, hidden or visible."""
        if encoded.tokens is None or encoded.grid is None:
            raise PolysenseError("the decoder needs an encoder with tokens on a grid; choose a ViT")
        tokens = self._in_place(self.embed(encoded.tokens), encoded.mask, math.prod(encoded.grid))
        positions = sine_cosine(encoded.grid, tokens.shape[-1], tokens.device).to(tokens.dtype)
        summary = self.embed(encoded.pooled)[:, None]
        decoded = self.blocks(torch.cat([summary, tokens + positions], dim=1))
        predicted: Tensor = self.predict(decoded[:, 1:])
        return predicted

    def _in_place(self, tokens: Tensor, mask: Tensor | None, count: int) -> Tensor:
        """``[B, T, width]``: visible tokens where they were, mask tokens where something was hidden."""
        if tokens.shape[1] == count:
            return tokens
        places = tokens.shape[1] if mask is None else mask.shape[1]
        if mask is None or places != count:
            raise PolysenseError(
                f"the encoder's grid has {count} places and its output {places}; they must agree"
            )
        filled = self.mask_token.to(tokens.dtype).expand(len(tokens), count, -1)
        return filled.masked_scatter(~mask.bool()[..., None], tokens)


def sine_cosine(grid: tuple[int, ...], width: int, device: torch.device | None = None) -> Tensor:
    """``[T, width]``: the fixed positions of the Transformer, for a line ``(t,)`` or a plane ``(h, w)``.

    Each of a plane's two dimensions gets half of the width.

    >>> sine_cosine((3,), 4)[0]
    tensor([0., 0., 1., 1.])
    """
    if width % (2 * len(grid)):
        raise PolysenseError(
            f"positions on a grid of {len(grid)} dimensions need a width divisible by {2 * len(grid)}, "
            f"not {width}"
        )
    share = width // len(grid)
    rates = 10000.0 ** (-torch.arange(0, share, 2, device=device) / share)
    axes = torch.meshgrid(*(torch.arange(side, device=device) for side in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * rates for axis in axes]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
