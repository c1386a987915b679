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


class Pooled(nn.Module):
    """The head that is none: the pooled embedding itself.

    >>> Pooled()(Encoded(torch.ones(1, 2)))
    tensor([[1., 1.]])
    """

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, D]``."""
        return encoded.pooled


class PrototypeHead(nn.Module):
    """DINO's head: an MLP to a bottleneck, then the cosine to each of many learned prototypes.

    Until ``frozen_until`` of training is done the prototypes get a gradient of zeros, in DINO for the
    first epoch (zeros and not none: distributed training waits for every parameter's gradient).

    https://arxiv.org/abs/2104.14294

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


class OnTokens(nn.Module):
    """A module on every token: ``[B, T, K]``. With one linear layer it is SimMIM's and BEiT's decoder.

    >>> OnTokens(nn.Linear(8, 48))(Encoded(torch.randn(2, 8), torch.randn(2, 4, 8))).shape
    torch.Size([2, 4, 48])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, encoded: Encoded) -> Tensor:
        """What the module makes of ``encoded.tokens``, seen as one batch: BatchNorm reads them all alike."""
        if encoded.tokens is None:
            raise PolysenseError("this method reads tokens, and the encoder gives none; choose a ViT")
        read: Tensor = self.module(encoded.tokens.flatten(0, 1))
        return read.reshape(*encoded.tokens.shape[:2], -1)


class MaskedDecoder(nn.Module):
    """MAE's decoder: sees the visible tokens, predicts ``out`` values for every one.

    A learned mask token stands in for each hidden one, fixed sine-cosine positions on the encoder's
    ``grid`` (a plane ``(h, w)`` or a line ``(t,)``) tell them apart, and the pooled embedding, of width
    ``pooled_dim`` where that is not the tokens', goes in front, where MAE has its class token. The answer
    is ``[B, T, out]`` in the original order. Tokens from an encoder that replaces instead of dropping go
    in as they are.

    https://arxiv.org/abs/2111.06377

    >>> hide = torch.tensor([[False, True, True, False]])
    >>> encoded = Encoded(torch.randn(1, 8), torch.randn(1, 2, 8), (2, 2), hide)
    >>> MaskedDecoder(8, width=16, depth=1, heads=2, out=48)(encoded).shape
    torch.Size([1, 4, 48])
    """

    def __init__(
        self,
        token_dim: int,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
        *,
        out: int,
        pooled_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(token_dim, width)
        self.embed_pooled = nn.Linear(pooled_dim or token_dim, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = _transformer(width, depth, heads)
        self.predict = nn.Linear(width, out)
        self.apply(_xavier)

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, T, out]``: a prediction for every token, hidden or visible."""
        if encoded.tokens is None or encoded.grid is None:
            raise PolysenseError("the decoder needs an encoder with tokens on a grid; choose a ViT")
        tokens = self._in_place(self.embed(encoded.tokens), encoded.mask, math.prod(encoded.grid))
        positions = sine_cosine(encoded.grid, tokens.shape[-1], tokens.device).to(tokens.dtype)
        summary = self.embed_pooled(encoded.pooled)[:, None]
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


class PlacePredictor(nn.Module):
    """I-JEPA's predictor: from the visible tokens, what lies at the places that are asked for.

    For each of M groups of places a learned token with a fixed sine-cosine position stands for each
    place, and a transformer reads them together with the visible tokens. It belongs to the student alone.

    https://arxiv.org/abs/2301.08243

    >>> hide, ask = torch.tensor([[False, True, True, True]]), torch.tensor([[[0, 1, 0, 0], [0, 0, 0, 1]]])
    >>> encoded = Encoded(torch.randn(1, 8), torch.randn(1, 1, 8), (2, 2), hide)
    >>> PlacePredictor(8, width=16, depth=1, heads=2)(encoded, ask.bool()).shape
    torch.Size([2, 1, 8])
    """

    def __init__(self, token_dim: int, width: int = 384, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.embed = nn.Linear(token_dim, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = _transformer(width, depth, heads)
        self.predict = nn.Linear(width, token_dim)
        self.apply(_xavier)

    def forward(self, encoded: Encoded, asked: Tensor) -> Tensor:
        """``[B·M, N, token_dim]`` for ``asked[B, M, T]``, which is True at N places in each group."""
        tokens, grid, mask = encoded.tokens, encoded.grid, encoded.mask
        if tokens is None or grid is None or mask is None or tokens.shape[1] == mask.shape[1]:
            raise PolysenseError("the predictor needs an encoder that leaves hidden tokens out; choose a ViT")
        batch, groups, count = asked.shape
        embedded = self.embed(tokens)
        positions = sine_cosine(grid, embedded.shape[-1], tokens.device).to(embedded.dtype)
        place = torch.arange(count, device=tokens.device)
        shown = embedded + positions[place.expand(batch, -1)[~mask].view(batch, -1)]
        wanted = positions[place.expand(batch, groups, -1)[asked].view(batch * groups, -1)]
        wanted = wanted + self.mask_token.to(wanted.dtype)
        read = self.blocks(torch.cat([shown.repeat_interleave(groups, 0), wanted], 1))
        predicted: Tensor = self.predict(read[:, -wanted.shape[1] :])
        return predicted


def _transformer(width: int, depth: int, heads: int) -> nn.Sequential:
    """Pre-norm transformer blocks and a closing norm."""
    from timm.models.vision_transformer import Block

    if width % heads:
        raise PolysenseError(f"{heads} heads cannot share a width of {width}; choose one they divide")
    layer_norm: Any = partial(nn.LayerNorm, eps=1e-6)
    blocks = [Block(width, heads, qkv_bias=True, norm_layer=layer_norm) for _ in range(depth)]
    return nn.Sequential(*blocks, layer_norm(width))


def _xavier(part: nn.Module) -> None:
    if isinstance(part, nn.Linear):
        nn.init.xavier_uniform_(part.weight)
        nn.init.zeros_(part.bias)


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
