"""Image GPT: predict the colours of pixels, from those before them or from those around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.encoders.heads import OnTokens
from polysense.encoders.pixels import PixelEncoder
from polysense.errors import PolysenseError
from polysense.methods.build import masked_prediction
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.maskers import RandomMask
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.distributed import gather
from polysense.objectives.kmeans import kmeans
from polysense.objectives.reconstruction import MaskedClassification

MOST_PIXELS = 2**17
"""The palette is learned from at most so many pixels: a few hundred for each of 512 colours."""


@dataclass(frozen=True)
class EveryToken(Reads):
    """What the student predicts at every token against the input itself, for causal encoders.

    ``tokenise`` gives each token's target. Gives the objective prediction and target.
    """

    tokenise: Callable[[Any], Tensor]

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Predict every view and lay the views' batches one behind the other."""
        prediction = torch.cat([branch.head(encoded) for encoded in seen.student])
        return prediction, torch.cat([self.tokenise(view.data) for view in seen.views])


def common_colours(pixels: Tensor, count: int) -> Tensor:
    """``[count, C]``: the k-means of the pixels ``[N, C]`` of all processes, the same on each of them.

    >>> common_colours(torch.tensor([[0.0], [0.2], [8.0], [8.2]]), 2).sort(0).values.flatten()
    tensor([0.1000, 8.1000])
    """
    everyone = gather(pixels)
    some = everyone[torch.randperm(len(everyone), device=pixels.device)[:MOST_PIXELS]]
    return gather(kmeans(some, count)[0])[:count]  # each process draws its own start: the first one's counts


@recipe(
    "image_gpt",
    family="masked",
    title="Generative Pretraining from Pixels",
    paper="https://proceedings.mlr.press/v119/chen20s.html",
    views=ViewPlan(globals_=1, strength="weak"),
    optimisation=Optimisation("adamw", lr=0.003, per=128, warmup=0.05, betas=(0.9, 0.95)),
    collapse="every pixel gets the commonest colour: lower lr or train longer",
    encoders="a pixel_gpt",
    modalities=("image",),
    default_encoders={"image": "pixel_gpt_nano"},
)
def image_gpt(encoder: Encoder, modality: str = "image", *, mask_ratio: float = 0.15) -> Method:
    """Predict each pixel's colour from the pixels before it, or, not causal, hidden ones from all others.

    The encoder decides on the form: a causal one (the default) learns as GPT does, one made with
    ``causal=False`` as BERT does, with ``mask_ratio`` of the pixels hidden. The palette comes from the
    first batch.
    """
    if not isinstance(encoder, PixelEncoder):
        raise PolysenseError(
            f"image_gpt predicts the colours of a palette and {type(encoder.trunk).__name__} has none; choose"
            " 'pixel_gpt_nano' or another pixel_gpt"
        )
    encoder.learn_palette(common_colours)
    # the encoder's own layer, so that it is kept with it: a run completes pictures by it
    head, objective = OnTokens(encoder.trunk.predict), MaskedClassification()
    if encoder.trunk.causal:
        predict = Branch(head, objective, EveryToken(encoder.colours))
        return Method({modality: encoder}, {"predict": predict})
    return masked_prediction(
        encoder,
        modality,
        masker=RandomMask(mask_ratio),
        decoder=head,
        objective=objective,
        tokenise=encoder.colours,
    )
