"""Recipes that tell a sample's views from everybody else's."""

from __future__ import annotations

from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import Projector, mlp
from polysense.encoders.teacher import Teacher
from polysense.errors import PolysenseError
from polysense.methods.build import joint_embedding
from polysense.methods.engine import Branch, Method
from polysense.methods.optimisation import Optimisation
from polysense.methods.reads import EachOther, OwnPredictions, WithKnown
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.contrastive import NTXent
from polysense.objectives.cross_view import NNCLR, InfoNCE, MoCo, MoCoV3
from polysense.objectives.supervised import SupCon


@recipe(
    "simclr",
    family="contrastive",
    title="A Simple Framework for Contrastive Learning of Visual Representations",
    paper="https://arxiv.org/abs/2002.05709",
    optimisation=Optimisation("lars", lr=0.3, weight_decay=1e-4, warmup=0.1),
    collapse="the views are too easy or the temperature too high: strengthen the crops, lower temperature",
)
def simclr(
    encoder: Encoder,
    modality: str = "image",
    *,
    temperature: float = 0.1,
    hidden: int = 2048,
    out: int = 128,
    layers: int = 3,
) -> Method:
    """Pull two views of a sample together, push all other samples of the batch away (NT-Xent)."""
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, layers=layers),
        objective=NTXent(temperature),
    )


@recipe(
    "moco_v2",
    family="contrastive",
    title="Improved Baselines with Momentum Contrastive Learning",
    paper="https://arxiv.org/abs/2003.04297",
    views=ViewPlan(
        options={"image": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
    ),
    optimisation=Optimisation("sgd", lr=0.03, weight_decay=1e-4, warmup=0.0),
    collapse="the teacher moves too fast for its queue: raise momentum, or shorten the queue",
)
def moco_v2(
    encoder: Encoder,
    modality: str = "image",
    *,
    temperature: float = 0.2,
    queue: int = 65536,
    momentum: float = 0.999,
    hidden: int = 2048,
    out: int = 128,
) -> Method:
    """Find the slow teacher's embedding of the other view among a queue of earlier samples.

    Every view asks and answers, as all are encoded anyway; the paper's first view asks, its second
    answers. The authors shuffle samples between devices, lest BatchNorm betray the partner; here
    nothing takes the place of that.
    """
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, norm="none"),
        teacher=Teacher(momentum, schedule="constant"),
        objective=MoCo(out, queue, temperature),
    )


@recipe(
    "moco_v3",
    family="contrastive",
    title="An Empirical Study of Training Self-Supervised Vision Transformers",
    paper="https://arxiv.org/abs/2104.02057",
    views=ViewPlan(
        options={
            "image": {
                "scale": (0.08, 1.0),
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.2,
                "hue": 0.1,
                "views": [{"blur": 1.0}, {"blur": 0.1, "solarise": 0.2}],
            }
        }
    ),
    optimisation=Optimisation("adamw", lr=1.5e-4, weight_decay=0.1, warmup=0.13),
    collapse="training is unstable at this learning rate: lower lr, keep freeze_patches, raise momentum",
)
def moco_v3(
    encoder: Encoder,
    modality: str = "image",
    *,
    temperature: float = 0.2,
    momentum: float = 0.99,
    hidden: int = 4096,
    out: int = 256,
    layers: int = 3,
    freeze_patches: bool = True,
) -> Method:
    """Predict which of the batch's other views the slow teacher made of the same sample.

    The defaults are those for a ViT; for a ResNet the authors take temperature=1 and layers=2.
    """
    if freeze_patches:
        encoder.freeze_stem()
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, layers, last_norm="batch_no_affine"),
        predictor=mlp(out, hidden, out, last_norm="batch_no_affine"),
        teacher=Teacher(momentum),
        objective=MoCoV3(temperature),
    )


@recipe(
    "nnclr",
    family="contrastive",
    title="With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning",
    paper="https://arxiv.org/abs/2104.14548",
    optimisation=Optimisation("lars", lr=0.3, weight_decay=1e-6, warmup=0.01),
    collapse="the neighbours are too few or too alike: lengthen the queue, lower temperature",
)
def nnclr(
    encoder: Encoder,
    modality: str = "image",
    *,
    temperature: float = 0.1,
    queue: int = 98304,
    hidden: int = 2048,
    out: int = 256,
) -> Method:
    """Pull a view towards the nearest earlier neighbour of the sample's other view."""
    projector = Projector(encoder.dim, hidden, out, layers=3, last_norm="batch")
    predictor = mlp(out, 2 * hidden, out)  # the paper's 4096 beside the projector's 2048
    match = Branch(projector, NNCLR(out, queue, temperature), OwnPredictions(), predictor=predictor)
    return Method({modality: encoder}, {"match": match})


class FirstDimensions(nn.Module):
    """The head that is none: the first ``count`` dimensions of the pooled embedding (DirectCLR)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, count]``."""
        return encoded.pooled[:, : self.count]


@recipe(
    "directclr",
    family="contrastive",
    title="Understanding Dimensional Collapse in Contrastive Self-supervised Learning",
    paper="https://arxiv.org/abs/2110.09348",
    optimisation=Optimisation("lars", lr=4.8, per=4096, weight_decay=1e-6, warmup=0.1),
    collapse="the loss reads too few dimensions or too many: change share, lower temperature",
)
def directclr(
    encoder: Encoder,
    modality: str = "image",
    *,
    temperature: float = 0.1,
    share: float = 360 / 2048,
) -> Method:
    """Compare views by the first dimensions of the embedding itself, without a projector.

    The paper takes 360 of a ResNet-50's 2,048 dimensions: ``share`` is as many of any encoder's.
    """
    dimensions = round(share * encoder.dim)
    if not 1 <= dimensions <= encoder.dim:
        raise PolysenseError(
            f"a share of {share} makes {dimensions} of the encoder's {encoder.dim} dimensions; choose one"
            " above 0, and at most 1"
        )
    return joint_embedding(
        encoder, modality, projector=FirstDimensions(dimensions), objective=InfoNCE(temperature)
    )


@recipe(
    "supcon",
    family="contrastive",
    title="Supervised Contrastive Learning",
    paper="https://arxiv.org/abs/2004.11362",
    optimisation=Optimisation("sgd", lr=0.5, per=1024, weight_decay=1e-4, warmup=0.01),
    collapse="a class fills the batch, or the temperature is too high: use larger batches, lower temperature",
    labels=True,
)
def supcon(
    encoder: Encoder,
    modality: str = "image",
    *,
    temperature: float = 0.1,
    hidden: int = 2048,
    out: int = 128,
) -> Method:
    """Pull together all views of all samples of a class, where the class is known."""
    projector = Projector(encoder.dim, hidden, out, norm="none")
    match = Branch(projector, SupCon(temperature), WithKnown(EachOther(), "label"))
    return Method({modality: encoder}, {"match": match})
