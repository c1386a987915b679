"""A finished run as a plain module: load it, embed with it, take its trunk elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polysense.deployment.captions import CaptionWriter
from polysense.deployment.folder import read_attachments, read_config, read_weights
from polysense.deployment.sampling import complete
from polysense.encoders.base import Encoded, Encoder, eval_mode
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.modalities import rebuild
from polysense.modalities.base import Dataset, Modality, View
from polysense.modalities.pairs.modality import Paired


class Run(nn.Module):
    """An encoder with its modality and the run folder it came from.

    ``encoder`` maps tensors to :class:`~polysense.encoders.base.Encoded`; ``trunk`` is the model as its
    own library (timm, torchvision, yours) knows it, its ``state_dict`` under that library's names.
    """

    def __init__(self, encoder: Encoder, modality: Modality, path: Path, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.modality = modality
        self.path = path
        self.config = config

    @property
    def trunk(self) -> nn.Module:
        """The encoder as its own library knows it."""
        return self.encoder.trunk

    def forward(self, view: View) -> Tensor:
        """The pooled embedding ``[B, D]`` of a view."""
        encoded: Encoded = self.encoder(view.data)
        pooled: Tensor = encoded.pooled
        return pooled

    def part(self, name: str) -> Run:
        """One tower of a joint run with its head, as a run that reads that part alone.

        Its embeddings are of length 1 in the space that all parts share.

        Raises:
            PolysenseError: when the run has a single tower, or none for this part.
        """
        if not isinstance(self.encoder, Towers) or not isinstance(self.modality, Paired):
            raise PolysenseError(
                f"{self.path} has one tower, for {self.modality.name!r}, and no parts; train several with a"
                " method such as clip"
            )
        return Run(self.encoder.of(name), self.modality.part(name), self.path, self.config).eval()

    @torch.no_grad()
    def embed(self, items: Any, *, batch_size: int = 256) -> Tensor:
        """Embed samples: ``[N, D]``, float32, on the CPU.

        ``items`` is one sample or a list of them, in any form that the modality reads: for pictures
        PIL images, arrays, tensors and paths.

        Raises:
            PolysenseError: for a sample that cannot be read.
        """
        listed = _listed(items, "embed")
        parts = [self._encode(listed[at : at + batch_size]) for at in range(0, len(listed), batch_size)]
        return torch.cat(parts)

    def _encode(self, items: Sequence[Any]) -> Tensor:
        with eval_mode(self):
            batch = self.modality.batch(items).to(self.device)
            embedded: Tensor = self(self.modality.plain(batch))
        return embedded.float().cpu()

    def sample(self, pictures: Any, *, given: float = 0.5, temperature: float = 1.0) -> NDArray[Any]:
        """Complete pictures of which only the top is given: bytes ``[N, side, side, 3]`` (image_gpt).

        ``pictures`` is one or a list of them, as for :meth:`embed`; the top ``given`` share of the rows is
        kept, the rest drawn pixel by pixel with torch's global random numbers. The lower ``temperature``,
        the tamer.

        Raises:
            PolysenseError: for a run whose encoder does not predict the next pixel.
        """
        with eval_mode(self):
            batch = self.modality.batch(_listed(pictures, "complete")).to(self.device)
            view = self.modality.plain(batch)
            completed = complete(self.encoder, view.data, given=given, temperature=temperature)
        return self.modality.show(View(completed, view.modality))

    def caption(self, pictures: Any, *, beams: int = 1, batch_size: int = 64) -> list[str]:
        """Write a caption for each picture (coca).

        ``pictures`` is one or a list of them, as for :meth:`embed`. ``beams`` is how many beginnings are
        followed at a time, see :meth:`~polysense.encoders.captioner.Captioner.write`; 1 is greedy.

        Raises:
            PolysenseError: for a run that did not learn to write, or a picture that cannot be read.
        """
        writer = CaptionWriter.of(self.encoder, self.modality, self.config)
        listed = _listed(pictures, "caption")
        parts = [listed[at : at + batch_size] for at in range(0, len(listed), batch_size)]
        with eval_mode(self):
            return [text for part in parts for text in writer.write(writer.sees.batch(part), beams)]

    @torch.no_grad()
    def stream(self, dataset: Dataset, *, batch_size: int = 256) -> Iterator[tuple[range, Tensor]]:
        """Embed a dataset batch by batch: the rows' places and their embeddings ``[B, D]``."""
        for start in range(0, len(dataset), batch_size):
            rows = range(start, min(start + batch_size, len(dataset)))
            batch = self.modality.collate(dataset.__getitems__(rows)).to(self.device)
            with eval_mode(self):
                yield rows, self(self.modality.plain(batch)).float().cpu()

    @property
    def device(self) -> torch.device:
        """Where the encoder lies."""
        return next(self.encoder.parameters()).device


def _listed(items: Any, verb: str) -> list[Any]:
    listed = list(items) if isinstance(items, list | tuple) else [items]
    if not listed:
        raise PolysenseError(f"there is nothing to {verb}: give at least one sample")
    return listed


def build_encoder(config: Mapping[str, Any], modality: Modality, encoder: Any = None) -> Encoder:
    """The encoder that a configuration describes, with the weights that its seed gives.

    Raises:
        PolysenseError: when it was the user's own module and is not given again.
    """
    described = config["encoder"]
    if described["own"]:
        if encoder is None:
            raise PolysenseError(
                f"this run trained your own encoder {described['name']}: give it again, as encoder="
            )
        return modality.encoder(encoder)
    torch.manual_seed(config["seed"])
    published = {"pretrained": True} if described["pretrained"] else {}
    return modality.encoder(described["name"], **published, **described["options"])


def build_modality(folder: Path, config: Mapping[str, Any], modality: Modality | None = None) -> Modality:
    """The modality that a run folder's configuration describes.

    Raises:
        PolysenseError: when it was the user's own and is not given again.
    """
    described = config["modality"]
    if modality is not None:
        return modality
    if described["own"]:
        raise PolysenseError(
            f"this run used your own modality {described['name']!r}: give it again, as modality="
        )
    return rebuild(described["name"], described["settings"], read_attachments(folder))


def load(run: str | Path, *, encoder: nn.Module | None = None, modality: Modality | None = None) -> Run:
    """Load a run folder: a plain ``nn.Module`` in eval mode, with ``.embed``.

    ``encoder`` and ``modality`` are only needed where the run was made with your own.

    Raises:
        PolysenseError: when the folder is not a run, training did not finish, or the weights are not
            those of its encoder.
    """
    folder = Path(run)
    config = read_config(folder)
    maker = build_modality(folder, config, modality)
    tower = build_encoder(without_download(config), maker, encoder)
    try:
        tower.load_state_dict(read_weights(folder))
    except RuntimeError as error:
        raise PolysenseError(
            f"the weights in {folder} do not fit the encoder {config['encoder']['name']!r} of its config"
        ) from error
    return Run(tower, maker, folder, config).eval()


def without_download(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration with random first weights: the run's own replace them anyway."""
    return {**config, "encoder": {**config["encoder"], "pretrained": False}}
