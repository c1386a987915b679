"""Recipes that cluster while they learn, and predict one view's cluster from another."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from polysense.encoders.base import Encoder
from polysense.encoders.heads import Projector
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.optimisation import Optimisation
from polysense.methods.reads import WithKnown, global_views
from polysense.methods.recipes import recipe
from polysense.modalities.base import ViewPlan
from polysense.objectives.clustering import DeepClusterV2, SwAV


@dataclass(frozen=True)
class OwnTeacher(Reads):
    """The student's views against its own global ones: the student teaches itself (SwAV).

    Gives the objective ``[V, B, K]`` of all views, the global ones first, and ``[T, B, K]`` of the global
    ones again, without their gradient.
    """

    def compares_embeddings(self) -> bool:
        """Those of whole samples."""
        return True

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Project all views once."""
        places = sorted(range(len(seen.views)), key=lambda place: not global_views(seen.views[place]))
        views = [seen.views[place] for place in places]
        projected = branch.project([seen.student[place] for place in places], views)
        return projected, projected[: sum(map(global_views, views))].detach()


def _multi_crop(locals_: int, smallest: float) -> ViewPlan:
    """Two large crops and some small ones, in the authors' sizes."""
    scales = {"scale": (smallest, 1.0), "local": {"scale": (0.05, 0.14)}}
    return ViewPlan(globals_=2, locals_=locals_, options={"image": scales})


@recipe(
    "swav",
    family="clustering",
    title="Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
    paper="https://arxiv.org/abs/2006.09882",
    views=_multi_crop(locals_=6, smallest=0.14),
    optimisation=Optimisation("lars", lr=4.8, per=4096, weight_decay=1e-6, warmup=0.025),
    collapse="the codes are too soft or the batch too small to balance: lower epsilon, use fewer prototypes"
    " or a longer queue",
)
def swav(
    encoder: Encoder,
    modality: str = "image",
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    prototypes: int = 3000,
    hidden: int = 2048,
    out: int = 128,
    queue: int = 3840,
    queue_from: float = 0.075,
    frozen_until: float = 0.005,
) -> Method:
    """Predict from each view the cluster that another view falls into, all clusters being used equally."""
    objective = SwAV(
        prototypes,
        out,
        temperature,
        epsilon,
        iterations,
        queue=queue,
        queue_from=queue_from,
        frozen_until=frozen_until,
    )
    match = Branch(Projector(encoder.dim, hidden, out), objective, OwnTeacher())
    return Method({modality: encoder}, {"match": match})


@recipe(
    "deepcluster_v2",
    family="clustering",
    title="Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (appendix)",
    paper="https://arxiv.org/abs/2006.09882",
    views=_multi_crop(locals_=4, smallest=0.08),
    optimisation=Optimisation("lars", lr=4.8, per=4096, weight_decay=1e-6, warmup=0.025),
    collapse="one cluster takes too much: use more prototypes or strengthen the crops",
)
def deepcluster_v2(
    encoder: Encoder,
    modality: str = "image",
    *,
    temperature: float = 0.1,
    prototypes: int = 3000,
    clusterings: int = 3,
    hidden: int = 2048,
    out: int = 128,
    samples: int = 1_281_167,
) -> Method:
    """Cluster all samples once an epoch (k-means) and predict each one's cluster from its views."""
    objective = DeepClusterV2(samples, prototypes, out, clusterings, temperature)
    match = Branch(Projector(encoder.dim, hidden, out), objective, WithKnown(OwnTeacher(), "index"))
    return Method({modality: encoder}, {"match": match})
