"""Models of pictures and texts as folders that open_clip and transformers load."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from polysense.deployment.folder import write_json
from polysense.deployment.run import Run
from polysense.encoders.base import Encoded, eval_mode
from polysense.encoders.clip import SHAPE, Clip
from polysense.encoders.clip_twins import for_transformers, weights_for
from polysense.encoders.foreign import Statistics
from polysense.errors import PolysenseError, require
from polysense.modalities.text.tokenizer import Tokenizer

TOLERANCE = 1e-4
"""How far unit vectors may lie apart in any coordinate and still be called the same."""

_TEXTS = ("a photo of a cat", "Zwei grüne Äpfel!", "42")


@dataclass(frozen=True)
class Joint:
    """What goes into an exported folder: towers, tokenizer, and how pictures are normalised for them."""

    towers: Clip
    tokenizer: Tokenizer
    statistics: Statistics

    @staticmethod
    def of(run: Run) -> Joint:
        """The parts of a run.

        Raises:
            PolysenseError: when its towers are not those of a CLIP.
        """
        towers = run.encoder
        if not isinstance(towers, Clip):
            raise PolysenseError(
                f"the towers of this run ({type(towers).__name__}) are none that open_clip or transformers"
                " has; train a model that they have, with encoder='clip_nano', 'siglip_nano' or one of"
                " open_clip such as 'open_clip:ViT-B-32'"
            )
        modality: Any = run.modality
        image, text = (modality.parts[part] for part in towers.parts)
        return Joint(towers, text.tokenizer, towers.wanted or (image.mean, image.std))

    @property
    def length(self) -> int:
        """The longest text that the text tower reads, in tokens."""
        return self.towers.text.length

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """The embeddings of pictures as the model itself wants them."""
        encoded: Encoded = self.towers.image(pictures)
        embedded: Tensor = self.towers.heads[self.towers.parts[0]](encoded)
        return embedded

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of texts."""
        ids, attended, _ = self.tokenizer.encode(texts, self.length)
        device = self.towers.logit_scale.device
        words = {"ids": ids.to(device), "attended": attended.to(device)}
        embedded: Tensor = self.towers.of(self.towers.parts[1])(words).pooled
        return embedded


def export_open_clip(run: Run, folder: str | Path) -> Path:
    """Write a folder that ``open_clip.create_model("local-dir:FOLDER")`` loads.

    It holds ``open_clip_config.json``, ``open_clip_model.safetensors`` and the tokenizer, for
    ``open_clip.get_tokenizer("local-dir:FOLDER")``, which brings white space to single spaces and mends
    broken characters first. What open_clip reads from it is compared with the run before the folder is put
    in place.

    Raises:
        PolysenseError: when open_clip has no such model, the folder holds something already, or cannot be
            written.
    """
    joint = Joint.of(run)
    library: Any = require("open_clip", "open_clip", "an export to open_clip")
    if SHAPE in joint.towers.config["vision_cfg"]:
        raise PolysenseError(
            "open_clip has SigLIP's picture tower only in the sizes that timm has names for; export to"
            " transformers, or train encoder='clip_nano' or a model of open_clip such as"
            " 'open_clip:ViT-B-16-SigLIP'"
        )
    config = _open_clip_config(joint)
    state = joint.towers.open_clip_state()
    if not config["model_cfg"].get("custom_text"):
        state = {name.removeprefix("text."): tensor for name, tensor in state.items()}
    with whole_folder(Path(folder)) as beside:
        write_json(beside / "open_clip_config.json", config)
        _write_tensors(beside / "open_clip_model.safetensors", state)
        fast_tokenizer(joint.tokenizer, joint.length).save_pretrained(beside)
        model = library.create_model(f"local-dir:{beside}").eval()
        tokenize = library.get_tokenizer(f"local-dir:{beside}")
        _check_same(joint, "open_clip", model.encode_image, model.encode_text, tokenize)
    return Path(folder)


def export_transformers(run: Run, folder: str | Path) -> Path:
    """Write a folder that ``CLIPModel.from_pretrained`` or ``SiglipModel.from_pretrained`` loads.

    The processor and the tokenizer are there too, for ``AutoProcessor.from_pretrained``. A SigLIP becomes a
    ``SiglipModel``, every other model a ``CLIPModel``, which has no place for a logit bias. What transformers
    reads from the folder is compared with the run before it is put in place.

    Raises:
        PolysenseError: when transformers has no such model, the folder holds something already, or cannot
            be written.
    """
    joint = Joint.of(run)
    library: Any = require("transformers", "transformers", "an export to transformers")
    words = joint.tokenizer
    end = words.end
    if end is None:
        raise PolysenseError(
            "the tokenizer puts no end token behind texts, at which CLIP pools; choose another"
        )
    kind, settings = for_transformers(joint.towers, start=words.start, end=end, pad=words.pad)
    if kind == "CLIP" and end == 2:
        raise PolysenseError(
            "the tokenizer's end token has the id 2, by which a CLIPModel pools at the largest id instead of"
            " at the end; export to open_clip, or train with another tokenizer"
        )
    model = getattr(library, f"{kind}Model")(getattr(library, f"{kind}Config")(**settings)).eval()
    model.load_state_dict(weights_for(joint.towers, model))
    processor = getattr(library, f"{kind}Processor")
    prepare = getattr(library, f"{kind}ImageProcessor")(**_preparation(joint))
    with whole_folder(Path(folder)) as beside:
        model.save_pretrained(beside)
        prepare.save_pretrained(beside)  # where older versions look
        processor(
            image_processor=prepare, tokenizer=fast_tokenizer(joint.tokenizer, joint.length)
        ).save_pretrained(beside)
        again = type(model).from_pretrained(beside).eval()
        tokenizer = processor.from_pretrained(beside).tokenizer

        def tokenize(texts: Sequence[str]) -> Tensor:
            ids: Tensor = tokenizer(
                list(texts),
                padding="max_length",
                truncation=True,
                max_length=joint.length,
                return_tensors="pt",
            ).input_ids
            return ids

        _check_same(
            joint,
            "transformers",
            lambda pictures: again.get_image_features(pixel_values=pictures).pooler_output,
            lambda ids: again.get_text_features(input_ids=ids).pooler_output,
            tokenize,
        )
    return Path(folder)


def _open_clip_config(joint: Joint) -> dict[str, Any]:
    """``open_clip_config.json``: the model, and how pictures and texts are prepared for it."""
    model = copy.deepcopy(joint.towers.config)
    # any name makes open_clip take the tokenizer from the folder; ours has no repairs of broken texts to do
    tokenizer = {"hf_tokenizer_name": "in-this-folder", "tokenizer_kwargs": {"clean": "whitespace"}}
    model["text_cfg"] = {**model["text_cfg"], **tokenizer}
    state = joint.towers.open_clip_state()
    if "logit_bias" in state:
        model["init_logit_bias"] = state["logit_bias"].item()
    mean, std = joint.statistics
    pictures = {"mean": list(mean), "std": list(std), "interpolation": "bilinear", "resize_mode": "shortest"}
    return {"model_cfg": model, "preprocess_cfg": pictures}


def _preparation(joint: Joint) -> dict[str, Any]:
    """How an image processor of transformers does what :meth:`.Vision.plain` does."""
    side, (mean, std) = joint.towers.image_size, joint.statistics
    return {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "resample": 2,  # bilinear
        "image_mean": list(mean),
        "image_std": list(std),
    }


def fast_tokenizer(tokenizer: Tokenizer, length: int) -> Any:
    """The tokenizer as transformers has it, for texts of up to ``length`` tokens."""
    library: Any = require("transformers", "transformers", "writing a tokenizer")
    called = {
        "pad": ("pad_token",),
        "unknown": ("unk_token",),
        "start": ("bos_token", "cls_token"),
        "end": ("eos_token", "sep_token"),
        "mask": ("mask_token",),
    }
    roles = tokenizer.roles
    tokens = {name: roles[role] for role, names in called.items() if role in roles for name in names}
    return library.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend, model_max_length=length, **tokens
    )


def _write_tensors(path: Path, state: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(dense, path, metadata={"format": "pt"})


def _check_same(
    joint: Joint,
    library: str,
    encode_images: Callable[[Tensor], Tensor],
    encode_ids: Callable[[Tensor], Tensor],
    tokenize: Callable[[Sequence[str]], Tensor],
) -> None:
    """Compare what the library makes of pictures and texts with what the run makes of them.

    Raises:
        PolysenseError: when it is not the same.
    """
    side = joint.towers.image_size
    pictures = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    ids, attended, _ = joint.tokenizer.encode(_TEXTS, joint.length)
    their_ids = tokenize(_TEXTS)
    whole = their_ids.shape[1] >= ids.shape[1]
    if not whole or not torch.equal(their_ids[:, : ids.shape[1]][attended], ids[attended]):
        raise _differs(library, "cuts texts into other tokens than")
    device = joint.towers.logit_scale.device
    with torch.no_grad(), eval_mode(joint.towers):
        for what, ours, theirs in (
            ("pictures", joint.images(pictures.to(device)), encode_images(pictures)),
            ("texts", joint.texts(_TEXTS), encode_ids(their_ids)),
        ):
            ours, theirs = (functional.normalize(one.float().cpu(), dim=-1) for one in (ours, theirs))
            if not torch.allclose(ours, theirs, rtol=0, atol=TOLERANCE):
                raise _differs(library, f"embeds {what} otherwise than")


def _differs(library: str, how: str) -> PolysenseError:
    return PolysenseError(
        f"{library} {how} this run, so nothing was exported; train encoder='clip_nano' or a model of"
        " open_clip as it was published, such as 'open_clip:ViT-B-32', with its own tokenizer"
    )


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place at the end; where that fails nothing is left.

    Raises:
        PolysenseError: when ``folder`` holds something already, or the disk refuses.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PolysenseError(f"{folder} exists already; choose another folder for the export")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
            beside = Path(place) / folder.name
            beside.mkdir()
            yield beside
            os.replace(beside, folder)
    except OSError as error:
        raise PolysenseError(
            f"could not write {folder}: {error}; make room or choose another folder"
        ) from error
