"""stable-pretraining: its losses, and its methods as they are, around our encoder."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("LOGURU_LEVEL", "ERROR")  # before the import: it reports every module it builds

import torch
from stable_pretraining import losses, methods
from stable_pretraining.methods.lejepa import SlicedEppsPulley
from torch import Tensor, nn

from benchmarks.peers.parts import Embedder, Loss, Model, Options, Views, pair, swapped


def dino(o: Options) -> Loss:
    criterion = losses.DINOv1Loss(o["student_temperature"])

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        targets = criterion.softmax_center_teacher(teacher, o["teacher_temperature"])
        value: Tensor = criterion(student, targets)
        criterion.update_center(teacher)
        return value

    return loss


def lejepa(o: Options) -> Loss:
    gaussian = SlicedEppsPulley(o["slices"], n_points=o["knots"])
    return lambda z, whole: methods.LeJEPA._compute_loss(z, len(whole), gaussian, o["regularisation"])[0]


LOSSES = {
    "simclr": lambda o: pair(losses.NTXEntLoss(o["temperature"])),
    "byol": lambda o: swapped(losses.BYOLLoss()),
    "barlow_twins": lambda o: pair(losses.BarlowTwinsLoss(o["off_diagonal"])),
    "vicreg": lambda o: pair(losses.VICRegLoss()),
    "lejepa": lejepa,
    "dino": dino,
}


def method(name: str, encoder: nn.Module, wiring: Callable[[Any, Views], Any], **options: Any) -> Model:
    """One of its methods; ``wiring`` says how it takes the views."""
    module = getattr(methods, name)(encoder, **options)
    averages = [each for each in module.modules() if hasattr(each, "update_teacher")]

    def follow() -> None:
        for each in averages:
            each.update_teacher()

    return Model(lambda views: wiring(module, views).loss, module, after=follow)


def two_views(name: str, encoder: nn.Module, **options: Any) -> Model:
    return method(name, Embedder(encoder), lambda module, views: module(views[0], views[1]), **options)


def crops(name: str, encoder: nn.Module, **options: Any) -> Model:
    return method(
        name,
        Embedder(encoder),
        lambda module, views: module(global_views=list(views[:2]), local_views=list(views[2:])),
        **options,
    )


def moco(encoder: nn.Module, o: Options, loss: Loss | None) -> Model:
    """Both views ask, as in ours, in one batch; its own step is one direction."""
    return method(
        "MoCov2",
        Embedder(encoder),
        lambda module, views: module(torch.cat([views[0], views[1]]), torch.cat([views[1], views[0]])),
        projector_dims=(o["hidden"], o["out"]),
        queue_length=o["queue"],
    )


def mae(encoder: Any, o: Options, loss: Loss | None) -> Model:
    return method(
        "MAE",
        encoder.trunk,
        lambda module, views: module(views[0]),
        decoder_embed_dim=o["decoder_width"],
        decoder_depth=o["decoder_depth"],
        decoder_num_heads=o["decoder_heads"],
        mask_ratio=o["mask_ratio"],
    )


def simmim(encoder: Any, o: Options, loss: Loss | None) -> Model:
    patch = encoder.trunk.patch_embed
    return method(
        "SimMIM",
        encoder.trunk,
        lambda module, views: module(views[0]),
        patch_size=patch.patch_size[0],
        image_size=patch.img_size[0],
        mask_ratio=o["mask_ratio"],
    )


def three_layers(o: Options) -> dict[str, Any]:
    return {"projector_dims": (o["hidden"], o["hidden"], o["out"])}


def two_layers(o: Options) -> dict[str, Any]:
    return {"projector_dims": (o["hidden"], o["out"])}


STEPS = {
    "simclr": lambda e, o, loss: two_views("SimCLR", e, **three_layers(o)),
    "moco_v2": moco,
    "moco_v3": lambda e, o, loss: two_views("MoCov3", e, predictor_hidden_dim=o["hidden"], **three_layers(o)),
    "nnclr": lambda e, o, loss: two_views(
        "NNCLR", e, predictor_hidden_dim=2 * o["hidden"], queue_length=o["queue"], **two_layers(o)
    ),
    "byol": lambda e, o, loss: two_views("BYOL", e, predictor_dims=(o["hidden"], o["out"]), **two_layers(o)),
    "simsiam": lambda e, o, loss: two_views(
        "SimSiam", e, projector_dim=o["out"], predictor_hidden_dim=o["predictor_hidden"]
    ),
    "barlow_twins": lambda e, o, loss: two_views("BarlowTwins", e, **three_layers(o)),
    "vicreg": lambda e, o, loss: two_views("VICReg", e, **three_layers(o)),
    "wmse": lambda e, o, loss: two_views("WMSE", e, **two_layers(o)),
    "swav": lambda e, o, loss: crops("SwAV", e, n_prototypes=o["prototypes"], **two_layers(o)),
    "dino": lambda e, o, loss: crops(
        "DINO",
        e,
        projector_hidden_dim=o["hidden"],
        projector_bottleneck_dim=o["bottleneck"],
        n_prototypes=o["prototypes"],
    ),
    "mae": mae,
    "simmim": simmim,
}
