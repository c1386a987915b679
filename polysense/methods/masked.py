"""Recipes that hide a part of the input and predict it."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from polysense.encoders.base import Encoder
from polysense.encoders.heads import MaskedDecoder, OnTokens
from polysense.errors import unknown
from polysense.methods.block_masks import BlockMask
from polysense.methods.build import masked_prediction
from polysense.methods.engine import Method
from polysense.methods.maskers import RandomMask
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.methods.targets import DiscreteVAE, KMeansTokens, hog_targets
from polysense.modalities.base import ViewPlan
from polysense.objectives.reconstruction import MaskedClassification, MaskedReconstruction


@recipe(
    "mae",
    family="masked",
    title="Masked Autoencoders Are Scalable Vision Learners",
    paper="https://arxiv.org/abs/2111.06377",
    views=ViewPlan(globals_=1, strength="weak"),
    optimisation=Optimisation("adamw", lr=1.5e-4, weight_decay=0.05, warmup=0.05, betas=(0.9, 0.95)),
    collapse="the decoder does all the work: make it smaller or hide more",
    encoders="a ViT",
    default_encoders={"image": "vit_nano", "audio": "audio_vit_nano"},
)
def mae(
    encoder: Encoder,
    modality: str = "image",
    *,
    mask_ratio: float = 0.75,
    normalise: bool = True,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
) -> Method:
    """Hide most tokens, encode the visible ones, and decode the hidden input (normalised per token)."""
    values = encoder.token_values  # first, for an encoder that cannot hide says so
    decoder = MaskedDecoder(
        encoder.token_dim, decoder_width, decoder_depth, decoder_heads, out=values, pooled_dim=encoder.dim
    )
    return masked_prediction(
        encoder,
        modality,
        masker=RandomMask(mask_ratio),
        decoder=decoder,
        objective=MaskedReconstruction(normalise),
        tokenise=encoder.tokenise,
    )


@recipe(
    "simmim",
    family="masked",
    title="SimMIM: a Simple Framework for Masked Image Modeling",
    paper="https://arxiv.org/abs/2111.09886",
    views=ViewPlan(globals_=1, strength="weak", options={"image": {"scale": (0.67, 1.0)}}),
    optimisation=Optimisation("adamw", lr=1e-4, per=512, weight_decay=0.05, warmup=0.0125, clip=5.0),
    collapse="hidden squares are guessed from their neighbours: raise mask_unit or mask_ratio",
    encoders="a ViT",
    default_encoders={"image": "vit_nano", "audio": "audio_vit_nano"},
)
def simmim(
    encoder: Encoder,
    modality: str = "image",
    *,
    mask_ratio: float = 0.6,
    mask_unit: int = 2,
) -> Method:
    """Put a learned vector in place of squares of tokens, and read the hidden input off linearly (L1)."""
    encoder.learn_mask_token()
    return masked_prediction(
        encoder,
        modality,
        masker=RandomMask(mask_ratio, mask_unit),
        decoder=OnTokens(nn.Linear(encoder.token_dim, encoder.token_values)),
        objective=MaskedReconstruction(normalise=False, distance=functional.l1_loss),
        tokenise=encoder.tokenise,
    )


@recipe(
    "beit",
    family="masked",
    title="BEiT: BERT Pre-Training of Image Transformers",
    paper="https://arxiv.org/abs/2106.08254",
    views=ViewPlan(
        globals_=1,
        strength="weak",
        options={
            "image": {
                "scale": (0.08, 1.0),
                "jitter": 1.0,
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.4,
            }
        },
    ),
    optimisation=Optimisation("adamw", lr=1.5e-3, per=2048, weight_decay=0.05, warmup=0.0125, clip=3.0),
    collapse="a few words of the vocabulary cover most tokens: lower prototypes, or give another tokenizer",
    encoders="a ViT",
    default_encoders={"image": "vit_nano"},
)
def beit(
    encoder: Encoder,
    modality: str = "image",
    *,
    tokenizer: str | nn.Module = "kmeans",
    prototypes: int = 8192,
    mask_ratio: float = 0.4,
    frozen_after: float = 0.1,
) -> Method:
    """Hide blocks of tokens and predict their words in a vocabulary that is learned on the way.

    ``tokenizer`` is "kmeans" (learned until ``frozen_after`` of training), "dvae", or your own module
    from a view's data to token numbers ``[B, T]`` below ``prototypes`` (for those who build the method in
    Python: a run's configuration holds plain values only).
    """
    encoder.learn_mask_token()
    cut, values = encoder.tokenise, encoder.token_values
    beside = {}
    if tokenizer == "kmeans":
        tokenizer = KMeansTokens(cut, values, prototypes, frozen_after)
    elif tokenizer == "dvae":
        tokenizer = DiscreteVAE(cut, values, prototypes)
        beside["tokenizer"] = tokenizer.branch()
    elif isinstance(tokenizer, str):
        raise unknown("tokenizer", tokenizer, ["kmeans", "dvae"])
    return masked_prediction(
        encoder,
        modality,
        masker=BlockMask(mask_ratio),
        decoder=OnTokens(nn.Linear(encoder.token_dim, prototypes)),
        objective=MaskedClassification(),
        tokenise=tokenizer,
        beside=beside,
    )


@recipe(
    "maskfeat",
    family="masked",
    title="Masked Feature Prediction for Self-Supervised Visual Pre-Training",
    paper="https://arxiv.org/abs/2112.09133",
    views=ViewPlan(globals_=1, strength="weak", options={"image": {"scale": (0.5, 1.0)}}),
    optimisation=Optimisation("adamw", lr=2e-4, weight_decay=0.05, warmup=0.1, clip=0.02),
    collapse="patches hold too few pixels for a histogram: use larger patches, or hide more",
    encoders="a ViT",
    default_encoders={"image": "vit_nano"},
)
def maskfeat(
    encoder: Encoder,
    modality: str = "image",
    *,
    mask_ratio: float = 0.4,
    cell: int = 8,
    bins: int = 9,
) -> Method:
    """Hide blocks of tokens and predict the directions of their gradients (HOG)."""
    encoder.learn_mask_token()
    tokenise, values = hog_targets(encoder, cell, bins)
    return masked_prediction(
        encoder,
        modality,
        masker=BlockMask(mask_ratio),
        decoder=OnTokens(nn.Linear(encoder.token_dim, values)),
        objective=MaskedReconstruction(normalise=False),
        tokenise=tokenise,
    )
