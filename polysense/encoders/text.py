"""One place that builds an encoder for texts by its name."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from polysense.encoders import transformers_models
from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.module import as_encoded
from polysense.encoders.probe import in_eval_mode
from polysense.encoders.text_transformer import (
    TextTransformer,
    TextTransformerEncoder,
    Words,
    pool,
)
from polysense.errors import PolysenseError, unknown

SIZES = {
    "text_nano": {"width": 128, "depth": 2, "heads": 4},
    "text_small": {"width": 256, "depth": 4, "heads": 4},
}
"""Widths, depths and heads of the own transformers by name."""

_LIBRARY = "transformers:"


def build_text(
    spec: str | nn.Module, *, vocabulary: int, length: int, pretrained: bool = False, **options: Any
) -> Encoder:
    """Build an encoder for texts of up to ``length`` tokens out of ``vocabulary``.

    ``spec`` is "text_nano" or "text_small" (transformers for CPUs; options ``width``, ``depth``, ``heads``,
    ``dropout``, ``causal``), or ``transformers:NAME``, a text model from the Hub or a folder, with its
    published weights if ``pretrained``. Both take ``pooling``: "mean", "first" or "last". Or it is your own
    ``nn.Module``: a model of transformers, or one that makes ``[B, D]``, ``[B, T, D]`` or an
    :class:`~polysense.encoders.base.Encoded` of ``ids`` and ``attended``, ``[B, T]`` both.

    Raises:
        PolysenseError: for unknown names and options, values that do not fit, a model that was made for
            another tokenizer, and pretrained weights that cannot be had.

    >>> build_text("text_nano", vocabulary=1000, length=32).dim
    128
    """
    if isinstance(spec, nn.Module):
        given = ["pretrained"] * pretrained + sorted(options)
        if given:
            raise PolysenseError(
                f"your own encoder {type(spec).__name__} comes as it is; leave out {', '.join(given)}"
            )
        return _given(spec, vocabulary, length)
    build, known = transformers_models.build, ["pooling"]
    if spec in SIZES:
        if pretrained:
            raise PolysenseError(
                f"there are no pretrained weights of {spec!r}; leave out pretrained or name transformers:NAME"
            )
        known += list(inspect.signature(TextTransformer).parameters)[2:]
    elif not spec.startswith(_LIBRARY):
        raise unknown("encoder", spec, [*SIZES, f"{_LIBRARY}NAME"])
    for option in options:
        if option not in known:
            raise unknown(f"option of the encoder {spec!r}", option, known)
    if spec not in SIZES:
        name = spec.removeprefix(_LIBRARY)
        return build(name, vocabulary=vocabulary, length=length, pretrained=pretrained, **options)
    pooling = options.pop("pooling", "mean")
    trunk = TextTransformer(vocabulary, length, **{**SIZES[spec], **options})
    return TextTransformerEncoder(trunk, pooling=pooling)


def list_text_encoders() -> list[tuple[str, str]]:
    """What :func:`build_text` can build: names with a line on each, the own ones first.

    >>> list_text_encoders()[0]
    ('text_nano', 'transformer for texts of width 128, depth 2, 4 heads; can hide tokens')
    """
    line = "transformer for texts of width {width}, depth {depth}, {heads} heads; can hide tokens"
    rows = [(name, line.format(**shape)) for name, shape in SIZES.items()]
    return [*rows, (f"{_LIBRARY}NAME", "any text model of transformers, from the Hub or a folder")]


class OwnTextEncoder(Encoder):
    """A tower around your own module, called with ``ids`` and ``attended``; it cannot hide tokens."""

    def __init__(self, trunk: nn.Module, dim: int) -> None:
        super().__init__()
        self.trunk, self.dim = trunk, dim

    def forward(self, data: Words, mask: Tensor | None = None) -> Encoded:
        """Encode texts; tokens ``[B, T, D]`` are pooled by the mean of those attended to."""
        if mask is not None:
            raise self.cannot_hide()
        return _encoded(self.trunk(data["ids"], data["attended"]), data["attended"], self.trunk)

    def cannot_hide(self) -> PolysenseError:
        """The error for a method that hides tokens."""
        name = type(self.trunk).__name__
        return PolysenseError(
            f"your own encoder {name} cannot hide tokens; choose {' or '.join(map(repr, SIZES))}"
        )


def _encoded(output: Any, attended: Tensor, module: nn.Module) -> Encoded:
    if isinstance(output, Tensor) and output.ndim == 3:
        return Encoded(pool(output, attended, "mean"), output, (output.shape[1],))
    return as_encoded(output, type(module).__name__)


def _given(module: nn.Module, vocabulary: int, length: int) -> Encoder:
    """The user's own module as a tower; its width shows on two short texts."""
    if isinstance(module, Encoder):
        return module
    if transformers_models.is_of_transformers(module):
        return transformers_models.wrap(module, vocabulary=vocabulary, length=length)
    device = next(module.parameters(), torch.empty(0)).device
    ids = torch.zeros(2, min(4, length), dtype=torch.long, device=device)
    attended = torch.ones_like(ids, dtype=torch.bool)
    try:
        encoded = _encoded(in_eval_mode(module, ids, attended), attended, module)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise PolysenseError(
            f"the encoder {type(module).__name__} failed on ids and attended, [2, {ids.shape[1]}] both"
            f" ({reason}); make it take them"
        ) from error
    return OwnTextEncoder(module, encoded.pooled.shape[-1])
