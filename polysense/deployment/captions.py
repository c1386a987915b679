"""Captions that a run writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.captioner import Captioner
from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.modalities.base import Batch, Modality
from polysense.modalities.pairs.modality import Paired


@dataclass(frozen=True)
class CaptionWriter:
    """What in a run writes captions: the tower that sees, a captioner, and the tokenizer of its words.

    ``sees`` is the modality of what captions are written for.
    """

    sees: Modality
    tower: Encoder
    captioner: Captioner
    tokenizer: Any

    @classmethod
    def of(cls, encoder: Encoder, modality: Modality, config: Mapping[str, Any]) -> CaptionWriter:
        """The writer in a run; its method's options say which part sees and which is written.

        Raises:
            PolysenseError: for a run that did not learn to write.
        """
        options, captioner = config["options"], getattr(encoder, "captioner", None)
        if (
            not isinstance(encoder, Towers)
            or not isinstance(modality, Paired)
            or captioner is None
            or not {"picture", "text"} <= set(options)
        ):
            raise PolysenseError(
                f"this run ({config['method']}) writes no captions; train one that does, with the method coca"
            )
        tower: Any = encoder.towers[options["picture"]]
        text: Any = modality.part(options["text"])
        return cls(modality.part(options["picture"]), tower, captioner, text.tokenizer)

    @torch.no_grad()
    def write(self, batch: Batch, beams: int = 1) -> list[str]:
        """A caption for each sample, see :meth:`.Captioner.write`; modules are to be in eval mode."""
        device = next(self.captioner.parameters()).device
        seen: Encoded = self.tower(self.sees.plain(batch.to(device)).data)
        ids = self.captioner.write(seen, start=self.tokenizer.start, end=self.tokenizer.end, beams=beams)
        captions: list[str] = self.tokenizer.decode(ids)
        return captions
