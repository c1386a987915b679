"""Every objective, fed from one stack of embeddings, for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polysense import objectives


@dataclass(frozen=True)
class Case:
    make: Callable[[], objectives.Objective]
    inputs: Callable[[Tensor], tuple[Tensor, ...]]

    def loss(self, z: Tensor) -> Tensor:
        """The loss of a fresh objective on ``z``, ``[V, B, K]``."""
        return self.make().eval()(*self.inputs(z))


def student_only(z: Tensor) -> tuple[Tensor, ...]:
    return (z,)


def with_teacher(z: Tensor) -> tuple[Tensor, ...]:
    return z, (0.7 * z[:2] + z[:2].flip(-1)).detach()


def tokens(z: Tensor) -> tuple[Tensor, ...]:
    prediction = z.transpose(0, 1)
    return prediction, (3 * prediction).cos().detach(), prediction[..., 0].detach() > -0.3


def words(z: Tensor) -> tuple[Tensor, ...]:
    prediction, target, mask = tokens(z)
    return prediction, target.argmax(-1), mask


def autoencoded(z: Tensor) -> tuple[Tensor, ...]:
    decoded, target, _ = tokens(z)
    return decoded, target, 2 * target.flip(-1)


def with_places(z: Tensor) -> Tensor:
    """``[V, B, 3, K]``: three places for each embedding."""
    return torch.stack([z, z.flip(-1).sin(), (2 * z).cos()], 2)


def places_and_summary(z: Tensor) -> tuple[Tensor, ...]:
    return with_places(z), 2 * z


def places_in_the_sample(z: Tensor) -> tuple[Tensor, ...]:
    return with_places(z), with_places(z.roll(1, -1)).detach()[..., :2]


def places_of_both(z: Tensor) -> tuple[Tensor, ...]:
    student, teacher = with_places(z), with_places(0.7 * z[:2] + z[:2].flip(-1)).detach()
    return student, teacher, student.detach().cos(), teacher.cos()


def dense_moco() -> objectives.Objective:
    torch.manual_seed(1)
    return objectives.DenseMoCo(K, 16)


def with_own_teacher(z: Tensor) -> tuple[Tensor, ...]:
    return z, z[:2].detach().clone()


def with_one_of_two_places(z: Tensor) -> tuple[Tensor, ...]:
    """As if the data held two samples; which one it is can be told from the sample itself."""
    return z, z[:2].detach(), (z.sum((0, 2)) > 0).long()


def swav() -> objectives.Objective:
    torch.manual_seed(1)
    return objectives.SwAV(7, K, epsilon=0.3, queue=5, queue_from=0.0, frozen_until=0.0)


def deepcluster() -> objectives.Objective:
    torch.manual_seed(1)
    objective = objectives.DeepClusterV2(samples=9, clusters=3, dim=K)
    objective.bank.normal_()
    objective.cluster()
    return objective


def with_classes(z: Tensor) -> tuple[Tensor, ...]:
    return z, (6 * z[0, :, 0].detach()).floor().long()  # below 0 is unknown


def with_queue(
    make: Callable[..., objectives.Objective], temperature: float
) -> Callable[[], objectives.Objective]:
    def made() -> objectives.Objective:
        torch.manual_seed(0)
        return make(K, queue=9, temperature=temperature)

    return made


class Seeded(objectives.Objective):
    """An objective that draws something, made to draw the same in every call."""

    def __init__(
        self, objective: objectives.Objective, inputs: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> None:
        super().__init__()
        self.objective, self.inputs = objective, inputs

    def forward(self, z: Tensor) -> Tensor:
        torch.manual_seed(0)
        loss: Tensor = self.objective(*self.inputs(z))
        return loss


def same_views(z: Tensor) -> tuple[Tensor, ...]:
    return z, (3 * z + z.flip(-1)).cos().detach()


def hidden_tokens(z: Tensor) -> tuple[Tensor, ...]:
    prediction, target, mask = tokens(z)
    return prediction[mask], target[mask], mask


def msn() -> objectives.Objective:
    torch.manual_seed(1)
    return objectives.MSN(5, K, teacher_temperature=0.1)


def two_sides(z: Tensor) -> tuple[Tensor, ...]:
    return z[0], z[-1]


def two_sides_some_missing(z: Tensor) -> tuple[Tensor, ...]:
    """Some pairs lack a part and some share their caption, as can be told from the sample itself."""
    up = z[0].detach() > 0
    return z[0], z[-1], up[:, 0] | up[:, 1], up[:, 1] + 2 * up[:, 2]


def pair_contrast(smoothing: float = 0.0) -> objectives.Objective:
    return objectives.PairContrast(nn.Parameter(torch.tensor(1.5)), label_smoothing=smoothing)


def one_way() -> objectives.Objective:
    return objectives.OneWayContrast(nn.Parameter(torch.tensor(1.5)))


def pair_sigmoid() -> objectives.Objective:
    return objectives.PairSigmoid(nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor(-2.0)))


def pairs_with_gaps(z: Tensor) -> tuple[Tensor, ...]:
    return z, (3 * z + z.flip(-1)).cos().detach(), z.detach()[..., 0] > -0.3


def with_wrong_answers(z: Tensor) -> tuple[Tensor, ...]:
    """Some wrong answers are missing and some questions are the same, as can be told from the sample."""
    sides = torch.stack([z[0], z[1], (3 * z[1]).sin()])
    up = z[0].detach() > 0
    return sides, torch.stack([up[:, 0] | up[:, 1], up[:, 1] | up[:, 2], up[:, 3]]), up[:, 1] + 2 * up[:, 2]


def foreseen(z: Tensor) -> tuple[Tensor, ...]:
    """Four frames of each clip, and two steps that are foreseen at each of them."""
    frames = torch.stack([z[0] + z[1], 2 * z[0], (3 * z[1]).sin(), (2 * z[0]).cos()], 1)
    return torch.stack([frames.roll(1, -1).cos(), 2 * frames], 2), frames


def some_goals(z: Tensor) -> tuple[Tensor, ...]:
    """Four frames of each clip, and which have a goal."""
    return *moments(4)(z), z[0, :, 0].detach() > -0.5


def scores(z: Tensor) -> tuple[Tensor, ...]:
    """Of two right and six wrong pairs of frames, and which samples have an instruction."""
    return (
        z[:2, :, 0],
        torch.stack([z[:2, :, 1], z[:2, :, 2].cos(), z[:2, :, 3].sin()], 1),
        z[0, :, 0].detach() > -0.5,
    )


def moments(count: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """So many frames of each clip."""

    def inputs(z: Tensor) -> tuple[Tensor, ...]:
        return (torch.stack([z[0] + z[1], 2 * z[0], (3 * z[1]).sin(), (2 * z[0]).cos()])[:count],)

    return inputs


def with_actions(z: Tensor) -> tuple[Tensor, ...]:
    return z[0], z[1].detach().argmax(-1), z[1].detach()[:, 0] > -0.3


def with_answers(z: Tensor) -> tuple[Tensor, ...]:
    return z[0, :, 0], z[1, :, 1], z[0, :, 2].detach().sigmoid().round(decimals=1)


def with_forces(z: Tensor) -> tuple[Tensor, ...]:
    return z[0], z[1].detach(), z[1].detach()[:, 0] > -0.3


def bilinear() -> objectives.Objective:
    torch.manual_seed(0)
    return objectives.BilinearContrast(K)


def quantised_frames(z: Tensor) -> tuple[Tensor, ...]:
    """Four frames of a clip for each view of a sample, told from it, three of them hidden at least."""
    context = with_places(z).transpose(0, 1).flatten(1, 2)
    mask = context[..., 0].detach() > -0.3
    mask[:, :3] = True
    probabilities = torch.stack([context, context.flip(-1)], 2).softmax(-1)
    return context, (3 * context).cos().detach(), mask, probabilities


K = 4
CASES = {
    "ntxent": Case(lambda: objectives.NTXent(0.3), student_only),
    "vicreg": Case(lambda: objectives.VICReg(), student_only),
    "barlow": Case(lambda: objectives.BarlowTwins(0.1), student_only),
    "cosine": Case(lambda: objectives.NegativeCosine(), with_teacher),
    "dino": Case(lambda: objectives.DINO(K, teacher_temperature=0.2, warmup=0.0), with_teacher),
    "jsd": Case(lambda: objectives.JensenShannon(), places_and_summary),
    "local_infonce": Case(lambda: objectives.LocalInfoNCE(), places_and_summary),
    "dv": Case(lambda: objectives.DonskerVaradhan(), places_and_summary),
    "local_vicreg": Case(lambda: objectives.LocalVICReg(share=0.5), places_in_the_sample),
    "dense_moco": Case(dense_moco, places_of_both),
    "swav": Case(swav, with_own_teacher),
    "deepcluster": Case(deepcluster, with_one_of_two_places),
    "infonce": Case(lambda: objectives.InfoNCE(0.3), student_only),
    "infonce_one_way": Case(lambda: objectives.InfoNCE(0.3, one_way=True), student_only),
    "infonce_dot": Case(lambda: objectives.InfoNCE(0.7, cosine=False), student_only),
    "moco": Case(with_queue(objectives.MoCo, 0.3), with_teacher),
    "moco_v3": Case(lambda: objectives.MoCoV3(0.3), with_teacher),
    "nnclr": Case(with_queue(objectives.NNCLR, 0.3), with_teacher),
    "supcon": Case(lambda: objectives.SupCon(0.3), with_classes),
    "wmse": Case(lambda: Seeded(objectives.WMSE(shrink=0.1), student_only), student_only),
    "sigreg": Case(lambda: Seeded(objectives.SIGReg(slices=5), student_only), student_only),
    "lejepa": Case(lambda: Seeded(objectives.LeJEPA(0.3, slices=5), lambda z: (z, z[:2])), student_only),
    "dino_sinkhorn": Case(lambda: objectives.DINO(K, sinkhorn_iterations=3), with_teacher),
    "ibot": Case(lambda: objectives.IBOT(objectives.DINO(K, teacher_temperature=0.2)), hidden_tokens),
    "ibot_sinkhorn": Case(lambda: objectives.IBOT(objectives.DINO(K, sinkhorn_iterations=3)), hidden_tokens),
    "koleo": Case(lambda: objectives.KoLeo(), student_only),
    "msn": Case(msn, with_teacher),
    "features": Case(lambda: objectives.FeatureRegression(), same_views),
    "dot_infonce": Case(lambda: objectives.DotInfoNCE(), pairs_with_gaps),
    "latent_prediction": Case(lambda: objectives.LatentPrediction(), pairs_with_gaps),
    "vip": Case(lambda: objectives.VIP(), moments(4)),
    "vip_cosine": Case(lambda: objectives.VIP(0.5, cosine=True), some_goals),
    "frame_order": Case(lambda: objectives.FrameOrder(), moments(3)),
    "instructions": Case(lambda: objectives.InstructionContrast(), scores),
    "sparsity": Case(lambda: objectives.Sparsity(0.5, 2.0), student_only),
    "actions": Case(lambda: objectives.ActionPrediction(), with_actions),
    "forces": Case(lambda: objectives.ActionPrediction(), with_forces),
    "preferences": Case(lambda: objectives.BradleyTerry(), with_answers),
    "preferences_noisy": Case(lambda: objectives.BradleyTerry(0.2), with_answers),
    "masked": Case(lambda: objectives.MaskedReconstruction(), tokens),
    "masked_l1": Case(lambda: objectives.MaskedReconstruction(False, F.l1_loss), tokens),
    "masked_smooth_l1": Case(lambda: objectives.MaskedReconstruction(False, F.smooth_l1_loss), tokens),
    "masked_words": Case(lambda: objectives.MaskedClassification(), words),
    "pair_contrast": Case(pair_contrast, two_sides),
    "pair_contrast_smooth": Case(lambda: pair_contrast(0.1), two_sides_some_missing),
    "one_way": Case(one_way, two_sides),
    "pair_sigmoid": Case(pair_sigmoid, two_sides),
    "pair_sigmoid_missing": Case(pair_sigmoid, two_sides_some_missing),
    "ranking": Case(lambda: objectives.AnswerRanking(3.0), student_only),
    "ranking_hard": Case(lambda: objectives.AnswerRanking(3.0, both_ways=True), with_wrong_answers),
    "bilinear": Case(bilinear, student_only),
    "future": Case(lambda: objectives.FutureContrast(), foreseen),
    "quantised": Case(lambda: objectives.QuantisedContrast(0.3, negatives=5), quantised_frames),
    "matryoshka": Case(lambda: objectives.Matryoshka(objectives.NTXent(0.3), [2, K]), student_only),
    "matryoshka_pairs": Case(lambda: objectives.Matryoshka(pair_contrast(0.1), [3]), two_sides_some_missing),
    "discrete_autoencoding": Case(lambda: objectives.DiscreteAutoencoding(0.3), autoencoded),
}


def random_views(views: int = 2, batch: int = 6, dimensions: int = K, seed: int = 0) -> Tensor:
    """``[V, B, K]`` in float64, views of a sample resembling one another."""
    torch.manual_seed(seed)
    shared = torch.randn(1, batch, dimensions, dtype=torch.float64)
    return 0.4 * shared + 0.3 * torch.randn(views, batch, dimensions, dtype=torch.float64)
