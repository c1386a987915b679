"""A job: one run's configuration turned into dataset, modality and method, trained, and kept.

Pretraining and resuming take the same way: a configuration in which everything is resolved is all
that :class:`Job` reads.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polysense.deployment.folder import write_weights
from polysense.deployment.run import Run, build_encoder, build_modality
from polysense.encoders.adapters import Tuning, merge_lora
from polysense.encoders.base import Encoder
from polysense.errors import PolysenseError, unknown
from polysense.methods.optimisation import Optimisation
from polysense.methods.prefixes import compare_prefixes
from polysense.methods.recipes import Recipe
from polysense.methods.scaling import Circumstances, scaled_optimisation, scaled_options
from polysense.methods.table import find
from polysense.modalities.base import Dataset, Modality, ViewPlan
from polysense.modalities.builtin import PREFIX, describe
from polysense.modalities.pairs.finding import STANDARD_INPUT
from polysense.modalities.pairs.modality import Paired
from polysense.modalities.pairs.texts import TextPairs
from polysense.teachers import with_encoders
from polysense.training.budget import Budget
from polysense.training.fit import Settings, check_batch, fit
from polysense.training.optimisers import OPTIMISERS
from polysense.training.processes import is_first

AUTOMATIC = 2**31
"""Stands for the batch that suits the data: 256, or all of fewer."""


@dataclass
class Job:
    """Everything that one run is made of."""

    folder: Path
    config: dict[str, Any]
    dataset: Dataset
    modality: Modality
    tower: Encoder
    untrained: Encoder | None = None
    """The tower as it was before training, where its weights cannot be drawn again from the seed."""

    def __post_init__(self) -> None:
        if self.config["encoder"]["own"]:
            self.untrained = copy.deepcopy(self.tower)
        options = with_encoders(self.recipe, self.config["options"], self.modality)
        torch.manual_seed(self.config["seed"])
        Tuning(**self.config.get("tuning", {})).apply(self.tower)
        self.method = self.recipe.build(self.tower, self.modality.name, **options)
        if widths := self.config.get("matryoshka"):
            compare_prefixes(self.method, self.tower, widths)

    @property
    def recipe(self) -> Recipe:
        """The method's entry in the table."""
        return find(self.config["method"])

    def train(self, *, resume: bool = False) -> Run | None:
        """Train, and write the weights; None when a SIGTERM stopped it after a checkpoint."""
        finished = fit(
            self.method,
            self.modality,
            self.dataset,
            optimisation=Optimisation(**self.config["optimisation"]),
            budget=Budget(**self.config["budget"]),
            settings=Settings(**self.config["training"]),
            folder=self.folder,
            recipe=self.recipe,
            resume=resume,
        )
        if not finished:
            return None
        tower = self._kept()
        about = {"format": "pt", "method": self.recipe.name, "encoder": str(self.config["encoder"]["name"])}
        if is_first():
            write_weights(self.folder, tower.state_dict(), about=about)
        return Run(tower, self.modality, self.folder, self.config).eval()

    def _kept(self) -> Encoder:
        """The tower worth keeping, back on the CPU."""
        method = self.method
        teacher = method.teacher if self.recipe.embeds_with == "teacher" else None
        tower: Encoder = self.tower if teacher is None else teacher["towers"][self.modality.name]  # type: ignore[index]
        tower.cpu()
        tower.settle()
        merge_lora(tower)
        tower.requires_grad_(True)  # as of a run that is loaded
        return tower


def read_dataset(modality: Modality, source: Any, reading: Mapping[str, Any]) -> Dataset:
    """Read the user's data with the reading options that were given.

    Raises:
        PolysenseError: for an option that this modality's reader does not have, and as it does.
    """
    given = {name: value for name, value in reading.items() if value is not None}
    try:
        return modality.read(source, **given)
    except TypeError as error:
        stray = next((name for name in given if f"unexpected keyword argument '{name}'" in str(error)), None)
        if stray is None:
            raise
        outer, _, inner = stray.partition(".")
        nested = f"; write --reading.{outer} '{{\"{inner}\": …}}'" if inner else "; leave it out"
        raise PolysenseError(
            f"reading data of the modality {modality.name!r} has no option {stray!r}{nested}"
        ) from error


def reopen(
    folder: Path,
    config: dict[str, Any],
    data: Any = None,
    *,
    encoder: Any = None,
    modality: Modality | None = None,
) -> Job:
    """The job of a run folder, read back from its configuration.

    Raises:
        PolysenseError: when the data, encoder or modality were objects and are not given again.
    """
    maker = build_modality(folder, config, modality)
    dataset = read_dataset(maker, source_of(config, data), config["reading"])
    if len(dataset) != config["data"]["samples"]:
        raise PolysenseError(
            f"the run in {folder} was made with {config['data']['samples']} samples, the data now hold"
            f" {len(dataset)}: give the same data"
        )
    return Job(folder, config, dataset, maker, build_encoder(config, maker, encoder))


def source_of(config: Mapping[str, Any], data: Any = None) -> Any:
    """The data given now, or those that the run's configuration names."""
    if data is not None:
        return data
    source = config["data"]["source"]
    if source is None:
        raise PolysenseError(
            f"this run's data were {config['data']['was']}, which is not kept: give them again, as data="
        )
    return source


def describe_source(data: Any) -> dict[str, Any]:
    """How the configuration remembers the data: by path or name, or else by what they were."""
    if isinstance(data, str | Path) and str(data) != STANDARD_INPUT:
        source = str(data)
        return {
            "source": source
            if source.startswith("builtin:") or not Path(source).exists()
            else str(Path(source).resolve())
        }
    if isinstance(data, list) and all(isinstance(item, str | Path) and os.path.exists(item) for item in data):
        return {"source": [str(Path(item).resolve()) for item in data]}
    return {"source": None, "was": "a stream" if isinstance(data, str) else f"a {type(data).__name__}"}


def usual_modality(recipe: Recipe, data: Any) -> str:
    """The modality of data that were given without one: the recipe's, a built-in data set's, or pictures."""
    if recipe.modalities:
        return recipe.modalities[0]
    built_in = isinstance(data, str) and data.startswith(PREFIX)
    return describe(data).modality if built_in else "image"


def check_modality(recipe: Recipe, modality: Modality) -> None:
    """Refuse data that the recipe is not for.

    Raises:
        PolysenseError: naming those it is for.
    """
    if recipe.modalities and modality.name not in recipe.modalities:
        raise PolysenseError(
            f"{recipe.name} is for data of the modality {' or '.join(map(repr, recipe.modalities))}, not"
            f" {modality.name!r}; polysense methods lists what else there is"
        )
    if not recipe.modalities and isinstance(modality, TextPairs):
        raise PolysenseError(
            f"{recipe.name} compares views of one text, not texts that belong together; choose mnrl or"
            " simcse_supervised"
        )
    if not recipe.modalities and isinstance(modality, Paired):
        raise PolysenseError(
            f"{recipe.name} trains one tower, and samples of {len(modality.parts)} parts need one each;"
            " choose a method that joins them, such as clip"
        )


def plan_views(recipe: Recipe, modality: str, views: Mapping[str, Any]) -> ViewPlan:
    """The recipe's plan with the user's settings over it."""
    options = {**recipe.views.options.get(modality, {}), **views}
    return replace(recipe.views, options={**recipe.views.options, modality: options})


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None and empty mean the recipe's own."""

    recipe: Recipe
    encoder: str | nn.Module | Mapping[str, Any]
    pretrained: bool
    encoder_options: Mapping[str, Any]
    tuning: Tuning
    options: Mapping[str, Any]
    matryoshka: Sequence[int]
    views: Mapping[str, Any]
    optimisation: Mapping[str, Any]
    budget: Mapping[str, Any]
    settings: Settings

    @property
    def encoder_name(self) -> str | dict[str, str]:
        """What the encoder is called in the configuration, of several towers each."""
        if isinstance(self.encoder, Mapping):
            return {part: _name(spec) for part, spec in self.encoder.items()}
        return _name(self.encoder)

    @property
    def label(self) -> str:
        """The encoder's name as part of a folder's."""
        name = self.encoder_name
        return "+".join(name.values()) if isinstance(name, dict) else name

    @property
    def own_encoder(self) -> bool:
        """Whether the encoder, or one of several, is a module that was handed over."""
        given = self.encoder.values() if isinstance(self.encoder, Mapping) else [self.encoder]
        return any(isinstance(spec, nn.Module) for spec in given)


def configure(
    folder: Path, wanted: Wanted, config: dict[str, Any], dataset: Dataset, modality: Modality
) -> Job:
    """Resolve what the user asked for into the full configuration of a job.

    Published values are scaled to the batch, data and encoder in hand by the rules of
    :mod:`polysense.methods.scaling`, unless the user gave others.
    """
    recipe, batch = wanted.recipe, wanted.settings.batch
    if batch == AUTOMATIC:
        batch = max(1, min(256, len(dataset)))
    check_batch(dataset, replace(wanted.settings, batch=batch))
    if recipe.labels and dataset.label is None:
        raise PolysenseError(
            f"{recipe.name} learns from classes and the data have none: name their column with label, or sort"
            " the files into one folder per class"
        )
    budget = Budget.of(samples=len(dataset), batch=batch, **wanted.budget)
    config = {
        "method": recipe.name,
        "encoder": {
            "name": wanted.encoder_name,
            "own": wanted.own_encoder,
            "pretrained": wanted.pretrained,
            "options": dict(wanted.encoder_options),
        },
        **config,
        "tuning": asdict(wanted.tuning),
        "matryoshka": list(wanted.matryoshka),
        "budget": asdict(budget),
        "training": asdict(replace(wanted.settings, batch=batch)),
        "seed": wanted.settings.seed,
    }
    tower = build_encoder(config, modality, wanted.encoder if wanted.own_encoder else None)
    told = {name: getattr(dataset, name, 0) for name in ("actions", "sentence_dim")}
    here = Circumstances(batch, len(dataset), budget.steps, **told)
    config["options"] = recipe.options(wanted.options, scaled_options(recipe.published, here))
    optimisation = scaled_optimisation(recipe.optimisation, here)
    changed = {name: value for name, value in wanted.optimisation.items() if value is not None}
    _check_optimisation(changed)
    if "lr" in changed:
        changed["per"] = batch
    config["optimisation"] = asdict(replace(optimisation, **changed))
    return Job(folder, config, dataset, modality, tower)


def _name(spec: str | nn.Module) -> str:
    return spec if isinstance(spec, str) else type(spec).__name__


def _check_optimisation(changed: Mapping[str, Any]) -> None:
    if "name" in changed and changed["name"] not in OPTIMISERS:
        raise unknown("optimiser", str(changed["name"]), OPTIMISERS)
    for name in ("lr", "clip"):
        if name in changed and not changed[name] > 0:
            raise PolysenseError(f"{name} is {changed[name]}; it must be above 0")
    if changed.get("weight_decay", 0) < 0:
        raise PolysenseError(f"weight-decay is {changed['weight_decay']}; it must be at least 0")
    if not 0 <= changed.get("warmup", 0) < 1:
        raise PolysenseError(f"warmup is {changed['warmup']}; it is a share of training, from 0 to below 1")


def words(given: str | Sequence[str] | None) -> list[str]:
    """A list of names, which the command line gives with commas between."""
    return given.split(",") if isinstance(given, str) else list(given or ())
