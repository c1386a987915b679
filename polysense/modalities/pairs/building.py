"""Towers for the parts of a sample, by name or from the user's own modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from polysense.encoders.attention_pool import QueryHead
from polysense.encoders.base import Encoder
from polysense.encoders.captioner import Captioner
from polysense.encoders.clip_models import clip_towers, is_clip
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError, unknown
from polysense.modalities.base import Modality

CAPTIONER = "captioner"
"""What stands behind the encoders of the parts where texts are written too."""

Spec = str | nn.Module


def build_towers(
    parts: Mapping[str, Modality],
    spec: Spec | Mapping[str, Spec],
    *,
    dim: int = 256,
    pretrained: bool = False,
    options: Mapping[str, Mapping[str, Any]],
) -> Towers:
    """A tower for each part, and a captioner where one is asked for.

    Args:
        parts: their modalities.
        spec: an encoder for each part, as a mapping or joined in the parts' order (``small+text_small``),
            with "captioner" behind them for one that writes the texts; a model of both, see
            :func:`.clip_towers`, whose ``dim`` is its own; or towers as they are.
        dim: width of the shared space.
        pretrained: start from published weights the towers for pictures, and those named LIBRARY:NAME.
        options: those of each part's encoder, by part, and of the captioner (:class:`.Captioner`).

    Raises:
        PolysenseError: when there is not one encoder for each part, for options of none, and as the parts'
            own encoders do.
    """
    if isinstance(spec, Towers):
        return spec
    if isinstance(spec, str) and is_clip(spec):
        return _clip(parts, spec, pretrained=pretrained, options=options)
    specs = dict(spec) if isinstance(spec, Mapping) else _in_order(parts, spec)
    writes = specs.pop(CAPTIONER, None) is not None
    for part in specs:
        if part not in parts:
            raise unknown("part with an encoder", part, parts)
    for part in options:
        if part not in (*parts, CAPTIONER):
            raise unknown("part with encoder options", part, [*parts, CAPTIONER])
    towers = {}
    for part, modality in parts.items():
        chosen = specs.get(part, modality.default_encoder)
        elsewhere = modality.name == "image" or (isinstance(chosen, str) and ":" in chosen)
        published = {"pretrained": True} if pretrained and elsewhere else {}
        towers[part] = modality.encoder(chosen, **published, **options.get(part, {}))
    if not writes:
        return Towers(towers, dim=dim)
    seen, captioner = _captioner(parts, towers, options.get(CAPTIONER, {}))
    heads = {seen: QueryHead(towers[seen].token_dim, dim)} if captioner.pools else {}
    return Towers(towers, heads, dim=dim, captioner=captioner)


def _clip(
    parts: Mapping[str, Modality], spec: str, *, pretrained: bool, options: Mapping[str, Mapping[str, Any]]
) -> Towers:
    """Both towers of a CLIP, for a picture and its text."""
    named = {modality.name: part for part, modality in parts.items()}
    if set(named) != {"image", "text"} or len(parts) != 2 or options:
        raise PolysenseError(
            f"{spec!r} is a model of a picture and a text as it is, without options, and the parts are"
            f" {', '.join(parts)}; name an encoder for each part instead"
        )
    image: Any = parts[named["image"]]
    text: Any = parts[named["text"]]
    words = text.tokenizer
    return clip_towers(
        spec,
        vocabulary=words.size,
        length=text.length,
        pad=words.pad,
        end=words.end,
        size=image.size,
        given=(image.mean, image.std),
        parts=(named["image"], named["text"]),
        pretrained=pretrained,
    )


def _in_order(parts: Mapping[str, Modality], spec: Spec) -> dict[str, Spec]:
    names = spec.split("+") if isinstance(spec, str) else []
    writes = names[-1:] == [CAPTIONER]
    names = names[:-1] if writes else names
    if len(names) != len(parts):
        given = repr(spec) if isinstance(spec, str) else f"the module {type(spec).__name__}"
        usual = "+".join(modality.default_encoder for modality in parts.values())
        raise PolysenseError(
            f"{given} does not name an encoder for each of the parts {', '.join(parts)}; give one each, as in"
            f" {usual!r}"
        )
    return {**dict(zip(parts, names, strict=True)), **({CAPTIONER: CAPTIONER} if writes else {})}


def _captioner(
    parts: Mapping[str, Modality], towers: Mapping[str, Encoder], options: Mapping[str, Any]
) -> tuple[str, Captioner]:
    """One that writes the first part with a tokenizer from the first one without, and that one's name."""
    texts = {part: modality for part, modality in parts.items() if hasattr(modality, "tokenizer")}
    seen = [part for part in parts if part not in texts]
    if not texts or not seen:
        raise PolysenseError(
            f"a captioner writes the text of something else, and the parts are {', '.join(parts)}; give it a"
            " picture and a text, or leave it out"
        )
    text: Any = next(iter(texts.values()))
    return seen[0], Captioner(towers[seen[0]].token_dim, text.tokenizer.size, text.length, **options)
