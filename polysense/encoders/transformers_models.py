"""Text models of transformers as towers."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor, nn

from polysense.encoders.foreign import no_weights
from polysense.encoders.text_transformer import TextEncoder
from polysense.errors import PolysenseError, require

SPARE_IDS = 1024
"""Rows that a model's table of embeddings may have beyond its tokenizer's tokens, to be a round number."""


class TransformersEncoder(TextEncoder):
    """A text model of transformers as a tower; of one that also writes, only the part that reads."""

    trunk: Any

    def __init__(self, model: Any, *, length: int, pooling: str = "mean") -> None:
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # nothing reads it, and weights without gradients stop several processes
        config = model.config
        super().__init__(
            model, dim=config.hidden_size, depth=config.num_hidden_layers, length=length, pooling=pooling
        )

    @property
    def embeddings(self) -> nn.Embedding:
        """The vectors of the model's vocabulary."""
        table: nn.Embedding = self.trunk.get_input_embeddings()
        return table

    def through(self, vectors: Tensor, attended: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The model's last hidden state, and all of its hidden states where layers are kept."""
        output = self.trunk(
            inputs_embeds=vectors,
            attention_mask=attended.long(),
            output_hidden_states=self.kept_layers > 0,
        )
        return output.last_hidden_state, list(output.hidden_states or ())


def build(
    name: str, *, vocabulary: int, length: int, pretrained: bool = False, pooling: str = "mean"
) -> TransformersEncoder:
    """A text model from the Hub or a folder, with its published weights if ``pretrained``.

    Raises:
        PolysenseError: when the library or the model is not there, or it is not for these texts.
    """
    spec = f"transformers:{name}"
    library: Any = require("transformers", "transformers", f"the encoder {spec!r}")
    try:
        config = library.AutoConfig.from_pretrained(name)
        _check(config, spec, vocabulary, length)
        model = (
            library.AutoModel.from_pretrained(name) if pretrained else library.AutoModel.from_config(config)
        )
    except (OSError, ValueError) as error:
        raise no_weights(spec, error) from error
    return TransformersEncoder(model, length=length, pooling=pooling)


def is_of_transformers(module: nn.Module) -> bool:
    """Whether this is a model of transformers, which is not imported to find out."""
    library = sys.modules.get("transformers")
    return library is not None and isinstance(module, library.PreTrainedModel)


def wrap(model: Any, *, vocabulary: int, length: int) -> TransformersEncoder:
    """The tower around a model of transformers that was handed over.

    Raises:
        PolysenseError: when it is not for these texts.
    """
    _check(model.config, type(model).__name__, vocabulary, length)
    return TransformersEncoder(model, length=length)


def _check(config: Any, what: str, vocabulary: int, length: int) -> None:
    """Refuse a model that was made for another tokenizer, or for shorter texts."""
    known = getattr(config, "vocab_size", None)
    if known is None:
        raise PolysenseError(f"{what} reads no texts; choose a text model")
    if not 0 <= known - vocabulary <= SPARE_IDS:
        own = what if what.startswith("transformers:") else "transformers:NAME"
        raise PolysenseError(
            f"{what} knows {known:,} tokens and the tokenizer of the texts {vocabulary:,}: take the model's"
            f" own tokenizer, as in Text(tokenizer={own!r})"
        )
    places = getattr(config, "max_position_embeddings", None) or length
    if length > places:
        raise PolysenseError(f"{what} reads texts of up to {places} tokens, not {length}; choose that length")
