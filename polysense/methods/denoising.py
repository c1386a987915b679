"""Recipes in which a decoder writes a text, or what is missing of it, from what the encoder made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.captioner import Captioner
from polysense.encoders.text_transformer import TextEncoder
from polysense.methods.engine import Branch, Masker, Method, Reads, Seen
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.methods.word_masks import CollapseSpans, DeleteWords, with_vocabulary
from polysense.modalities.base import ViewPlan
from polysense.objectives.reconstruction import MaskedClassification

ONE_TEXT = ViewPlan(globals_=1, strength="weak")


def bottleneck(encoded: Encoded, attended: Tensor) -> tuple[Encoded, Tensor]:
    """The pooled embedding as the one token that a decoder may look at."""
    return Encoded(encoded.pooled, encoded.pooled[:, None]), torch.ones_like(attended[:, :1])


def every_token(encoded: Encoded, attended: Tensor) -> tuple[Encoded, Tensor]:
    """All that the encoder made of the text, for a decoder to look at."""
    return encoded, attended


@dataclass(frozen=True)
class WrittenAnew(Reads):
    """Each word of the original text, predicted from those before it and from what the encoder kept.

    ``shown`` says what of it the decoder, the branch's head, may look at. Gives the objective the logits
    ``[B, T - 1, vocabulary]``, the words ``[B, T - 1]``, and which of them are there.
    """

    shown: Callable[[Encoded, Tensor], tuple[Encoded, Tensor]]

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Of the one view there is."""
        ((view, encoded),) = zip(seen.views, seen.student, strict=True)
        data = view.data
        assert isinstance(data, dict)
        known, visible = self.shown(encoded, data["attended"])
        words = data["original"]
        return branch.head(known, words[:, :-1], visible), words[:, 1:], data["written"][:, 1:]


def _written_anew(
    encoder: TextEncoder,
    modality: str,
    masker: Masker,
    shown: Callable[[Encoded, Tensor], tuple[Encoded, Tensor]],
    depth: int,
) -> Method:
    words = encoder.embeddings
    vocabulary, width = words.weight.shape
    decoder = Captioner(
        encoder.dim,
        vocabulary,
        2 * encoder.length + 1,  # spans of one token each, with a start before each
        width=width,
        depth=depth,
        heads=max(1, width // 64),  # as wide as BERT's
    )
    decoder.words = words  # one table for both
    write = Branch(decoder, MaskedClassification(), WrittenAnew(shown))
    return Method({modality: encoder}, {"write": write}, masker=masker)


@recipe(
    "tsdae",
    family="masked",
    title="TSDAE: Using Transformer-based Sequential Denoising Auto-Encoder for Unsupervised Sentence"
    " Embedding Learning",
    paper="https://arxiv.org/abs/2104.06979",
    views=ONE_TEXT,
    optimisation=Optimisation("adamw", lr=3e-5, per=8, weight_decay=0.01),
    collapse="the decoder guesses words from those before them: make it shallower, or delete fewer words",
    modalities=("text",),
    encoders="a text encoder with a vocabulary",
)
def tsdae(
    encoder: Encoder, modality: str = "text", *, delete: float = 0.6, decoder_depth: int = 12
) -> Method:
    """Delete most words of a text, squeeze the rest into one vector, and write the whole text from it.

    The authors' decoder has the encoder's own weights; here the two share their table of embeddings.
    """
    return _written_anew(with_vocabulary(encoder), modality, DeleteWords(delete), bottleneck, decoder_depth)


@recipe(
    "span_denoise",
    family="masked",
    title="Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
    paper="https://arxiv.org/abs/1910.10683",
    views=ONE_TEXT,
    optimisation=Optimisation("adamw", lr=1e-3, per=128, weight_decay=0.0),
    collapse="spans are guessed from their neighbours: hide a larger share, or longer spans",
    modalities=("text",),
    encoders="a text encoder with a vocabulary",
)
def span_denoise(
    encoder: Encoder,
    modality: str = "text",
    *,
    mask_ratio: float = 0.15,
    span: float = 3.0,
    decoder_depth: int = 12,
) -> Method:
    """Put one hidden token in place of each span, and write what was there, span after span."""
    encoder.learn_mask_token()
    masker = CollapseSpans(mask_ratio, span)
    return _written_anew(with_vocabulary(encoder), modality, masker, every_token, decoder_depth)
