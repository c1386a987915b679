"""One place that builds a backbone for pictures by its name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from polysense.encoders import capsnet, module, pixels, timm_models, torchvision_models, vit
from polysense.encoders.base import Encoder
from polysense.encoders.convnet import SmallConvEncoder, SmallConvNet
from polysense.errors import PolysenseError, unknown


def _small(
    *, channels: int, size: int | None, pool: int = 4, last_norm: bool = False, **options: Any
) -> Encoder:
    trunk = SmallConvNet(channels, last_relu=not last_norm, **options)
    return SmallConvEncoder(trunk, pool=pool, last_norm=last_norm)


OWN: dict[str, Callable[..., Encoder]] = {
    "small": _small,
    "capsnet": capsnet.build,
    **{name: partial(vit.build, name) for name in vit.SIZES},
    **{name: partial(pixels.build, name) for name in pixels.SIZES},
}
"""The encoders of this package by name."""


def build(
    spec: str | nn.Module,
    *,
    channels: int = 3,
    size: int | None = None,
    pretrained: bool = False,
    **options: Any,
) -> Encoder:
    """Build an encoder for pictures ``[B, channels, size, size]``.

    ``spec`` is a name: "small" (a conv net for CPUs; options ``widths``, ``strides``, ``pool``,
    ``last_norm``), "vit_nano", "vit_micro", "vit", "vit_small", "vit_base" (options ``width``, ``depth``,
    ``heads``, ``patch``, ``freeze_patches``), "capsnet" (options of :class:`.CapsNet`), "pixel_gpt_nano",
    "pixel_gpt_small", … (options of :class:`.PixelGPT`), any model of timm ("resnet18",
    "timm/convnext_atto") or of torchvision ("torchvision/swin_t"), each with its own library's options.
    Or it is your own ``nn.Module``.

    Conv nets and Swins of timm take ``dense_stage``: their tokens then are the map of that stage, counted
    as timm counts or from the end (-2: before the last, twice as fine), and ``pooled`` stays as it was.
    ViTs take timm's ``reg_tokens`` (register tokens) and ``drop_path_rate`` (stochastic depth).

    ResNets of up to 64 pixels get the 3×3 stem without max-pool, unless pretrained; ``small_stem``
    forces it or forbids it. Raises ``PolysenseError`` for unknown names and options, sizes that do
    not fit, and pretrained weights that cannot be had.

    >>> build("small", channels=1, size=28).dim
    1024
    >>> build("resnt18")
    Traceback (most recent call last):
    ...
    polysense.errors.PolysenseError: unknown encoder 'resnt18'; did you mean 'resnet18' or ...
    """
    if channels < 1 or (size is not None and size < 1):
        raise PolysenseError(
            f"pictures of {channels} channels and size {size} do not exist; use at least 1 of each"
        )
    if isinstance(spec, nn.Module):
        return _given(spec, channels, size, pretrained, options)
    try:
        return _named(spec, channels, size, pretrained, options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        option = str(error).rsplit("unexpected keyword argument", 1)[1].strip().split("'")[1]
        raise PolysenseError(f"the encoder {spec!r} has no option {option!r}; leave it out") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PolysenseError(
            f"the encoder {spec!r} cannot be built with {options or 'its defaults'}: {reason}"
        ) from error


def list_encoders() -> list[tuple[str, str]]:
    """What :func:`build` can build: names with a line on each, the own ones first.

    >>> list_encoders()[0]
    ('small', 'conv net of 4 layers for CPUs and small pictures, 1,024 wide')
    """
    rows = [("small", "conv net of 4 layers for CPUs and small pictures, 1,024 wide")]
    for name, shape in vit.SIZES.items():
        rows.append(
            (name, "ViT of width {width}, depth {depth}, {heads} heads; can hide tokens".format(**shape))
        )
    rows.append(("capsnet", "64 capsules of 8 numbers, dynamic or EM routing; pooled: their lengths"))
    for name, shape in pixels.SIZES.items():
        line = "pixel transformer of width {width}, depth {depth}, {side} x {side} pixels; for image_gpt"
        rows.append((name, line.format(**shape)))
    for library, names in {"timm": _timm_names(), "torchvision": _torchvision_names()}.items():
        families: dict[str, list[str]] = defaultdict(list)
        for name in names:
            families[_family(library, name)].append(name)
        for family, members in sorted(families.items()):
            count = f"{len(members)} model{'s' if len(members) > 1 else ''}"
            shown = ", ".join(members[:3]) + (", …" if len(members) > 3 else "")
            rows.append((f"{library} {family}", f"family of {count}: {shown}"))
    return rows


def _given(
    spec: nn.Module, channels: int, size: int | None, pretrained: bool, options: dict[str, Any]
) -> Encoder:
    if pretrained or options:
        given = ["pretrained"] * pretrained + sorted(options)
        raise PolysenseError(
            f"your own encoder {type(spec).__name__} comes as it is; leave out {', '.join(given)}"
        )
    if isinstance(spec, Encoder):
        return spec
    if type(spec).__module__.startswith("timm.models."):
        return timm_models.wrap(spec, channels=channels, size=size)
    return module.wrap(spec, channels, size)


def _named(spec: str, channels: int, size: int | None, pretrained: bool, options: dict[str, Any]) -> Encoder:
    if spec in OWN:
        if pretrained:
            raise PolysenseError(
                f"there are no pretrained weights of {spec!r}; leave out pretrained or name a timm model"
            )
        return OWN[spec](channels=channels, size=size, **options)
    library, name = _locate(spec)
    build_from = timm_models.build if library == "timm" else torchvision_models.build
    return build_from(name, channels=channels, size=size, pretrained=pretrained, **options)


def _locate(spec: str) -> tuple[str, str]:
    """The library that has a model of this name, and its name there; timm first."""
    from timm.models import is_model

    library, _, name = spec.replace("timm:", "timm/", 1).rpartition("/")
    if library in ("", "timm") and is_model(name):
        return "timm", name
    if library in ("", "torchvision") and name in _torchvision_names():
        return "torchvision", name
    known = [*OWN, *_timm_names(), *(f"torchvision/{name}" for name in _torchvision_names())]
    raise unknown("encoder", spec, known)


def _timm_names() -> list[str]:
    import timm

    return list(timm.list_models())


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))


def _family(library: str, name: str) -> str:
    """The source file that a model comes from, as both libraries sort their architectures."""
    from timm.models import model_entrypoint
    from torchvision.models import get_model_builder

    builder = model_entrypoint(name) if library == "timm" else get_model_builder(name)
    return str(builder.__module__).rsplit(".", 1)[1]
