"""One place that builds a backbone for sound by its name, and the way to other libraries' models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polysense.encoders import vision
from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.spectrograms import (
    Sound,
    SoundEncoder,
    SpectrogramCNN,
    SpectrogramViT,
    mean_of_valid,
    valid_frames,
)
from polysense.encoders.wav2vec import Wav2Vec
from polysense.encoders.wave_gru import WaveGRU
from polysense.errors import PolysenseError, require, unknown

OF_MELS: dict[str, Callable[..., Encoder]] = {"audio_cnn": SpectrogramCNN, "audio_vit_nano": SpectrogramViT}
"""The encoders of this package that read log-mels, by name."""

OF_WAVES: dict[str, Callable[..., Encoder]] = {"wav_nano": Wav2Vec, "wav_gru": WaveGRU}
"""The encoders of this package that read waves, by name."""

TRANSFORMERS = "transformers:"


class OnSpectrograms(SoundEncoder):
    """An encoder of pictures that looks at log-mels ``[B, 1, F, T]``; silence behind a clip is part of them.

    >>> encoder = build("small", form="mel", mels=64, rate=8000, pool=1)
    >>> encoder({"mel": torch.zeros(2, 1, 64, 96), "lengths": torch.tensor([96, 96])}).pooled.shape
    torch.Size([2, 64])
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.trunk, self.dim = encoder, encoder.trunk, encoder.dim

    def forward(self, data: Sound, mask: Tensor | None = None) -> Encoded:
        """Encode ``{"mel", "lengths"}``."""
        if mask is not None:
            raise self.cannot_hide()
        encoded: Encoded = self.encoder(data["mel"])
        return encoded

    @property
    def token_dim(self) -> int:
        """The width of the inner encoder's tokens."""
        return self.encoder.token_dim


class TransformersSound(SoundEncoder):
    """A model of transformers that reads sound: Wav2Vec2, HuBERT, WavLM, AST and their like.

    ``pooled`` is the mean of the valid frames. Models that were trained without an attention mask (group
    norm in their extractor) see the silence behind a clip, as they did then: there a clip alone and in a
    longer batch differ a little.

    Args:
        model: as transformers builds it.
        extractor: its feature extractor.
    """

    trunk: Any

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__()
        self.trunk, self.extractor = model, extractor
        self.dim = int(model.config.hidden_size)
        self.reads_waves = hasattr(model, "_get_feat_extract_output_lengths")
        self.attends = getattr(model.config, "feat_extract_norm", "") == "layer"

    def forward(self, data: Sound, mask: Tensor | None = None) -> Encoded:
        """Encode ``{"waves", "lengths"}``."""
        if mask is not None:
            raise self.cannot_hide()
        waves, lengths = data["waves"], data["lengths"]
        clips = [wave[:length].cpu().numpy() for wave, length in zip(waves, lengths.tolist(), strict=True)]
        given = self._extracted(clips, waves.device)
        if not self.reads_waves:
            output = self.trunk(**given)
            return Encoded(output.pooler_output, output.last_hidden_state)
        if not self.attends:
            given.pop("attention_mask", None)
        tokens = self.trunk(**given).last_hidden_state
        valid = valid_frames(self.trunk._get_feat_extract_output_lengths(lengths), tokens.shape[1])
        return Encoded(mean_of_valid(tokens, valid), tokens, (tokens.shape[1],))

    def _extracted(self, clips: list[Any], device: torch.device) -> dict[str, Tensor]:
        """What the model reads, by its own library's rules: normalised waves, or spectrograms."""
        asked = {"padding": True, "return_attention_mask": True} if self.reads_waves else {}
        shortest = 400 if self.reads_waves else 1
        clips = [np.pad(clip, (0, max(0, shortest - len(clip)))) for clip in clips]
        rate = self.extractor.sampling_rate
        given = self.extractor(clips, sampling_rate=rate, return_tensors="pt", **asked)
        return {name: tensor.to(device) for name, tensor in given.items()}

    @property
    def token_dim(self) -> int:
        """The width of a frame."""
        return self.dim


def build(spec: str | nn.Module, *, form: str, mels: int, rate: int, **options: Any) -> Encoder:
    """Build an encoder for sounds of ``rate`` samples a second, as log-mels of ``mels`` bands or as waves.

    ``spec`` is a name: "audio_cnn" (options of :class:`.SpectrogramCNN`), "audio_vit_nano" (of
    :class:`.SpectrogramViT`) or any encoder of pictures for log-mels; "wav_nano" (of :class:`.Wav2Vec`),
    "wav_gru" (of :class:`.WaveGRU`) or "transformers:NAME-or-folder" for waves. Or it is your own module: an
    :class:`.Encoder`, or one that reads log-mels ``[B, 1, mels, T]``.

    >>> build("wav_nano", form="mel", mels=64, rate=8000)
    Traceback (most recent call last):
    ...
    polysense.errors.PolysenseError: the encoder 'wav_nano' reads waves and these views are log-mels; set ...

    Raises:
        PolysenseError: for unknown names and options, another form than the encoder reads, and weights that
            cannot be had.
    """
    if isinstance(spec, Encoder):
        return spec
    reads_waves = isinstance(spec, str) and (spec in OF_WAVES or spec.startswith(TRANSFORMERS))
    if reads_waves != (form == "waves"):
        name = spec if isinstance(spec, str) else type(spec).__name__
        reads, are, wanted = ("waves", "log-mels", "waves") if reads_waves else ("log-mels", "waves", "mel")
        raise PolysenseError(
            f"the encoder {name!r} reads {reads} and these views are {are}; set the view setting form to"
            f" {wanted!r}, or choose another encoder"
        )
    if isinstance(spec, str) and spec in OF_MELS | OF_WAVES:
        return _own(spec, options, mels, rate)
    if isinstance(spec, str) and spec.startswith(TRANSFORMERS):
        return from_transformers(spec.removeprefix(TRANSFORMERS), rate)
    return OnSpectrograms(vision.build(spec, channels=1, size=mels, **options))


def from_transformers(name: str, rate: int) -> TransformersSound:
    """A model of transformers for sound, from its hub or a folder, with its weights.

    Raises:
        PolysenseError: when the library or the weights are not there, it reads no sound, or another rate.
    """
    library: Any = require("transformers", "transformers", f"the encoder 'transformers:{name}'")
    try:
        model = library.AutoModel.from_pretrained(name)
        extractor = library.AutoFeatureExtractor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise PolysenseError(
            f"the encoder 'transformers:{name}' cannot be had ({str(error).splitlines()[0]}); check the"
            " name, or bring its weights onto this machine"
        ) from error
    wanted = getattr(extractor, "sampling_rate", None)
    if wanted != rate:
        found = "no sound" if wanted is None else f"{wanted:,} samples a second"
        raise PolysenseError(
            f"the encoder 'transformers:{name}' reads {found}, and the sounds have {rate:,}; set the"
            f" modality's option rate to {wanted or 'that of a model for sound'}"
        )
    return TransformersSound(model, extractor)


def list_encoders() -> list[tuple[str, str]]:
    """The encoders for sound: names with a line on each.

    >>> list_encoders()[0][0]
    'audio_cnn'
    """
    return [
        ("audio_cnn", "conv net on log-mels of BYOL-A's kind, 512 wide; for sound"),
        ("audio_vit_nano", "ViT on log-mels, width 128, depth 6; can hide tokens; for sound"),
        ("wav_nano", "wav2vec 2.0 on waves, width 128, depth 4; replaces hidden frames; for sound"),
        ("wav_gru", "CPC's convolutions and GRU on waves, width 128; for sound"),
        ("transformers:NAME", "Wav2Vec2, HuBERT, WavLM, AST, … of transformers on waves; for sound"),
    ]


def _own(name: str, options: dict[str, Any], mels: int, rate: int) -> Encoder:
    if options.pop("pretrained", False):
        raise PolysenseError(f"there are no pretrained weights of {name!r}; leave out pretrained")
    about = {"mels": mels} if name in OF_MELS else {"rate": rate}
    try:
        return (OF_MELS | OF_WAVES)[name](**about, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        option = str(error).rsplit("unexpected keyword argument", 1)[1].strip().split("'")[1]
        raise unknown(f"option of the encoder {name!r}", option, _options(name)) from error


def _options(name: str) -> list[str]:
    import inspect

    return list(inspect.signature((OF_MELS | OF_WAVES)[name]).parameters)[1:]
