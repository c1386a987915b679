import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from polysense.encoders import build, patchify, unpatchify
from polysense.encoders.vit import SIZES, ViTEncoder
from polysense.errors import PolysenseError


def small(**options) -> ViTEncoder:
    torch.manual_seed(0)
    shape = {"width": 32, "depth": 2, "heads": 2, "patch": 4}
    return build("vit", size=16, **{**shape, **options}).eval()


def random_mask(batch: int, tokens: int, visible: int) -> torch.Tensor:
    return torch.rand(batch, tokens).argsort(1) >= visible


VARIANTS = {
    "class token": {},
    "registers": {"reg_tokens": 3},
    "registers without positions": {"reg_tokens": 3, "no_embed_class": True},
    "mean of patches": {"class_token": False, "global_pool": "avg"},
    "mean, class token beside": {"global_pool": "avg"},
    "attention pooling": {"class_token": False, "global_pool": "map"},
    "norm before the blocks": {"pre_norm": True},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_masked_forward_equals_the_blocks_on_visible_tokens_by_hand(options):
    encoder = small(**options)
    trunk = encoder.trunk
    pictures, mask = torch.randn(3, 3, 16, 16), random_mask(3, 16, 5)
    encoded = encoder(pictures, mask)
    prefix = trunk.num_prefix_tokens
    for row in range(3):
        tokens = trunk._pos_embed(trunk.patch_embed(pictures[row : row + 1]))[0]
        kept = [*range(prefix), *(prefix + place for place in range(16) if not mask[row, place])]
        features = trunk.norm(trunk.blocks(trunk.norm_pre(tokens[kept][None])))
        torch.testing.assert_close(encoded.tokens[row], features[0, prefix:])
        torch.testing.assert_close(encoded.pooled[row], trunk.forward_head(features)[0])
    assert encoded.tokens.shape == (3, 5, 32)
    assert encoded.grid == (4, 4) == encoder.grid(pictures)
    assert encoded.mask is mask


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_hiding_nothing_changes_nothing(options):
    encoder = small(**options)
    pictures = torch.randn(2, 3, 16, 16)
    full, masked = encoder(pictures), encoder(pictures, torch.zeros(2, 16, dtype=torch.bool))
    torch.testing.assert_close(full.pooled, masked.pooled)
    torch.testing.assert_close(full.tokens, masked.tokens)
    assert full.mask is None
    torch.testing.assert_close(full.pooled, encoder.trunk(pictures))


def test_no_hidden_pixel_has_any_influence():
    encoder = small(reg_tokens=2)
    mask = random_mask(2, 16, 4)
    pictures = torch.randn(2, 3, 16, 16)
    hidden = mask.view(2, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    changed = torch.where(hidden, torch.randn_like(pictures), pictures)
    one, two = encoder(pictures, mask), encoder(changed, mask)
    assert torch.equal(one.pooled, two.pooled)
    assert torch.equal(one.tokens, two.tokens)
    pictures.requires_grad_()
    encoder(pictures, mask).pooled.sum().backward()
    assert pictures.grad[hidden.expand_as(pictures)].abs().max() == 0
    assert pictures.grad[~hidden.expand_as(pictures)].abs().max() > 0


@pytest.mark.parametrize(
    ("name", "size"), [("vit_nano", 32), ("vit_nano", 64), ("vit_tiny_patch16_224", 224)]
)
def test_three_quarters_hidden_cost_less_than_half(name, size):
    encoder = build(name, size=size).eval()
    pictures = torch.randn(1, 3, size, size)
    down, across = encoder.grid(pictures)
    operations = []
    for mask in (None, random_mask(1, down * across, down * across // 4)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoder(pictures, mask)
        operations.append(counter.get_total_flops())
    assert operations[1] <= 0.45 * operations[0]


def test_gradient_checkpointing_is_kept():
    encoder = small().train()
    pictures, mask = torch.randn(2, 3, 16, 16), random_mask(2, 16, 4)
    plain = encoder(pictures, mask).pooled
    encoder.trunk.set_grad_checkpointing()
    torch.testing.assert_close(encoder(pictures, mask).pooled, plain)


def test_masks_that_cannot_be_honoured():
    encoder, pictures = small(), torch.zeros(2, 3, 16, 16)
    uneven = torch.zeros(2, 16, dtype=torch.bool)
    uneven[0, :3] = True
    with pytest.raises(PolysenseError, match="13 to 16 tokens visible; leave as many in every row"):
        encoder(pictures, uneven)
    with pytest.raises(PolysenseError, match="at least 1"):
        encoder(pictures, torch.ones(2, 16, dtype=torch.bool))
    with pytest.raises(PolysenseError, match=r"shape \[2, 9\]; the tokens need \[2, 16\]"):
        encoder(pictures, torch.zeros(2, 9, dtype=torch.bool))


@pytest.mark.parametrize("name", SIZES)
def test_named_sizes(name):
    encoder = build(name, size=32, depth=1)
    assert encoder.dim == SIZES[name]["width"]
    encoded = encoder(torch.zeros(1, 3, 32, 32))
    assert encoded.pooled.shape == (1, encoder.dim)
    assert encoded.grid == (8, 8)


@pytest.mark.parametrize(("size", "grid"), [(28, (7, 7)), (32, (8, 8)), (64, (8, 8)), (224, (14, 14))])
def test_patch_follows_the_size(size, grid):
    assert build("vit_nano", size=size, depth=1).grid(torch.empty(1, 3, size, size)) == grid


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_channels(channels):
    encoder = small() if channels == 3 else build("vit_nano", channels=channels, size=32, depth=1)
    assert encoder(torch.zeros(1, channels, 32, 32)).pooled.shape == (1, 128)


def test_a_crop_of_another_size_interpolates_positions():
    encoded = small()(torch.randn(2, 3, 8, 24))
    assert encoded.grid == (2, 6)
    assert encoded.tokens.shape == (2, 12, 32)


def test_pictures_that_do_not_fit_the_patch():
    with pytest.raises(
        PolysenseError, match=r"30×30 pixels cannot be cut into patches of 4×4; choose a size"
    ):
        build("vit_nano", size=30)
    with pytest.raises(PolysenseError, match="8×8 pixels cannot be cut into patches of 16×16"):
        build("vit_tiny_patch16_224", size=8)
    encoder = small()
    for side in (2, 18):
        with pytest.raises(PolysenseError, match=f"16×{side} pixels cannot be cut"):
            encoder(torch.zeros(1, 3, 16, side))
    with pytest.raises(PolysenseError, match="5 heads cannot share a width of 32"):
        small(heads=5)


def test_trunk_is_timms_own():
    encoder = small()
    twin = VisionTransformer(img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    twin.load_state_dict(encoder.trunk.state_dict())
    pictures = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(twin.eval()(pictures), encoder(pictures).pooled)


def test_distilled_and_hybrid_vits_hide_too():
    for name in ("deit_tiny_distilled_patch16_224", "vit_tiny_r_s16_p8_224"):
        encoder = build(name, size=64).eval()
        pictures = torch.randn(1, 3, 64, 64)
        tokens = encoder(pictures).tokens.shape[1]
        down, across = encoder.grid(pictures)
        assert tokens == down * across
        assert encoder(pictures, random_mask(1, tokens, 1)).tokens.shape[1] == 1


def test_a_users_own_timm_vit_hides_too():
    trunk = timm.create_model("test_vit", num_classes=7)
    encoder = build(trunk)
    assert isinstance(encoder, ViTEncoder)
    assert encoder.trunk is trunk
    assert isinstance(trunk.head, nn.Linear)


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_patchify_cuts_in_reading_order_and_back(channels):
    pictures = torch.randn(2, channels, 8, 12)
    patches = patchify(pictures, 4)
    assert patches.shape == (2, 6, 16 * channels)
    by_hand = pictures[1, :, 4:8, 8:12].permute(1, 2, 0).flatten()  # row 1, column 2 of the grid
    assert torch.equal(patches[1, 5], by_hand)
    assert torch.equal(unpatchify(patches, 4, (2, 3)), pictures)
    with pytest.raises(PolysenseError, match="cannot be cut"):
        patchify(pictures, 5)


def test_tokenise_gives_each_token_its_own_pixels():
    encoder, pictures = small(), torch.randn(2, 3, 16, 16)
    assert encoder.token_values == 48
    assert torch.equal(encoder.tokenise(pictures), patchify(pictures, 4))
    weight = encoder.trunk.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)  # as patches lie: p, q, c
    embedded = encoder.tokenise(pictures) @ weight.T + encoder.trunk.patch_embed.proj.bias
    torch.testing.assert_close(embedded, encoder.trunk.patch_embed(pictures).flatten(1, 2))


def test_register_tokens_are_neither_patches_nor_pooled():
    encoder, twin = small(reg_tokens=3, global_pool="avg", class_token=False), small()
    encoded = encoder(torch.randn(2, 3, 16, 16))
    assert encoded.tokens.shape == (2, 16, 32)
    assert encoded.grid == twin(torch.randn(2, 3, 16, 16)).grid
    torch.testing.assert_close(encoded.pooled, encoder.trunk.fc_norm(encoded.tokens.mean(1)))


def test_stochastic_depth_leaves_out_later_blocks_more_often_and_only_in_training():
    encoder, pictures = small(depth=3, drop_path_rate=0.6), torch.randn(4, 3, 16, 16)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder.trunk.blocks]
    assert rates == pytest.approx([0.0, 0.3, 0.6])
    assert torch.equal(encoder(pictures).pooled, encoder(pictures).pooled)
    encoder.train()
    assert not torch.equal(encoder(pictures).pooled, encoder(pictures).pooled)
    masked = random_mask(4, 16, 5)
    assert not torch.equal(encoder(pictures, masked).pooled, encoder(pictures, masked).pooled)


@pytest.mark.parametrize("name", ["vit_nano", "vit_tiny_patch16_224"])
def test_frozen_patches_stay_as_they_were_drawn(name):
    encoder = build(name, size=32, depth=1, freeze_patches=True)
    encoder(torch.randn(2, 3, 32, 32)).pooled.sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == ("patch_embed" in name), name
    assert all(parameter.requires_grad for parameter in build("vit_nano", size=32).parameters())
    with pytest.raises(PolysenseError, match="'resnet18' is no plain ViT with patches to freeze"):
        build("resnet18", freeze_patches=True)
