import copy
import subprocess
import sys
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from torch import nn

from polysense.encoders import Encoded, build, list_encoders
from polysense.encoders.convnet import SmallConvNet
from polysense.errors import PolysenseError


def test_importing_the_room_loads_no_model_library():
    code = "import sys, polysense.encoders; print([m for m in ('timm', 'torchvision') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize(("size", "grid"), [(32, (4, 4)), (28, (4, 4)), (64, (8, 8))])
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_small(channels, size, grid):
    encoder = build("small", channels=channels, size=size)
    encoded = encoder(torch.randn(2, channels, size, size))
    assert encoder.dim == 1024
    assert encoded.pooled.shape == (2, 1024)
    assert encoded.grid == grid
    assert encoded.tokens.shape == (2, grid[0] * grid[1], 64)
    whole = encoded.pooled.unflatten(1, (64, 4, 4)).mean((2, 3))
    torch.testing.assert_close(encoded.tokens.mean(1), whole)


def test_small_is_channels_last_throughout():
    features = build("small").trunk(torch.randn(2, 3, 32, 32))
    assert features.is_contiguous(memory_format=torch.channels_last)


def test_small_takes_another_shape():
    encoder = build("small", widths=(8, 16), strides=(2, 2), pool=1)
    assert encoder.dim == 16
    assert encoder(torch.zeros(1, 3, 32, 32)).grid == (8, 8)
    SmallConvNet(3, (8, 16), (2, 2)).load_state_dict(encoder.trunk.state_dict())
    with pytest.raises(PolysenseError, match="2 widths and 1 strides"):
        build("small", widths=(8, 16), strides=(2,))
    with pytest.raises(PolysenseError, match="cannot pool to 0 places"):
        build("small", pool=0)


def test_with_a_last_norm_small_ends_centred_and_spread_alike():
    encoder, usual = build("small", last_norm=True), build("small")
    pictures = torch.randn(64, 3, 32, 32)
    encoded = encoder(pictures)
    torch.testing.assert_close(encoded.pooled.mean(0), torch.zeros(1024), atol=1e-4, rtol=0)
    torch.testing.assert_close(encoded.pooled.var(0, unbiased=False), torch.ones(1024), atol=0.05, rtol=0)
    usual.trunk.load_state_dict(encoder.trunk.state_dict())
    torch.testing.assert_close(usual(pictures).tokens, encoded.tokens.relu())


def test_resnet_stem_follows_the_size():
    pictures = torch.zeros(1, 3, 32, 32)
    usual = build("resnet18", size=224).eval()
    assert usual.trunk.conv1.kernel_size == (7, 7)
    assert usual(pictures).grid == (1, 1)
    small = build("resnet18", size=32)
    stem = small.trunk.conv1
    assert (stem.kernel_size, stem.stride, stem.padding) == ((3, 3), (1, 1), (1, 1))
    assert isinstance(small.trunk.maxpool, nn.Identity)
    assert small(pictures).grid == (4, 4)
    assert build("resnet18", size=32, small_stem=False).trunk.conv1.kernel_size == (7, 7)
    assert build("resnet18", size=128, small_stem=True).trunk.conv1.kernel_size == (3, 3)
    with pytest.raises(PolysenseError, match=r"small_stem is for ResNets.*not for ConvNeXt"):
        build("test_convnext", small_stem=True)


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_convnext", "test_efficientnet"])
def test_timm_trunks_go_back_to_timm(name):
    encoder = build(f"timm/{name}", size=None if "vit" in name else 224)
    timm.create_model(name, num_classes=0).load_state_dict(encoder.trunk.state_dict())


def test_torchvision_trunk_goes_back_to_torchvision():
    encoder = build("torchvision/resnet18", size=224)
    twin = torchvision.models.resnet18()
    twin.fc = nn.Identity()
    twin.load_state_dict(encoder.trunk.state_dict())
    pictures = torch.randn(2, 3, 64, 64)
    encoded = encoder.eval()(pictures)
    torch.testing.assert_close(encoded.pooled, twin.eval()(pictures))
    torch.testing.assert_close(encoded.tokens.mean(1), encoded.pooled)
    assert encoded.grid == (2, 2)
    assert not encoder.trunk.avgpool._forward_pre_hooks


def test_timm_and_torchvision_name_the_same_resnet_weights():
    one, two = build("timm:resnet18", size=32), build("torchvision/resnet18", size=32)
    two.trunk.load_state_dict(one.trunk.state_dict())
    pictures = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(one.eval()(pictures).tokens, two.eval()(pictures).tokens)


@pytest.mark.parametrize("channels", [1, 4, 13])
@pytest.mark.parametrize(
    "name", ["resnet18", "test_convnext", "torchvision/resnet18", "torchvision/mnasnet0_5"]
)
def test_channels(name, channels):
    encoder = build(name, channels=channels, size=32).eval()
    assert encoder(torch.zeros(1, channels, 32, 32)).pooled.shape == (1, encoder.dim)


TORCHVISION = {  # name: dim, grid of tokens at 64 pixels
    "alexnet": (4096, None),
    "convnext_tiny": (768, (2, 2)),
    "efficientnet_b0": (1280, (2, 2)),
    "mobilenet_v3_small": (1024, None),
    "regnet_y_400mf": (440, (2, 2)),
    "shufflenet_v2_x0_5": (1024, None),
    "squeezenet1_1": (512, None),
    "swin_t": (768, (2, 2)),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_families(name):
    dim, grid = TORCHVISION[name]
    encoder = build(f"torchvision/{name}").eval()
    with torch.no_grad():
        encoded = encoder(torch.randn(1, 3, 64, 64))
    assert encoder.dim == dim
    assert encoded.pooled.shape == (1, dim)
    assert encoded.grid == grid
    assert (encoded.tokens is None) == (grid is None)


def test_torchvision_vit():
    encoder = build("torchvision/vit_b_32", size=64).eval()
    with torch.no_grad():
        encoded = encoder(torch.randn(1, 3, 64, 64))
    assert encoded.grid == (2, 2)
    assert encoded.tokens.shape == (1, 4, 768)


def test_torchvision_side_classifiers_are_off():
    encoder = build("googlenet", channels=3)  # timm has none of this name
    assert encoder.train()(torch.randn(2, 3, 64, 64)).pooled.shape == (2, 1024)


def test_timm_token_layouts():
    swin = build("swin_tiny_patch4_window7_224", size=64, depths=(1, 1, 1, 1)).eval()
    encoded = swin(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(encoded.tokens.mean(1), encoded.pooled)  # NHWC inside
    assert encoded.grid == (2, 2)
    mobile = build("mobilenetv3_small_050").eval()(torch.randn(1, 3, 64, 64))
    assert mobile.pooled.shape == (1, 1024)
    assert mobile.tokens is None


DENSE = {  # name: options, and width and side of the tokens of the last, the second and the third last stage
    "resnet18": ({}, [(512, 8), (256, 16), (128, 32)]),
    "test_convnext": ({}, [(64, 2), (48, 4), (32, 8)]),
    "swin_tiny_patch4_window7_224": ({"depths": (1, 1, 1, 1)}, [(768, 2), (384, 4), (192, 8)]),
    "test_efficientnet": ({}, [(64, 2), (48, 4), (32, 8)]),
}


@pytest.mark.parametrize("name", DENSE)
def test_dense_tokens_of_an_earlier_stage_leave_the_pooled_as_it_is(name):
    options, stages = DENSE[name]
    plain = build(name, size=64, **options).eval()
    pictures = torch.randn(2, 3, 64, 64)
    expected = plain(pictures)
    assert plain.token_dim == expected.tokens.shape[-1]
    for stage, (width, side) in zip((-1, -2, -3), stages, strict=True):
        dense = build(name, size=64, dense_stage=stage, **options).eval()
        dense.load_state_dict(plain.state_dict())
        assert dense.token_dim == width
        encoded = dense(pictures)
        torch.testing.assert_close(encoded.pooled, expected.pooled)
        assert encoded.tokens.shape == (2, side * side, width)
        assert encoded.grid == (side, side)


def test_the_tokens_of_a_stage_are_its_map_row_by_row():
    encoder = build("resnet18", size=32, dense_stage=-2).eval()
    kept = []
    encoder.trunk.layer3.register_forward_hook(lambda _, __, output: kept.append(output))
    encoded = encoder(torch.randn(2, 3, 32, 48))
    torch.testing.assert_close(encoded.tokens[:, 13], kept[0][:, :, 1, 13 - encoded.grid[1]])


def test_stages_that_do_not_exist_are_refused():
    with pytest.raises(PolysenseError, match="ResNet has 5 stages, no dense_stage 7; choose -5 to 4"):
        build("resnet18", dense_stage=7)
    with pytest.raises(PolysenseError, match="a ViT has no stages"):
        build("test_vit", dense_stage=-2)


@pytest.mark.parametrize(("name", "width"), [("torchvision/resnet18", 512), ("resnet18", 512), ("small", 64)])
def test_the_width_of_tokens_is_known_without_a_trace(name, width):
    encoder = build(name, channels=4, size=32)
    before = copy.deepcopy(encoder.state_dict())
    assert encoder.token_dim == width
    assert encoder.training
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", ["torchvision/alexnet", "mobilenetv3_small_050"])
def test_encoders_without_places_have_no_width_of_tokens(name):
    with pytest.raises(PolysenseError, match="has no places on a grid to compare; choose a conv net"):
        _ = build(name, size=64).token_dim


@pytest.mark.parametrize("name", ["small", "resnet18", "torchvision/resnet18"])
def test_masks_are_refused_where_tokens_cannot_be_hidden(name):
    encoder = build(name, size=32)
    pictures = torch.zeros(1, 3, 32, 32)
    with pytest.raises(PolysenseError, match="cannot hide tokens; choose a ViT, such as 'vit_nano'"):
        encoder(pictures, torch.zeros(1, 16, dtype=torch.bool))
    with pytest.raises(PolysenseError, match="cannot hide tokens"):
        encoder.grid(pictures)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnt18", "unknown encoder 'resnt18'; did you mean 'resnet18'"),
        ("vit_nan", "did you mean 'vit_nano'"),
        ("timm/swin_t", "unknown encoder 'timm/swin_t'"),
        ("torchvision/resnet10t", "unknown encoder"),
        ("resnet18.nowhere", "unknown weights 'resnet18.nowhere'; did you mean 'resnet18"),
        ("", "unknown encoder ''"),
    ],
)
def test_unknown_names(spec, message):
    with pytest.raises(PolysenseError, match=message):
        build(spec)


@pytest.mark.parametrize("spec", ["small", "vit_nano", "resnet18", "test_convnext", "torchvision/resnet18"])
def test_unknown_options(spec):
    with pytest.raises(PolysenseError, match="has no option 'widht'"):
        build(spec, widht=3)


def test_settings_out_of_range():
    with pytest.raises(PolysenseError, match="0 channels"):
        build("small", channels=0)
    with pytest.raises(PolysenseError, match="size 0"):
        build("small", size=0)


def test_pretrained_weights_that_cannot_be_fetched(monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    monkeypatch.setattr("torchvision.models.get_model", offline)
    with pytest.raises(PolysenseError, match=r"'resnet18'.*'timm/resnet18\.a1_in1k'.*pretrained=False"):
        build("resnet18", pretrained=True)
    with pytest.raises(PolysenseError, match=r"'torchvision/resnet18'.*checkpoints or pass pretrained=False"):
        build("torchvision/resnet18", pretrained=True)
    with pytest.raises(PolysenseError, match="no pretrained weights of 'vit_nano'"):
        build("vit_nano", pretrained=True)


def test_timm_models_without_weights_are_not_silently_random():
    name = next(name for name in timm.list_models("vit_*") if not timm.models.is_model_pretrained(name))
    with pytest.raises(PolysenseError, match="no pretrained weights of"):
        build(name, pretrained=True)


def test_pretrained_weights_survive_small_pictures_and_other_channels(monkeypatch):
    original = torchvision.models.resnet18()
    kernel = original.conv1.weight.detach().clone()
    monkeypatch.setattr("torchvision.models.get_model", lambda *_, **__: copy.deepcopy(original))
    small = build("torchvision/resnet18", size=32, pretrained=True)
    assert torch.equal(small.trunk.conv1.weight, kernel)
    grey = build("torchvision/resnet18", size=32, channels=1, pretrained=True)
    torch.testing.assert_close(grey.trunk.conv1.weight, kernel.sum(1, keepdim=True))


def test_list_encoders():
    rows = dict(list_encoders())
    assert list(rows)[:2] == ["small", "vit_nano"]
    assert rows["timm resnet"].startswith("family of ")
    assert "resnet101" in rows["torchvision resnet"]
    counted = sum(int(line.split()[2]) for name, line in rows.items() if name.startswith("timm "))
    assert counted == len(timm.list_models())


class Returns(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output, self.norm = output, nn.BatchNorm2d(3)

    def forward(self, data):
        return self.output(self.norm(data))


@pytest.mark.parametrize(
    ("output", "dim", "tokens", "grid"),
    [
        (lambda x: x.mean((2, 3)), 3, None, None),
        (lambda x: x, 3, 48, (6, 8)),
        (lambda x: x.flatten(1, 2), 8, 18, None),
        (lambda x: Encoded(x.mean((2, 3)).repeat(1, 2)), 6, None, None),
    ],
    ids=["vector", "map", "tokens", "Encoded"],
)
def test_own_modules(output, dim, tokens, grid):
    module = Returns(output)
    before = module.norm.running_mean.clone()
    encoder = build(module, size=8)
    assert encoder.dim == dim
    assert encoder.trunk is module
    assert module.training
    assert module.norm.training
    assert torch.equal(module.norm.running_mean, before)
    encoded = encoder(torch.randn(2, 3, 6, 8))
    assert encoded.pooled.shape == (2, dim)
    assert encoded.grid == grid
    assert tokens is None if encoded.tokens is None else encoded.tokens.shape == (2, tokens, dim)


def test_own_module_keeps_frozen_parts_in_eval_mode():
    module = Returns(lambda x: x)
    module.norm.eval()
    build(module, size=8)
    assert module.training
    assert not module.norm.training


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: x.sum(), r"Returns returned shape \[\]; return \[B, D\]"),
        (lambda x: (x, x), "Returns returned tuple"),
        (lambda x: {"features": x}, "Returns returned dict"),
        (
            lambda x: x @ torch.zeros(3, 3),
            r"failed on pictures \[2, 3, 8, 8\] \(.*shape.*\); pass the channels",
        ),
    ],
)
def test_own_modules_that_do_not_fit(output, message):
    with pytest.raises(PolysenseError, match=message):
        build(Returns(output), size=8)


def test_own_module_takes_no_options_and_an_encoder_stays_itself():
    with pytest.raises(PolysenseError, match="comes as it is; leave out pretrained, width"):
        build(Returns(lambda x: x), pretrained=True, width=3)
    encoder = build("small")
    assert build(encoder) is encoder


@pytest.mark.parametrize("spec", ["small", "vit_nano", "resnet18"])
def test_state_dict_round_trip(spec):
    one, two = build(spec, size=32).eval(), build(spec, size=32).eval()
    two.load_state_dict(one.state_dict())
    pictures = torch.randn(2, 3, 32, 32)
    assert torch.equal(one(pictures).pooled, two(pictures).pooled)
