"""The verdict on encoders of several parts: does each part find the others, and its class by name alone?"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from polysense.encoders.base import eval_mode
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.evaluation.features import embed_all
from polysense.evaluation.judge import Hits, Judgement, intervals, percent
from polysense.evaluation.protocol import class_codes, identity_codes
from polysense.evaluation.retrieval import match_ranks
from polysense.modalities.base import Modality
from polysense.modalities.pairs.dataset import Pairs
from polysense.modalities.pairs.modality import Paired

TEMPLATES = {
    "image": ("{}", "a picture of {}", "an icon of {}"),
    "audio": ("{}", "the sound of {}", "a recording of {}"),
}
"""What a class's name is put into, by the modality that is classified: the mean of the prompts' embeddings
stands for the class. Of other modalities the name alone does."""

CHANCE = "chance"
"""The row of the answer that is drawn blindly."""

Templates = Sequence[str] | Callable[[str], Sequence[str]]
_AT = (1, 5, 10)


def judge_joint(
    encoders: Mapping[str, Towers],
    modality: Paired,
    dataset: Pairs,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Judgement:
    """Recall at 1, 5 and 10 between every two parts, both ways, and classes by their names alone.

    A part finds another where a row of the same sample, or of one with the same identity, is among the
    nearest by the cosine; ties count against it. ``zeroshot`` is the accuracy of the dataset's label from
    the names of its classes, for each part but the texts. The row "chance" is what drawing blindly gets.
    Where the language of texts is known, the same for each language, among its samples alone (``…_in_de``).

    Args:
        encoders: by the name of their row, such as "pretrained" and "untrained".
        modality: makes the parts' plain views.
        dataset: the samples.
        seed: of the bootstrap.
        device: where the encoders run.
    """
    languages = dataset.languages()
    scopes = {"": dataset, **{f"_in_{name}": dataset.in_language(name) for name in languages}}
    hits = {name: _hits(encoder, modality, scopes, device) for name, encoder in encoders.items()}
    results = {name: percent(row) for name, row in hits.items()}
    asked = {metric for row in results.values() for metric in row}
    results[CHANCE] = {
        f"{metric}{scope}": value
        for scope, samples in scopes.items()
        for metric, value in _chance(samples).items()
        if f"{metric}{scope}" in asked
    }
    notes = [
        f"recall is among the {len(dataset):,} samples given; those a run was trained on are easier to find"
        " than others"
    ]
    if languages:
        counts = ", ".join(f"{name} {len(scopes[f'_in_{name}']):,}" for name in languages)
        notes.append(f"in a language it is among the samples of that language alone: {counts}")
    return Judgement(results, intervals(hits, seed), notes)


def class_vectors(
    embed: Callable[[list[str]], Tensor], classes: Sequence[str], templates: Templates = ("{}",)
) -> Tensor:
    """A unit vector for each class, ``[C, D]``: the mean of its prompts' unit vectors, scaled to length 1.

    Args:
        embed: from texts to vectors ``[N, D]``.
        classes: their names.
        templates: texts with one ``{}``, or a function from a class to its prompts.

    Raises:
        PolysenseError: for fewer than two classes, equal ones, or a template without ``{}``.

    >>> class_vectors(lambda texts: torch.eye(2)[[len(text) % 2 for text in texts]], ["a", "bb"], ["{}"])
    tensor([[0., 1.],
            [1., 0.]])
    """
    names = [clean(name) for name in classes]
    if len(names) < 2 or len(set(names)) < len(names):
        raise PolysenseError(f"the classes {list(classes)} are not two or more different names; give such")
    prompts = [_prompts(name, templates) for name in names]
    vectors = embed([prompt for several in prompts for prompt in several])
    units = functional.normalize(vectors, dim=-1).split([len(several) for several in prompts])
    return functional.normalize(torch.stack([each.mean(0) for each in units]), dim=-1)


def text_part(modality: Paired) -> str:
    """The name of the first part that reads texts.

    Raises:
        PolysenseError: where there is none.
    """
    for part, reader in modality.parts.items():
        if reader.name == "text":
            return part
    raise PolysenseError(
        f"none of the parts {', '.join(modality.parts)} reads texts; name a part that reads the query, as by="
    )


def templates_for(modality: Modality) -> Sequence[str]:
    """The templates for names of what a modality reads."""
    return TEMPLATES.get(modality.name, ("{}",))


def clean(name: str) -> str:
    """A class's name as words of a caption.

    >>> clean("Smileys_&_Emotion ")
    'smileys and emotion'
    """
    return " ".join(name.replace("_", " ").replace("-", " ").replace("&", " and ").split()).lower()


def _prompts(name: str, templates: Templates) -> list[str]:
    if callable(templates):
        return list(templates(name))
    for template in templates:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
        if fields != [""]:
            raise PolysenseError(f"the template {template!r} has no single {{}} for the class; write one")
    return [template.format(name) for template in templates]


def _hits(encoder: Towers, modality: Paired, scopes: Mapping[str, Pairs], device: torch.device | str) -> Hits:
    """What is found in each scope; every row is embedded once."""
    vectors = {
        part: embed_all(encoder.of(part), modality.part(part), rows, device)
        for part, rows in scopes[""].parts.items()
    }
    reads = any(part.name == "text" for part in modality.parts.values())
    hits: Hits = {}
    for scope, samples in scopes.items():
        found = recall_hits(vectors, samples)
        if samples.label is not None and reads:
            with eval_mode(encoder.to(device)):
                found |= _zeroshot(encoder, modality, samples, vectors, device)
        hits |= {f"{metric}{scope}": hit for metric, hit in found.items()}
    return hits


def recall_hits(vectors: Mapping[str, Tensor], dataset: Pairs) -> Hits:
    """Which rows of each part in ``vectors`` find their sample among the nearest rows of each other."""
    owners = _owners(dataset, torch.from_numpy(_things(dataset)))
    known = {part: owners[part] >= 0 for part in vectors}  # of no sample are rows that were left out
    hits: Hits = {}
    for a, b in permutations(vectors, 2):
        ranks = match_ranks(
            vectors[a][known[a]], owners[a][known[a]], vectors[b][known[b]], owners[b][known[b]]
        )
        ranks = ranks[ranks > 0]
        hits |= {f"recall_{a}_to_{b}_at_{k}": (ranks <= k).numpy() for k in _AT} if len(ranks) else {}
    return hits


def _zeroshot(
    encoder: Towers,
    modality: Paired,
    dataset: Pairs,
    vectors: Mapping[str, Tensor],
    device: torch.device | str,
) -> Hits:
    assert dataset.label is not None
    by = text_part(modality)
    texts, tower = modality.parts[by], encoder.of(by)

    @torch.no_grad()
    def embed(prompts: list[str]) -> Tensor:
        embedded: Tensor = tower(texts.plain(texts.batch(prompts).to(device)).data).pooled
        return embedded.float().cpu()

    codes = class_codes(dataset.table, dataset.label)
    classes = sorted(dataset.table[dataset.label].dropna().astype(str).unique())
    if len({clean(name) for name in classes}) < max(2, len(classes)):
        return {}
    rights = _owners(dataset, torch.from_numpy(codes))
    hits: Hits = {}
    for part, seen in modality.parts.items():
        if seen.name == "text":
            continue
        names = class_vectors(embed, classes, templates_for(seen))
        known = rights[part] >= 0
        guessed = (vectors[part][known] @ names.T).argmax(1)
        hits[f"zeroshot_{part}"] = (guessed == rights[part][known]).numpy()
    return hits


def _things(dataset: Pairs) -> NDArray[np.int64]:
    """``[N]``: equal numbers for samples of the same thing."""
    if dataset.identity is None:
        return np.arange(len(dataset))
    return identity_codes(dataset.table, dataset.identity)


def _owners(dataset: Pairs, of_sample: Tensor) -> dict[str, Tensor]:
    """For each row of each part what is known of the sample that it belongs to; -1 for no sample."""
    known = torch.cat([of_sample, torch.tensor([-1])])  # the last is for owner -1
    return {
        part: known[torch.from_numpy(members.owners(len(dataset.parts[part])))]
        for part, members in dataset.members.items()
    }


def _chance(dataset: Pairs) -> dict[str, float]:
    """What drawing blindly gets."""
    expected = recall_by_chance(dataset, dataset.parts)
    if dataset.label is not None and (classes := dataset.table[dataset.label].nunique()):
        expected |= {f"zeroshot_{part}": 100 / classes for part in dataset.parts}
    return expected


def recall_by_chance(dataset: Pairs, parts: Iterable[str]) -> dict[str, float]:
    """The recall of :func:`recall_hits` in percent when drawn blindly: one right answer among k at least."""
    things = torch.from_numpy(_things(dataset))
    expected: dict[str, float] = {}
    owners = {part: own[own >= 0] for part, own in _owners(dataset, things).items()}
    for a, b in permutations(parts, 2):
        right = owners[b].bincount(minlength=int(things.max()) + 1)[owners[a]].float()
        missed = 1 - right[right > 0] / len(owners[b])
        expected |= {f"recall_{a}_to_{b}_at_{k}": 100 * float((1 - missed**k).mean()) for k in _AT}
    return expected
