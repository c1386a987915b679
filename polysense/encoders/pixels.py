"""Pictures as sequences of colours: a transformer whose tokens are pixels (image GPT)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.transformer import Block, Memory
from polysense.errors import PolysenseError

SIZES = {
    "pixel_gpt_nano": {"width": 64, "depth": 4, "heads": 2, "side": 16},
    "pixel_gpt_small": {"width": 512, "depth": 24, "heads": 8, "side": 32},
    "pixel_gpt_medium": {"width": 1024, "depth": 36, "heads": 8, "side": 32},
    "pixel_gpt_large": {"width": 1536, "depth": 48, "heads": 16, "side": 32},
}
"""Widths, depths, heads and pixels a side by name; all but the nano are the paper's S, M and L."""

FindColours = Callable[[Tensor, int], Tensor]
"""The most telling colours ``[count, C]`` of pixels ``[N, C]``."""

_PICTURES = 32  # compared with the palette at once: 16 MB of distances at 16 x 16 pixels and 512 colours


class PixelGPT(nn.Module):
    """A transformer over the colours of ``side`` x ``side`` pixels, read row by row.

    ``palette`` ``[colours, channels]`` holds the colours, on the scale of the pictures that the encoder is
    given; until it is learned it is random. With ``causal`` the output at a pixel has seen the pixels
    before it and none other: a start vector goes in front and the last pixel is left off. Without, a
    pixel sees all others, and hidden ones are zeros. ``predict`` gives the logits of a pixel's colour.

    https://proceedings.mlr.press/v119/chen20s.html

    >>> model = PixelGPT(side=4, width=8, depth=2, heads=2, colours=16)
    >>> tokens, middle = model(torch.zeros(1, 16, dtype=torch.long))
    >>> tokens.shape, middle.shape, model.predict(tokens).shape
    (torch.Size([1, 16, 8]), torch.Size([1, 16, 8]), torch.Size([1, 16, 16]))
    """

    palette: Tensor
    learned: Tensor

    def __init__(
        self,
        channels: int = 3,
        *,
        side: int = 32,
        width: int = 512,
        depth: int = 24,
        heads: int = 8,
        colours: int = 512,
        causal: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {"side": side, "depth": depth, "colours": colours}.items():
            if value < 1:
                raise PolysenseError(f"the pixel transformer's {name} is {value}; use at least 1")
        self.side, self.causal = side, causal
        self.register_buffer("palette", torch.randn(colours, channels))
        self.register_buffer("learned", torch.tensor(False))
        self.embed = nn.Embedding(colours, width)
        self.places = nn.Parameter(0.01 * torch.randn(side**2, width))
        self.start = nn.Parameter(0.02 * torch.randn(width)) if causal else None
        self.blocks = nn.ModuleList(Block(width, heads, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, colours, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.zeros_(self.predict.weight)  # all colours are equally likely at first

    def forward(self, colours: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs and middle features, ``[B, T, width]`` each, of ``colours[B, T]``, ``mask[B, T]`` hidden.

        The middle features are what the block behind the first half of them attends to: its input, normed.
        """
        x = self.embed(colours)
        if mask is not None:
            x = x * ~mask[..., None]
        if self.start is not None:
            x = torch.cat([self.start.to(x.dtype).expand(len(x), 1, -1), x[:, :-1]], dim=1)
        x = x + self.places
        for number, block in enumerate(self.blocks):
            if number == len(self.blocks) // 2:
                middle = block.norm1(x)  # type: ignore[operator]
            x = block(x, self.causal)
        return self.norm(x), middle

    def proceed(self, colours: Tensor, memories: list[Memory]) -> Tensor:
        """Logits ``[B, colours]`` of the pixel behind ``colours[B, T]``, given what the memories hold.

        Each block has its memory. At first they are empty, and ``colours`` (or none of them) begin a
        picture; then they take one pixel at a time.
        """
        assert self.start is not None
        x, before = self.embed(colours), len(memories[0])
        if not before:
            x = torch.cat([self.start.expand(len(x), 1, -1), x], dim=1)
        x = x + self.places[before : before + x.shape[1]]
        for block, memory in zip(self.blocks, memories, strict=True):
            x = block(x, True, memory)
        logits: Tensor = self.predict(self.norm(x[:, -1]))
        return logits


class PixelEncoder(Encoder):
    """The pixel transformer as a tower: its tokens are pixels.

    Pictures are shrunk to ``side`` x ``side`` pixels and each pixel to the nearest colour of the palette.
    ``pooled`` is the mean over pixels of the middle features, where the paper found what a linear probe
    reads best; ``tokens`` are the outputs. A causal one hides every pixel from those before it anyway
    and takes no mask.

    >>> encoder = build("pixel_gpt_nano", channels=3, depth=2, side=8, causal=False)
    >>> encoded = encoder(torch.rand(2, 3, 32, 32))
    >>> encoded.pooled.shape, encoded.tokens.shape, encoded.grid
    (torch.Size([2, 64]), torch.Size([2, 64, 64]), (8, 8))
    """

    trunk: PixelGPT

    def __init__(self, trunk: PixelGPT) -> None:
        super().__init__()
        self.trunk, self.dim = trunk, trunk.embed.embedding_dim
        self._find: FindColours | None = None

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode pictures ``[B, C, H, W]``; ``mask`` is ``[B, T]``, True at the pixels to hide."""
        if mask is not None and self.trunk.causal:
            raise self.cannot_hide()
        if self.training and self._find is not None and not self.trunk.learned:
            pixels = self._shrink(data).flatten(0, 1)
            self.trunk.palette.copy_(self._find(pixels, len(self.trunk.palette)))
            self.trunk.learned.fill_(True)
        tokens, middle = self.trunk(self.colours(data), mask)
        return Encoded(middle.mean(1), tokens, (self.trunk.side,) * 2, mask)

    def learn_palette(self, find: FindColours) -> None:
        """From now on take the palette from the first batch that is trained on, where it has none yet.

        ``find(pixels, count)`` gives the ``[count, C]`` colours of pixels ``[N, C]``.
        """
        self._find = find

    @torch.no_grad()
    def colours(self, data: Tensor) -> Tensor:
        """``[B, T]``: which colour of the palette is nearest to each pixel of the shrunk pictures."""
        parts = self._shrink(data).split(_PICTURES)
        return torch.cat([torch.cdist(part, self.trunk.palette.float()).argmin(-1) for part in parts])

    def paint(self, colours: Tensor) -> Tensor:
        """Pictures ``[B, C, side, side]`` of ``colours[B, T]``: the inverse of :meth:`colours`."""
        pixels = self.trunk.palette[colours].transpose(1, 2)
        return pixels.reshape(*pixels.shape[:2], self.trunk.side, self.trunk.side)

    def grid(self, data: Tensor) -> tuple[int, int]:
        """The pixels of the shrunk picture: down, across."""
        if self.trunk.causal:
            raise self.cannot_hide()
        return self.trunk.side, self.trunk.side

    @property
    def token_dim(self) -> int:
        """The width of a pixel's output, that of the pooled features."""
        return self.dim

    def learn_mask_token(self) -> None:
        """Nothing to learn: a hidden pixel is zeros with its place added."""
        if self.trunk.causal:
            raise self.cannot_hide()

    def settle(self) -> None:
        """Put away how the palette was found."""
        self._find = None

    def cannot_hide(self) -> PolysenseError:
        """The error for a method that hides tokens in a way that this encoder does not know."""
        return PolysenseError(
            "a pixel transformer has no patches to leave out, and a causal one hides nothing; choose a ViT,"
            " such as 'vit_nano', or for methods that only replace what is hidden causal=False"
        )

    def _shrink(self, data: Tensor) -> Tensor:
        """``[B, T, C]``: the means of ``side`` x ``side`` parts of pictures."""
        small = functional.adaptive_avg_pool2d(data.float(), self.trunk.side)
        return small.flatten(2).transpose(1, 2)


def build(name: str, *, channels: int, size: int | None = None, **options: Any) -> PixelEncoder:
    """A pixel transformer by its name; options are those of :class:`PixelGPT`."""
    return PixelEncoder(PixelGPT(channels, **{**SIZES[name], **options}))
