"""Encoders from timm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.convnet import fit_stem
from polysense.encoders.module import map_tokens
from polysense.encoders.probe import ProbedEncoder
from polysense.encoders.vit import ViTEncoder
from polysense.errors import PolysenseError, unknown


class TimmEncoder(ProbedEncoder):
    """A tower around a timm model without its classifier.

    Tokens are the last map or sequence before pooling, and None where they differ from ``pooled`` in
    width (MobileNetV3 widens after pooling) or the model has no such sequence. With ``dense_stage`` they are
    the map of that stage, as timm counts them or from the end: -2 is the one before the last, whose grid
    is twice as fine; ``pooled`` stays the model's own.

    Raises:
        PolysenseError: where the model has no such stage, or no stages.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        channels: int = 3,
        size: int | None = None,
        dense_stage: int | None = None,
    ) -> None:
        super().__init__(trunk, int(trunk.head_hidden_size), channels=channels, size=size)  # type: ignore[arg-type]
        self.dense_stage = dense_stage
        stages = len(getattr(trunk, "feature_info", ())) if hasattr(trunk, "forward_intermediates") else 0
        if dense_stage is not None and not -stages <= dense_stage < stages:
            choice = f"choose {-stages} to {stages - 1}" if stages else "leave it out"
            raise PolysenseError(
                f"{type(trunk).__name__} has {stages} stages, no dense_stage {dense_stage}; {choice}"
            )

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode pictures ``[B, C, H, W]``."""
        if mask is not None:
            raise self.cannot_hide()
        if self.dense_stage is not None:
            features, (stage,) = self.trunk.forward_intermediates(data, indices=[self.dense_stage])
            pooled = self.trunk.forward_head(features, pre_logits=True)
            return Encoded(pooled, map_tokens(stage), tuple(stage.shape[2:]))
        features = self.trunk.forward_features(data)
        pooled = self.trunk.forward_head(features, pre_logits=True)
        tokens, grid = self._tokens(features, data)
        return Encoded(pooled, tokens, grid)

    def _tokens(self, features: Any, data: Tensor) -> tuple[Tensor | None, tuple[int, ...] | None]:
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            return None, None
        if features.ndim == 4:
            if getattr(self.trunk, "output_fmt", "NCHW") == "NHWC":
                features = features.permute(0, 3, 1, 2)
            tokens = map_tokens(features)
            grid: tuple[int, ...] | None = tuple(features.shape[2:])
        else:
            prefix = getattr(self.trunk, "num_prefix_tokens", int(hasattr(self.trunk, "cls_token")))
            tokens, grid = features[:, prefix:], self._patch_grid(data)
            if grid is not None and math.prod(grid) != tokens.shape[1]:
                grid = None
        return (tokens, grid) if tokens.shape[-1] == self.dim and tokens.shape[1] else (None, None)

    def _patch_grid(self, data: Tensor) -> tuple[int, ...] | None:
        layout = getattr(getattr(self.trunk, "patch_embed", None), "dynamic_feat_size", None)
        return tuple(layout(tuple(data.shape[-2:]))) if layout is not None else None


def build(
    name: str,
    *,
    channels: int,
    size: int | None,
    pretrained: bool,
    small_stem: bool | None = None,
    dense_stage: int | None = None,
    freeze_patches: bool = False,
    **options: Any,
) -> Encoder:
    """The timm model ``name`` as an encoder; see :func:`polysense.encoders.build`."""
    _check_weights(name, pretrained)
    wanted = {"dynamic_img_size": True} if size is None else {"dynamic_img_size": True, "img_size": size}
    trunk = _create(name, wanted, pretrained=pretrained, in_chans=channels, num_classes=0, **options)
    fit_stem(trunk, channels=channels, size=size, pretrained=pretrained, small_stem=small_stem)
    encoder = wrap(trunk, channels=channels, size=size, dense_stage=dense_stage)
    if freeze_patches:
        if not isinstance(encoder, ViTEncoder):
            raise PolysenseError(f"{name!r} is no plain ViT with patches to freeze; leave out freeze_patches")
        encoder.freeze_stem()
    return encoder


def wrap(
    trunk: nn.Module, *, channels: int = 3, size: int | None = None, dense_stage: int | None = None
) -> Encoder:
    """The encoder for a timm model: a ViT that can hide tokens where the model is a plain ViT."""
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(trunk, VisionTransformer):
        return TimmEncoder(trunk, channels=channels, size=size, dense_stage=dense_stage)
    if dense_stage is not None:
        raise PolysenseError("a ViT has no stages but one grid of patches; leave out dense_stage")
    return ViTEncoder(trunk)


def _create(name: str, wanted: Mapping[str, Any], *, pretrained: bool, **options: Any) -> nn.Module:
    """Build with those of ``wanted`` that the model takes: timm tells only by refusing the others."""
    import timm

    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **{**wanted, **options})
        return model
    except TypeError as error:
        refused = [option for option in wanted if f"'{option}'" in str(error)]
        if refused:
            left = {option: value for option, value in wanted.items() if option not in refused}
            return _create(name, left, pretrained=pretrained, **options)
        raise
    except OSError as error:
        raise PolysenseError(
            f"the pretrained weights of {name!r} are not on this machine and could not be fetched; "
            f"bring the Hugging Face repository {_repository(name)!r} into its cache or pass pretrained=False"
        ) from error


def _check_weights(name: str, pretrained: bool) -> None:
    """A name may carry a tag for its weights, as in ``resnet18.a1_in1k``."""
    import timm

    architecture, _, tag = name.partition(".")
    if tag and name not in (tagged := timm.list_models(f"{architecture}.*", include_tags=True)):
        raise unknown("weights", name, tagged)
    if pretrained and not timm.models.is_model_pretrained(name):
        raise PolysenseError(
            f"timm has no pretrained weights of {name!r}; choose another model or pass pretrained=False"
        )


def _repository(name: str) -> str:
    from timm.models import get_pretrained_cfg

    found = get_pretrained_cfg(name)
    return str(found.hf_hub_id) if found else name
