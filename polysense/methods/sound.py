"""Recipes for sound: clips that are matched, and stretches of them that are hidden and predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import OnTokens, Projector, mlp
from polysense.encoders.teacher import Teacher
from polysense.encoders.wav2vec import Wav2Vec
from polysense.errors import PolysenseError
from polysense.methods.build import joint_embedding, masked_prediction
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.masked import mae
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.methods.targets import KMeansTokens
from polysense.modalities.base import View, ViewPlan, first_tensor
from polysense.objectives.distillation import NegativeCosine
from polysense.objectives.reconstruction import MaskedClassification
from polysense.objectives.speech import BilinearContrast, QuantisedContrast


class BoundedLatent(nn.Module):
    """COLA's head: a linear layer, LayerNorm and tanh on the pooled embedding.

    >>> BoundedLatent(64, 32)(Encoded(torch.randn(4, 64))).shape
    torch.Size([4, 32])
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, out), nn.LayerNorm(out), nn.Tanh())

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, out]``."""
        bounded: Tensor = self.layers(encoded.pooled)
        return bounded


@recipe(
    "cola",
    family="contrastive",
    title="Contrastive Learning of General-Purpose Audio Representations",
    paper="https://arxiv.org/abs/2010.10915",
    views=ViewPlan(strength="weak", options={"audio": {"crop": 1.0}}),
    optimisation=Optimisation("adamw", lr=1e-4, per=1024, weight_decay=0.0),
    collapse="the similarity outgrew the encoder, or clips are too short for two stretches: lower lr or out,"
    " shorten the crop",
    modalities=("audio",),
)
def cola(encoder: Encoder, modality: str = "audio", *, out: int = 512) -> Method:
    """Tell which two stretches come from one clip, by a bilinear similarity."""
    return joint_embedding(
        encoder, modality, projector=BoundedLatent(encoder.dim, out), objective=BilinearContrast(out)
    )


@recipe(
    "byol_a",
    family="distillation",
    title="BYOL for Audio: Self-Supervised Learning for General-Purpose Audio Representation",
    paper="https://arxiv.org/abs/2103.06695",
    views=ViewPlan(
        strength="weak", options={"audio": {"crop": 0.95, "together": True, "mixup": 0.4, "resize": 1.0}}
    ),
    optimisation=Optimisation("adamw", lr=3e-4, weight_decay=0.0, warmup=0.0),
    collapse="the teacher moves too fast or the predictor too slowly: raise momentum, lower lr",
    modalities=("audio",),
)
def byol_a(
    encoder: Encoder,
    modality: str = "audio",
    *,
    momentum: float = 0.99,
    hidden: int = 4096,
    out: int = 256,
) -> Method:
    """Predict a slow teacher's view of the same stretch, with another clip behind, moved and stretched.

    The authors' normalisation of both views together is left to the encoder's batch norm.
    """
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, layers=2),
        predictor=mlp(out, hidden, out),
        teacher=Teacher(momentum, schedule="constant"),
        objective=NegativeCosine(),
    )


@recipe(
    "audio_mae",
    family="masked",
    title="Masked Autoencoders that Listen",
    paper="https://arxiv.org/abs/2207.06405",
    views=ViewPlan(globals_=1, strength="weak", options={"audio": {"crop": 2.0}}),
    optimisation=Optimisation("adamw", lr=2e-4, weight_decay=1e-4, warmup=0.1, betas=(0.9, 0.95)),
    collapse="the decoder does all the work: make it smaller or hide more",
    encoders="a ViT",
    modalities=("audio",),
    default_encoders={"audio": "audio_vit_nano"},
)
def audio_mae(
    encoder: Encoder,
    modality: str = "audio",
    *,
    mask_ratio: float = 0.8,
    decoder_width: int = 512,
    decoder_depth: int = 16,
    decoder_heads: int = 16,
) -> Method:
    """Hide most patches of a spectrogram, encode the others, and draw the hidden ones.

    The decoder attends everywhere, as in the first of the paper's comparisons; its best one within windows.
    """
    return mae(
        encoder,
        modality,
        mask_ratio=mask_ratio,
        decoder_width=decoder_width,
        decoder_depth=decoder_depth,
        decoder_heads=decoder_heads,
    )


@dataclass(frozen=True)
class SpanMask:
    """Hide spans of ``length`` frames, which may overlap (wav2vec 2.0).

    ``ratio`` is their share of the frames if they were laid end to end. All clips of a batch get equally
    many spans, at least 2: ``ratio * T / length`` of them, rounded up or down at random.

    Raises:
        PolysenseError: where clips are no longer than a span.
    """

    ratio: float
    length: int = 10

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask."""
        data = first_tensor(view.data)
        (frames,) = encoder.grid(data)
        starts = frames - self.length + 1
        if not 0 < self.ratio <= 1 or self.length < 1 or starts < 2:
            raise PolysenseError(
                f"spans of {self.length} frames and a share of {self.ratio} do not fit {frames} frames; hide"
                " a share up to 1 in shorter spans, or take longer crops"
            )
        count = int(self.ratio * frames / self.length + float(torch.rand(())))
        first = torch.rand(len(data), starts, device=data.device).argsort(1)[:, : max(2, count)]
        edges = torch.zeros(len(data), frames + 1, dtype=torch.long, device=data.device)
        edges.scatter_add_(1, first, torch.ones_like(first))
        edges.scatter_add_(1, first + self.length, -torch.ones_like(first))
        return view.hide(edges.cumsum(1)[:, :-1] > 0)


class Quantiser(nn.Module):
    """Product quantisation with Gumbel noise: one word of each of ``groups`` codebooks, laid side by side.

    In training a word is drawn, hard with the soft one's gradient, at a temperature that falls from 2 to
    ``coldest`` over training; in eval mode it is the likeliest.

    https://arxiv.org/abs/2006.11477, https://arxiv.org/abs/1611.01144

    >>> quantised, probabilities = Quantiser(16, groups=2, words=5, width=8)(torch.randn(1, 3, 16))
    >>> quantised.shape, probabilities.shape
    (torch.Size([1, 3, 8]), torch.Size([1, 3, 2, 5]))
    """

    def __init__(self, dim: int, groups: int, words: int, width: int, coldest: float = 0.5) -> None:
        super().__init__()
        if width % groups:
            raise PolysenseError(
                f"{groups} codebooks cannot share a width of {width}; choose one they divide"
            )
        self.coldest = coldest
        self.logits = nn.Linear(dim, groups * words)
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.codebooks = nn.Parameter(torch.rand(groups, words, width // groups))
        self.at(0.0)

    def at(self, progress: float) -> None:
        """Set the temperature: ``progress`` is steps done over all steps."""
        self.temperature = 2.0 * (self.coldest / 2.0) ** progress

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, T, width]``, and each codebook's softmax without noise ``[B, T, groups, words]``."""
        logits = self.logits(features).unflatten(-1, self.codebooks.shape[:2]).float()
        if self.training:
            chosen = functional.gumbel_softmax(logits, self.temperature, hard=True)
        else:
            chosen = functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        return torch.einsum("btgv,gvd->btgd", chosen, self.codebooks).flatten(2), logits.softmax(-1)


class QuantisedFrames(nn.Module, Reads):
    """The context at every frame, what the extractor heard there in words of a codebook, and the mask.

    The extractor's frames are worked out a second time, for the encoder's output has no place for them.
    Gives the objective contexts and targets ``[B, T, K]``, mask, and the codebooks' probabilities.
    """

    def __init__(self, extract: Callable[[Any], Tensor], quantiser: Quantiser, project: nn.Module) -> None:
        super().__init__()
        self.extract, self.quantiser, self.project = extract, quantiser, project

    def forward(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Of the one view there is."""
        ((view, encoded),) = zip(seen.views, seen.student, strict=True)
        assert view.mask is not None
        quantised, probabilities = self.quantiser(self.extract(view.data))
        return branch.head(encoded), self.project(quantised), view.mask, probabilities


@recipe(
    "wav2vec2",
    family="masked",
    title="wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations",
    paper="https://arxiv.org/abs/2006.11477",
    views=ViewPlan(globals_=1, strength="weak", options={"audio": {"form": "waves", "crop": 2.0}}),
    optimisation=Optimisation("adamw", lr=5e-4, weight_decay=0.01, warmup=0.08, betas=(0.9, 0.98)),
    collapse="a few words of the codebook cover all frames: raise diversity, use larger batches, lower lr",
    encoders="wav2vec's",
    modalities=("audio",),
    default_encoders={"audio": "wav_nano"},
)
def wav2vec2(
    encoder: Encoder,
    modality: str = "audio",
    *,
    temperature: float = 0.1,
    negatives: int = 100,
    diversity: float = 0.1,
    groups: int = 2,
    words: int = 320,
    out: int = 256,
    mask_ratio: float = 0.65,
    span: int = 10,
) -> Method:
    """Hide spans of frames and tell each hidden frame's codewords from those of the clip's others."""
    encoder = _of_waves(encoder)
    quantiser = Quantiser(encoder.channels, groups, words, out)
    frames = QuantisedFrames(encoder.extract, quantiser, nn.Linear(out, out))
    contrast = QuantisedContrast(temperature, negatives, diversity)
    head = OnTokens(nn.Linear(encoder.token_dim, out))
    return Method(
        {modality: encoder}, {"predict": Branch(head, contrast, frames)}, masker=SpanMask(mask_ratio, span)
    )


class Cosines(nn.Module):
    """Logits of words: the cosines of a projection to learned codewords, over a temperature.

    >>> Cosines(16, 8, words=5)(torch.randn(3, 16)).shape
    torch.Size([3, 5])
    """

    def __init__(self, dim: int, out: int, words: int, temperature: float = 0.1) -> None:
        super().__init__()
        self.project, self.temperature = nn.Linear(dim, out), temperature
        self.words = nn.Parameter(torch.rand(words, out))

    def forward(self, frames: Tensor) -> Tensor:
        """``[N, words]`` of ``[N, dim]``: one matrix product, whatever the number of words."""
        unit = functional.normalize(self.project(frames), dim=-1, eps=1e-6)
        cosines: Tensor = unit @ functional.normalize(self.words, dim=-1, eps=1e-6).T
        return cosines / self.temperature


@recipe(
    "hubert",
    family="masked",
    title="HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units",
    paper="https://arxiv.org/abs/2106.07447",
    views=ViewPlan(globals_=1, strength="weak", options={"audio": {"form": "waves", "crop": 2.0}}),
    optimisation=Optimisation("adamw", lr=5e-4, weight_decay=0.01, warmup=0.08, betas=(0.9, 0.98)),
    collapse="a few clusters cover most frames: use fewer, or freeze them later",
    encoders="wav2vec's",
    modalities=("audio",),
    default_encoders={"audio": "wav_nano"},
)
def hubert(
    encoder: Encoder,
    modality: str = "audio",
    *,
    clusters: int = 100,
    temperature: float = 0.1,
    out: int = 256,
    mask_ratio: float = 0.8,
    span: int = 10,
    frozen_after: float = 0.1,
) -> Method:
    """Hide spans of frames and predict the cluster of each one's cepstral coefficients.

    This is the paper's first iteration. The clusters are learned on the way, until ``frozen_after`` of
    training, and not before it.
    """
    encoder = _of_waves(encoder)
    return masked_prediction(
        encoder,
        modality,
        masker=SpanMask(mask_ratio, span),
        decoder=OnTokens(Cosines(encoder.token_dim, out, clusters, temperature)),
        objective=MaskedClassification(),
        tokenise=KMeansTokens(encoder.tokenise, encoder.token_values, clusters, frozen_after),
    )


def _of_waves(encoder: Encoder) -> Wav2Vec:
    """The encoder, ready to hide frames.

    Raises:
        PolysenseError: for one without an extractor of frames from waves.
    """
    if not isinstance(encoder, Wav2Vec):
        raise PolysenseError(
            f"{type(encoder).__name__} has no extractor that makes frames of waves; choose 'wav_nano'"
        )
    encoder.learn_mask_token()
    return encoder
