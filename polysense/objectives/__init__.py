"""Losses as small modules: tensors in, one scalar out. They know no encoder, no dataset and no trainer."""

from polysense.objectives.base import Objective
from polysense.objectives.contrastive import NTXent, info_nce
from polysense.objectives.distillation import DINO, Distillation, NegativeCosine
from polysense.objectives.reconstruction import MaskedReconstruction
from polysense.objectives.redundancy import BarlowTwins, VICReg

__all__ = [
    "DINO",
    "BarlowTwins",
    "Distillation",
    "MaskedReconstruction",
    "NTXent",
    "NegativeCosine",
    "Objective",
    "VICReg",
    "info_nce",
]
