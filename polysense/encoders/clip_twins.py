"""The same model in open_clip and in transformers: how one calls the weights and shapes of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polysense.encoders.clip import SHAPE, Clip, ClipImage
from polysense.errors import PolysenseError

Names = tuple[str, ...]
Twins = list[tuple[Names, Names]]
"""Weights of open_clip and of transformers that hold the same numbers, one behind the other."""

_TRANSPOSED = ("visual.proj", "text.text_projection")
"""Matrices ``[in, out]`` of open_clip, where a linear layer has ``[out, in]``."""

_ACTIVATIONS = {
    "quick_gelu": {},
    "gelu": {},
    "gelu_pytorch_tanh": {"act_kwargs": {"approximate": "tanh"}},
}
"""transformers' names for activations, and what open_clip's ``text_cfg`` says for them."""


def _clip_config(config: Any) -> dict[str, Any]:
    vision, text = config.vision_config, config.text_config
    ratio = _mlp_ratio(vision)
    patches = {"image_size": vision.image_size, "patch_size": vision.patch_size, "mlp_ratio": ratio}
    heads = {"head_width": vision.hidden_size // vision.num_attention_heads}
    # an end id of 2 stands for the largest id in transformers, as it does in the first CLIP's config
    largest = text.eos_token_id in (2, text.vocab_size - 1)
    pooling = {"pool_type": "argmax"} if largest else {"pool_type": "eos", "eos_id": text.eos_token_id}
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {**_shape(vision), **patches, **heads},
        "text_cfg": {**_text_shape(text), **pooling},
    }


def _siglip_config(config: Any) -> dict[str, Any]:
    vision, text = config.vision_config, config.text_config
    if vision.layer_norm_eps != 1e-6 or not vision.vision_use_head:
        raise PolysenseError(
            "this SigLIP of transformers has another norm or no pooling; choose one as published"
        )
    shape = {
        "embed_dim": vision.hidden_size,
        "depth": vision.num_hidden_layers,
        "num_heads": vision.num_attention_heads,
        "mlp_ratio": _mlp_ratio(vision),
        "patch_size": vision.patch_size,
        "act_layer": vision.hidden_act.replace("_pytorch", ""),
    }
    return {
        "embed_dim": text.projection_size,
        "custom_text": True,
        "quick_gelu": text.hidden_act == "quick_gelu",
        "init_logit_bias": -10.0,
        "vision_cfg": {
            "image_size": vision.image_size,
            "timm_model_name": "vit_base_patch16_siglip_224",
            "timm_pool": "map",
            "timm_proj": "none",
            SHAPE: shape,
        },
        "text_cfg": {
            **_text_shape(text),
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }


def _shape(half: Any) -> dict[str, Any]:
    """What ``vision_cfg`` and ``text_cfg`` both say."""
    return {
        "width": half.hidden_size,
        "layers": half.num_hidden_layers,
        "norm_kwargs": {"eps": half.layer_norm_eps},
        **_ACTIVATIONS[half.hidden_act],
    }


def _text_shape(text: Any) -> dict[str, Any]:
    return {
        **_shape(text),
        "heads": text.num_attention_heads,
        "mlp_ratio": _mlp_ratio(text),
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
    }


def _mlp_ratio(half: Any) -> float:
    """The ratio that comes to the same whole number when it is rounded down."""
    hidden, width = int(half.intermediate_size), int(half.hidden_size)
    return (hidden if hidden % width == 0 else hidden + 0.5) / width


_CONFIGS = {"clip": _clip_config, "siglip": _siglip_config}
"""What makes open_clip's ``model_cfg`` of transformers' configuration, by its ``model_type``."""


def from_transformers(config: Any) -> dict[str, Any]:
    """open_clip's ``model_cfg`` for a CLIP or SigLIP of transformers.

    Raises:
        PolysenseError: for another kind of model, or a shape that open_clip's modules cannot have.
    """
    if config.model_type not in _CONFIGS:
        raise PolysenseError(
            f"a {config.model_type!r} of transformers is no model of pictures and texts that can be trained"
            " here; choose a CLIP or a SigLIP"
        )
    acts = {config.vision_config.hidden_act, config.text_config.hidden_act}
    if not acts <= _ACTIVATIONS.keys() or len(acts) > 1:
        raise PolysenseError(
            f"this {config.model_type} of transformers has the activation {' and '.join(sorted(acts))}, which"
            f" open_clip's modules do not have; choose one with {' or '.join(_ACTIVATIONS)}"
        )
    return _CONFIGS[config.model_type](config)


def for_transformers(towers: Clip, *, start: int | None, end: int, pad: int) -> tuple[str, dict[str, Any]]:
    """ "CLIP" or "Siglip", and the configuration that transformers builds the same model from.

    Raises:
        PolysenseError: when transformers has no such model.
    """
    if isinstance(towers.image, ClipImage):
        kind, vision = "CLIP", _vision_of_clip(towers.image.trunk)
    else:
        kind, vision = "Siglip", _vision_of_siglip(towers.image.trunk)
    text = towers.text.trunk
    ids = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad}
    words = {"vocab_size": text.vocab_size, "max_position_embeddings": text.context_length}
    config = {"text_config": {**_of_blocks(text.transformer), **words, **ids}, "vision_config": vision}
    if kind == "CLIP":
        return kind, {**config, "projection_dim": towers.dim}
    config["text_config"]["projection_size"] = towers.dim
    return kind, config


def _vision_of_clip(trunk: Any) -> dict[str, Any]:
    if not hasattr(trunk, "transformer"):
        raise no_twin("its picture tower is no ViT")
    return {
        **_of_blocks(trunk.transformer),
        "image_size": trunk.image_size[0],
        "patch_size": trunk.patch_size[0],
    }


def _vision_of_siglip(trunk: Any) -> dict[str, Any]:
    if not hasattr(trunk, "blocks") or getattr(trunk, "attn_pool", None) is None:
        raise no_twin("its picture tower is neither CLIP's ViT nor SigLIP's")
    block = trunk.blocks[0]
    return {
        "hidden_size": trunk.embed_dim,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": _name_of(block.mlp.act),
        "layer_norm_eps": block.norm1.eps,
        "image_size": trunk.patch_embed.img_size[0],
        "patch_size": trunk.patch_embed.patch_size[0],
    }


def _of_blocks(transformer: Any) -> dict[str, Any]:
    """The shape of a stack of open_clip's blocks."""
    block = transformer.resblocks[0]
    return {
        "hidden_size": transformer.width,
        "num_hidden_layers": transformer.layers,
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.c_fc.out_features,
        "hidden_act": _name_of(block.mlp.gelu),
        "layer_norm_eps": block.ln_1.eps,
    }


def _name_of(activation: nn.Module) -> str:
    """What transformers calls an activation of open_clip or timm."""
    kind = type(activation).__name__
    tanh = kind == "GELUTanh" or getattr(activation, "approximate", "none") == "tanh"
    return "quick_gelu" if kind == "QuickGELU" else "gelu_pytorch_tanh" if tanh else "gelu"


def no_twin(why: str) -> PolysenseError:
    """The error for a model that transformers does not have."""
    return PolysenseError(
        f"transformers has no model of this shape ({why}); train one that it has, with encoder='clip_nano',"
        " 'siglip_nano' or a CLIP ViT of open_clip such as 'open_clip:ViT-B-32', or export to open_clip"
    )


def load(towers: Clip, model: Any) -> None:
    """Take the weights of a ``CLIPModel`` or ``SiglipModel`` over.

    Raises:
        PolysenseError: when it is not of the same shape.
    """
    backwards = [(theirs, ours) for ours, theirs in twins(towers)]
    towers.load_open_clip_state(convert(model.state_dict(), backwards, towers.open_clip_state()))


def weights_for(towers: Clip, model: Any) -> dict[str, Tensor]:
    """The weights as a ``CLIPModel`` or ``SiglipModel`` of the same shape takes them.

    Raises:
        PolysenseError: when it is not of the same shape.
    """
    state, like = towers.open_clip_state(), model.state_dict()
    if "logit_bias" not in like:  # a CLIP ranks as well without: it is the same for all pairs
        state.pop("logit_bias", None)
    return convert(state, twins(towers), like)


def convert(state: Mapping[str, Tensor], pairs: Twins, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one library by the names and in the shapes ``like`` the other's.

    Raises:
        PolysenseError: when either side has weights that the other has not.
    """
    made: dict[str, Tensor] = {}
    missing = {name for names, _ in pairs for name in names} ^ state.keys()
    missing |= {name for _, names in pairs for name in names} ^ like.keys()
    if missing:
        raise no_twin(f"nothing answers to {min(missing)}")
    for sources, targets in pairs:
        turned = sources[0] in _TRANSPOSED or targets[0] in _TRANSPOSED
        flat = torch.cat([(state[name].T if turned else state[name]).flatten() for name in sources])
        pieces = flat.split([like[name].numel() for name in targets])
        made |= {name: piece.view(like[name].shape) for name, piece in zip(targets, pieces, strict=True)}
    return made


def twins(towers: Clip) -> Twins:
    """The names that a model's weights have in open_clip's ``CustomTextCLIP`` and in transformers."""
    is_clip = isinstance(towers.image, ClipImage)
    image = (_of_clip_image if is_clip else _of_siglip_image)(towers.image.trunk)
    pairs = [*image, *_of_text(towers.text.depth)]
    if is_clip:
        pairs += [(("visual.proj",), ("visual_projection.weight",))]
        pairs += [(("text.text_projection",), ("text_projection.weight",))]
        return [*pairs, (("logit_scale",), ("logit_scale",))]
    pairs += _both("text.text_projection", "text_model.head")
    return [*pairs, *((((name,), (name,))) for name in ("logit_scale", "logit_bias"))]


def _of_text(depth: int) -> Iterator[tuple[Names, Names]]:
    inside = "text_model.embeddings"
    yield ("text.token_embedding.weight",), (f"{inside}.token_embedding.weight",)
    yield ("text.positional_embedding",), (f"{inside}.position_embedding.weight",)
    yield from _both("text.ln_final", "text_model.final_layer_norm")
    yield from _of_resblocks("text.transformer", "text_model", depth)


def _of_clip_image(trunk: Any) -> Iterator[tuple[Names, Names]]:
    inside = "vision_model.embeddings"
    yield ("visual.class_embedding",), (f"{inside}.class_embedding",)
    yield ("visual.conv1.weight",), (f"{inside}.patch_embedding.weight",)
    yield ("visual.positional_embedding",), (f"{inside}.position_embedding.weight",)
    yield from _both("visual.ln_pre", "vision_model.pre_layrnorm")  # sic
    yield from _both("visual.ln_post", "vision_model.post_layernorm")
    yield from _of_resblocks("visual.transformer", "vision_model", trunk.transformer.layers)


def _of_siglip_image(trunk: Any) -> Iterator[tuple[Names, Names]]:
    ours, theirs = "visual.trunk", "vision_model"
    yield (f"{ours}.pos_embed",), (f"{theirs}.embeddings.position_embedding.weight",)
    yield from _both(f"{ours}.patch_embed.proj", f"{theirs}.embeddings.patch_embedding")
    yield from _both(f"{ours}.norm", f"{theirs}.post_layernorm")
    for number in range(len(trunk.blocks)):
        block, layer = f"{ours}.blocks.{number}", f"{theirs}.encoder.layers.{number}"
        yield from _of_layer(layer, f"{block}.norm1", f"{block}.norm2", f"{block}.attn.proj")
        yield from _both(f"{block}.mlp.fc1", f"{layer}.mlp.fc1")
        yield from _both(f"{block}.mlp.fc2", f"{layer}.mlp.fc2")
        for what in ("weight", "bias"):
            yield (f"{block}.attn.qkv.{what}",), _query_key_value(layer, what)
    pool, head = f"{ours}.attn_pool", f"{theirs}.head"
    yield (f"{pool}.latent",), (f"{head}.probe",)
    for what in ("weight", "bias"):
        yield (f"{pool}.q.{what}", f"{pool}.kv.{what}"), (f"{head}.attention.in_proj_{what}",)
    yield from _both(f"{pool}.proj", f"{head}.attention.out_proj")
    yield from _both(f"{pool}.norm", f"{head}.layernorm")
    yield from _both(f"{pool}.mlp.fc1", f"{head}.mlp.fc1")
    yield from _both(f"{pool}.mlp.fc2", f"{head}.mlp.fc2")


def _of_resblocks(ours: str, theirs: str, depth: int) -> Iterator[tuple[Names, Names]]:
    for number in range(depth):
        block, layer = f"{ours}.resblocks.{number}", f"{theirs}.encoder.layers.{number}"
        yield from _of_layer(layer, f"{block}.ln_1", f"{block}.ln_2", f"{block}.attn.out_proj")
        yield from _both(f"{block}.mlp.c_fc", f"{layer}.mlp.fc1")
        yield from _both(f"{block}.mlp.c_proj", f"{layer}.mlp.fc2")
        for what in ("weight", "bias"):
            yield (f"{block}.attn.in_proj_{what}",), _query_key_value(layer, what)


def _of_layer(layer: str, norm1: str, norm2: str, out: str) -> Iterator[tuple[Names, Names]]:
    yield from _both(norm1, f"{layer}.layer_norm1")
    yield from _both(norm2, f"{layer}.layer_norm2")
    yield from _both(out, f"{layer}.self_attn.out_proj")


def _query_key_value(layer: str, what: str) -> Names:
    return tuple(f"{layer}.self_attn.{one}_proj.{what}" for one in "qkv")


def _both(ours: str, theirs: str) -> Iterator[tuple[Names, Names]]:
    for what in ("weight", "bias"):
        yield (f"{ours}.{what}",), (f"{theirs}.{what}",)
