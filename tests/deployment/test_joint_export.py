"""What is exported is loaded by open_clip and transformers, and embeds there as it did here."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import polysense
from polysense.deployment import joint_export
from polysense.deployment.joint_export import Joint, export_open_clip, export_transformers
from polysense.deployment.run import Run
from polysense.encoders import build
from polysense.encoders.clip import Clip
from polysense.encoders.clip_models import clip_towers
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.modalities.pairs.modality import Paired
from polysense.modalities.text.modality import Text
from polysense.modalities.text.tokenizer import Tokenizer
from polysense.modalities.vision.modality import Vision

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

CLOSE = {"rtol": 0, "atol": 1e-5}
WORDS = [
    "ein roter Apfel",
    "two green pears",
    "une poire, deux poires",
    "ネコ",
    "NAÏVE café",
    "🍎 apple",
    "50 %-off",
]
SENTENCES = [f"{one} {other}" for one in WORDS for other in (*WORDS, "x" * 40)][:50]


def shaken(module: nn.Module) -> None:
    """Weights as after training: no zeros and ones by which mixed up norms and biases would go unseen."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)


def run_of(encoder: str = "clip_nano", kind: str = "bpe", **options: Any) -> Run:
    text = Text(length=16, vocabulary=600, tokenizer=kind)
    text = text.fit(text.read(WORDS * 20))
    paired = Paired({"image": Vision(size=32, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25]), "text": text})
    towers = paired.encoder(encoder, **options)
    shaken(towers)
    return Run(towers, paired, Path("run"), {}).eval()


def embeddings(run: Run, pictures: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
    """What the run makes of pictures that are prepared already, and of texts."""
    assert isinstance(run.encoder, Clip)
    text: Any = run.modality.parts["text"]  # type: ignore[attr-defined]
    with torch.no_grad():
        words = run.encoder.of("text")(text.plain(text.batch(texts)).data).pooled
        return run.encoder.of("image")(pictures).pooled, words


def same_ids(run: Run, theirs: Tensor) -> bool:
    tokenizer: Tokenizer = run.modality.parts["text"].tokenizer  # type: ignore[attr-defined]
    ids, attended, _ = tokenizer.encode(SENTENCES, 16)
    return torch.equal(theirs[:, : ids.shape[1]][attended], ids[attended])


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_open_clip_embeds_what_was_exported_as_the_run_does(kind: str, tmp_path: Path) -> None:
    run, folder = run_of(kind=kind), tmp_path / "for" / "open_clip"
    assert export_open_clip(run, folder) == folder
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(SENTENCES)
    pictures = torch.randn(2, 3, 32, 32)
    images, words = embeddings(run, pictures, SENTENCES)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(pictures, normalize=True), images, **CLOSE)
        torch.testing.assert_close(model.encode_text(ids, normalize=True), words, **CLOSE)
    assert same_ids(run, ids)
    assert type(model).__name__ == "CLIP"  # with the names that every other tool knows
    assert model.logit_scale.item() == pytest.approx(run.encoder.logit_scale.item())
    assert model.logit_bias.item() == pytest.approx(run.encoder.logit_bias.item())
    assert prepare.transforms[-1].mean == [0.4, 0.5, 0.6]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["open_clip"]


@pytest.mark.parametrize(("encoder", "kind"), [("clip_nano", "CLIP"), ("siglip_nano", "Siglip")])
def test_transformers_embeds_what_was_exported_as_the_run_does(
    encoder: str, kind: str, tmp_path: Path
) -> None:
    run, folder = run_of(encoder), tmp_path / "model"
    export_transformers(run, folder)
    model = getattr(transformers, f"{kind}Model").from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    smooth = Image.fromarray(picture).resize((80, 60), Image.Resampling.BICUBIC)
    inputs = processor(
        text=SENTENCES, images=[smooth] * 2, padding="max_length", truncation=True, return_tensors="pt"
    )
    vision: Any = run.modality.parts["image"]  # type: ignore[attr-defined]
    seen = vision.plain(vision.batch([smooth] * 2)).data
    squashed = vision.plain(vision.batch([smooth.resize((60, 60))] * 2)).data
    off, squashed_off = ((inputs.pixel_values - one).abs().mean() for one in (seen, squashed))
    assert off < 0.1 < squashed_off  # the same square of the centre, but for rounding
    images, words = embeddings(run, inputs.pixel_values, SENTENCES)
    with torch.no_grad():
        theirs = model(input_ids=inputs.input_ids, pixel_values=inputs.pixel_values)
    torch.testing.assert_close(theirs.image_embeds, images, **CLOSE)
    torch.testing.assert_close(theirs.text_embeds, words, **CLOSE)
    assert same_ids(run, inputs.input_ids)
    assert model.logit_scale.item() == pytest.approx(run.encoder.logit_scale.item())
    if kind == "Siglip":
        assert model.logit_bias.item() == pytest.approx(run.encoder.logit_bias.item())
    else:
        assert model.config.vision_config.hidden_act == model.config.text_config.hidden_act == "gelu"
        assert model.config.text_config.eos_token_id == processor.tokenizer.eos_token_id == 3
    assert (folder / "preprocessor_config.json").is_file()


def test_from_transformers_to_open_clip_and_back(tmp_path: Path) -> None:
    """A CLIP that is taken up, exported to open_clip, taken up there and exported to transformers."""
    run = run_of()
    export_transformers(run, tmp_path / "one")
    text: Any = run.modality.parts["text"]  # type: ignore[attr-defined]
    words = {"vocabulary": text.tokenizer.size, "length": 16, "pad": 0, "end": 3}
    for number, (source, export) in enumerate(
        [
            (f"transformers:{tmp_path / 'one'}", export_open_clip),
            (f"open_clip:local-dir:{tmp_path / '0'}", export_transformers),
        ]
    ):
        towers = clip_towers(source, **words, given=([0.0] * 3, [1.0] * 3), pretrained=True)
        assert towers.wanted == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
        export(Run(towers, run.modality, Path("run"), {}), tmp_path / str(number))
    first, last = (
        transformers.CLIPModel.from_pretrained(tmp_path / name).state_dict() for name in ("one", "1")
    )
    assert all(torch.equal(tensor, last[name]) for name, tensor in first.items())
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "1")
    assert list(processor.image_mean) == [0.4, 0.5, 0.6]


def test_a_run_that_was_trained_goes_both_ways_and_is_trained_on(tmp_path: Path) -> None:
    for number in range(16):
        colour = Image.new("RGB", (40, 32), (16 * number, 0, 255 - 16 * number))
        colour.save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png", "caption": f"picture {number}"} for number in range(16)]
    pd.DataFrame(rows).to_csv(tmp_path / "pairs.csv", index=False)
    how: dict[str, Any] = {"modality": "pair", "batch_size": 8, "steps": 2, "judge": False}
    data, once, twice = str(tmp_path / "pairs.csv"), tmp_path / "once", tmp_path / "twice"
    polysense.pretrain(data, method="clip", encoder="clip_nano", size=32, out=once, **how)
    export_transformers(polysense.load(once), tmp_path / "to_transformers")
    export_open_clip(polysense.load(once), tmp_path / "to_open_clip")
    source = f"open_clip:local-dir:{tmp_path / 'to_open_clip'}"
    parts = {"parts": {"image": {"size": 32}, "text": {"tokenizer": source}}}
    polysense.pretrain(
        data,
        method="siglip",
        encoder=source,
        pretrained=True,
        modality_options=parts,
        out=twice,
        **how,
    )
    export_open_clip(polysense.load(twice), tmp_path / "again")
    config = json.loads((tmp_path / "again" / "open_clip_config.json").read_text())
    first = json.loads((tmp_path / "to_open_clip" / "open_clip_config.json").read_text())
    assert config["preprocess_cfg"] == first["preprocess_cfg"]
    assert config["model_cfg"]["init_logit_bias"] != 0  # learned, from the 0 of a CLIP


def refused(export: Any, run: Run, folder: Path, message: str) -> None:
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(PolysenseError, match=message):
        export(run, folder)
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize("export", [export_open_clip, export_transformers])
def test_other_towers_are_refused(export: Any, tmp_path: Path) -> None:
    towers = Towers({"image": build("small", size=32), "text": build("small", size=32)}, dim=8)
    run = Run(towers, run_of().modality, Path("run"), {})
    refused(export, run, tmp_path / "model", "none that open_clip or transformers has; train .*'clip_nano'")


def test_what_one_library_has_and_the_other_has_not(tmp_path: Path) -> None:
    refused(export_open_clip, run_of("siglip_nano"), tmp_path / "model", "only in the sizes that timm has")
    run = run_of()
    assert isinstance(run.encoder, Clip)
    config = dict(run.encoder.config)
    config["vision_cfg"] = {**config["vision_cfg"], "ls_init_value": 0.1}
    scaled = Run(Clip(config), run.modality, Path("run"), {}).eval()
    refused(export_transformers, scaled, tmp_path / "model", r"nothing answers to visual\.\S+ls_1")
    export_open_clip(scaled, tmp_path / "scaled")
    resnet = {"layers": [1, 1, 1, 1], "width": 16, "patch_size": None, "image_size": 32}
    config["vision_cfg"] = resnet
    conv = Run(Clip(config), run.modality, Path("run"), {}).eval()
    refused(export_transformers, conv, tmp_path / "model", "its picture tower is no ViT")
    export_open_clip(conv, tmp_path / "conv")


def test_what_would_embed_otherwise_is_not_exported(tmp_path: Path) -> None:
    run = run_of()
    assert isinstance(run.encoder, Clip)
    run.encoder.config["quick_gelu"] = True  # which is not how it was built
    refused(export_open_clip, run, tmp_path / "model", "open_clip embeds pictures otherwise than this run")


@pytest.mark.parametrize(
    ("export", "library"), [(export_open_clip, "open_clip"), (export_transformers, "transformers")]
)
def test_what_would_cut_texts_otherwise_is_not_exported(
    export: Any, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, joint = run_of(), Joint.of(run_of(kind="wordpiece"))
    other = joint_export.fast_tokenizer(joint.tokenizer, joint.length)
    monkeypatch.setattr(joint_export, "fast_tokenizer", lambda tokenizer, length: other)
    refused(export, run, tmp_path / "model", f"{library} cuts texts into other tokens than this run")


def test_an_end_id_of_two_means_something_else_to_transformers(tmp_path: Path) -> None:
    run = run_of()
    text: Any = run.modality.parts["text"]  # type: ignore[attr-defined]
    tokenizer = text.tokenizer
    swapped = json.loads(tokenizer.to_json())
    text._tokenizer = Tokenizer.from_json(json.dumps(swapped), {**tokenizer.roles, "end": "[CLS]"})
    refused(export_transformers, run, tmp_path / "model", "end token has the id 2")


@pytest.mark.parametrize("export", [export_open_clip, export_transformers])
def test_a_folder_with_something_in_it_is_left_alone(
    export: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with caplog.at_level(logging.ERROR):
        refused(export, run_of(), tmp_path / "model", "exists already; choose another folder")
