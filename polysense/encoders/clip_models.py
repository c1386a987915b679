"""CLIP models by their names: our own small ones, those of open_clip, and those of transformers."""

from __future__ import annotations

import copy
import logging
from typing import Any

from polysense.encoders import clip_twins
from polysense.encoders.clip import SHAPE, Clip, Config
from polysense.encoders.foreign import Statistics, no_weights
from polysense.errors import PolysenseError, require, unknown

SIZES: dict[str, dict[str, Any]] = {
    "clip_nano": {
        "embed_dim": 128,
        "vision_cfg": {"layers": 3, "width": 128, "head_width": 32, "patch_size": 8},
        "text_cfg": {"layers": 2, "width": 128, "heads": 4, "pool_type": "eos"},
    },
    "siglip_nano": {
        "embed_dim": 128,
        "custom_text": True,
        "init_logit_bias": -10.0,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_siglip_224",
            "timm_pool": "map",
            "timm_proj": "none",
            SHAPE: {"embed_dim": 128, "depth": 3, "num_heads": 4, "patch_size": 8},
        },
        "text_cfg": {
            "layers": 2,
            "width": 128,
            "heads": 4,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    },
}
"""open_clip's ``model_cfg`` of the own models, without what the data decide."""

PATCH = 8
SPARE_IDS = 1024
"""Rows that a model's table of embeddings may have beyond its tokenizer's tokens, to be a round number."""

_LIBRARIES = ("open_clip:", "transformers:")


def is_clip(spec: str) -> bool:
    """Whether this names a model of both pictures and texts, and not an encoder for each.

    >>> is_clip("clip_nano"), is_clip("open_clip:ViT-B-32"), is_clip("small+transformers:roberta-base")
    (True, True, False)
    """
    return spec in SIZES or (spec.startswith(_LIBRARIES) and "+" not in spec)


def list_clips() -> list[tuple[str, str]]:
    """What :func:`clip_towers` can build: names with a line on each."""
    return [
        ("clip_nano", "small ViT and causal text transformer for CPUs; goes to open_clip and transformers"),
        ("siglip_nano", "the same as SigLIP has them, pooling by attention; goes to transformers"),
        ("open_clip:NAME/WEIGHTS", "a model of open_clip, or of a folder as open_clip:local-dir:FOLDER"),
        ("transformers:NAME", "a CLIP or SigLIP of transformers, from the Hub or a folder"),
    ]


def clip_towers(
    spec: str,
    *,
    vocabulary: int,
    length: int,
    pad: int,
    end: int | None,
    size: int = 32,
    given: Statistics | None = None,
    parts: tuple[str, str] = ("image", "text"),
    pretrained: bool = False,
) -> Clip:
    """A picture tower and a text tower that belong together, with their projections and logit scale.

    Args:
        spec: "clip_nano" or "siglip_nano", small ones for CPUs that are models of open_clip or transformers
            by construction; ``open_clip:NAME``, with published weights ``open_clip:NAME/WEIGHTS``, or
            ``open_clip:local-dir:FOLDER``; ``transformers:NAME``, a CLIP or SigLIP from the Hub or a folder.
        vocabulary, length: tokens of the tokenizer, and of a text at most.
        pad, end: the ids of the tokenizer's padding and end tokens.
        size: side of the pictures in pixels, a multiple of 8 for the own models.
        given: mean and standard deviation that the pictures are normalised by; the models of other
            libraries bring them to their own, and to their own size.
        parts: what the samples' picture and text are called.
        pretrained: with the published weights.

    Raises:
        PolysenseError: for a model that cannot be had or does not fit the tokenizer, and for values that do
            not fit.
    """
    if spec in SIZES:
        if pretrained:
            raise PolysenseError(f"there are no pretrained weights of {spec!r}; leave out pretrained")
        if end is None:
            raise PolysenseError(f"{spec} pools at the end token, and the tokenizer has none; choose another")
        own = _own(spec, size=size, vocabulary=vocabulary, length=length, end=end)
        return Clip(_with_pad(own, pad), parts=parts)
    library, _, name = spec.partition(":")
    read = {"open_clip": _of_open_clip, "transformers": _of_transformers}.get(library)
    if read is None:
        raise unknown("model of pictures and texts", spec, [*SIZES, *(f"{one}NAME" for one in _LIBRARIES)])
    try:
        config, source, wanted = read(name, pretrained)
    except (OSError, RuntimeError, ValueError) as error:
        raise no_weights(spec, error) from error
    _check(spec, config, vocabulary, length)
    config = _with_pad(config, pad)
    if library == "open_clip":
        towers = Clip(config, parts=parts, given=given, wanted=wanted, model=source)
    else:
        towers = Clip(config, parts=parts, given=given, wanted=wanted)
        if source is not None:
            clip_twins.load(towers, source)
    towers.learned = pretrained
    return towers


def _own(spec: str, *, size: int, vocabulary: int, length: int, end: int) -> dict[str, Any]:
    if size < PATCH or size % PATCH:
        raise PolysenseError(
            f"{spec} cuts pictures into patches of {PATCH} pixels, and {size} is no multiple of that; choose"
            f" size {PATCH * max(1, round(size / PATCH))}"
        )
    config = copy.deepcopy(SIZES[spec])
    config["vision_cfg"]["image_size"] = size
    config["text_cfg"] |= {"vocab_size": vocabulary, "context_length": length, "eos_id": end}
    return config


def _with_pad(config: Config, pad: int) -> dict[str, Any]:
    return {**config, "text_cfg": {**config["text_cfg"], "pad_id": pad}}


def _check(spec: str, config: Config, vocabulary: int, length: int) -> None:
    """Refuse a model that was made for another tokenizer, or for shorter texts."""
    known = config["text_cfg"].get("vocab_size", 49408)
    places = config["text_cfg"].get("context_length", 77)
    if not 0 <= known - vocabulary <= SPARE_IDS:
        library, _, name = spec.partition(":")
        own = f"open_clip:{_split(name)[0]}" if library == "open_clip" else spec
        raise PolysenseError(
            f"{spec} knows {known:,} tokens and the tokenizer of the texts {vocabulary:,}: take the model's"
            f" own tokenizer, as in Text(tokenizer={own!r})"
        )
    if length > places:
        raise PolysenseError(f"{spec} reads texts of up to {places} tokens, not {length}; choose that length")


def _of_open_clip(name: str, pretrained: bool) -> tuple[Config, Any, Statistics]:
    library: Any = require("open_clip", "open_clip", f"the encoder 'open_clip:{name}'")
    model_name, weights = _split(name)
    config = library.get_model_config(model_name)
    if config is None:
        raise unknown("model of open_clip", model_name, library.list_models())
    _check_text(config)
    if pretrained and weights is None:
        raise PolysenseError(
            f"'open_clip:{name}' names no weights; write open_clip:MODEL/WEIGHTS, such as"
            " 'open_clip:ViT-B-32/laion2b_s34b_b79k', or open_clip:local-dir:FOLDER"
        )
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of random weights, which are meant where they are drawn
    try:
        model = library.create_model(
            model_name, pretrained=weights or None, load_weights=pretrained, force_custom_text=True
        )
    finally:
        logging.disable(disabled)
    statistics = library.get_model_preprocess_cfg(model)
    return config, model, (list(statistics["mean"]), list(statistics["std"]))


def _check_text(config: Config) -> None:
    """Refuse a text tower that is not open_clip's own, before it is built or downloaded."""
    text = config["text_cfg"]
    if "hf_model_name" in text or "multimodal_cfg" in config or text.get("pool_type") == "none":
        raise PolysenseError(
            "of open_clip's models those with its own plain text transformer can be trained here, not CoCa"
            " and those with a text model of transformers; choose one such as 'open_clip:ViT-B-32'"
        )


def _split(name: str) -> tuple[str, str | None]:
    """The model and its weights; folders and models of the Hub have theirs with them."""
    if name.startswith(("local-dir:", "hf-hub:")):
        return name, ""
    model, _, weights = name.partition("/")
    return model, weights or None


def _of_transformers(name: str, pretrained: bool) -> tuple[Config, Any, Statistics]:
    library: Any = require("transformers", "transformers", f"the encoder 'transformers:{name}'")
    config = clip_twins.from_transformers(library.AutoConfig.from_pretrained(name))
    processor = library.AutoImageProcessor.from_pretrained(name)
    model = library.AutoModel.from_pretrained(name) if pretrained else None
    return config, model, (list(processor.image_mean), list(processor.image_std))
