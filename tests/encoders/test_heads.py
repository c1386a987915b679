import math

import pytest
import torch
from torch import nn

from polysense.encoders import Encoded, MaskedDecoder, Projector, PrototypeHead, build, mlp
from polysense.encoders.heads import sine_cosine
from polysense.errors import PolysenseError


def kinds(head: nn.Sequential) -> list[str]:
    return [type(part).__name__ for part in head]


def test_mlp_layers_and_biases_as_in_the_papers():
    head = mlp(8, 16, 4, layers=3, last_norm="batch_no_affine")
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert all(part.bias is None for part in head if isinstance(part, nn.Linear))
    assert not head[-1].affine
    assert [part.out_features for part in head if isinstance(part, nn.Linear)] == [16, 16, 4]


def test_mlp_without_norms_keeps_its_biases():
    head = mlp(8, 16, 4, norm="none", activation=nn.GELU)
    assert kinds(head) == ["Linear", "GELU", "Linear"]
    assert head[0].bias is not None
    assert head[2].bias is not None


def test_mlp_last_layer():
    assert mlp(8, 16, 4)[-1].bias is not None
    assert mlp(8, 16, 4, last_bias=False)[-1].bias is None
    assert mlp(8, 16, 4, last_norm="batch")[-1].affine
    assert kinds(mlp(8, 16, 4, layers=1)) == ["Linear"]
    with pytest.raises(PolysenseError, match="at least 1"):
        mlp(8, 16, 4, layers=0)


def test_projector_reads_pooled():
    projector = Projector(8, 16, 4, last_norm="batch").eval()
    pooled = torch.randn(3, 8)
    assert torch.equal(projector(Encoded(pooled)), projector.mlp(pooled))


def test_prototype_head_gives_cosines_whatever_the_length_of_its_weights():
    head = PrototypeHead(8, 16, 4, 10)
    encoded = Encoded(torch.randn(5, 8))
    before = head(encoded)
    bottleneck = nn.functional.normalize(head.mlp(encoded.pooled), dim=1)
    by_hand = bottleneck @ nn.functional.normalize(head.prototypes.weight, dim=1).T
    torch.testing.assert_close(before, by_hand)
    with torch.no_grad():
        head.prototypes.weight.mul_(3)
    torch.testing.assert_close(head(encoded), before)
    assert head.cosines(torch.randn(2, 7, 8)).shape == (2, 7, 10)


def test_prototype_head_layers_and_init():
    torch.manual_seed(0)
    head = PrototypeHead(300, 400, 32, 10)
    assert kinds(head.mlp) == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert head.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert head.mlp[0].bias.abs().max() == 0
    swav = PrototypeHead(8, 16, 4, 10, layers=2, norm="batch", activation=nn.ReLU)
    assert kinds(swav.mlp) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]


def test_prototypes_are_frozen_until_their_share_of_training():
    head = PrototypeHead(8, 16, 4, 10, frozen_until=0.01)
    for progress, moves in [(0.0, False), (0.0099, False), (0.01, True), (0.5, True)]:
        head.zero_grad()
        head.at(progress)
        head(Encoded(torch.randn(5, 8))).square().sum().backward()
        assert (head.prototypes.weight.grad.abs().max() > 0) == moves
        assert head.mlp[0].weight.grad.abs().max() > 0
    assert not PrototypeHead(8, 16, 4, 10).frozen


def test_prototype_head_survives_half_precision():
    head = PrototypeHead(8, 16, 4, 10)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(Encoded(torch.zeros(2, 8))).isfinite().all()


def masked(grid: tuple[int, ...] = (6,), visible: int = 2, dim: int = 8) -> Encoded:
    torch.manual_seed(0)
    tokens = math.prod(grid)
    order = torch.stack([torch.randperm(tokens) for _ in range(2)])
    return Encoded(torch.randn(2, dim), torch.randn(2, visible, dim), grid, order >= visible)


def decoder(depth: int = 1) -> MaskedDecoder:
    return MaskedDecoder(8, width=12, depth=depth, heads=2, out=5)


def test_decoder_puts_tokens_where_they_were():
    head, encoded = decoder(), masked()
    embedded = head.embed(encoded.tokens)
    placed = head._in_place(embedded, encoded.mask, 6)
    for row in range(2):
        seen = 0
        for place in range(6):
            hidden = bool(encoded.mask[row, place])
            torch.testing.assert_close(placed[row, place], head.mask_token if hidden else embedded[row, seen])
            seen += not hidden


@pytest.mark.parametrize("grid", [(6,), (2, 3)])
def test_decoder_answers_for_every_token_and_learns(grid):
    head, encoded = decoder(depth=2), masked(grid)
    predicted = head(encoded)
    assert predicted.shape == (2, 6, 5)
    predicted.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in head.parameters())
    hidden = predicted[0][encoded.mask[0]]
    assert not torch.allclose(hidden[0], hidden[1])  # positions tell them apart


def test_decoder_lets_the_pooled_embedding_learn():
    encoded = masked()
    encoded.pooled.requires_grad_()
    decoder()(encoded).square().sum().backward()
    assert encoded.pooled.grad.abs().max() > 0


def test_decoder_takes_all_tokens_as_they_are():
    head, tokens = decoder(), torch.randn(2, 6, 8)
    shown = head(Encoded(tokens.mean(1), tokens, (2, 3)))
    hidden_but_replaced = head(Encoded(tokens.mean(1), tokens, (2, 3), masked().mask))
    assert torch.equal(shown, hidden_but_replaced)


def test_decoder_follows_a_vit_and_its_patches():
    encoder = build("vit_nano", size=32, channels=4, depth=1)
    head = MaskedDecoder(encoder.dim, width=16, depth=1, heads=2, out=encoder.token_values)
    pictures = torch.randn(2, 4, 32, 32)
    predicted = head(encoder(pictures, torch.rand(2, 64).argsort(1) >= 16))
    assert predicted.shape == encoder.tokenise(pictures).shape == (2, 64, 4 * 4 * 4)


def test_decoder_works_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert decoder()(masked()).isfinite().all()


def test_decoder_round_trips():
    one, two = decoder(), decoder()
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(masked()), two(masked()))


def test_decoder_errors():
    with pytest.raises(PolysenseError, match="divisible by 4, not 10"):
        MaskedDecoder(8, width=10, depth=1, heads=2, out=5)(masked((2, 3)))
    with pytest.raises(PolysenseError, match="5 heads cannot share"):
        MaskedDecoder(8, width=12, depth=1, heads=5, out=5)
    encoded = masked()
    with pytest.raises(PolysenseError, match="grid has 9 places and its output 6"):
        decoder()(Encoded(encoded.pooled, encoded.tokens, (3, 3), encoded.mask))
    with pytest.raises(PolysenseError, match="encoder with tokens on a grid"):
        decoder()(Encoded(torch.randn(2, 8)))


def test_positions_are_the_transformers():
    line = sine_cosine((5,), 8)
    rate = 10000 ** (-2 / 8)
    torch.testing.assert_close(line[3, :2], torch.tensor([3.0, 3.0 * rate]).sin())
    torch.testing.assert_close(line[3, 4:6], torch.tensor([3.0, 3.0 * rate]).cos())
    plane = sine_cosine((2, 5), 16)
    torch.testing.assert_close(plane[:5, 8:], line)  # across, in the second half
    torch.testing.assert_close(plane[5:, :8], line[1].expand(5, 8))  # down, in the first
