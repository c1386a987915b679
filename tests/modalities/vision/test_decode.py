"""Every form and mode of a picture becomes the right pixels; what cannot be read says why."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polysense.modalities.vision.decode import (
    Header,
    UnreadableError,
    conform,
    decode,
    header,
    quantise,
    shrink,
)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int = 20, width: int = 30, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_path_bytes_struct_image_array_and_tensor_give_the_same_pixels(tmp_path: Path) -> None:
    pixels = noise()
    image = Image.fromarray(pixels)
    data = encoded(image)
    (tmp_path / "ä 图.png").write_bytes(data)
    forms = [
        tmp_path / "ä 图.png",
        str(tmp_path / "ä 图.png"),
        data,
        {"bytes": data, "path": "elsewhere.png"},
        {"bytes": None, "path": str(tmp_path / "ä 图.png")},
        image,
        pixels,
        torch.from_numpy(pixels),
        torch.from_numpy(pixels).permute(2, 0, 1),
        pixels.astype(np.float32) / 255,
        torch.from_numpy(pixels).bfloat16(),
    ]
    for form in forms:
        assert header(form) == Header(3, 8, 30)
        np.testing.assert_array_equal(decode(form), pixels)


def test_exif_rotation_turns_the_pixels() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned = decode(encoded(Image.fromarray(pixels), exif=exif))
    assert turned.shape == (6, 4, 3)
    assert np.argwhere(turned[:, :, 0]).tolist() == [[0, 3]]


def test_alpha_lies_on_white_in_every_mode() -> None:
    rgba = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    assert decode(encoded(rgba)).tolist() == [[[255, 0, 0], [255, 255, 255]]]

    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    assert decode(encoded(palette)).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert decode(encoded(palette, transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255]]]

    grey = Image.new("LA", (2, 1), (0, 128))
    grey.putpixel((1, 0), (7, 255))
    assert header(encoded(grey)) == Header(1, 8, 2)
    assert decode(encoded(grey)).tolist() == [[[127], [7]]]


def test_cmyk_and_one_bit_and_animation() -> None:
    red = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert red.shape == (8, 8, 3)
    assert red[4, 4, 0] > 230
    assert red[4, 4, 1:].max() < 40

    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert decode(encoded(bits)).tolist() == [[[0], [255]]]

    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    assert decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0].tolist() == [
        255,
        0,
        0,
    ]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept_and_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    data = encoded(Image.fromarray(values), kind)
    assert header(data) == Header(1, 16, 4)
    kept = decode(data)
    assert kept.dtype == np.uint16
    np.testing.assert_array_equal(kept[:, :, 0], values)
    np.testing.assert_array_equal(conform(kept, 3, 8), np.array([[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]))


def test_big_endian_and_wide_integers() -> None:
    big = np.array([[1, 300]], ">u2")
    assert decode(big).tolist() == [[[1], [300]]]
    assert decode(Image.fromarray(np.array([[5, 60000]], np.int32))).tolist() == [[[5], [60000]]]
    with pytest.raises(UnreadableError, match="beyond 65535"):
        decode(Image.fromarray(np.array([[5, 70000]], np.int32)))


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_shrinking_averages_and_keeps_the_aspect_ratio(mode: str) -> None:
    stripes = np.zeros((40, 80), np.uint16 if mode == "I;16" else np.uint8)
    stripes[:, ::2] = 60000 if mode == "I;16" else 200
    image = Image.fromarray(stripes).convert(mode) if mode == "RGB" else Image.fromarray(stripes)
    small = decode(image, 20)
    assert small.shape[:2] == (10, 20)
    half = stripes.max() / 2
    assert np.abs(small[:, 2:-2].astype(float) - half).max() < 0.05 * half  # without antialiasing 0 or full


def test_never_enlarged_and_never_of_no_height() -> None:
    assert decode(noise(), 100).shape == (20, 30, 3)
    assert shrink(noise(1, 100), 10).shape == (1, 10, 3)


def test_large_jpeg_decoded_at_a_fraction_is_the_same_picture() -> None:
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    pixels = np.stack([np.broadcast_to(ramp, (600, 800)), np.broadcast_to(ramp[:600, None], (600, 800))], 2)
    image = Image.fromarray(np.dstack([pixels, pixels[:, :, 0]]))
    small = decode(encoded(image, "JPEG", quality=95), 64)
    assert small.shape == (48, 64, 3)
    assert np.abs(small.astype(int) - shrink(np.asarray(image), 64)).max() <= 4


def test_a_given_image_is_left_as_it_was(tmp_path: Path) -> None:
    Image.fromarray(noise(800, 600)).save(tmp_path / "a.jpg")
    image = Image.open(tmp_path / "a.jpg")
    decode(image, 32)
    assert image.size == (600, 800)
    assert image.load() is not None


def test_arrays_of_any_channels_and_layout() -> None:
    assert decode(noise(20, 30, 7)).shape == (20, 30, 7)
    assert decode(noise(20, 30, 7), 10).shape == (7, 10, 7)
    assert decode(np.zeros((5, 20, 30))).shape == (20, 30, 5)
    assert decode(np.zeros((3, 3, 3))).shape == (3, 3, 3)
    assert decode(np.zeros((20, 30), bool)).shape == (20, 30, 1)


def test_numbers_become_bytes_by_the_stated_rule() -> None:
    assert quantise(np.array([0.0, 0.2, 1.0])).tolist() == [0, 51, 255]
    assert quantise(np.array([0.0, 1.4, 255.0])).tolist() == [0, 1, 255]
    assert quantise(np.array([True, False])).tolist() == [255, 0]
    assert quantise(np.array([3, 255])).dtype == np.uint8
    assert quantise(np.array([3, 256])).dtype == np.uint16


def bomb() -> bytes:
    """The start of a PNG that says it has 400 million pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (b"", "zero bytes"),
        (b"hello, world", "not a picture, or corrupt"),
        (bomb(), "more than 179 million pixels"),
        (None, "missing"),
        ({"bytes": None, "path": None}, "missing"),
        ({"image": 1}, "a dict without 'bytes' or 'path'"),
        (3, "a int, not a picture"),
        ("nowhere/a.png", "no such file"),
        (".", "a folder, not a picture"),
        (np.full((4, 4), np.nan), "NaN or infinite values"),
        (np.full((4, 4), -1.5), "values from -1.5 to -1.5 where 0 to 255 was expected"),
        (np.zeros((2, 2, 2, 2)), r"shape \[2, 2, 2, 2\]"),
        (np.array([["a"]]), "not numbers"),
    ],
)
def test_reasons_already_seen_in_the_header(item: object, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        header(item)
    with pytest.raises(UnreadableError, match=reason):
        decode(item)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated(kind: str) -> None:
    data = encoded(Image.fromarray(noise(200, 200)), kind)[:-2000]
    assert header(data).side == 200
    with pytest.raises(UnreadableError, match=r"^truncated$"):
        decode(data)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_flipped_bytes_never_escape_as_another_error() -> None:
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        data = encoded(Image.fromarray(noise(16, 16)), kind)
        for _ in range(40):
            broken = bytearray(data)
            for place in random.integers(0, len(broken), 4):
                broken[place] = random.integers(0, 256)
            with contextlib.suppress(UnreadableError):
                assert decode(bytes(broken)).dtype in (np.uint8, np.uint16)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)  # the user who runs the tests may be allowed everything
    with pytest.raises(UnreadableError, match=r"^permission denied$"):
        decode(tmp_path / "a.png")


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnreadableError, match="4 channels where the other pictures have 3"):
        conform(noise(2, 2, 4), 3, 8)
