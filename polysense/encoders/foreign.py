"""Encoders that were trained elsewhere, made to read the pictures of a run: teachers to distil from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.module import ModuleEncoder
from polysense.errors import PolysenseError, require

Statistics = tuple[Sequence[float], Sequence[float]]
"""The mean and standard deviation per channel that pictures are normalised by."""


class Translated(Encoder):
    """An encoder of pictures behind the size and the normalisation that it was trained on.

    Pictures ``[B, C, H, W]`` normalised by ``given`` are resized to ``size`` pixels a side and normalised
    by ``wanted``; a single channel is repeated as often as ``wanted`` has channels.

    >>> inner = ModuleEncoder(nn.Flatten(), dim=12)
    >>> encoder = Translated(inner, 2, given=([0.0], [1.0]), wanted=([0.5] * 3, [0.5] * 3))
    >>> encoder(torch.ones(1, 1, 4, 4)).pooled.unique()
    tensor([1.])
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: Encoder, size: int, *, given: Statistics, wanted: Statistics) -> None:
        super().__init__()
        self.encoder, self.dim, self.size = encoder, encoder.dim, size
        (mean, std), (own_mean, own_std) = (
            [torch.tensor(values).view(-1, 1, 1) for values in pair] for pair in (given, wanted)
        )
        if len(mean) not in (1, len(own_mean)):
            raise PolysenseError(
                f"{type(encoder.trunk).__name__} reads pictures of {len(own_mean)} channels and these have"
                f" {len(mean)}; choose a teacher for {len(mean)} channels"
            )
        self.register_buffer("scale", std / own_std)
        self.register_buffer("shift", (mean - own_mean) / own_std)

    @property
    def trunk(self) -> nn.Module:  # type: ignore[override]  # an attribute would be saved twice
        """The inner encoder's."""
        return self.encoder.trunk

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode pictures ``[B, C, H, W]``."""
        if mask is not None:
            raise self.cannot_hide()
        sides = (self.size, self.size)
        if data.shape[-2:] != sides:
            data = functional.interpolate(data, sides, mode="bilinear", antialias=True)
        encoded: Encoded = self.encoder(data * self.scale + self.shift)
        return encoded

    @property
    def token_dim(self) -> int:
        """The width of the inner encoder's tokens."""
        return self.encoder.token_dim


class TransformersTokens(nn.Module):
    """A vision model of transformers as a module from pictures to :class:`Encoded`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, data: Tensor) -> Encoded:
        """Encode ``[B, 3, H, W]``; patches are what lies behind the class and register tokens."""
        states = self.model(pixel_values=data).last_hidden_state
        if states.ndim == 4:
            return Encoded(states.mean((2, 3)), states.flatten(2).mT, tuple(states.shape[2:]))
        patch = self.model.config.patch_size
        grid = data.shape[-2] // patch, data.shape[-1] // patch
        patches = states[:, states.shape[1] - math.prod(grid) :]
        return Encoded(states[:, 0], patches, grid)


def from_transformers(name: str, given: Statistics) -> Encoder:
    """A vision model of transformers, from its hub or a folder, for pictures normalised by ``given``.

    ``pooled`` is the first token (the class token), or the mean of a conv net's map.

    Raises:
        PolysenseError: when the library or the weights are not there, or the model reads no pictures.
    """
    library: Any = require("transformers", "transformers", f"the encoder 'transformers:{name}'")
    try:
        model = library.AutoModel.from_pretrained(name)
        processor = library.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise no_weights(f"transformers:{name}", error) from error
    model = getattr(model, "vision_model", model)
    size = getattr(processor, "crop_size", None) or processor.size
    config = model.config
    width = config.hidden_size if hasattr(config, "hidden_size") else config.hidden_sizes[-1]
    return Translated(
        ModuleEncoder(TransformersTokens(model), int(width)),
        int(size["height"] if "height" in size else size["shortest_edge"]),
        given=given,
        wanted=(processor.image_mean, processor.image_std),
    )


def from_open_clip(name: str, given: Statistics) -> Encoder:
    """The picture tower of an open_clip model, named ``MODEL/WEIGHTS`` (``ViT-B-32/laion2b_s34b_b79k``).

    Raises:
        PolysenseError: when the library or the weights are not there.
    """
    library: Any = require("open_clip", "open_clip", f"the encoder 'open_clip:{name}'")
    model_name, _, weights = name.partition("/")
    if not weights:
        raise PolysenseError(
            f"'open_clip:{name}' names no weights; write open_clip:MODEL/WEIGHTS, such as"
            " 'open_clip:ViT-B-32/laion2b_s34b_b79k'"
        )
    try:
        tower = library.create_model(model_name, pretrained=weights).visual
    except (OSError, RuntimeError) as error:
        raise no_weights(f"open_clip:{name}", error) from error
    side = tower.image_size[0] if isinstance(tower.image_size, tuple | list) else tower.image_size
    encoder = ModuleEncoder(tower, int(tower.output_dim), grid=False)
    return Translated(encoder, int(side), given=given, wanted=(tower.image_mean, tower.image_std))


def no_weights(spec: str, error: Exception) -> PolysenseError:
    """The error for an encoder of another library that is not on this machine."""
    return PolysenseError(
        f"the encoder {spec!r} cannot be had ({str(error).splitlines()[0]}); check the name, or bring its"
        " weights onto this machine"
    )
