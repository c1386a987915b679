"""Captions that trained towers write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from polysense.encoders.base import Encoded
from polysense.encoders.towers import Towers, of_part
from polysense.errors import PolysenseError
from polysense.modalities.pairs.modality import Paired


@torch.no_grad()
def write_captions(
    paired: Paired, towers: Towers, pictures: Sequence[Any], *, picture: str = "image", text: str = "text"
) -> list[str]:
    """A caption for each picture, the likeliest word after the likeliest word (coca).

    Args:
        paired: what makes tensors of pictures and words of ids.
        towers: trained with a captioner.
        pictures: as the part's modality takes them.
        picture, text: the names of the parts.

    Raises:
        PolysenseError: for towers that have no captioner, and pictures that cannot be read.
    """
    if towers.captioner is None:
        raise PolysenseError("these towers write no captions; train them with coca")
    reader: Any = paired.part(text)
    batch = paired.batch([{picture: one} for one in pictures]).to(towers.logit_scale.device)
    was = towers.training
    towers.eval()
    seen: Encoded = towers.towers[picture](of_part(paired.plain(batch).data, picture))  # type: ignore[arg-type]
    ids = towers.captioner.write(seen, start=reader.tokenizer.start, end=reader.tokenizer.end)
    towers.train(was)
    words: list[str] = reader.tokenizer.decode(ids)
    return words
