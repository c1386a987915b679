"""CLIP and SigLIP: towers made of open_clip's own modules, so that what is trained here is a model of its."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders import timm_models
from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.foreign import Statistics, Translated
from polysense.encoders.heads import Pooled
from polysense.encoders.text_transformer import TextEncoder, Words
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError, require

Config = Mapping[str, Any]
"""open_clip's ``model_cfg``: plain values from which it builds a model."""

SHAPE = "timm_model_args"
"""In ``vision_cfg``: the shape of a SigLIP tower that timm has no name for; open_clip cannot read it."""


class ClipImage(Encoder):
    """A picture tower of open_clip: its ``visual`` before the projection; tokens are the patches.

    ResNets and towers that pool by attention give no tokens. ``dim`` is the width of what the tower makes
    with its projection, or without one.
    """

    trunk: Any

    def __init__(self, visual: Any, dim: int) -> None:
        super().__init__()
        self.trunk, self.dim = visual, dim
        self._gives_patches = getattr(visual, "proj", None) is not None and visual.attn_pool is None
        if getattr(visual, "proj", None) is not None:
            self.dim = len(visual.proj)
            visual.proj = None
        if self._gives_patches:
            visual.output_tokens = True

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode pictures ``[B, 3, H, W]`` of the size that the tower was made for."""
        if mask is not None:
            raise self.cannot_hide()
        height, width = _pair(self.trunk.image_size)
        if tuple(data.shape[1:]) != (3, height, width):
            raise PolysenseError(
                f"this CLIP reads pictures of 3 channels and {height}×{width} pixels, not"
                f" {list(data.shape[1:])}; give pictures that size, and choose a method without local views"
            )
        if not self._gives_patches:
            return Encoded(self.trunk(data))
        pooled, tokens = self.trunk(data)
        return Encoded(pooled, tokens, tuple(self.trunk.grid_size))

    @property
    def token_dim(self) -> int:
        """The width of a patch."""
        return self.dim if self._gives_patches else super().token_dim


class ClipText(TextEncoder):
    """A text tower of open_clip before its projection.

    CLIP's is causal and pools at the end token, the last that is attended to. SigLIP's looks at padding as
    at any token and pools at the last place, so texts are filled up to the full length with ``pad``.
    """

    trunk: Any

    def __init__(self, text: Any, pad: int) -> None:
        pooling = "first" if text.pool_type == "first" else "last"
        text.text_projection = None
        super().__init__(
            text,
            dim=text.width,
            depth=text.transformer.layers,
            length=text.context_length,
            pooling=pooling,
        )
        self.pad = pad

    @property
    def sees_padding(self) -> bool:
        """Whether padding is a token like any other."""
        return self.trunk.attn_mask is None or self.trunk.pool_type == "last"

    @property
    def embeddings(self) -> nn.Embedding:
        """The vectors of the vocabulary."""
        words: nn.Embedding = self.trunk.token_embedding
        return words

    def forward(self, data: Words, mask: Tensor | None = None) -> Encoded:
        """Encode texts."""
        missing = self.length - data["ids"].shape[1]
        if self.sees_padding and mask is not None:
            raise self.cannot_hide()
        if self.sees_padding and missing >= 0:
            ids = functional.pad(data["ids"], (0, missing), value=self.pad)
            data = {"ids": ids, "attended": torch.ones_like(ids, dtype=torch.bool)}
        return super().forward(data, mask)

    def through(self, vectors: Tensor, attended: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The tokens after the closing norm, and what each block has made before it."""
        trunk, places = self.trunk, vectors.shape[1]
        causal = None if trunk.attn_mask is None else trunk.attn_mask[:places, :places]
        tokens, layers = trunk.transformer.forward_intermediates(
            vectors + trunk.positional_embedding[:places], attn_mask=causal
        )
        return trunk.ln_final(tokens), layers


class Clip(Towers):
    """A model of open_clip as two towers with the projections as their heads.

    Args:
        config: open_clip's ``model_cfg``; see also :data:`SHAPE`.
        parts: what the samples' picture and text are called.
        given: mean and standard deviation that the pictures are normalised by.
        wanted: those that the model was trained with; pictures are then brought to them, and to its size.
        model: a ``CustomTextCLIP`` of open_clip, which is taken apart; by default a new one.

    Raises:
        PolysenseError: when open_clip is not there.
    """

    def __init__(
        self,
        config: Config,
        *,
        parts: tuple[str, str] = ("image", "text"),
        given: Statistics | None = None,
        wanted: Statistics | None = None,
        model: Any = None,
    ) -> None:
        model = _open_clip_model(config) if model is None else model
        bias = 0.0 if model.logit_bias is None else model.logit_bias.item()
        image, image_head = _image_tower(config, model.visual)
        text, text_head = _text_tower(config, model.text)
        if wanted is not None and given is not None:
            image = Translated(image, _image_size(config), given=given, wanted=wanted)
        super().__init__(
            dict(zip(parts, (image, text), strict=True)),
            dict(zip(parts, (image_head, text_head), strict=True)),
            dim=int(config["embed_dim"]),
            logit_scale=model.logit_scale.item(),
            logit_bias=bias,
        )
        self.learned = False
        self.config, self.parts, self.wanted = copy.deepcopy(dict(config)), parts, wanted

    @property
    def image(self) -> Encoder:
        """The picture tower, for pictures as the model itself wants them."""
        tower = self.towers[self.parts[0]]
        inner: Encoder = tower.encoder if isinstance(tower, Translated) else tower  # type: ignore[assignment]
        return inner

    @property
    def text(self) -> ClipText:
        """The text tower."""
        tower = self.towers[self.parts[1]]
        assert isinstance(tower, ClipText)
        return tower

    @property
    def image_size(self) -> int:
        """The side of the pictures that the model itself reads, in pixels."""
        return _image_size(self.config)

    def open_clip_state(self) -> dict[str, Tensor]:
        """The weights by their names in open_clip's ``CustomTextCLIP``; the tensors share their memory."""
        image = "visual." if isinstance(self.image, ClipImage) else "visual.trunk."
        state = {image + name: tensor for name, tensor in self.image.trunk.state_dict().items()}
        state |= {f"text.{name}": tensor for name, tensor in self.text.trunk.state_dict().items()}
        names = ("visual.proj", "text.text_projection")
        for part, name in zip(self.parts, names, strict=True):
            state |= _projection(self.heads[part], name)
        state["logit_scale"] = self.logit_scale.detach()
        if self.logit_bias != 0 or self.config.get("init_logit_bias") is not None:
            state["logit_bias"] = self.logit_bias.detach()
        return state

    def load_open_clip_state(self, state: Mapping[str, Tensor]) -> None:
        """Take weights over that are named as in :meth:`open_clip_state`.

        Raises:
            PolysenseError: when they are not those of such a model.
        """
        own = self.open_clip_state()
        if own.keys() != state.keys():
            raise PolysenseError(
                f"these weights are not those of this CLIP: only one has {min(own.keys() ^ state.keys())!r};"
                " take a model of the same shape"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name].reshape(tensor.shape))
        self.learned = True


def _open_clip_model(config: Config) -> Any:
    """A new ``CustomTextCLIP``, whose text tower is a module of its own."""
    library: Any = require("open_clip", "open_clip", "a CLIP model")
    settings = {name: copy.deepcopy(value) for name, value in config.items() if name != "custom_text"}
    if SHAPE in config["vision_cfg"]:
        # open_clip makes towers in pairs only, and knows timm's sizes alone: this one is put aside
        settings["vision_cfg"] = {"layers": 0, "width": 64, "image_size": 1, "patch_size": 1}
    return library.CustomTextCLIP(**settings)


def _image_tower(config: Config, visual: Any) -> tuple[Encoder, nn.Module]:
    """The picture tower and the projection behind it."""
    vision = config["vision_cfg"]
    if SHAPE in vision:
        timm: Any = require("timm", "timm", "a SigLIP model")
        size = {"img_size": vision["image_size"], **vision[SHAPE]}
        return timm_models.wrap(timm.create_model(vision["timm_model_name"], num_classes=0, **size)), Pooled()
    if vision.get("timm_proj") in ("linear", "mlp", "none"):
        head = _as_head(visual.head if len(visual.head) else None)
        return timm_models.wrap(visual.trunk, size=_image_size(config)), head
    head = _as_head(getattr(visual, "proj", None))
    return ClipImage(visual, int(config["embed_dim"])), head


def _text_tower(config: Config, text: Any) -> tuple[Encoder, nn.Module]:
    head = _as_head(text.text_projection)
    return ClipText(text, config["text_cfg"].get("pad_id", 0)), head


def _as_head(projection: nn.Parameter | nn.Module | None) -> nn.Module:
    """A projection, which open_clip keeps as a matrix ``[width, dim]`` or a layer, as a head."""
    if projection is None:
        return Pooled()
    if isinstance(projection, nn.Parameter):
        layer = nn.Linear(len(projection), projection.shape[1], bias=False)
        layer.weight = nn.Parameter(projection.detach().T.contiguous())
        projection = layer
    return nn.Sequential(Pooled(), projection)


def _projection(head: nn.Module, name: str) -> dict[str, Tensor]:
    """What :func:`_as_head` has made a head of, as open_clip names it."""
    if isinstance(head, Pooled):
        return {}
    assert isinstance(head, nn.Sequential)
    layer = head[1]
    if isinstance(layer, nn.Linear) and layer.bias is None:
        return {name: layer.weight.detach().T}
    before = name if isinstance(layer, nn.Linear) else "visual.head"
    return {f"{before}.{inner}": tensor for inner, tensor in layer.state_dict().items()}


def _image_size(config: Config) -> int:
    height, width = _pair(config["vision_cfg"].get("image_size", 224))
    if height != width:
        raise PolysenseError(f"this CLIP reads pictures of {height}×{width} pixels; choose one for squares")
    return height


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)
