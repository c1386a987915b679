"""Features of a whole dataset, streamed through an encoder batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polysense.encoders.base import Encoder, eval_mode
from polysense.errors import PolysenseError
from polysense.modalities.base import Batch, Dataset, Modality, View, sample_lengths

_LONG = 20
"""Fewer batches than this pass without a progress bar."""


def extract(
    encode: Callable[[View], Tensor],
    modality: Modality,
    dataset: Dataset,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    progress: bool = False,
) -> Tensor:
    """What ``encode`` makes of the plain view of every sample: ``[N, D]``, float32, on the CPU.

    ``encode`` turns a view of B samples into ``[B, D]`` and is called without gradients; the caller
    puts its model on ``device`` and into ``eval`` mode. ``progress`` shows a bar where the work is long
    and a terminal is there to see it.

    Raises:
        PolysenseError: for an empty dataset, or an ``encode`` that returns another shape.
    """
    return _stream(
        lambda batch: encode(modality.plain(batch)), modality, dataset, device, batch_size, progress
    )


def extract_raw(
    modality: Modality,
    dataset: Dataset,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    progress: bool = False,
) -> Tensor:
    """The modality's raw input as features, the baseline of every probe: ``[N, F]``, float32, CPU."""
    return _stream(modality.raw, modality, dataset, device, batch_size, progress)


def embed_all(
    encoder: Encoder, modality: Modality, dataset: Dataset, device: torch.device | str = "cpu"
) -> Tensor:
    """The pooled embedding of every sample, ``[N, D]``, with the encoder in eval mode meanwhile."""

    def pooled(view: View) -> Tensor:
        embedded: Tensor = encoder(view.data).pooled
        return embedded

    with eval_mode(encoder.to(device)):
        return extract(pooled, modality, dataset, device=device, progress=True)


# no_grad, not inference_mode: what a model caches meanwhile must stay usable in training.
@torch.no_grad()
def _stream(
    featurise: Callable[[Batch], Tensor],
    modality: Modality,
    dataset: Dataset,
    device: torch.device | str,
    batch_size: int,
    progress: bool,
) -> Tensor:
    from rich.console import Console
    from rich.progress import Progress

    if len(dataset) == 0:
        raise PolysenseError("the dataset is empty, so there is nothing to extract features from")
    features: Tensor | None = None
    lengths = sample_lengths(modality, dataset)
    order = torch.arange(len(dataset)) if lengths is None else lengths.argsort(stable=True)  # little padding
    parts = order.split(batch_size)
    console = Console(stderr=True)
    hidden = not (progress and console.is_terminal and len(parts) > _LONG)
    with Progress(console=console, transient=True, disable=hidden) as bar:
        for rows in bar.track(parts, description="features"):
            batch = modality.collate(dataset.__getitems__(rows.tolist())).to(device)
            made = featurise(batch)
            if made.ndim != 2 or len(made) != len(rows):
                raise PolysenseError(
                    f"features must have the shape [{len(rows)}, D], not {list(made.shape)}; "
                    "pool the tokens before they leave the encoder"
                )
            if features is None:
                features = torch.empty(len(dataset), made.shape[1])
            features[rows] = made.float().cpu()
    assert features is not None
    return features
