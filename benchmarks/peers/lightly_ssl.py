"""lightly: its losses, heads, memory banks and momentum update, as the examples in its documentation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from lightly import loss as losses
from lightly.models import modules, utils
from lightly.models.modules import heads
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.parts import (
    Embedder,
    Loss,
    Model,
    Options,
    Views,
    joined,
    matching,
    pair,
    predicting,
    swapped,
)


def nnclr(o: Options) -> Loss:
    bank = modules.NNMemoryBankModule(size=(o["queue"], o["out"]))
    criterion = swapped(losses.NTXentLoss(o["temperature"]))
    return lambda predicted, projected: criterion(
        predicted, [bank(projected[0].detach(), update=False), bank(projected[1].detach(), update=True)]
    )


def dino(o: Options) -> Loss:
    criterion = losses.DINOLoss(
        o["prototypes"], teacher_temp=o["teacher_temperature"], student_temp=o["student_temperature"]
    )
    return lambda student, teacher: criterion(list(teacher), list(student), o["teacher_temperature"])


def swav(o: Options) -> Loss:
    criterion = losses.SwaVLoss(o["temperature"], o["iterations"], o["epsilon"])
    prototypes = modules.SwaVPrototypes(o["out"], o["prototypes"])

    def loss(student: Views, teacher: Views) -> Tensor:
        prototypes.normalize()
        scores = [prototypes(F.normalize(view, dim=1)) for view in student]
        return criterion(scores[: len(teacher)], scores[len(teacher) :]).squeeze()

    return loss


def msn(o: Options) -> Loss:
    """Its targets are one view's: the second whole view is left out, and the first is no anchor."""
    criterion = losses.MSNLoss(o["temperature"], o["sinkhorn_iterations"], o["entropy_weight"])
    prototypes = nn.Parameter(torch.randn(o["prototypes"], o["out"]))
    return lambda student, teacher: criterion(
        torch.cat(list(student[1:])), teacher[0], prototypes, o["teacher_temperature"]
    )


def lejepa(o: Options) -> Loss:
    criterion = losses.LeJEPALoss(
        o["regularisation"], sigreg_knots=o["knots"], sigreg_num_vectors=o["slices"]
    )
    return lambda z, whole: criterion(
        global_proj=torch.stack(list(whole)), local_proj=torch.stack(list(z[len(whole) :]))
    )


LOSSES = {
    "simclr": lambda o: pair(losses.NTXentLoss(o["temperature"])),
    "directclr": lambda o: pair(losses.NTXentLoss(o["temperature"])),
    "moco_v2": lambda o: swapped(
        losses.NTXentLoss(o["temperature"], memory_bank_size=(o["queue"], o["out"]))
    ),
    "nnclr": nnclr,
    "byol": lambda o: swapped(losses.NegativeCosineSimilarity()),
    "simsiam": lambda o: swapped(losses.NegativeCosineSimilarity()),
    "barlow_twins": lambda o: pair(losses.BarlowTwinsLoss(o["off_diagonal"])),
    "vicreg": lambda o: pair(losses.VICRegLoss()),
    "wmse": lambda o: joined(losses.WMSELoss(o["out"], w_size=o["sub_batch"])),
    "lejepa": lejepa,
    "swav": swav,
    "dino": dino,
    "msn": msn,
}


def taught(
    encoder: nn.Module,
    head: Callable[[], nn.Module],
    loss: Loss,
    momentum: float,
    predictor: nn.Module | None = None,
) -> Model:
    """A step in which all of the student's views meet the momentum encoder's first two."""
    slow = Embedder(copy.deepcopy(encoder), head())  # a head of its own: weight norm cannot be copied
    student, predict = Embedder(encoder, head()), predictor if predictor is not None else nn.Identity()
    utils.deactivate_requires_grad(slow)

    def wiring(views: Views) -> Tensor:
        with torch.no_grad():
            teacher = [slow(view) for view in views[:2]]
        return loss([predict(student(view)) for view in views], teacher)

    return Model(wiring, student, predict, after=lambda: utils.update_momentum(student, slow, momentum))


def own_globals(encoder: nn.Module, head: nn.Module, loss: Loss) -> Model:
    """A step in which all of the student's views meet its first two."""
    return matching(encoder, head, lambda z: loss(z, z[:2]))


def directclr_step(encoder: Any, o: Options, loss: Loss) -> Model:
    criterion = losses.DirectCLRLoss(round(o["share"] * encoder.dim), o["temperature"])
    return matching(encoder, None, pair(criterion))


def mae_step(encoder: Any, o: Options, loss: Loss) -> Model:
    trunk = encoder.trunk
    masked = modules.MaskedVisionTransformerTIMM(vit=trunk)
    patch, length = trunk.patch_embed.patch_size[0], masked.sequence_length
    decoder = modules.MAEDecoderTIMM(
        num_patches=trunk.patch_embed.num_patches,
        patch_size=patch,
        embed_dim=trunk.embed_dim,
        decoder_embed_dim=o["decoder_width"],
        decoder_depth=o["decoder_depth"],
        decoder_num_heads=o["decoder_heads"],
    )

    def wiring(views: Views) -> Tensor:
        (pictures,) = views
        keep, hidden = utils.random_token_mask((len(pictures), length), mask_ratio=o["mask_ratio"])
        visible = decoder.embed(masked.encode(images=pictures, idx_keep=keep))
        tokens = utils.repeat_token(decoder.mask_token, (len(pictures), length))
        tokens = utils.set_at_index(tokens, keep, visible.type_as(tokens))
        predicted = decoder.predict(utils.get_at_index(decoder.decode(tokens), hidden))
        target = utils.get_at_index(utils.patchify(pictures, patch), hidden - 1)
        return F.mse_loss(predicted, utils.normalize_mean_var(target))

    return Model(wiring, masked, decoder)


def simmim_step(encoder: Any, o: Options, loss: Loss) -> Model:
    trunk = encoder.trunk
    masked = modules.MaskedVisionTransformerTIMM(vit=trunk)
    patch = trunk.patch_embed.patch_size[0]
    decoder = nn.Linear(trunk.embed_dim, patch**2 * 3)

    def wiring(views: Views) -> Tensor:
        (pictures,) = views
        size = (len(pictures), masked.sequence_length)
        _, hidden = utils.random_token_mask(size, mask_ratio=o["mask_ratio"])
        predicted = decoder(utils.get_at_index(masked.encode(pictures, idx_mask=hidden), hidden))
        return F.l1_loss(predicted, utils.get_at_index(utils.patchify(pictures, patch), hidden - 1))

    return Model(wiring, masked, decoder)


def head(kind: type[nn.Module], encoder: Any, o: Options, **options: Any) -> nn.Module:
    """A projection head of our recipe's sizes."""
    return kind(encoder.dim, o["hidden"], o["out"], **options)


def predictor(kind: type[nn.Module], o: Options, hidden: int) -> nn.Module:
    """A prediction head of our recipe's sizes."""
    return kind(o["out"], hidden, o["out"])


STEPS = {
    "simclr": lambda e, o, loss: matching(
        e, head(heads.SimCLRProjectionHead, e, o, num_layers=o["layers"]), loss
    ),
    "directclr": directclr_step,
    "moco_v2": lambda e, o, loss: taught(
        e, lambda: head(heads.MoCoProjectionHead, e, o), loss, o["momentum"]
    ),
    "nnclr": lambda e, o, loss: predicting(
        e,
        head(heads.NNCLRProjectionHead, e, o),
        predictor(heads.NNCLRPredictionHead, o, 2 * o["hidden"]),
        loss,
    ),
    "byol": lambda e, o, loss: taught(
        e,
        lambda: head(heads.BYOLProjectionHead, e, o),
        loss,
        o["momentum"],
        predictor(heads.BYOLPredictionHead, o, o["hidden"]),
    ),
    "simsiam": lambda e, o, loss: predicting(
        e,
        head(heads.SimSiamProjectionHead, e, o),
        predictor(heads.SimSiamPredictionHead, o, o["predictor_hidden"]),
        loss,
    ),
    "barlow_twins": lambda e, o, loss: matching(e, head(heads.BarlowTwinsProjectionHead, e, o), loss),
    "vicreg": lambda e, o, loss: matching(e, head(heads.VICRegProjectionHead, e, o), loss),
    "wmse": lambda e, o, loss: matching(e, head(heads.SimCLRProjectionHead, e, o), loss),
    "lejepa": lambda e, o, loss: own_globals(e, head(heads.LeJEPAProjectionHead, e, o), loss),
    "swav": lambda e, o, loss: own_globals(e, head(heads.SwaVProjectionHead, e, o), loss),
    "dino": lambda e, o, loss: taught(
        e,
        lambda: heads.DINOProjectionHead(e.dim, o["hidden"], o["bottleneck"], o["prototypes"]),
        loss,
        o["momentum"],
    ),
    "mae": mae_step,
    "simmim": simmim_step,
}
