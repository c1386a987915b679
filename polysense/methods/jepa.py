"""I-JEPA: predict what a teacher makes of the blocks that the student does not see."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoder
from polysense.encoders.heads import PlacePredictor
from polysense.encoders.teacher import Teacher
from polysense.errors import PolysenseError
from polysense.methods.block_masks import ContextAndTargets
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.optimisation import Optimisation
from polysense.methods.recipes import recipe
from polysense.modalities.base import View, ViewPlan
from polysense.objectives.reconstruction import MaskedReconstruction


class AskedTokens(Reads):
    """What the student predicts at the tokens that are asked for against the teacher's tokens there.

    The branch's predictor takes what the student saw and ``view.asked``; the teacher's tokens are
    standardised over their own values. Gives the objective prediction and target, ``[B·M, N, E]`` each.
    """

    def of_teacher(self, view: View) -> bool:
        """The teacher sees every view whole."""
        return True

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Predict and look up, view by view, the batches one behind the other."""
        predictions, targets = [], []
        for view, student, teacher in zip(seen.views, seen.student, seen.teacher, strict=True):
            assert view.asked is not None
            assert teacher is not None
            assert teacher.tokens is not None
            predictions.append(branch.predictor(student, view.asked))
            tokens = functional.layer_norm(teacher.tokens, teacher.tokens.shape[-1:])
            groups = view.asked.flatten(0, 1)
            repeated = tokens.repeat_interleave(view.asked.shape[1], 0)
            targets.append(repeated[groups].view(len(groups), -1, tokens.shape[-1]))
        return torch.cat(predictions), torch.cat(targets)


@recipe(
    "ijepa",
    family="masked",
    title="Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture",
    paper="https://arxiv.org/abs/2301.08243",
    views=ViewPlan(globals_=1, strength="weak", options={"image": {"scale": (0.3, 1.0), "flip": 0.0}}),
    optimisation=Optimisation(
        "adamw", lr=1e-3, per=2048, weight_decay=0.04, final_weight_decay=0.4, warmup=0.13
    ),
    collapse="the teacher moves too fast or the student too fast: raise momentum, lower lr",
    embeds_with="teacher",
    encoders="a ViT",
    default_encoders={"image": "vit_nano"},
)
def ijepa(
    encoder: Encoder,
    modality: str = "image",
    *,
    momentum: float = 0.996,
    targets: int = 4,
    predictor_width: int = 384,
    predictor_depth: int = 12,
    predictor_heads: int = 12,
) -> Method:
    """From one block of the picture predict the teacher's embeddings of others (smooth L1)."""
    if not encoder.token_values:  # asked of an encoder that cannot hide, it says so
        raise encoder.cannot_hide()
    if targets < 1:
        raise PolysenseError(f"{targets} targets ask for nothing; use at least 1")
    predictor = PlacePredictor(encoder.token_dim, predictor_width, predictor_depth, predictor_heads)
    objective = MaskedReconstruction(normalise=False, distance=functional.smooth_l1_loss)
    return Method(
        {modality: encoder},
        {"predict": Branch(nn.Identity(), objective, AskedTokens(), predictor=predictor)},
        teacher=Teacher(momentum, schedule="linear"),
        masker=ContextAndTargets(targets),
    )
