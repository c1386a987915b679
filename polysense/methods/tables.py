"""Recipes for the rows of tables: tell rows apart by a part of their cells, restore what was changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.cell_transformers import CellTransformer
from polysense.encoders.cells import CellHead, Row, RowEncoder
from polysense.encoders.heads import Projector, mlp
from polysense.errors import PolysenseError
from polysense.methods.build import joint_embedding, masked_prediction
from polysense.methods.engine import Branch, Method, Reads, Seen
from polysense.methods.optimisation import Optimisation
from polysense.methods.reads import EachOther
from polysense.methods.recipes import recipe
from polysense.modalities.base import View, ViewPlan
from polysense.objectives.contrastive import NTXent
from polysense.objectives.cross_view import InfoNCE
from polysense.objectives.reconstruction import MaskedClassification, MaskedReconstruction
from polysense.objectives.redundancy import VICReg

Target = Callable[[Row, Row], tuple[Tensor, ...]]
"""From a view's cells and the cells as they were to what is to be told of them, and where (a mask)."""


@dataclass(frozen=True)
class Restored(Reads):
    """What the student tells from its views against a target from the cells as they were.

    The views from number ``first`` on are read, their batches one behind the other. Gives the objective
    the prediction and what ``target`` gives.
    """

    target: Target
    first: int = 0

    def __call__(self, branch: Branch, seen: Seen, teacher_head: nn.Module | None) -> tuple[Tensor, ...]:
        """Predict from every view, and look up what was there."""
        for name in ("numbers", "missing", "codes"):
            if name not in seen.known:
                raise PolysenseError(
                    "this method restores cells, which the data do not tell; give it a table"
                )
        prediction = torch.cat([branch.head(encoded) for encoded in seen.student[self.first :]])
        targets = [self.target(_row(view), seen.known) for view in seen.views[self.first :]]
        return branch.predictor(prediction), *(torch.cat(parts) for parts in zip(*targets, strict=True))


def numbers_before(now: Row, before: Row) -> tuple[Tensor, Tensor]:
    """``[B, N, 1]``: the numbers as they were, and ``[B, N]``: which of them are known."""
    return before["numbers"][..., None], ~before["missing"]


def levels_before(now: Row, before: Row) -> tuple[Tensor, Tensor]:
    """``[B, C]``: the levels as they were, and which of them are known."""
    return before["codes"], before["codes"] > 0


@dataclass(frozen=True)
class RandomColumns:
    """Hide a share of a row's columns that is itself drawn between 0 and 1, for each row anew.

    Asked for are hidden cells that are known; with ``gaps`` missing ones too, so that a model learns where
    a table has gaps. The cells of one column are hidden together.
    """

    gaps: bool = False

    def __call__(self, view: View, encoder: Encoder) -> View:
        """The view with its mask."""
        cells, row = _of_rows(encoder).cells, _row(view)
        rows, device = len(row["codes"]), row["codes"].device
        share = torch.rand(rows, 1, device=device)
        mask = cells.of_columns(torch.rand(rows, max(cells.columns) + 1, device=device) < share)
        asked = mask if self.gaps else mask & cells.known(row)
        return view.hide(mask, asked[:, None])


class UnitTokens(nn.Module):
    """The pooled embedding and all tokens, each of unit length, side by side: ``[B, (1 + T) * E]``."""

    def forward(self, encoded: Encoded) -> Tensor:
        """Normalise and flatten."""
        assert encoded.tokens is not None
        everything = torch.cat([encoded.pooled[:, None], encoded.tokens], 1)
        return functional.normalize(everything, dim=-1).flatten(1)


class UnitProjector(Projector):
    """A :class:`.Projector` whose answers are of unit length."""

    def forward(self, encoded: Encoded) -> Tensor:
        """``[B, out]``."""
        return functional.normalize(super().forward(encoded), dim=-1)


class InTurn(nn.Module):
    """A module of its own for each view, whose batches lie one behind the other.

    >>> InTurn([nn.Identity(), nn.ReLU()])(torch.tensor([[-1.0], [-1.0]])).flatten()
    tensor([-1.,  0.])
    """

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Each part of ``[V * B, K]`` through its module."""
        views = x.chunk(len(self.parts))
        return torch.cat([part(view) for part, view in zip(self.parts, views, strict=True)])


def restoring(encoder: RowEncoder, *, numbers: float, levels: float, first: int = 0) -> dict[str, Branch]:
    """Branches that restore a row: the mean squared error of its numbers, the cross-entropy of its levels.

    The weights are ``numbers`` and ``levels``; tables without the one or the other have no such branch.
    """
    cells, branches = encoder.cells, {}
    if cells.numbers:
        head = CellHead(encoder, (1,) * cells.numbers)
        objective = MaskedReconstruction(normalise=False)
        branches["numbers"] = Branch(head, objective, Restored(numbers_before, first), weight=numbers)
    if cells.levels:
        head = CellHead(encoder, cells.classes[cells.numbers :], cells.numbers)
        branches["levels"] = Branch(
            head, MaskedClassification(), Restored(levels_before, first), weight=levels
        )
    return branches


@recipe(
    "scarf",
    family="tables",
    title="SCARF: Self-Supervised Contrastive Learning using Random Feature Corruption",
    paper="https://arxiv.org/abs/2106.15147",
    views=ViewPlan(options={"table": {"corrupt": 0.6, "views": [{"corrupt": 0.0}, {}]}}),
    optimisation=Optimisation("adamw", lr=1e-3, per=128, warmup=0.0),
    collapse="too little is left of a row, or the temperature is too high: lower corrupt or temperature",
    modalities=("table",),
)
def scarf(
    encoder: Encoder,
    modality: str = "table",
    *,
    temperature: float = 1.0,
    hidden: int = 256,
    out: int = 256,
) -> Method:
    """Find each row's corrupted copy in the batch: 60 % of its columns come from other rows."""
    return joint_embedding(
        encoder,
        modality,
        projector=Projector(encoder.dim, hidden, out, norm="none"),
        objective=InfoNCE(temperature, one_way=True),
    )


@recipe(
    "vime",
    family="tables",
    title="VIME: Extending the Success of Self- and Semi-supervised Learning to Tabular Domain",
    paper="https://proceedings.neurips.cc/paper/2020/hash/7d97667a3e056acab9aaf653807b4a03-Abstract.html",
    views=ViewPlan(globals_=1, strength="weak", options={"table": {"swap": 0.3}}),
    optimisation=Optimisation("adamw", lr=1e-3, per=128, warmup=0.0),
    collapse="columns tell nothing of each other: lower swap, or choose a method that compares rows",
    modalities=("table",),
)
def vime(encoder: Encoder, modality: str = "table", *, alpha: float = 2.0) -> Method:
    """Tell which cells were swapped with other rows', and restore the row.

    A cell that was swapped with an equal one counts as unchanged. Levels are restored by cross-entropy.
    """
    rows = _of_rows(encoder)

    def changed(now: Row, before: Row) -> tuple[Tensor]:
        return (rows.cells.differ(now, before).long(),)

    found = Branch(CellHead(rows, (2,) * len(rows.cells)), MaskedClassification(), Restored(changed))
    return Method({modality: encoder}, {"changed": found, **restoring(rows, numbers=alpha, levels=alpha)})


@recipe(
    "dae",
    family="tables",
    title="Revisiting Pretraining Objectives for Tabular Deep Learning",
    paper="https://arxiv.org/abs/2207.03208",
    views=ViewPlan(globals_=1, strength="weak", options={"table": {"swap": 0.15}}),
    optimisation=Optimisation("sgd", lr=3e-3, per=128, warmup=0.0),
    collapse="the encoder copies its input: raise swap",
    modalities=("table",),
    default_encoders={"table": "table_mlp_wide"},
)
def dae(encoder: Encoder, modality: str = "table") -> Method:
    """Restore rows of which 15 % of the cells were swapped with other rows' (denoising autoencoder).

    With its usual encoder, whose embedding is all hidden activations, it is the winning entry to the Porto
    Seguro competition of 2017.
    """
    return Method({modality: encoder}, restoring(_of_rows(encoder), numbers=1.0, levels=1.0))


@recipe(
    "masked_cells",
    family="tables",
    title="TabMT: Generating tabular data with masked transformers",
    paper="https://arxiv.org/abs/2312.06089",
    views=ViewPlan(globals_=1, strength="weak"),
    optimisation=Optimisation("adamw", lr=2e-3, per=256, weight_decay=1e-5, warmup=0.05),
    collapse="every cell gets its column's commonest value: train longer or lower lr",
    encoders="one with a token for each cell",
    modalities=("table",),
    default_encoders={"table": "cell_transformer"},
)
def masked_cells(encoder: Encoder, modality: str = "table", *, gaps: bool = False) -> Method:
    """Hide any share of the cells, from none to all, and predict them as classes: bins and levels.

    ``gaps``: missing is a class, too; else what is missing is never asked for. A 'cell_transformer' keeps
    the layer that predicts: it fills gaps and draws rows.
    """
    rows = _of_rows(encoder)
    rows.learn_mask_token()
    kept = rows.predict if isinstance(rows, CellTransformer) else CellHead(rows, rows.cells.classes)
    return masked_prediction(
        encoder,
        modality,
        masker=RandomColumns(gaps),
        decoder=kept,
        objective=MaskedClassification(),
        tokenise=rows.tokenise,
    )


@recipe(
    "saint",
    family="tables",
    title="SAINT: Improved Neural Networks for Tabular Data via Row Attention and Contrastive Pre-Training",
    paper="https://arxiv.org/abs/2106.01342",
    views=ViewPlan(
        strength="weak",
        options={"table": {"views": [{}, {"cutmix": 0.1, "mixup": 0.3}]}},
    ),
    optimisation=Optimisation("adamw", lr=1e-4, per=256, weight_decay=0.01, warmup=0.0),
    collapse="rows are told apart by their neighbours in the batch: lower contrast, or use 'ft_nano'",
    encoders="one with a token for each cell",
    modalities=("table",),
    default_encoders={"table": "saint"},
)
def saint(
    encoder: Encoder,
    modality: str = "table",
    *,
    temperature: float = 0.7,
    contrast: float = 0.5,
    numbers: float = 10.0,
    levels: float = 1.0,
) -> Method:
    """Find each row's mixed copy in the batch, and restore the row from it.

    The copy has some cells of a partner row (CutMix), and an embedding that is mostly another partner's
    (mixup). The values are those of the authors' code; ``levels`` weighs the sum over categories.
    """
    rows = _of_rows(encoder)
    width = rows.token_dim * (1 + len(rows.cells))
    projectors = [mlp(width, 6 * width // 5, width // 2, norm="none") for _ in range(2)]
    match = Branch(
        UnitTokens(),
        InfoNCE(temperature, cosine=False),
        EachOther(),
        predictor=InTurn(projectors),
        weight=contrast,
    )
    count = len(rows.cells.levels)
    restored = restoring(rows, numbers=numbers, levels=levels * count, first=1)
    return Method({modality: encoder}, {"match": match, **restored})


@recipe(
    "subtab",
    family="tables",
    title="SubTab: Subsetting Features of Tabular Data for Self-Supervised Representation Learning",
    paper="https://arxiv.org/abs/2110.04361",
    views=ViewPlan(
        globals_=4,
        strength="weak",
        options={
            "table": {
                "swap": 0.3,
                "parts": 4,
                "overlap": 0.75,
                "views": [{"part": 0}, {"part": 1}, {"part": 2}, {"part": 3}],
            }
        },
    ),
    optimisation=Optimisation("adamw", lr=1e-3, per=256, warmup=0.0),
    collapse="the subsets share nothing: raise overlap, or lower parts",
    modalities=("table",),
)
def subtab(
    encoder: Encoder,
    modality: str = "table",
    *,
    temperature: float = 0.1,
    distance: float = 1.0,
    restore: float = 1.0,
    out: int = 256,
) -> Method:
    """Bring overlapping subsets of a row's columns together, and restore the whole row from each.

    The other columns of a subset's view are missing, where the authors cut them off; an embedding is
    made of the whole row, where they average those of its subsets.
    """
    rows = _of_rows(encoder)
    projector = UnitProjector(encoder.dim, out, out, norm="none")
    # of unit vectors the squared distance, a sum over dimensions, is VICReg's mean times their number
    near = VICReg(invariance=distance * out, variance=0.0, covariance=0.0)
    return Method(
        {modality: encoder},
        {
            "match": Branch(projector, NTXent(temperature), EachOther()),
            "near": Branch(projector, near, EachOther()),
            **restoring(rows, numbers=restore, levels=restore),
        },
    )


def _of_rows(encoder: Encoder) -> RowEncoder:
    """The encoder, if it knows the cells of a table."""
    if not isinstance(encoder, RowEncoder):
        raise PolysenseError(
            f"this method restores the cells of a table, which {type(encoder).__name__} does not know; choose"
            " an encoder of tables, such as 'table_mlp'"
        )
    return encoder


def _row(view: View) -> Mapping[str, Any]:
    assert isinstance(view.data, dict)
    return view.data
