"""The engine: one encoding per view, weighted branches, a teacher that sees what is asked for."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parallel import DistributedDataParallel

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import Projector
from polysense.encoders.teacher import Teacher
from polysense.errors import PolysenseError
from polysense.evaluation.rank import feature_spread
from polysense.methods.engine import Branch, Method, Reads, Seen, encode
from polysense.methods.maskers import RandomMask
from polysense.methods.reads import EachOther, TeacherViews, global_views
from polysense.methods.table import recipes
from polysense.modalities.base import View, ViewPlan
from polysense.objectives.base import Objective
from polysense.objectives.contrastive import NTXent
from polysense.objectives.distillation import NegativeCosine
from polysense.objectives.distributed import rank
from polysense.objectives.pairs import PairContrast, PairSigmoid
from polysense.training.fit import Settings
from tests.processes import run_in_processes
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


def test_what_no_branch_reads_is_not_encoded_and_cannot_be_looked_at() -> None:
    encoder = Counting()
    branches = {"one": Branch(Projector(32, 32, 8), NTXent(0.5), EachOther(global_views))}
    method = Method({"table": encoder}, branches)
    seen = method([View(torch.randn(5, 8), "table", kind) for kind in ("global", "local", "global")]).seen
    assert encoder.passes == [10]
    assert len(seen.student) == 3
    assert [one.pooled.shape for one in seen.student[::2]] == 2 * [(5, 32)]
    with pytest.raises(LookupError, match="no branch asks the student for view 1"):
        seen.student[1]
    with pytest.raises(LookupError, match="no branch asks the student for view 1"):
        list(seen.student)
    with pytest.raises(IndexError):
        seen.student[3]


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


class NamedRows(Encoder):
    """An MLP with layer norm and dropout on ``{"cells": [B, C]}``."""

    def __init__(self, columns: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = 16
        self.trunk = nn.Sequential(
            nn.Linear(columns, 32), nn.LayerNorm(32), nn.GELU(), nn.Dropout(dropout), nn.Linear(32, 16)
        )

    def forward(self, data: Any, mask: Tensor | None = None) -> Encoded:
        return Encoded(self.trunk(data["cells"]))


@dataclass(frozen=True)
class TwoSides(Reads):
    """The first view against the second, where the pair is whole."""

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        a, b = branch.project(seen.student, seen.views)
        return a, b, seen.known["whole"]


def contrast() -> Objective:
    return PairContrast(nn.Parameter(torch.tensor(math.log(1 / 0.07))))


def sigmoid() -> Objective:
    return PairSigmoid(nn.Parameter(torch.tensor(math.log(10))), nn.Parameter(torch.tensor(-10.0)))


def two_towers(objective: Objective, chunk: int | None = None, dropout: float = 0.0) -> Method:
    torch.manual_seed(0)
    towers = {"left": NamedRows(8, dropout), "right": NamedRows(5, dropout)}
    heads = nn.ModuleDict({name: nn.Sequential(Pooled(), nn.Linear(16, 4)) for name in towers})
    method = Method(towers, {"match": Branch(heads, objective, TwoSides())}).double()
    if chunk is not None:
        method.encode_in_chunks(chunk)
    return method


class Pooled(nn.Module):
    def forward(self, encoded: Encoded) -> Tensor:
        return encoded.pooled


def pairs_of_views(part: slice = slice(None)) -> tuple[list[View], dict[str, Tensor]]:
    """Twelve pairs; none of the first six is whole."""
    torch.manual_seed(1)
    sides = {"left": torch.randn(12, 8).double(), "right": torch.randn(12, 5).double()}
    whole = torch.tensor(6 * [False] + [True, False, True, True, True, True])
    return [View({"cells": data[part]}, name) for name, data in sides.items()], {"whole": whole[part]}


def step(method: nn.Module, part: slice = slice(None)) -> dict[str, Tensor]:
    """The loss and its gradients, by parameter."""
    loss = method(*pairs_of_views(part)).loss
    loss.backward()
    named = {name.removeprefix("module."): p.grad for name, p in method.named_parameters()}
    return {"loss": loss.detach(), **{name: grad.clone() for name, grad in named.items() if grad is not None}}


@pytest.mark.parametrize("objective", [contrast, sigmoid])
@pytest.mark.parametrize("chunk", [1, 5, 12, 100])
def test_encoding_in_chunks_has_the_gradients_of_the_whole_batch(
    objective: Callable[[], Objective], chunk: int
) -> None:
    whole, chunked = step(two_towers(objective())), step(two_towers(objective(), chunk))
    assert len(whole) == 1 + len(list(two_towers(objective()).parameters()))
    torch.testing.assert_close(chunked, whole, rtol=1e-10, atol=1e-12)


def step_in_chunks_on_a_half() -> list[dict[str, Tensor]]:
    part = slice(6 * rank(), 6 * rank() + 6)
    return [step(DistributedDataParallel(two_towers(make(), 4)), part) for make in (contrast, sigmoid)]


def test_chunks_on_two_processes_have_the_gradients_of_the_whole_batch() -> None:
    expected = [step(two_towers(make())) for make in (contrast, sigmoid)]
    for found in run_in_processes(step_in_chunks_on_a_half):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_masks_and_tokens_go_through_in_chunks() -> None:
    encoder = CellEncoder(8)
    view = RandomMask(0.5)(View(torch.randn(7, 8), "table"), encoder)
    towers = nn.ModuleDict({"table": encoder})
    (whole,), (chunked,) = encode(towers, [view]), encode(towers, [view], chunk=3)
    assert chunked.grid == whole.grid
    assert whole.tokens is not None
    for part in ("pooled", "tokens", "mask"):
        torch.testing.assert_close(getattr(chunked, part), getattr(whole, part))


def test_dropout_is_replayed_in_the_backward_pass() -> None:
    reference = two_towers(contrast(), dropout=0.5)
    views, known = pairs_of_views()
    student = []
    for view in views:  # the same chunks in the same order, every activation kept
        assert isinstance(view.data, dict)
        tower = reference.towers[view.modality]
        student.append(Encoded.join([tower({"cells": rows}) for rows in view.data["cells"].split(5)]))
    reference.branches["match"](Seen(views, student, [None, None], known)).backward()
    found = step(two_towers(contrast(), 5, dropout=0.5))
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-10, atol=1e-12)


def test_activations_of_one_chunk_are_alive_at_a_time() -> None:
    kept: list[tuple[StorageWeakRef, int]] = []
    alive: list[int] = []

    def watch(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        kept.append((StorageWeakRef(output.untyped_storage()), len(output)))
        alive.append(sum(rows for storage, rows in kept if not storage.expired()))

    for chunk, most in ((None, 12), (3, 3)):
        method = two_towers(contrast(), chunk)
        tower = method.towers["left"]
        assert isinstance(tower, NamedRows)
        tower.trunk[0].register_forward_hook(watch)  # type: ignore[index]
        step(method)
        assert max(alive) == most
        kept.clear()
        alive.clear()


def test_batch_norm_in_chunks_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="polysense"):
        two_towers(contrast(), 5)
        assert not caplog.messages
        Method({"table": RowEncoder(8)}, {"one": match()}).encode_in_chunks(5)
    assert caplog.messages == [
        "batch norm (table.trunk.1) sees chunks of 5 and not the batch, so the gradients are not those of the"
        " whole batch; choose an encoder with layer norm, such as a ViT"
    ]


def test_a_chunk_holds_something() -> None:
    with pytest.raises(PolysenseError, match="chunk is 0; it must be at least 1"):
        Settings(batch=8, chunk=0)


def test_objectives_are_told_after_each_step() -> None:
    objective = contrast()
    method = two_towers(objective)
    with torch.no_grad():
        objective.logit_scale.fill_(6.0)  # type: ignore[operator]
    method.after_step()
    assert objective.logit_scale.item() == pytest.approx(math.log(100))  # type: ignore[union-attr,operator]
