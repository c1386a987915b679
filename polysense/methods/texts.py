"""Recipes for texts: words that are hidden or replaced, and sentences that are told from all others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import OnTokens, Pooled
from polysense.encoders.text_transformer import TextEncoder, TextTransformer
from polysense.methods.build import joint_embedding
from polysense.methods.engine import Branch, Method, Reads, Seen, embed
from polysense.methods.maskers import Only
from polysense.methods.optimisation import Optimisation
from polysense.methods.reads import global_views
from polysense.methods.recipes import recipe
from polysense.methods.word_masks import HideWords, content, draw_words, each_its_own, with_vocabulary
from polysense.modalities.base import View, ViewPlan
from polysense.objectives.contrastive import NTXent
from polysense.objectives.cross_view import InfoNCE
from polysense.objectives.reconstruction import MaskedClassification, MaskedReconstruction

log = logging.getLogger("polysense")

ONE_TEXT = ViewPlan(globals_=1, strength="weak")
WITH_WORDS = "a text encoder with a vocabulary"


class WordHead(nn.Module):
    """BERT's head: ``[N, vocabulary]``, a layer on the embedding and the dot products with all words.

    >>> WordHead(8, nn.Embedding(100, 16))(Encoded(torch.zeros(3, 8))).shape
    torch.Size([3, 100])
    """

    def __init__(self, dim: int, words: nn.Embedding) -> None:
        super().__init__()
        vocabulary, width = words.weight.shape
        self.change = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.LayerNorm(width))
        self.words, self.bias = words, nn.Parameter(torch.zeros(vocabulary))

    def forward(self, encoded: Encoded) -> Tensor:
        """The logits of ``encoded.pooled``."""
        return functional.linear(self.change(encoded.pooled), self.words.weight, self.bias)


def students_tokens(view: View, encoded: Encoded) -> Tensor:
    """What the student made of every token: ``[B, T, E]``."""
    assert encoded.tokens is not None
    return encoded.tokens


def generators_tokens(view: View, encoded: Encoded) -> Tensor:
    """What the generator made of every token before the student saw any: ``[B, T, E]``."""
    assert isinstance(view.data, dict)
    return view.data["guessed"]


@dataclass(frozen=True)
class AskedWords(Reads):
    """The words that were there, at the tokens that are asked for.

    The head sees these tokens alone: most of the work is in its dot products. Gives the objective the
    logits ``[1, N, vocabulary]`` and the words ``[1, N]``.
    """

    tokens: Callable[[View, Encoded], Tensor] = students_tokens

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Pick the tokens of every view of which some are asked for."""
        tokens, words = [], []
        for view, encoded in zip(seen.views, seen.student, strict=True):
            if view.asked is not None and isinstance(view.data, dict):
                asked = view.asked.any(1)
                tokens.append(self.tokens(view, encoded)[asked])
                words.append(view.data["original"][asked])
        return branch.head(Encoded(torch.cat(tokens)))[None], torch.cat(words)[None]


@recipe(
    "mlm",
    family="masked",
    title="BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
    paper="https://arxiv.org/abs/1810.04805",
    views=ONE_TEXT,
    optimisation=Optimisation("adamw", lr=1e-4, weight_decay=0.01, warmup=0.01, clip=1.0),
    collapse="too little is hidden for such short texts: raise mask_ratio",
    encoders=WITH_WORDS,
    modalities=("text",),
)
def mlm(
    encoder: Encoder,
    modality: str = "text",
    *,
    mask_ratio: float = 0.15,
    random: float = 0.1,
    kept: float = 0.1,
    whole_words: bool = False,
) -> Method:
    """Predict hidden words from those around them (masked language modelling)."""
    encoder.learn_mask_token()
    predict = Branch(
        WordHead(encoder.token_dim, with_vocabulary(encoder).embeddings), MaskedClassification(), AskedWords()
    )
    masker = HideWords(mask_ratio, random, kept, whole_words)
    return Method({modality: encoder}, {"predict": predict}, masker=masker)


class ReplaceWords(nn.Module):
    """ELECTRA's generator: it guesses hidden words, and its guesses take their places in the text.

    It shares the encoder's table of embeddings and is narrower. Of the words that it guesses 85 % are
    hidden from it; guesses are drawn by their chances, without a gradient.
    """

    def __init__(self, encoder: TextEncoder, ratio: float, width: float) -> None:
        super().__init__()
        words = encoder.embeddings
        heads = max(1, round(width * encoder.dim / 64))
        narrow = heads * max(8, round(width * encoder.dim / heads / 8) * 8)
        self.ratio, self.words = ratio, words
        self.narrow = nn.Linear(words.embedding_dim, narrow)
        self.stand_in = nn.Parameter(0.02 * torch.randn(words.embedding_dim))
        self.body = TextTransformer(1, encoder.length, width=narrow, depth=encoder.depth, heads=heads)
        self.body.words.requires_grad_(False)  # the shared table is in its place
        self.head = WordHead(narrow, words)

    def forward(self, view: View, encoder: Encoder) -> View:
        """The view with guesses in it, and what the generator made of its tokens as ``guessed``."""
        ids, attended, words = content(view)
        asked = draw_words(each_its_own(words), self.ratio)
        hidden = asked & (torch.rand(ids.shape, device=ids.device) < 0.85)
        vectors = self.words(ids)
        vectors = torch.where(hidden[..., None], self.stand_in.to(vectors.dtype), vectors)
        guessed = self.body.norm(self.body.layers(self.narrow(vectors), attended)[-1])
        with torch.no_grad():
            chances = self.head(Encoded(guessed[asked])).float().softmax(-1)
            drawn = chances.multinomial(1)[:, 0] if len(chances) else ids[asked]
        data = {
            "ids": ids.masked_scatter(asked, drawn),
            "attended": attended,
            "words": words,
            "original": ids,
            "guessed": guessed,
        }
        return replace(view, data=data, asked=asked[:, None])


@dataclass(frozen=True)
class Replaced(Reads):
    """Whether each token is another than it was: logits and answers ``[B, T, 1]``, and where texts are.

    A guess that was right is no replacement.
    """

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Of the one view there is."""
        ((view, encoded),) = zip(seen.views, seen.student, strict=True)
        assert isinstance(view.data, dict)
        logits: Tensor = branch.head(encoded)
        replaced = (view.data["ids"] != view.data["original"])[..., None]
        return logits, replaced.to(logits.dtype), view.data["attended"]


@recipe(
    "electra",
    family="masked",
    title="ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators",
    paper="https://arxiv.org/abs/2003.10555",
    views=ONE_TEXT,
    optimisation=Optimisation("adamw", lr=5e-4, per=128, weight_decay=0.01, warmup=0.01, clip=1.0),
    collapse="the generator is too good or too bad: change generator_width",
    encoders=WITH_WORDS,
    modalities=("text",),
)
def electra(
    encoder: Encoder,
    modality: str = "text",
    *,
    mask_ratio: float = 0.15,
    generator_width: float = 0.25,
    detection_weight: float = 50.0,
) -> Method:
    """Tell which words of a text a small generator has replaced."""
    generator = ReplaceWords(with_vocabulary(encoder), mask_ratio, generator_width)
    dim = encoder.token_dim
    detector = OnTokens(nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1)))
    yes_or_no = MaskedReconstruction(normalise=False, distance=functional.binary_cross_entropy_with_logits)
    branches = {
        "generate": Branch(generator.head, MaskedClassification(), AskedWords(generators_tokens)),
        "detect": Branch(detector, yes_or_no, Replaced(), weight=detection_weight),
    }
    return Method({modality: encoder}, branches, masker=generator)


@recipe(
    "simcse",
    family="contrastive",
    title="SimCSE: Simple Contrastive Learning of Sentence Embeddings",
    paper="https://arxiv.org/abs/2104.08821",
    optimisation=Optimisation("adamw", lr=3e-5, per=64, weight_decay=0.0, warmup=0.0),
    collapse="dropout is off, or training went on for too long: keep dropout at 0.1, take fewer steps",
    modalities=("text",),
)
def simcse(
    encoder: Encoder,
    modality: str = "text",
    *,
    temperature: float = 0.05,
) -> Method:
    """Find a text among all others when both differ in the encoder's dropout alone.

    The head is left behind after training.
    """
    if not any(isinstance(part, nn.Dropout) and part.p > 0 for part in encoder.modules()):
        log.warning(
            "this encoder has no dropout, so both views of a text are the same and there is nothing to learn;"
            " set dropout to 0.1, or views that edit the text, such as delete=0.1"
        )
    head = nn.Sequential(Pooled(), nn.Linear(encoder.dim, encoder.dim), nn.Tanh())
    return joint_embedding(encoder, modality, projector=head, objective=InfoNCE(temperature, one_way=True))


@dataclass(frozen=True)
class AnchorAndParts(Reads):
    """The whole view of a sample against the mean of its parts: ``[2, B, K]``."""

    def compares_embeddings(self) -> bool:
        """Those of whole samples."""
        return True

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project all views."""
        projected = embed(branch.head, seen.student, seen.views)
        whole = torch.tensor([global_views(view) for view in seen.views])
        return (torch.stack([projected[whole].mean(0), projected[~whole].mean(0)]),)


@recipe(
    "declutr",
    family="contrastive",
    title="DeCLUTR: Deep Contrastive Learning for Unsupervised Textual Representations",
    paper="https://arxiv.org/abs/2006.03659",
    views=ViewPlan(
        globals_=1,
        locals_=2,
        options={"text": {"crop": (0.4, 1.0), "local": {"crop": (0.2, 0.6)}}},
    ),
    optimisation=Optimisation("adamw", lr=5e-5, per=32, weight_decay=0.1, warmup=0.1, clip=1.0),
    collapse="texts are too short for spans that differ: take longer ones, or simcse",
    encoders=WITH_WORDS,
    modalities=("text",),
)
def declutr(
    encoder: Encoder,
    modality: str = "text",
    *,
    temperature: float = 0.05,
    mask_ratio: float = 0.15,
) -> Method:
    """Find a document's other spans by one of its spans, in which words are hidden and predicted too.

    The authors take two such spans of a document, each with two others near it.
    """
    encoder.learn_mask_token()
    head = WordHead(encoder.token_dim, with_vocabulary(encoder).embeddings)
    branches = {
        "match": Branch(Pooled(), NTXent(temperature), AnchorAndParts()),
        "predict": Branch(head, MaskedClassification(), AskedWords()),
    }
    return Method({modality: encoder}, branches, masker=Only(global_views, HideWords(mask_ratio)))
