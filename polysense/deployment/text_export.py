"""Text encoders as folders that transformers and sentence-transformers load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polysense.deployment.folder import write_json
from polysense.deployment.joint_export import fast_tokenizer, whole_folder
from polysense.deployment.run import Run
from polysense.encoders.text_transformer import TextEncoder, TextTransformer, TextTransformerEncoder, pool
from polysense.encoders.transformers_models import TransformersEncoder
from polysense.errors import PolysenseError, require

TOLERANCE = 1e-5
"""How far embeddings may lie apart, in proportion to their largest coordinate, and still be the same."""

_TEXTS = ["a photo of a cat", "Zwei grüne Äpfel!", "42"]
_POOLINGS = {"mean": "mean_tokens", "first": "cls_token", "last": "lasttoken"}
"""What sentence-transformers calls ways of pooling."""


def export_text(run: Run, folder: str | Path) -> Path:
    """Write a folder for ``AutoModel.from_pretrained`` and for ``SentenceTransformer``, with the tokenizer.

    The own transformers become a ``MegatronBertModel``, which is the same computation; models of
    transformers stay what they are. What transformers reads from the folder is compared with the run
    before it is put in place.

    Raises:
        PolysenseError: when the run has no text encoder that transformers has, the folder holds something
            already, or cannot be written.
    """
    library: Any = require("transformers", "transformers", "an export to transformers")
    encoder, text = run.encoder, run.modality
    if not isinstance(encoder, TextEncoder):
        raise PolysenseError(
            f"the encoder of this run ({type(encoder).__name__}) is no text encoder that transformers has;"
            " train one with encoder='text_small' or 'transformers:NAME'"
        )
    assert hasattr(text, "tokenizer")
    model = encoder.trunk if isinstance(encoder, TransformersEncoder) else _as_megatron(encoder, library)
    with whole_folder(Path(folder)) as beside:
        model.save_pretrained(beside)
        fast_tokenizer(text.tokenizer, encoder.length).save_pretrained(beside)
        _for_sentence_transformers(beside, encoder)
        _check_same(run, encoder, library, beside)
    return Path(folder)


def _as_megatron(encoder: TextEncoder, library: Any) -> Any:
    """The own transformer as transformers has it: pre-norm blocks, and no norm on the embeddings."""
    if not isinstance(encoder, TextTransformerEncoder) or encoder.trunk.causal:
        raise PolysenseError(
            "transformers has no model of the shape of this encoder; train encoder='text_small' without"
            " causal, or a model of transformers by encoder='transformers:NAME'"
        )
    trunk = encoder.trunk
    length, width = trunk.places.shape
    config = library.MegatronBertConfig(
        vocab_size=trunk.words.num_embeddings,
        hidden_size=width,
        num_hidden_layers=encoder.depth,
        num_attention_heads=trunk.blocks[0].heads,
        intermediate_size=4 * width,
        hidden_act="gelu",
        max_position_embeddings=length,
        type_vocab_size=1,
        layer_norm_eps=trunk.norm.eps,
    )
    model = library.MegatronBertModel(config).eval()
    weights = dict(_megatron_weights(trunk))
    absent = {
        name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items() if name not in weights
    }
    model.load_state_dict({**weights, **absent})  # the kinds of texts, and a pooler that nobody reads
    return model


def _megatron_weights(trunk: TextTransformer) -> Iterator[tuple[str, Tensor]]:
    yield "embeddings.word_embeddings.weight", trunk.words.weight
    yield "embeddings.position_embeddings.weight", trunk.places
    yield from _both("encoder.ln", trunk.norm)
    blocks: Any = trunk.blocks
    for number, block in enumerate(blocks):
        layer = f"encoder.layer.{number}"
        for what in ("weight", "bias"):
            parts = getattr(block.qkv, what).chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                yield f"{layer}.attention.self.{name}.{what}", part
        yield from _both(f"{layer}.attention.ln", block.norm1)
        yield from _both(f"{layer}.attention.output.dense", block.project)
        yield from _both(f"{layer}.ln", block.norm2)
        yield from _both(f"{layer}.intermediate.dense", block.mlp[0])
        yield from _both(f"{layer}.output.dense", block.mlp[2])


def _both(name: str, layer: Any) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", layer.weight
    yield f"{name}.bias", layer.bias


def _for_sentence_transformers(folder: Path, encoder: TextEncoder) -> None:
    """The files by which sentence-transformers knows how to pool, and where to cut texts."""
    kind = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{kind}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}.Pooling"},
    ]
    pooling = {f"pooling_mode_{theirs}": encoder.pooling == ours for ours, theirs in _POOLINGS.items()}
    (folder / "1_Pooling").mkdir()
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": encoder.length, "do_lower_case": False}
    )
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": encoder.dim, **pooling})


def _check_same(run: Run, encoder: TextEncoder, library: Any, folder: Path) -> None:
    """Compare what transformers makes of texts with what the run makes of them.

    Raises:
        PolysenseError: when it is not the same.
    """
    model, tokenizer = (
        library.AutoModel.from_pretrained(folder),
        library.AutoTokenizer.from_pretrained(folder),
    )
    words = tokenizer(_TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        tokens = model.eval()(**words).last_hidden_state
    theirs, ours = pool(tokens, words["attention_mask"].bool(), encoder.pooling), run.embed(_TEXTS)
    if not torch.allclose(theirs, ours, rtol=0, atol=TOLERANCE * float(ours.abs().max())):
        raise PolysenseError(
            "transformers embeds texts otherwise than this run, so nothing was exported; train"
            " encoder='text_small', or an encoder of transformers with its own tokenizer"
        )
