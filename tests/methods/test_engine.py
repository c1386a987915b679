"""The engine: one encoding per view, weighted branches, a teacher that sees what is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from polysense.encoders.base import Encoded
from polysense.encoders.heads import Projector
from polysense.encoders.teacher import Teacher
from polysense.evaluation.rank import feature_spread
from polysense.methods.engine import Branch, Method, encode
from polysense.methods.maskers import RandomMask
from polysense.methods.reads import EachOther, TeacherViews
from polysense.methods.table import recipes
from polysense.modalities.base import View, ViewPlan
from polysense.objectives.base import Objective
from polysense.objectives.contrastive import NTXent
from polysense.objectives.distillation import NegativeCosine
from tests.toys import CellEncoder, RowEncoder, ToySequence, ToyTable, clusters

SMALL = {"hidden": 32, "out": 16, "prototypes": 16, "bottleneck": 8}
DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "normalise": False}


class Counting(RowEncoder):
    """Counts its forward passes and the rows in each."""

    def __init__(self) -> None:
        super().__init__(8)
        self.passes: list[int] = []

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Encoded:
        self.passes.append(len(data))
        return super().forward(data, mask)


def match(weight: float = 1.0) -> Branch:
    return Branch(Projector(32, 32, 8), NTXent(0.5), EachOther(), weight=weight)


def test_every_view_is_encoded_once_and_equal_shapes_together() -> None:
    encoder = Counting()
    method = Method({"table": encoder}, {"one": match(), "two": match()})
    method([View(torch.randn(5, 8), "table") for _ in range(3)])
    assert encoder.passes == [15]


def test_branches_add_up_with_their_weights() -> None:
    torch.manual_seed(0)
    branch = match()
    views = [View(torch.randn(6, 8), "table") for _ in range(2)]
    encoder = RowEncoder(8).eval()
    alone = Method({"table": encoder}, {"one": branch})(views).loss
    branch.weight = 0.25
    halved = Method({"table": encoder}, {"one": branch})(views)
    assert torch.allclose(halved.loss, 0.25 * alone)
    assert list(halved.parts) == ["one"]


def test_views_of_two_modalities_go_through_their_own_towers_and_heads() -> None:
    encoders = {"table": RowEncoder(8), "sequence": RowEncoder(5)}
    heads = nn.ModuleDict({name: Projector(32, 16, 4) for name in encoders})
    method = Method(encoders, {"pair": Branch(heads, NTXent(0.5), EachOther())})
    outcome = method([View(torch.randn(6, 8), "table"), View(torch.randn(6, 5), "sequence")])
    outcome.loss.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_data_under_names_is_concatenated_by_name() -> None:
    class Both(RowEncoder):
        def forward(self, data: dict[str, Tensor], mask: Tensor | None = None) -> Encoded:
            return super().forward(data["left"] + data["right"])

    views = [View({"left": torch.randn(4, 8), "right": torch.randn(4, 8)}, "table") for _ in range(2)]
    encoder = Both(8).eval()
    together = encode(nn.ModuleDict({"table": encoder}), views)
    for one, view in zip(together, views, strict=True):
        assert torch.allclose(one.pooled, encoder(view.data).pooled, atol=1e-6)


def test_the_teacher_sees_only_what_is_asked_for_and_gets_no_gradient() -> None:
    encoder = Counting()
    branch = Branch(Projector(32, 32, 8), NegativeCosine(), TeacherViews(), predictor=nn.Linear(8, 8))
    method = Method({"table": encoder}, {"match": branch}, teacher=Teacher(0.9))
    views = [View(torch.randn(4, 8), "table", kind) for kind in ("local", "global", "global")]
    outcome = method(views)
    assert [encoded is None for encoded in outcome.seen.teacher] == [True, False, False]
    outcome.loss.backward()
    assert method.teacher is not None
    assert all(p.grad is None for p in method.teacher.parameters())
    assert encoder.trunk[0].weight.grad is not None  # type: ignore[index]


def test_the_teachers_views_come_first_on_the_students_side() -> None:
    class Remember(Objective):
        def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
            self.shapes = (student.shape, teacher.shape)
            self.first = torch.allclose(student[:2], teacher, atol=1e-5)
            return student.sum()

    objective = Remember()
    branch = Branch(Projector(32, 32, 8, norm="none"), objective, TeacherViews())
    method = Method({"table": RowEncoder(8)}, {"match": branch}, teacher=Teacher(0.9)).eval()
    method([View(torch.randn(4, 8), "table", kind) for kind in ("local", "global", "global")])
    assert objective.shapes == ((3, 4, 8), (2, 4, 8))
    assert objective.first  # a fresh teacher equals its student


def test_masks_hide_from_the_student_and_never_from_the_teacher() -> None:
    branch = Branch(Projector(32, 32, 8), NegativeCosine(), TeacherViews())
    method = Method(
        {"table": CellEncoder(8)}, {"match": branch}, teacher=Teacher(0.9), masker=RandomMask(0.5)
    )
    seen = method.look([View(torch.randn(4, 8), "table") for _ in range(2)])
    assert all(one.tokens is not None and one.tokens.shape[1] == 4 for one in seen.student)
    assert all(
        one is not None and one.tokens is not None and one.tokens.shape[1] == 8 for one in seen.teacher
    )


@pytest.mark.parametrize("name", ["simclr", "byol", "vicreg", "barlow_twins", "dino", "mae"])
@pytest.mark.parametrize("toy", [ToyTable, ToySequence])
def test_every_recipe_learns_from_rows_and_sequences(name: str, toy: type[ToyTable]) -> None:
    torch.manual_seed(0)
    recipe = recipes()[name]
    modality = toy(ViewPlan(globals_=recipe.views.globals_))
    encoder = CellEncoder(8) if recipe.family == "masked" else RowEncoder(8)
    sizes = {**SMALL, **DECODER}
    options = {option: sizes[option] for option in recipe.published if option in sizes}
    method = recipe.build(encoder, modality.name, **options)
    rows = clusters(64)
    batch = modality.collate(rows.__getitems__(range(64)))
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(60):
        method.at(step / 60)
        loss = method(modality.views(batch)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.after_step()
        losses.append(loss.item())
    if recipe.family != "distillation":  # a teacher's targets move, and with them the scale of the loss
        assert sum(losses[-10:]) < sum(losses[:10])
    assert feature_spread(encoder.eval()(batch.data).pooled.detach()) > 0.3
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_everything_that_lives_across_steps_is_in_the_state() -> None:
    rows, modality = clusters(32), ToyTable()
    build = recipes()["dino"].build
    method = build(RowEncoder(8), "table", hidden=16, bottleneck=8, prototypes=16)
    before = method.state_dict()["branches.match.objective.centre"].clone()
    method(modality.views(modality.collate(rows.__getitems__(range(32)))))
    method.after_step()
    state = method.state_dict()
    assert not torch.equal(state["branches.match.objective.centre"], before)
    again = build(RowEncoder(8), "table", hidden=16, bottleneck=8, prototypes=16)
    again.load_state_dict(state)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, state[name]), name
