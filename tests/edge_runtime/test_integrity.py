"""A file of which a part is missing is refused, although its decoder would make the part up."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge.errors import ImageError
from lesion_edge.preprocess import load_pixels

SIZE = 32


def texture(width: int = 640, height: int = 480, seed: int = 0) -> Image.Image:
    """An image in which no two places are alike, so that nothing in it compresses to zeros."""
    levels = np.random.default_rng(seed).integers(20, 236, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encode(texture(), "JPEG", quality=90),
    "progressive JPEG": lambda: encode(texture(), "JPEG", quality=90, progressive=True),
    "grey JPEG": lambda: encode(texture().convert("L"), "JPEG", quality=90),
    "CMYK JPEG": lambda: encode(texture().convert("CMYK"), "JPEG", quality=90),
    "JPEG without subsampling": lambda: encode(texture(), "JPEG", quality=90, subsampling=0),
    "PNG": lambda: encode(texture(), "PNG"),
    "WebP": lambda: encode(texture(), "WEBP", quality=90),
    "lossless WebP": lambda: encode(texture(), "WEBP", lossless=True),
    "TIFF": lambda: encode(texture(), "TIFF"),
    "TIFF zlib": lambda: encode(texture(), "TIFF", compression="tiff_adobe_deflate"),
    "TIFF LZW": lambda: encode(texture(), "TIFF", compression="tiff_lzw"),
    "BMP": lambda: encode(texture(), "BMP"),
}


def sector_in_the_middle(content: bytes) -> int:
    start = len(content) // 2 // 512 * 512
    while not content[start - 1]:
        start += 512
    return start


@pytest.mark.parametrize("kind", FILES)
def test_whole_file_is_taken(kind: str) -> None:
    assert load_pixels(FILES[kind](), SIZE).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("kind", FILES)
def test_copy_that_stopped_half_way_is_refused_though_it_has_its_full_length(kind: str) -> None:
    content = FILES[kind]()
    half = sector_in_the_middle(content)
    with pytest.raises(ImageError, match=r"damaged or truncated|not an image"):
        load_pixels(content[:half] + bytes(len(content) - half), SIZE)


@pytest.mark.parametrize("kind", FILES)
def test_block_that_was_never_written_is_refused(kind: str) -> None:
    content = FILES[kind]()
    start = sector_in_the_middle(content)
    with pytest.raises(ImageError, match=r"damaged or truncated|not an image"):
        load_pixels(content[:start] + bytes(4096) + content[start + 4096 :], SIZE)


@pytest.mark.parametrize("kind", [name for name in FILES if "JPEG" in name and "progressive" not in name])
@pytest.mark.parametrize("width", [640, 633])
@pytest.mark.parametrize("size", [32, 300], ids=["shrunk by the decoder", "at full scale"])
def test_jpeg_that_ends_early_in_due_form_is_refused(kind: str, width: int, size: int) -> None:
    """Its end marker is there and its header right: libjpeg fills the rest with grey."""
    content = FILES[kind]()
    with Image.open(io.BytesIO(content)) as image:
        crop = image.crop((0, 0, width, 473))
    content = encode(crop, "JPEG", quality=90)
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(ImageError, match="its last rows are missing"):
            load_pixels(content[: int(len(content) * part)] + b"\xff\xd9", size)


def test_jpeg_out_of_which_a_part_was_cut_is_refused() -> None:
    content = FILES["JPEG"]()
    with pytest.raises(ImageError, match="its last rows are missing"):
        load_pixels(content[:20000] + content[30000:], SIZE)


@pytest.mark.parametrize("kind", ["PNG", "TIFF zlib"])
def test_checksum_finds_a_single_bit(kind: str) -> None:
    content = bytearray(FILES[kind]())
    for place in range(len(content) // 10, len(content) - 500, len(content) // 9):
        content[place] ^= 1
        with pytest.raises(ImageError, match="damaged or truncated"):
            load_pixels(bytes(content), SIZE)
        content[place] ^= 1
    load_pixels(bytes(content), SIZE)


def black_frame(kind: str, **options: Any) -> bytes:
    image = Image.new("RGB", (640, 480))
    image.paste(texture(400, 300), (120, 90))
    return encode(image, kind, **options)


HARMLESS: list[Any] = [
    pytest.param(lambda: encode(Image.new("RGB", (500, 400)), "BMP"), id="a black BMP"),
    pytest.param(lambda: encode(Image.new("RGB", (512, 512)), "TIFF"), id="a black TIFF"),
    pytest.param(lambda: black_frame("BMP"), id="BMP with a black frame"),
    pytest.param(lambda: black_frame("TIFF"), id="TIFF with a black frame"),
    pytest.param(lambda: black_frame("JPEG", optimize=True), id="JPEG with a black frame"),
    pytest.param(lambda: black_frame("WEBP", lossless=True), id="WebP with a black frame"),
    pytest.param(lambda: encode(Image.new("RGB", (640, 480), (127, 126, 129)), "JPEG"), id="a nearly grey JPEG"),
    pytest.param(lambda: FILES["JPEG"]() + bytes(100_000), id="JPEG, zeros behind its end"),
    pytest.param(lambda: FILES["JPEG"]() + b"\xff" * 9999, id="JPEG, something else behind its end"),
    pytest.param(
        lambda: encode(texture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0" + b"\1" * 494 + bytes(30_000)),
        id="JPEG with an empty maker's note",
    ),
]


@pytest.mark.parametrize("content", HARMLESS)
def test_zeros_that_belong_there_are_no_damage(content: Callable[[], bytes]) -> None:
    assert load_pixels(content(), SIZE).shape == (SIZE, SIZE, 3)
