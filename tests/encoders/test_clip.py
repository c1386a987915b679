"""CLIP and SigLIP as towers: what they make is what open_clip and transformers make."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from polysense.encoders.clip import Clip
from polysense.encoders.clip_models import clip_towers, is_clip
from polysense.encoders.foreign import Translated
from polysense.errors import PolysenseError
from polysense.modalities.pairs.modality import Paired
from polysense.modalities.text.modality import Text
from polysense.modalities.vision.modality import Vision

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

WORDS = {"vocabulary": 600, "length": 12, "pad": 0, "end": 3}
CLOSE = {"rtol": 0, "atol": 1e-5}
STATISTICS = ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])

TEXT = {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 16}
TIMM = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}


def texts() -> dict[str, Tensor]:
    """Three texts that end with the end token 3; ids of words are larger."""
    ids = torch.tensor([[2, 17, 599, 8, 3, 0, 0], [2, 5, 3, 0, 0, 0, 0], [2, 9, 10, 11, 12, 13, 3]])
    return {"ids": ids, "attended": ids != 0}


def full(ids: Tensor, length: int = 12) -> Tensor:
    return functional.pad(ids, (0, length - ids.shape[1]))


def embedded(towers: Clip, pictures: Tensor) -> tuple[Tensor, Tensor]:
    towers.eval()
    with torch.no_grad():
        return towers.of("image")(pictures).pooled, towers.of("text")(texts()).pooled


def open_clip_folder(folder: Path, config: dict[str, Any]) -> Any:
    """A model of open_clip with random weights, and the folder that it was saved to."""
    torch.manual_seed(1)
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    plain = {name: value for name, value in config.items() if name != "custom_text"}
    model = kind(**copy.deepcopy(plain)).eval()
    folder.mkdir()
    preprocess = {"mean": STATISTICS[0], "std": STATISTICS[1]}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


def transformers_folder(folder: Path, kind: str, text: dict[str, Any], act: str = "gelu") -> Any:
    """A model of transformers with random weights, and the folder that it was saved to."""
    torch.manual_seed(2)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": act}
    both = {"hidden_size": 32, "intermediate_size": 80, **shape}
    words = {"vocab_size": 600, "max_position_embeddings": 12, "bos_token_id": 1, "pad_token_id": 0}
    settings = {
        "text_config": {**both, **words, **text},
        "vision_config": {**both, "image_size": 32, "patch_size": 16},
    }
    if kind == "CLIP":
        settings["projection_dim"] = 24
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**settings)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # norms and biases too, so that none can be mixed up
    model.save_pretrained(folder)
    getattr(transformers, f"{kind}ImageProcessor")(
        image_mean=STATISTICS[0], image_std=STATISTICS[1]
    ).save_pretrained(folder)
    return model


def test_the_small_clip_is_a_model_of_open_clip() -> None:
    towers = clip_towers("clip_nano", **WORDS)
    model = open_clip.CustomTextCLIP(**copy.deepcopy(towers.config)).eval()
    model.load_state_dict(towers.open_clip_state())
    pictures = torch.randn(2, 3, 32, 32)
    images, words = embedded(towers, pictures)
    with torch.no_grad():
        torch.testing.assert_close(images, model.encode_image(pictures, normalize=True), **CLOSE)
        torch.testing.assert_close(words, model.encode_text(full(texts()["ids"]), normalize=True), **CLOSE)


def test_texts_are_pooled_at_their_end_although_words_have_larger_ids() -> None:
    towers = clip_towers("clip_nano", **WORDS).eval()
    changed = texts()
    changed["ids"][0, 2] = 20  # 599 was the largest id
    with torch.no_grad():
        one, other = towers.text(texts()), towers.text(changed)
    assert towers.config["text_cfg"]["pool_type"] == "eos"
    torch.testing.assert_close(one.pooled[0], one.tokens[0, 4])
    assert not torch.allclose(one.pooled[0], other.pooled[0])
    torch.testing.assert_close(one.pooled[1:], other.pooled[1:])


@pytest.mark.parametrize("spec", ["clip_nano", "siglip_nano"])
def test_padding_in_the_batch_does_not_matter(spec: str) -> None:
    towers = clip_towers(spec, **WORDS).eval()
    data = texts()
    longer = {name: functional.pad(tensor, (0, 3)) for name, tensor in data.items()}
    with torch.no_grad():
        torch.testing.assert_close(towers.text(data).pooled, towers.text(longer).pooled)


@pytest.mark.parametrize("spec", ["clip_nano", "siglip_nano"])
def test_patches_are_tokens_on_their_grid(spec: str) -> None:
    towers = clip_towers(spec, **WORDS, size=48)
    encoded = towers.image(torch.randn(2, 3, 48, 48))
    assert encoded.tokens is not None
    assert (encoded.tokens.shape, encoded.grid, towers.image.token_dim) == ((2, 36, 128), (6, 6), 128)


@pytest.mark.parametrize("spec", ["clip_nano", "siglip_nano"])
def test_a_run_s_weights_fit_a_new_model_of_the_same_name(spec: str) -> None:
    state = clip_towers(spec, **WORDS).state_dict()
    again = clip_towers(spec, **WORDS)
    again.load_state_dict(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize(
    "config",
    [
        {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT},
        {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True, "init_logit_bias": -3.0},
        {"embed_dim": 32, "vision_cfg": RESNET, "text_cfg": TEXT},
        {"embed_dim": 24, "vision_cfg": TIMM, "text_cfg": TEXT},
        {
            "embed_dim": 24,
            "custom_text": True,
            "vision_cfg": {**VIT, "pool_type": "avg", "final_ln_after_pool": True},
            "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        },
    ],
    ids=["vit", "quick_gelu", "resnet", "timm", "siglip_text"],
)
def test_training_goes_on_from_a_folder_of_open_clip(config: dict[str, Any], tmp_path: Path) -> None:
    model = open_clip_folder(tmp_path / "model", config)
    argmax = {**WORDS, "end": 599}
    towers = clip_towers(f"open_clip:local-dir:{tmp_path / 'model'}", **argmax, pretrained=True)
    side = config["vision_cfg"]["image_size"]
    pictures, ids = torch.randn(2, 3, side, side), texts()["ids"]
    ids[0, 2] = 598
    ids[ids == 3] = 599  # pooled at the largest id
    with torch.no_grad():
        images = model.encode_image(pictures, normalize=True)
        words = model.encode_text(full(ids), normalize=True)
        towers.eval()
        torch.testing.assert_close(towers.of("image")(pictures).pooled, images, **CLOSE)
        found = towers.of("text")({"ids": ids, "attended": ids != 0}).pooled
    torch.testing.assert_close(found, words, **CLOSE)
    assert towers.logit_scale.item() == pytest.approx(model.logit_scale.item())
    assert towers.logit_bias.item() == config.get("init_logit_bias", 0.0)
    towers.start_logits(10.0, -10.0)  # a learned scale is kept
    assert towers.logit_scale.item() == pytest.approx(model.logit_scale.item())
    custom = open_clip.create_model(f"local-dir:{tmp_path / 'model'}", force_custom_text=True)
    own = towers.open_clip_state()
    assert all(torch.equal(own[name], tensor) for name, tensor in custom.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "text", "act"),
    [
        ("CLIP", {"eos_token_id": 3}, "gelu"),
        ("CLIP", {"eos_token_id": 3}, "quick_gelu"),
        ("CLIP", {"eos_token_id": 599}, "gelu"),
        ("CLIP", {"eos_token_id": 2}, "gelu"),  # by which transformers means the largest id
        ("Siglip", {"projection_size": 32, "eos_token_id": 3}, "gelu_pytorch_tanh"),
        ("Siglip", {"projection_size": 32, "eos_token_id": 3}, "gelu"),
    ],
)
def test_training_goes_on_from_a_folder_of_transformers(
    kind: str, text: dict[str, Any], act: str, tmp_path: Path
) -> None:
    model = transformers_folder(tmp_path / "model", kind, text, act)
    end = text["eos_token_id"] if text["eos_token_id"] != 2 else 599
    towers = clip_towers(f"transformers:{tmp_path / 'model'}", **{**WORDS, "end": end}, pretrained=True)
    pictures, ids = torch.randn(3, 3, 32, 32), texts()["ids"]
    ids[0, 2] = 598
    ids[ids == 3] = end
    towers.eval()
    with torch.no_grad():
        theirs = model(input_ids=full(ids), pixel_values=pictures)
        images = towers.of("image")(pictures).pooled
        words = towers.of("text")({"ids": ids, "attended": ids != 0}).pooled
    torch.testing.assert_close(images, theirs.image_embeds, **CLOSE)
    torch.testing.assert_close(words, theirs.text_embeds, **CLOSE)
    logits = towers.logit_scale.exp() * words @ images.T + towers.logit_bias
    torch.testing.assert_close(logits, theirs.logits_per_text, rtol=1e-4, atol=1e-4)
    for part in ("image", "text"):
        data = pictures if part == "image" else texts()
        towers.of(part)(data).pooled.sum().backward()
    without = {name for name, parameter in towers.named_parameters() if parameter.grad is None}
    assert without == {"logit_scale", "logit_bias"}


def test_pictures_are_brought_to_what_the_model_was_trained_with(tmp_path: Path) -> None:
    config = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}
    model = open_clip_folder(tmp_path / "model", config)
    given = ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    spec = f"open_clip:local-dir:{tmp_path / 'model'}"
    towers = clip_towers(spec, **{**WORDS, "end": 599}, given=given, pretrained=True).eval()
    assert isinstance(towers.towers["image"], Translated)
    stored = [tensor.data_ptr() for tensor in towers.state_dict().values()]
    assert len(stored) == len(set(stored))  # as weights are written, each once
    plain = torch.rand(2, 3, 32, 32)
    normalised, wanted = (
        (plain - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        for mean, std in (given, STATISTICS)
    )
    with torch.no_grad():
        theirs = model.encode_image(wanted, normalize=True)
        torch.testing.assert_close(towers.of("image")(normalised).pooled, theirs, **CLOSE)
    again = clip_towers(spec, **{**WORDS, "end": 599}, given=given)
    again.load_state_dict(towers.state_dict())  # the same without weights, as a run is loaded


def test_pairs_are_encoded_by_name() -> None:
    text = Text(length=12, vocabulary=512)
    paired = Paired({"photo": Vision(size=16), "text": text.fit(text.read(["a red apple", "a pear"]))})
    towers = paired.encoder("clip_nano")
    assert isinstance(towers, Clip)
    assert set(towers.towers) == {"photo", "text"}
    assert towers.config["text_cfg"]["eos_id"] == paired.parts["text"].tokenizer.end  # type: ignore[attr-defined]
    with pytest.raises(PolysenseError, match="as it is, without options"):
        paired.encoder("clip_nano", photo={"width": 8})


def test_what_a_clip_is() -> None:
    assert [
        is_clip(spec) for spec in ("siglip_nano", "transformers:openai/clip", "vit", "small+text_small")
    ] == [
        True,
        True,
        False,
        False,
    ]


def wrong(message: str, spec: str, **changed: Any) -> None:
    with pytest.raises(PolysenseError, match=re.escape(message)):
        clip_towers(spec, **{**WORDS, **changed})


def test_wrong_names_and_values(tmp_path: Path) -> None:
    wrong("unknown model of pictures and texts 'clip_nan'; did you mean 'clip_nano'", "clip_nan")
    wrong("36 is no multiple of that; choose size 32", "clip_nano", size=36)
    wrong("no pretrained weights of 'clip_nano'", "clip_nano", pretrained=True)
    wrong("the tokenizer has none", "clip_nano", end=None)
    wrong("unknown model of open_clip 'ViT-B-33'; did you mean 'ViT-B-32'", "open_clip:ViT-B-33")
    wrong("names no weights; write open_clip:MODEL/WEIGHTS", "open_clip:ViT-B-32", pretrained=True)
    wrong("not CoCa and those with a text model of transformers", "open_clip:roberta-ViT-B-32")
    wrong("cannot be had", f"open_clip:local-dir:{tmp_path / 'none'}")
    wrong("cannot be had", f"transformers:{tmp_path / 'none'}")


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    config = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}
    open_clip_folder(tmp_path / "model", config)
    spec = f"open_clip:local-dir:{tmp_path / 'model'}"
    wrong(f"as in Text(tokenizer='{spec}')", spec, vocabulary=700)
    wrong("reads texts of up to 12 tokens, not 13; choose that length", spec, length=13)


def test_models_of_transformers_that_are_none(tmp_path: Path) -> None:
    transformers_folder(tmp_path / "relu", "CLIP", {"eos_token_id": 3}, act="relu")
    wrong(
        "has the activation relu, which open_clip's modules do not have", f"transformers:{tmp_path / 'relu'}"
    )
    transformers.BertConfig(hidden_size=32).save_pretrained(tmp_path / "bert")
    wrong("a 'bert' of transformers is no model of pictures and texts", f"transformers:{tmp_path / 'bert'}")


def test_pictures_of_another_size_and_longer_texts_are_refused() -> None:
    towers = clip_towers("clip_nano", **WORDS)
    with pytest.raises(PolysenseError, match=r"32×32 pixels, not \[3, 16, 16\]"):
        towers.image(torch.zeros(1, 3, 16, 16))
    ids = torch.ones(1, 13, dtype=torch.long)
    with pytest.raises(PolysenseError, match="reads up to 12 tokens and a text has 13"):
        towers.text({"ids": ids, "attended": ids > 0})
    with pytest.raises(PolysenseError, match="cannot hide tokens"):
        towers.image(torch.zeros(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.bool))


def test_weights_of_another_model_are_refused() -> None:
    towers = clip_towers("clip_nano", **WORDS)
    with pytest.raises(PolysenseError, match="are not those of this CLIP: only one has 'logit_bias'; take"):
        towers.load_open_clip_state({**towers.open_clip_state(), "logit_bias": torch.zeros(())})
