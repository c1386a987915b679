"""Encoders of sound: what lies behind a clip changes nothing, and what is hidden is not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polysense.encoders.audio import build, list_encoders
from polysense.encoders.base import Encoder
from polysense.encoders.spectrograms import SpectrogramCNN, SpectrogramViT
from polysense.encoders.wav2vec import Wav2Vec
from polysense.errors import PolysenseError
from polysense.modalities.audio.modality import Audio
from polysense.modalities.base import ViewPlan

MELS = ["audio_cnn", "audio_vit_nano"]


def modality(form: str = "mel", rate: int = 8000) -> Audio:
    return Audio(rate=rate, mean=-6.0, std=3.0, plan=ViewPlan(options={"audio": {"form": form}}))


def clips(*seconds: float, rate: int = 8000) -> list[Tensor]:
    torch.manual_seed(1)
    return [0.1 * torch.randn(round(each * rate)) for each in seconds]


def made(name: str, rate: int = 8000, **options: Any) -> Encoder:
    torch.manual_seed(0)
    form = "waves" if name in ("wav_nano",) or name.startswith("transformers") else "mel"
    return modality(form, rate).encoder(name, **options).eval()


def embedded(encoder: Encoder, form: str, waves: list[Tensor], rate: int = 8000) -> Tensor:
    audio = modality(form, rate)
    return encoder(audio.plain(audio.batch(waves)).data).pooled


def assert_padding_changes_nothing(encoder: Encoder, form: str, rate: int = 8000) -> None:
    waves = clips(0.1, 0.333, 0.71, 1.0, rate=rate)
    with torch.no_grad():
        together = embedded(encoder, form, waves, rate)
        alone = torch.cat([embedded(encoder, form, [wave], rate) for wave in waves])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", MELS)
def test_a_clip_alone_and_in_a_padded_batch_are_one_on_log_mels(name: str) -> None:
    encoder = made(name)
    if isinstance(encoder, SpectrogramCNN):
        for part in encoder.modules():
            if isinstance(part, nn.BatchNorm2d):  # one that moves silence away from 0
                nn.init.uniform_(part.bias)
    assert_padding_changes_nothing(encoder, "mel")


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_clip_alone_and_in_a_padded_batch_are_one_on_waves(rate: int) -> None:
    assert_padding_changes_nothing(made("wav_nano", rate), "waves", rate)


def test_frames_of_a_clip_are_those_its_convolutions_make() -> None:
    encoder = made("wav_nano")
    assert isinstance(encoder, Wav2Vec)
    lengths = torch.arange(1, 4000, 37)
    for length in lengths.tolist():
        sound = {"waves": torch.randn(1, length), "lengths": torch.tensor([length])}
        frames = int(encoder.frames(torch.tensor(length)))
        assert encoder.extract(sound).shape[1] == frames == encoder.tokenise(sound).shape[1]
        assert encoder.grid(sound) == (frames,)
    assert int(encoder.frames(torch.tensor(8000))) == 49  # one each 20 ms


def test_patches_left_out_leave_no_trace() -> None:
    encoder = made("audio_vit_nano", depth=2)
    sound = {"mel": torch.randn(2, 1, 64, 96), "lengths": torch.tensor([96, 96])}
    mask = torch.rand(2, 48).argsort(1) < 30
    encoded = encoder(sound, mask)
    assert encoded.tokens is not None
    assert encoded.tokens.shape == (2, 18, 128)
    other = {**sound, "mel": sound["mel"].clone()}
    hidden = mask.view(2, 4, 12).repeat_interleave(16, 1).repeat_interleave(8, 2)
    other["mel"][:, 0][hidden] = 9.0
    torch.testing.assert_close(encoder(other, mask).pooled, encoded.pooled)


def test_patches_replaced_are_one_vector_and_layers_are_kept() -> None:
    encoder = made("audio_vit_nano", depth=3)
    encoder.learn_mask_token()
    encoder.keep_layers(2)
    sound = {"mel": torch.randn(2, 1, 64, 90), "lengths": torch.tensor([90, 90])}
    mask = torch.rand(2, 48) < 0.5
    encoded = encoder(sound, mask)
    assert encoded.tokens is not None
    assert encoded.layers is not None
    assert encoded.layers.shape == (2, 2, 48, 128)
    torch.testing.assert_close(encoder.norm(encoded.layers[:, -1]), encoded.tokens)  # type: ignore[operator]
    encoder.settle()
    assert "mask_token" not in encoder.state_dict()
    assert encoder(sound).layers is None
    with pytest.raises(PolysenseError, match="this encoder has 3 blocks and cannot keep 4"):
        encoder.keep_layers(4)


def test_patches_hold_the_input() -> None:
    encoder = made("audio_vit_nano")
    mel = torch.randn(1, 1, 64, 20)
    tokens = encoder.tokenise({"mel": mel, "lengths": torch.tensor([20])})
    assert tokens.shape == (1, 12, encoder.token_values)
    torch.testing.assert_close(tokens[0, 1].view(16, 8), mel[0, 0, :16, 8:16])
    assert not tokens[0, 2].view(16, 8)[:, 4:].any()


def test_hidden_frames_are_replaced() -> None:
    encoder = made("wav_nano", depth=1)
    sound = {"waves": torch.randn(2, 4000), "lengths": torch.tensor([4000, 4000])}
    mask = torch.zeros(2, encoder.grid(sound)[0], dtype=torch.bool)
    with pytest.raises(PolysenseError, match="this encoder replaces hidden frames"):
        encoder(sound, mask)
    encoder.learn_mask_token()
    torch.testing.assert_close(encoder(sound, mask).pooled, encoder(sound).pooled)
    everything = encoder(sound, ~mask).pooled
    torch.testing.assert_close(everything[0], everything[1])


def test_cepstra_are_those_of_torchaudio_up_to_their_bands() -> None:
    encoder = made("wav_nano")
    assert isinstance(encoder, Wav2Vec)
    waves = torch.randn(1, 2000)
    ours = encoder.tokenise({"waves": waves, "lengths": torch.tensor([2000])})
    torchaudio = pytest.importorskip("torchaudio")
    logmel = encoder.cepstrum
    peer = torchaudio.transforms.MelSpectrogram(
        8000, logmel.fft, logmel.window, logmel.hop, 60.0, 3900.0, n_mels=40, center=False
    )
    shift = (logmel.fft - logmel.window) // 2  # torch puts a short window into the middle of its FFT
    mel = peer(nn.functional.pad(waves, (shift, shift))).clamp_min(1e-8).log()
    dct = torchaudio.functional.create_dct(13, 40, None) / 2 * (2 / 40) ** 0.5
    torch.testing.assert_close(ours[..., :13], mel.mT @ dct, atol=1e-3, rtol=1e-3)
    slope = (ours[:, 3:-1, :13] - ours[:, 1:-3, :13] + 2 * (ours[:, 4:, :13] - ours[:, :-4, :13])) / 10
    torch.testing.assert_close(ours[:, 2:-2, 13:26], slope)


def small_wav2vec2(folder: Path, norm: str) -> str:
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 3,
        conv_kernel=(10, 3, 3), conv_stride=(5, 4, 4), num_feat_extract_layers=3, feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer", num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=16000, do_normalize=True, return_attention_mask=norm == "layer"
    ).save_pretrained(folder)
    return f"transformers:{folder}"


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_models_of_transformers(tmp_path: Path, norm: str) -> None:
    encoder = made(small_wav2vec2(tmp_path, norm), 16000)
    assert encoder.dim == encoder.token_dim == 32
    if norm == "layer":
        assert_padding_changes_nothing(encoder, "waves", 16000)
    wave = clips(0.5, rate=16000)[0]
    expected = encoder.trunk((wave - wave.mean())[None] / wave.std(correction=0))  # type: ignore[operator]
    torch.testing.assert_close(
        embedded(encoder, "waves", [wave], 16000), expected.last_hidden_state.mean(1), atol=1e-3, rtol=1e-3
    )
    with pytest.raises(
        PolysenseError, match=r"reads 16,000 samples a second, and the sounds have 8,000; set"
    ):
        made(f"transformers:{tmp_path}", 8000)
    with pytest.raises(PolysenseError, match="TransformersSound cannot hide tokens; choose 'audio_vit_nano'"):
        encoder.grid({})


def test_an_audio_spectrogram_transformer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ASTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_length=64
    )
    transformers.ASTModel(config).save_pretrained(tmp_path)
    transformers.ASTFeatureExtractor(max_length=64).save_pretrained(tmp_path)
    encoder = made(f"transformers:{tmp_path}", 16000)
    assert embedded(encoder, "waves", clips(0.5, 0.3, rate=16000), 16000).shape == (2, 32)


def test_encoders_of_pictures_look_at_log_mels() -> None:
    encoder = made("resnet18")
    assert embedded(encoder, "mel", clips(0.5, 0.9)).shape == (2, encoder.dim)
    own = nn.Sequential(nn.Conv2d(1, 8, 8, 8), nn.ReLU())
    assert modality().encoder(own).dim == 8
    assert modality().encoder(encoder) is encoder


@pytest.mark.parametrize(
    ("spec", "form", "options", "told"),
    [
        (
            "wav_nano",
            "mel",
            {},
            "'wav_nano' reads waves and these views are log-mels; set the view setting form to",
        ),
        ("audio_cnn", "waves", {}, "'audio_cnn' reads log-mels and these views are waves"),
        ("resnet18", "waves", {}, "'resnet18' reads log-mels and these views are waves"),
        ("audio_cnm", "mel", {}, "unknown encoder 'audio_cnm'"),
        (
            "audio_cnn",
            "mel",
            {"dims": 3},
            "unknown option of the encoder 'audio_cnn' 'dims'; did you mean 'dim'",
        ),
        ("audio_cnn", "mel", {"pretrained": True}, "there are no pretrained weights of 'audio_cnn'"),
        ("audio_cnn", "mel", {"widths": (8, 8)}, "the sound encoder got 2 widths; give 4"),
        ("audio_vit_nano", "mel", {"patch": (10, 8)}, "patches of 10 bands and 4 heads do not fit 64 bands"),
        ("wav_nano", "waves", {"reach": 4}, "no wav2vec encoder has a rate of 8000, 4 heads"),
        ("transformers:./no/such/", "waves", {}, "the encoder 'transformers:./no/such/' cannot be had"),
    ],
)
def test_what_cannot_be_built(spec: str, form: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(PolysenseError, match=told):
        build(spec, form=form, mels=64, rate=8000, **options)


def test_an_encoder_that_cannot_hide_says_which_can() -> None:
    encoder = made("audio_cnn")
    sound = {"mel": torch.zeros(1, 1, 64, 16), "lengths": torch.tensor([16])}
    with pytest.raises(PolysenseError, match="SpectrogramCNN cannot hide tokens; choose 'audio_vit_nano'"):
        encoder(sound, torch.zeros(1, 2, dtype=torch.bool))


def test_the_named_encoders_exist() -> None:
    for name, _ in list_encoders()[:3]:
        assert isinstance(made(name), SpectrogramCNN | SpectrogramViT | Wav2Vec)
