"""Contrastive predictive coding: foresee what is heard next."""

from __future__ import annotations

from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.encoders.heads import OnTokens
from polysense.encoders.wave_gru import WaveGRU
from polysense.errors import PolysenseError
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.speech import FutureContrast


class Foreseen(Reads):
    """What is foreseen at every frame, and the frames: ``[B, T, K, D]`` and ``[B, T, D]``."""

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Of the one view there is."""
        (encoded,) = seen.student
        assert encoded.layers is not None
        return branch.head(encoded), encoded.layers[:, 0]


@recipe(
    "cpc",
    family="contrastive",
    title="Representation Learning with Contrastive Predictive Coding",
    paper="https://arxiv.org/abs/1807.03748",
    views=ViewPlan(globals_=1, strength="weak", options={"audio": {"form": "waves", "crop": 1.28}}),
    optimisation=Optimisation("adamw", lr=2e-4, per=64, weight_decay=0.0),
    collapse="what comes next can be told from how the clip was recorded: use more clips in a batch",
    encoders="wav_gru",
    modalities=("audio",),
    default_encoders={"audio": "wav_gru"},
)
def cpc(encoder: Encoder, modality: str = "audio", *, steps: int = 12) -> Method:
    """Foresee the next frames from what was heard so far, each by a linear map of its own."""
    if not isinstance(encoder, WaveGRU):
        raise PolysenseError(
            f"{type(encoder).__name__} does not hear waves frame by frame; choose 'wav_gru' with the view"
            " setting form='waves'"
        )
    encoder.keep_layers(1)
    foresee = nn.Sequential(
        OnTokens(nn.Linear(encoder.dim, steps * encoder.channels, bias=False)),
        nn.Unflatten(-1, (steps, encoder.channels)),
    )
    return Method({modality: encoder}, {"foresee": Branch(foresee, FutureContrast(), Foreseen())})
