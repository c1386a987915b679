"""Recipes that hide a part of the input and predict it."""

from __future__ import annotations

from polysense.encoders.base import Encoder
from polysense.encoders.heads import MaskedDecoder
from polysense.methods.build import masked_prediction
from polysense.methods.engine import Method
from polysense.methods.maskers import RandomMask
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.reconstruction import MaskedReconstruction


@recipe(
    "mae",
    family="masked",
    title="Masked Autoencoders Are Scalable Vision Learners",
    paper="https://arxiv.org/abs/2111.06377",
    views=ViewPlan(globals_=1, strength="weak"),
    optimisation=Optimisation("adamw", lr=1.5e-4, weight_decay=0.05, warmup=0.05, betas=(0.9, 0.95)),
    collapse="the decoder does all the work: make it smaller or hide more",
    encoders="a ViT",
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
    decoder = MaskedDecoder(
        encoder.dim, decoder_width, decoder_depth, decoder_heads, out=encoder.token_values
    )
    return masked_prediction(
        encoder,
        modality,
        masker=RandomMask(mask_ratio),
        decoder=decoder,
        objective=MaskedReconstruction(normalise),
        tokenise=encoder.tokenise,
    )
