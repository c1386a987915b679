"""From a name to an encoder that has learned already, for recipes that learn from one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from polysense.deployment.folder import CONFIG
from polysense.deployment.run import load
from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError
from polysense.methods.recipes import Recipe
from polysense.modalities.base import Modality

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def with_encoders(recipe: Recipe, options: Mapping[str, Any], modality: Modality) -> dict[str, Any]:
    """The options with an encoder in place of its name, wherever the recipe takes one (by annotation)."""
    kinds = get_type_hints(recipe.build)
    return {
        name: trained(value, modality)
        if value is not None and Encoder in (kinds[name], *get_args(kinds[name]))
        else value
        for name, value in options.items()
    }


def trained(spec: Any, modality: Modality) -> Encoder:
    """The encoder with learned weights that ``spec`` names, reading what the views of ``modality`` hold.

    ``spec`` is a run folder, "transformers:NAME", "open_clip:MODEL/WEIGHTS", or a model of timm or
    torchvision, whose published weights are taken. Pictures are resized and normalised as the encoder
    knows them.

    Raises:
        PolysenseError: when it is no name, there is no such encoder or it cannot be had, or it is of
            another modality.
    """
    if not isinstance(spec, str):
        raise PolysenseError(
            f"an encoder to learn from is given by its name, not as a {type(spec).__name__}; give a run"
            " folder or a model's name"
        )
    given = modality.settings()
    if Path(spec, CONFIG).exists():
        return _of_run(spec, modality, given)
    if "mean" not in given:
        raise PolysenseError(
            f"{spec!r} is no run folder, and only those have encoders for {modality.name!r}; give one"
        )
    from polysense.encoders import foreign, vision

    library, _, name = spec.partition(":")
    statistics = given["mean"], given["std"]
    if library == "transformers":
        return foreign.from_transformers(name, statistics)
    if library == "open_clip":
        return foreign.from_open_clip(name, statistics)
    encoder = vision.build(spec, pretrained=True)
    about = getattr(encoder.trunk, "pretrained_cfg", {})
    mean, std = about.get("mean", IMAGENET[0]), about.get("std", IMAGENET[1])
    size = about.get("input_size", (3, 224, 224))[-1]
    return foreign.Translated(encoder, size, given=statistics, wanted=(mean, std))


def _of_run(folder: str, modality: Modality, given: Mapping[str, Any]) -> Encoder:
    """A run's encoder, behind the size and normalisation of that run where it reads pictures."""
    run = load(folder)
    if run.modality.name != modality.name:
        raise PolysenseError(
            f"the run {folder} reads {run.modality.name!r} and this one {modality.name!r}; learn from a run"
            " of the same kind"
        )
    own = run.modality.settings()
    if "mean" not in own:
        return run.encoder
    from polysense.encoders.foreign import Translated

    statistics = given["mean"], given["std"]
    return Translated(run.encoder, own["size"], given=statistics, wanted=(own["mean"], own["std"]))
