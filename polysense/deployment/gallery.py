"""What the report shows: a sample of the data with its map, its neighbours, and the views it was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polysense.deployment.folder import write_whole
from polysense.deployment.run import Run
from polysense.encoders.towers import Towers, of_part
from polysense.evaluation.features import embed_all
from polysense.evaluation.knn import unit_rows
from polysense.modalities.audio.modality import Audio
from polysense.modalities.base import Dataset, Modality, View
from polysense.modalities.pairs.modality import Paired

GALLERY = "gallery.npz"

SHOWN = 1000
QUERIES = 12
NEIGHBOURS = 8
VIEWED = 8


def write_gallery(run: Run, dataset: Dataset, *, seed: int = 0) -> Path:
    """Write ``RUN/gallery.npz`` from up to a thousand samples."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.permutation(len(dataset))[:SHOWN])
    part = _Part(dataset, places)
    features = embed_all(run.encoder, run.modality, part, run.device)
    queries = rng.permutation(len(places))[: min(QUERIES, len(places))]
    if isinstance(run.encoder, Towers) and isinstance(run.modality, Paired):
        names, asked, answers = _by_words(run.encoder, run.modality, part)
        neighbours, similarity = _neighbours(asked, answers, queries, itself=True)
    else:
        names = part.table["name"].astype(str).to_numpy(dtype=str)
        neighbours, similarity = _neighbours(features, features, queries, itself=False)
    viewed = rng.permutation(len(places))[:VIEWED]
    content: dict[str, Any] = {
        "names": names,
        "labels": _labels(part),
        "map": flat_map(features, seed=seed),
        "neighbours": neighbours,
        "similarity": similarity,
        **_shown(run.modality, part, viewed.tolist(), seed),
        **_heard(run.modality, part, np.union1d(neighbours, viewed)),
        "viewed": viewed,
    }
    path = run.path / GALLERY

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            np.savez_compressed(file, **content)

    write_whole(path, write)
    return path


def flat_map(features: Tensor, *, seed: int = 0) -> NDArray[np.float32]:
    """The embeddings in two dimensions: t-SNE of the cosine distances, from a PCA start. ``[n, 2]``."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = unit_rows(features.float(), "features").numpy()
    if len(rows) < 8:
        flat = np.zeros((len(rows), 2), dtype=np.float32)
        flat[:, : rows.shape[1]] = rows[:, :2]
        return flat
    reduced = PCA(min(50, *rows.shape), random_state=seed).fit_transform(rows)
    tsne = TSNE(perplexity=min(30.0, (len(rows) - 1) / 3), init="pca", random_state=seed)
    placed: NDArray[np.float32] = tsne.fit_transform(reduced).astype(np.float32)
    return placed


class _Part:
    """Some samples of a dataset, as a dataset."""

    def __init__(self, dataset: Dataset, places: NDArray[np.int64]) -> None:
        self.whole = dataset
        self.places = places
        self.table = dataset.table.iloc[places].reset_index(drop=True)
        self.label = dataset.label
        self.identity = dataset.identity
        self.evaluation = dataset.evaluation

    def __len__(self) -> int:
        return len(self.places)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return self.whole.__getitems__([int(self.places[index]) for index in indices])


def _labels(part: _Part) -> NDArray[np.str_]:
    if part.label is None:
        return np.array([""] * len(part))
    return part.table[part.label].fillna("").astype(str).to_numpy(dtype=str)


def _neighbours(
    asked: Tensor, answers: Tensor, queries: NDArray[np.int64], *, itself: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each query its own place and those of the nearest answers, ``[q, k + 1]``, and their similarities
    ``[q, k]``; ``itself``: whether the query's own row may answer."""
    chosen = torch.from_numpy(queries)
    rows = unit_rows(answers.float(), "features")
    similarity = unit_rows(asked.float(), "features")[chosen] @ rows.T
    if not itself:
        similarity[torch.arange(len(chosen)), chosen] = -torch.inf
    found = similarity.topk(min(NEIGHBOURS, len(rows) - (not itself)))
    return torch.cat([chosen[:, None], found.indices], 1).numpy(), found.values.numpy()


@torch.no_grad()
def _by_words(towers: Towers, modality: Paired, part: _Part) -> tuple[NDArray[Any], Tensor, Tensor]:
    """What the last part of each sample looks like, and the embeddings of the last part and of the first:
    which pictures do a sample's words find?"""
    answering, *_, asking = modality.parts
    shown, vectors = [], {asking: list[Tensor](), answering: list[Tensor]()}
    for at in range(0, len(part), 256):
        batch = modality.collate(part.__getitems__(range(at, min(at + 256, len(part)))))
        whole = modality.plain(batch).data
        assert isinstance(whole, dict)
        shown.append(modality.show(View(of_part(whole, asking), asking)))
        for one, found in vectors.items():
            found.append(towers.of(one).eval()(of_part(whole, one)).pooled.float().cpu())
    lines = np.concatenate(shown)
    names = lines if lines.ndim == 1 else part.table["name"].astype(str).to_numpy(dtype=str)
    return names.astype(str), torch.cat(vectors[asking]), torch.cat(vectors[answering])


def _shown(modality: Modality, part: _Part, viewed: list[int], seed: int) -> dict[str, Any]:
    """Thumbnails and example views: pictures where the modality has them, lines of text elsewhere."""
    parts = []
    for at in range(0, len(part), 256):
        samples = part.__getitems__(range(at, min(at + 256, len(part))))
        parts.append(modality.show(modality.plain(modality.collate(samples))))
    batch = modality.collate(part.__getitems__(viewed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        views = modality.views(batch)
    everything = np.concatenate(parts)
    if everything.dtype != np.uint8:
        return {"captions": everything}
    looks = {"original": modality.show(modality.plain(batch))}
    for view in views:
        looks[f"{view.kind} view {len(looks)}"] = modality.show(view)
    names = [name for name, look in looks.items() if look.ndim == 4]  # texts have no picture
    shown = [looks[name] for name in names]
    side = max(picture.shape[1] for picture in shown)
    return {
        "thumbnails": everything,
        "views": np.stack([_on_canvas(pictures, side) for pictures in shown], axis=1),
        "view_names": np.array(names),
    }


def _heard(modality: Modality, part: _Part, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Some samples as files of sound, one behind the other; of pairs their first part."""
    batch = modality.collate(part.__getitems__(rows.tolist()))
    if isinstance(modality, Paired):
        first = next(iter(modality.parts))
        batch, modality = modality.batch_of(batch, first), modality.parts[first]
    if not isinstance(modality, Audio):
        return {}
    files = modality.listen(batch)
    return {
        "sounds": np.frombuffer(b"".join(files), np.uint8),
        "sound_ends": np.cumsum([len(file) for file in files]),
        "sound_rows": rows,
    }


def _on_canvas(pictures: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Smaller views (multi-crop) in the middle of a white square, so that all lie in one array."""
    height, width = pictures.shape[1:3]
    if (height, width) == (side, side):
        return pictures
    canvas = np.full((len(pictures), side, side, pictures.shape[3]), 255, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[:, top : top + height, left : left + width] = pictures
    return canvas
