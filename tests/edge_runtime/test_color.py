"""A profile says what numbers look like: the same colors give the same pixels, however they are stored."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lesion_edge import color
from lesion_edge.errors import ImageError
from lesion_edge.preprocess import load_pixels

SIZE = 32
SRGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB to XYZ of D65 (IEC 61966-2-1)."""
ADOBE = np.array(
    [[0.5767309, 0.1855540, 0.1881852], [0.2973769, 0.6273491, 0.0752741], [0.0270343, 0.0706872, 0.9911085]]
)
"""Linear Adobe RGB (1998) to XYZ of D65."""


def skin() -> NDArray[np.uint8]:
    """Colors of skin and lesions, in sRGB."""
    y, x = np.mgrid[0:1:64j, 0:1:96j]
    return np.stack([110 + 120 * x, 70 + 90 * y, 60 + 60 * x * y], axis=-1).astype(np.uint8)


def in_adobe_rgb(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same colors in Adobe RGB, by its published matrix and gamma, without LittleCMS."""
    value = levels / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    converted = np.clip(linear @ (np.linalg.inv(ADOBE) @ SRGB).T, 0, 1) ** (256 / 563)
    stored: NDArray[np.uint8] = np.round(converted * 255).astype(np.uint8)
    return stored


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def grey_profile() -> bytes:
    """Grey of gamma 1.0: far enough from sRGB to be seen."""
    profile = bytearray(color.adobe_rgb())
    profile[16:20] = b"GRAY"
    content = bytes(profile).replace(b"rTRC", b"kTRC")
    return content.replace(b"curv\0\0\0\0\0\0\0\1\x02\x33", b"curv\0\0\0\0\0\0\0\1\x01\x00")


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def difference(content: bytes, expected: NDArray[np.uint8]) -> float:
    pixels = load_pixels(content, SIZE).astype(int)
    return float(np.abs(pixels - load_pixels(np.ascontiguousarray(expected), SIZE)).max())


ADOBE_IMAGE = Image.fromarray(in_adobe_rgb(skin()))


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        pytest.param("PNG", {}, 1, id="PNG"),
        pytest.param("TIFF", {}, 1, id="TIFF"),
        pytest.param("WEBP", {"lossless": True}, 1, id="WebP"),
        pytest.param("JPEG", {"quality": 98, "subsampling": 0}, 4, id="JPEG"),
    ],
)
def test_profile_is_applied(kind: str, options: dict[str, Any], tolerance: int) -> None:
    profile = color.adobe_rgb()
    assert difference(encode(ADOBE_IMAGE, kind, icc_profile=profile, **options), skin()) <= tolerance
    assert difference(encode(ADOBE_IMAGE, kind, **options), skin()) > 8  # without it, the colors are others


PALETTE = Image.fromarray(skin()).quantize(128)


def palette(image: Image.Image) -> Image.Image:
    stored = PALETTE.copy()
    colors = np.array(PALETTE.getpalette(), np.uint8).reshape(-1, 3)
    stored.putpalette(in_adobe_rgb(colors).tobytes())
    return stored


def with_alpha(image: Image.Image) -> Image.Image:
    layer = image.copy()
    layer.putalpha(Image.fromarray(np.where(np.arange(96) < 48, 255, 0)[None].repeat(64, 0).astype(np.uint8)))
    return layer


@pytest.mark.parametrize(
    ("make", "expected", "tolerance"),
    [
        pytest.param(palette, np.asarray(PALETTE.convert("RGB")), 1, id="palette"),
        pytest.param(
            with_alpha, np.where(np.arange(96)[:, None] < 48, skin(), 255).astype(np.uint8), 1, id="alpha"
        ),
    ],
)
def test_profile_is_applied_in_every_mode(
    make: Callable[[Image.Image], Image.Image], expected: NDArray[np.uint8], tolerance: int
) -> None:
    assert difference(encode(make(ADOBE_IMAGE), "PNG", icc_profile=color.adobe_rgb()), expected) <= tolerance


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_profile_is_applied(depth: int) -> None:
    linear = np.linspace(0.05, 1, 96)[None].repeat(64, 0)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    stored = np.round(linear * (2**depth - 1)).astype(np.uint8 if depth == 8 else np.uint16)
    content = encode(Image.fromarray(stored), "PNG", icc_profile=grey_profile())
    expected = np.round(shown * 255).astype(np.uint8)[..., None].repeat(3, -1)
    assert difference(content, expected) <= 2


def test_pillow_image_with_a_profile_is_converted_and_left_as_it_was() -> None:
    with Image.open(io.BytesIO(encode(ADOBE_IMAGE, "PNG", icc_profile=color.adobe_rgb()))) as image:
        image.load()
        before = image.tobytes()
        assert np.abs(load_pixels(image, SIZE).astype(int) - load_pixels(skin(), SIZE)).max() <= 1
        assert image.tobytes() == before


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        pytest.param("RGB", srgb_profile(), id="sRGB"),
        pytest.param("L", srgb_profile(), id="sRGB on grey"),
        pytest.param("RGB", b"no profile at all", id="no profile"),
        pytest.param("RGB", color.adobe_rgb()[:200], id="a profile that is cut off"),
        pytest.param("RGB", b"", id="an empty profile"),
        pytest.param("RGB", grey_profile(), id="a grey profile on color"),
        pytest.param("CMYK", color.adobe_rgb(), id="an RGB profile on CMYK"),
        pytest.param("RGB", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), id="a Lab profile"),
    ],
)
def test_profile_that_says_nothing_else_leaves_every_bit(mode: str, profile: bytes) -> None:
    image = Image.fromarray(skin()).convert(mode)
    for kind in ("JPEG", "TIFF"):
        plain = load_pixels(encode(image, kind), SIZE)
        np.testing.assert_array_equal(load_pixels(encode(image, kind, icc_profile=profile), SIZE), plain)


def exif(color_space: int, index: str) -> Image.Exif:
    block = Image.Exif()
    block.get_ifd(color.EXIF_IFD)[color.COLOR_SPACE] = color_space
    block.get_ifd(color.EXIF_IFD)[color.INTEROP_IFD] = {color.INTEROP_INDEX: index}
    return block


@pytest.mark.parametrize(
    ("color_space", "index", "is_adobe"), [(0xFFFF, "R03", True), (1, "R98", False), (0xFFFF, "R98", False)]
)
def test_camera_says_adobe_rgb_by_exif_alone(color_space: int, index: str, is_adobe: bool) -> None:
    content = encode(ADOBE_IMAGE, "JPEG", quality=98, subsampling=0, exif=exif(color_space, index))
    assert (difference(content, skin()) <= 4) is is_adobe


def test_pillow_without_littlecms_refuses_what_it_cannot_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    with pytest.raises(ImageError, match="built without LittleCMS"):
        load_pixels(encode(ADOBE_IMAGE, "PNG", icc_profile=color.adobe_rgb()), SIZE)
    load_pixels(encode(ADOBE_IMAGE, "PNG"), SIZE)


def test_every_thread_gets_the_same_pixels() -> None:
    from concurrent.futures import ThreadPoolExecutor

    content = encode(ADOBE_IMAGE.resize((800, 600)), "PNG", icc_profile=color.adobe_rgb())
    expected = load_pixels(content, SIZE)
    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(lambda _: load_pixels(content, SIZE), range(40)):
            np.testing.assert_array_equal(pixels, expected)


def cmyk_profile(paper: tuple[int, int, int]) -> bytes:
    """A press with the given Lab (8 bits) of paper, whose inks darken it: a table of two steps per ink."""
    corners = np.array(
        [[(index >> 3 & 1) + (index >> 2 & 1) + (index >> 1 & 1), index & 1] for index in range(16)]
    )
    light = paper[0] * np.where(corners[:, 1] == 1, 0, 1 - corners[:, 0] / 3)
    table = np.stack([light, np.full(16, paper[1]), np.full(16, paper[2])], axis=-1).round().astype(np.uint8)
    ramp = bytes(range(256))
    matrix = b"".join(struct.pack(">i", 65536 * (row == column)) for row in range(3) for column in range(3))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + table.tobytes() + ramp * 3
    description = b"desc" + bytes(4) + struct.pack(">I", 6) + b"press\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"desc", description), (b"cprt", b"text" + bytes(4) + b"none\0"), (b"wtpt", white), (b"A2B0", lut)]
    tags += [(b"A2B1", lut)]
    place, entries, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags:
        entries += name + struct.pack(">II", place + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + entries + body


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_profile_is_applied(kind: str) -> None:
    ink = np.zeros((64, 96, 4), np.uint8)
    ink[..., 3] = np.linspace(0, 255, 96).astype(np.uint8)
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    content = encode(Image.fromarray(ink, "CMYK"), kind, icc_profile=cmyk_profile((255, 128, 128)), **options)
    lightness = 1 - ink[..., 3] / 255.0
    luminance = np.where(lightness > 0.08, ((lightness * 100 + 16) / 116) ** 3, lightness * 100 / 903.3)
    shown = np.where(luminance <= 0.0031308, 12.92 * luminance, 1.055 * luminance ** (1 / 2.4) - 0.055)
    expected = np.round(shown * 255).astype(np.uint8)[..., None].repeat(3, -1)
    assert difference(content, expected) <= 4
    plain = encode(Image.fromarray(ink, "CMYK"), kind, **options)
    assert difference(plain, expected) > 8  # Pillow's own way is a straight line
