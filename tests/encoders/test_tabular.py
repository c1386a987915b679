"""Encoders of rows: what they read, what they hide, and that a row's embedding is its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polysense.encoders.cell_transformers import CellTransformer, FTTransformer, RowAttention
from polysense.encoders.cells import CellHead, Cells, PerCell
from polysense.encoders.numbers import Periodic, PiecewiseLinear, embed_numbers
from polysense.encoders.tabular import build, list_encoders
from polysense.errors import PolysenseError

CELLS = Cells(edges=((-1.0, 0.0, 2.0), (0.0, 1.0)), levels=(3, 2), columns=(0, 1, 2, 3))
NAMES = ["table_mlp", "table_mlp_wide", "ft_transformer", "ft_nano", "cell_transformer", "saint"]
SMALL = {"table_mlp_wide": {"width": 16}, "ft_transformer": {"width": 16, "heads": 2}}

named = pytest.mark.parametrize("name", NAMES)


def rows(count: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    missing = torch.rand(count, 2) < 0.2
    return {
        "numbers": torch.randn(count, 2).masked_fill(missing, 0),
        "missing": missing,
        "codes": torch.stack([torch.randint(0, 4, (count,)), torch.randint(0, 3, (count,))], 1),
    }


def made(name: str, **options):
    torch.manual_seed(0)
    return build(name, cells=CELLS, **{**SMALL.get(name, {}), **options})


@named
def test_what_is_made_of_a_row_does_not_depend_on_the_others(name: str) -> None:
    encoder, data = made(name).eval(), rows()
    encoded = encoder(data)
    assert encoded.pooled.shape == (6, encoder.dim)
    for here in range(6):
        alone = encoder({key: tensor[here : here + 1] for key, tensor in data.items()})
        torch.testing.assert_close(alone.pooled[0], encoded.pooled[here])


def test_in_training_saints_rows_see_each_other() -> None:
    attention = RowAttention(cells=2, width=4, heads=2, dropout=0.0).train()
    x = torch.randn(3, 2, 4, requires_grad=True)
    attention(x)[0].sum().backward()
    assert x.grad[1].abs().max() > 0
    x.grad = None
    attention.eval()(x)[0].sum().backward()
    assert x.grad[1].abs().max() == 0
    assert x.grad[0].abs().max() > 0


@named
def test_every_cell_is_read_and_gaps_are_no_zeros(name: str) -> None:
    encoder = made(name).eval()
    full = {
        "numbers": torch.tensor([[0.0, 0.5]]),
        "missing": torch.zeros(1, 2, dtype=torch.bool),
        "codes": torch.tensor([[1, 2]]),
    }
    base = encoder(full).pooled
    changes = [
        {"numbers": torch.tensor([[0.0, 0.6]])},
        {"missing": torch.tensor([[True, False]])},
        {"codes": torch.tensor([[1, 0]])},
        {"codes": torch.tensor([[2, 2]])},
    ]
    for change in changes:
        assert not torch.allclose(encoder({**full, **change}).pooled, base, atol=1e-7)


@pytest.mark.parametrize("name", ["table_mlp", "ft_nano"])
@pytest.mark.parametrize("numbers", ["linear", "ple", "plr"])
def test_every_parameter_learns_with_every_embedding_of_numbers(name: str, numbers: str) -> None:
    encoder = made(name, numbers=numbers)
    encoder(rows(32)).pooled.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_the_wide_mlp_embeds_with_all_its_layers() -> None:
    encoder = made("table_mlp_wide")
    hidden, layers = CELLS.flat(rows()), []
    for layer in encoder.trunk:
        hidden = layer(hidden)
        layers.append(hidden)
    torch.testing.assert_close(encoder(rows()).pooled, torch.cat(layers, 1))
    head = CellHead(encoder, (1, 1))
    assert torch.equal(head(encoder(rows()))[..., 0], head.layer[0](hidden))


@pytest.mark.parametrize("name", ["ft_nano", "saint", "cell_transformer"])
def test_what_is_hidden_is_not_seen(name: str) -> None:
    encoder, data = made(name), rows()
    encoder.learn_mask_token()
    encoder.eval()
    mask = torch.tensor([[True, False, True, False]]).expand(6, -1)
    other = {
        "numbers": torch.where(torch.tensor([True, False]), 7.0, data["numbers"]),
        "missing": data["missing"] & torch.tensor([False, True]),
        "codes": torch.where(torch.tensor([True, False]), 1, data["codes"]),
    }
    torch.testing.assert_close(encoder(other, mask).tokens, encoder(data, mask).tokens)
    assert not torch.allclose(encoder(data, mask).pooled, encoder(data).pooled)
    assert encoder.grid(data) == (4,)


def test_a_cell_transformer_keeps_what_it_answers_with() -> None:
    encoder = made("cell_transformer")
    before = set(encoder.state_dict())
    encoder.settle()
    assert set(encoder.state_dict()) == before
    assert {"mask_token", "predict.layer.weight"} <= before
    logits = encoder.predict(encoder(rows()))
    assert logits.shape == (6, 4, 4)
    assert logits[0].isinf().tolist() == [
        [False] * 3 + [True],
        [False] * 2 + [True] * 2,
        [False] * 4,
        [False] * 3 + [True],
    ]
    plain = made("ft_nano")
    keys = set(plain.state_dict())
    plain.learn_mask_token()
    plain.settle()
    assert set(plain.state_dict()) == keys


def test_classes_of_cells_are_bins_and_levels() -> None:
    data = {
        "numbers": torch.tensor([[-5.0, 0.3], [-0.1, 9.0], [0.0, 0.0], [0.0, 0.0]]),
        "missing": torch.tensor([[False, False], [False, False], [False, False], [True, True]]),
        "codes": torch.tensor([[3, 0], [1, 1], [0, 2], [0, 0]]),
    }
    classes = made("ft_nano").tokenise(data)
    assert classes.tolist() == [[1, 1, 3, 0], [1, 1, 1, 1], [2, 1, 0, 2], [0, 0, 0, 0]]
    assert (classes < torch.tensor(CELLS.classes)).all()


def test_ple_is_the_papers() -> None:
    embedding = PiecewiseLinear(CELLS, 8)
    filled = embedding.fill(torch.tensor([[-2.0, 0.5], [1.0, 1.5], [3.0, -0.5]]))
    expected = [[[-1.0, 0.0], [0.5, 0.0]], [[1.0, 0.5], [1.5, 0.0]], [[1.0, 1.5], [-0.5, 0.0]]]
    torch.testing.assert_close(filled, torch.tensor(expected))
    numbers = torch.randn(5, 2)
    torch.testing.assert_close(embedding(numbers), embedding.linear(numbers))  # starts as linear


def test_plr_is_the_papers() -> None:
    torch.manual_seed(0)
    embedding = Periodic(CELLS, 8, frequencies=3, sigma=0.5)
    x = torch.randn(4, 2)
    by_hand = torch.empty(4, 2, 8)
    for row in range(4):
        for column in range(2):
            angle = 2 * torch.pi * embedding.frequencies[column] * x[row, column]
            waves = torch.cat([angle.cos(), angle.sin()])
            layer = embedding.linear
            by_hand[row, column] = (waves @ layer.weight[column] + layer.bias[column]).clamp_min(0)
    torch.testing.assert_close(embedding(x), by_hand)
    assert Periodic(CELLS, 8, frequencies=2000).frequencies.abs().max() <= 0.03


@pytest.mark.parametrize("name", ["table_mlp", "ft_nano"])
def test_mixup_mixes_embeddings(name: str) -> None:
    encoder, own, other = made(name), rows(seed=1), rows(seed=2)
    embed = encoder.embed if name == "ft_nano" else CELLS.flat
    expected = 0.3 * embed(own) + 0.7 * embed(other)
    mixed = {
        **own,
        **{f"other/{key}": tensor for key, tensor in other.items()},
        "share": torch.full((6,), 0.3),
    }
    seen = []
    first = encoder.trunk[0]
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder(mixed)
    if name == "ft_nano":
        expected = expected + encoder.embed.columns
        seen[0] = seen[0][:, 1:]
    torch.testing.assert_close(seen[0], expected)


def test_a_head_has_a_layer_of_its_own_for_each_cell() -> None:
    layer = PerCell(2, 3, 4)
    x = torch.randn(5, 2, 3)
    for cell in range(2):
        torch.testing.assert_close(layer(x)[:, cell], x[:, cell] @ layer.weight[cell] + layer.bias[cell])


def test_your_own_module_reads_flat_cells() -> None:
    encoder = build(nn.Linear(CELLS.width, 5), cells=CELLS)
    torch.testing.assert_close(encoder(rows()).pooled, encoder.trunk(CELLS.flat(rows())))
    assert encoder.dim == 5
    own = FTTransformer(CELLS, width=8, depth=1, heads=2)
    assert build(own, cells=CELLS) is own


def test_tables_without_numbers_or_without_categories() -> None:
    for cells in (Cells((), (2, 3), (0, 1)), Cells(((0.0, 1.0),), (), (0,))):
        for name in NAMES:
            encoder = build(name, cells=cells, **SMALL.get(name, {}))
            assert encoder(cells.blank(3)).pooled.isfinite().all()
            assert encoder.tokenise(cells.blank(3)).shape == (3, len(cells))


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda: made("table_mpl"), "unknown encoder of tables 'table_mpl'; did you mean 'table_mlp'"),
        (lambda: made("table_mlp", widht=3), "unknown option of the encoder 'table_mlp' 'widht'"),
        (lambda: made("ft_nano", heads=5), "5 heads cannot share a width of 32"),
        (lambda: made("ft_nano", depth=0), "the encoder's depth is 0; use at least 1"),
        (lambda: made("ft_nano", pool="max"), "unknown pool 'max'"),
        (
            lambda: embed_numbers("pel", CELLS, 4),
            "unknown embedding of numbers 'pel'; did you mean 'plr' or 'ple'",
        ),
        (lambda: made("table_mlp")(rows(), torch.zeros(6, 4) > 0), "MLPEncoder cannot hide cells"),
        (lambda: made("ft_nano")(rows(), torch.zeros(6, 4) > 0), "FTTransformer cannot hide cells"),
        (lambda: made("table_mlp").token_dim, "has no token for each cell; choose 'ft_nano'"),
        (lambda: build(nn.Linear(3, 3), cells=CELLS), r"Linear does not take rows of 11 cells \[B, 11\]"),
        (lambda: build(nn.Flatten(0), cells=CELLS), "must give one vector per row"),
        (lambda: build(nn.Flatten(), cells=CELLS, width=3), "comes as it is; leave out width"),
    ],
)
def test_bad_input_is_said_in_a_sentence(action, said: str) -> None:
    with pytest.raises(PolysenseError, match=said):
        action()


def test_what_a_cell_transformer_is() -> None:
    assert isinstance(made("cell_transformer"), CellTransformer)


def test_every_encoder_is_listed() -> None:
    assert [name for name, _ in list_encoders()] == NAMES
