"""Encoders from torchvision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.convnet import fit_stem
from polysense.encoders.module import map_tokens
from polysense.encoders.probe import ProbedEncoder
from polysense.errors import PolysenseError

CLASSIFIERS = ("fc", "classifier", "heads", "head")
"""What torchvision's models call the part that names the class."""


class TorchvisionEncoder(ProbedEncoder):
    """A tower around a torchvision model without its classifier.

    Tokens are what goes into the final pooling (ResNet, ConvNeXt, EfficientNet, Swin, …) or a ViT's
    patches, and None where a model pools in another way or widens afterwards.
    """

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode pictures ``[B, C, H, W]``."""
        if mask is not None:
            raise self.cannot_hide()
        with self._listen() as heard:
            pooled = self.trunk(data).flatten(1)
        if heard and heard[0].ndim == 3:  # a ViT's, the class token first
            return Encoded(pooled, heard[0][:, 1:], self._patch_grid(data))
        if heard and heard[0].shape[1] == self.dim:
            return Encoded(pooled, map_tokens(heard[0]), tuple(heard[0].shape[2:]))
        return Encoded(pooled)

    def _patch_grid(self, data: Tensor) -> tuple[int, ...]:
        patch = self.trunk.patch_size
        return data.shape[-2] // patch, data.shape[-1] // patch

    @contextmanager
    def _listen(self) -> Iterator[list[Tensor]]:
        """Overhear the tokens on their way, leaving torchvision's own forward as it is."""
        heard: list[Tensor] = []
        pool, encoder = getattr(self.trunk, "avgpool", None), getattr(self.trunk, "encoder", None)
        if isinstance(pool, nn.Module):
            handle = pool.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
        elif isinstance(encoder, nn.Module):
            handle = encoder.register_forward_hook(lambda _, __, output: heard.append(output))
        else:
            yield heard
            return
        try:
            yield heard
        finally:
            handle.remove()


def build(
    name: str,
    *,
    channels: int,
    size: int | None,
    pretrained: bool,
    small_stem: bool | None = None,
    **options: Any,
) -> Encoder:
    """The torchvision model ``name`` as an encoder; see :func:`polysense.encoders.build`."""
    if name.startswith("vit_") and size is not None:
        options.setdefault("image_size", size)
    if name in ("googlenet", "inception_v3"):  # their side classifiers would change the output in training
        options.setdefault("aux_logits", False)
    trunk = _create(name, pretrained, options)
    dim = _remove_classifier(trunk)
    if channels != 3:
        _change_channels(trunk, channels, pretrained)
    fit_stem(trunk, channels=channels, size=size, pretrained=pretrained, small_stem=small_stem)
    return TorchvisionEncoder(trunk, dim, channels=channels, size=size)


def _create(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    from torchvision.models import get_model

    try:
        model: nn.Module = get_model(name, weights="DEFAULT" if pretrained else None, **options)
        return model
    except OSError as error:
        raise PolysenseError(
            f"the pretrained weights of 'torchvision/{name}' are not on this machine and could not be "
            f"fetched; put torchvision's file into {torch.hub.get_dir()}/checkpoints or pass pretrained=False"
        ) from error


def _remove_classifier(trunk: nn.Module) -> int:
    """Replace the last layer with weights, the one that names the class; returns the width before it."""
    part = next(name for name in CLASSIFIERS if hasattr(trunk, name))
    layers = trunk.get_submodule(part).named_modules(prefix=part)
    path, last = [(path, layer) for path, layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    trunk.set_submodule(path, nn.Identity())
    return last.in_features if isinstance(last, nn.Linear) else last.in_channels


def _change_channels(trunk: nn.Module, channels: int, pretrained: bool) -> None:
    """Let the first convolution take ``channels``, with the pretrained weights repeated or summed."""
    from timm.models import adapt_input_conv

    path, old = next((path, layer) for path, layer in trunk.named_modules() if isinstance(layer, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    if pretrained:
        new.load_state_dict({**old.state_dict(), "weight": adapt_input_conv(channels, old.weight.detach())})
    trunk.set_submodule(path, new)
