"""Losses as small modules: tensors in, one scalar out. They know no encoder, no dataset and no trainer."""

from polysense.objectives.base import Objective
from polysense.objectives.clustering import DeepClusterV2, SwAV
from polysense.objectives.contrastive import NTXent, info_nce
from polysense.objectives.cross_view import NNCLR, InfoNCE, MoCo, MoCoV3
from polysense.objectives.dense import DenseMoCo, LocalVICReg
from polysense.objectives.distillation import DINO, Distillation, NegativeCosine
from polysense.objectives.features import FeatureRegression
from polysense.objectives.masked_siamese import MSN
from polysense.objectives.matryoshka import Matryoshka
from polysense.objectives.mutual_information import (
    DonskerVaradhan,
    JensenShannon,
    LocalInfoNCE,
    MutualInformation,
)
from polysense.objectives.pairs import OneWayContrast, PairContrast, PairSigmoid
from polysense.objectives.preferences import BradleyTerry
from polysense.objectives.queue import Queue
from polysense.objectives.ranking import AnswerRanking
from polysense.objectives.reconstruction import (
    DiscreteAutoencoding,
    MaskedClassification,
    MaskedReconstruction,
)
from polysense.objectives.redundancy import BarlowTwins, VICReg
from polysense.objectives.sigreg import LeJEPA, SIGReg
from polysense.objectives.speech import BilinearContrast, FutureContrast, QuantisedContrast
from polysense.objectives.supervised import SupCon
from polysense.objectives.temporal import (
    VIP,
    ActionPrediction,
    DotInfoNCE,
    FrameOrder,
    InstructionContrast,
    LatentPrediction,
    Sparsity,
)
from polysense.objectives.token_distillation import IBOT, KoLeo
from polysense.objectives.whitening import WMSE

__all__ = [
    "DINO",
    "IBOT",
    "MSN",
    "NNCLR",
    "VIP",
    "WMSE",
    "ActionPrediction",
    "AnswerRanking",
    "BarlowTwins",
    "BilinearContrast",
    "BradleyTerry",
    "DeepClusterV2",
    "DenseMoCo",
    "DiscreteAutoencoding",
    "Distillation",
    "DonskerVaradhan",
    "DotInfoNCE",
    "FeatureRegression",
    "FrameOrder",
    "FutureContrast",
    "InfoNCE",
    "InstructionContrast",
    "JensenShannon",
    "KoLeo",
    "LatentPrediction",
    "LeJEPA",
    "LocalInfoNCE",
    "LocalVICReg",
    "MaskedClassification",
    "MaskedReconstruction",
    "Matryoshka",
    "MoCo",
    "MoCoV3",
    "MutualInformation",
    "NTXent",
    "NegativeCosine",
    "Objective",
    "OneWayContrast",
    "PairContrast",
    "PairSigmoid",
    "QuantisedContrast",
    "Queue",
    "SIGReg",
    "Sparsity",
    "SupCon",
    "SwAV",
    "VICReg",
    "info_nce",
]
