"""CoCa: pictures and texts are matched, and the texts are written from the pictures."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from polysense.encoders.towers import Towers
from polysense.errors import PolysenseError
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.joint import ALMOST_WHOLE, SCALE, check_part, matches, view_places
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.objectives.pairs import PairContrast
from polysense.objectives.reconstruction import MaskedClassification


@dataclass(frozen=True)
class NextWords(Reads):
    """Each word of a text, predicted from those before it and from another part.

    Gives the objective the logits ``[B, T - 1, vocabulary]``, the words ``[B, T - 1]``, and which of them
    are there.
    """

    seen: str
    written: str

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Let the head, a captioner, read along."""
        shown, text = view_places(seen, self.seen)[0], view_places(seen, self.written)[0]
        words = seen.views[text].data
        assert isinstance(words, dict)
        ids, there = words["ids"], words["attended"][:, 1:]
        for view in (seen.views[shown], seen.views[text]):
            if view.present is not None:
                there = there & view.present[:, None]
        return branch.head(seen.student[shown], ids[:, :-1]), ids[:, 1:], there


@recipe(
    "coca",
    family="joint",
    title="CoCa: Contrastive Captioners are Image-Text Foundation Models",
    paper="https://arxiv.org/abs/2205.01917",
    views=ALMOST_WHOLE,
    optimisation=Optimisation("adamw", lr=8e-4, per=65536, weight_decay=0.01, warmup=0.02),
    collapse="writing outweighs matching: lower caption_weight, or use larger batches",
    encoders="a conv net or a ViT, a text encoder, and a captioner",
    modalities=("pair",),
    default_encoders={"pair": "small+text_small+captioner"},
)
def coca(
    encoder: Towers,
    modality: str = "pair",
    *,
    picture: str = "image",
    text: str = "text",
    caption_weight: float = 2.0,
    contrast_weight: float = 1.0,
    scale: float = SCALE,
) -> Method:
    """Find the text that belongs to a picture, and write it word by word.

    The authors' decoder reads on where a causal text tower ends; here it reads the words themselves, so that
    any text tower will do. Theirs looks at a picture through 256 learned queries, and one more makes the
    embedding that is matched: that is the captioner's option ``queries``. Without it, the decoder looks at
    all places, which of small pictures are fewer.
    """
    check_part(encoder, picture)
    check_part(encoder, text)
    if encoder.captioner is None:
        raise PolysenseError(
            "coca writes captions, and there is no captioner behind these towers; name one, as in"
            " 'small+text_small+captioner'"
        )
    encoder.start_logits(scale)
    write = Branch(encoder.captioner, MaskedClassification(), NextWords(picture, text), weight=caption_weight)
    match = matches(encoder, PairContrast(encoder.logit_scale), weight=contrast_weight)
    return Method(dict(encoder.towers.items()), {**match, "caption": write})  # type: ignore[arg-type]
