"""A file of which a part is missing is refused, although its decoder would make the part up."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lesion_edge.errors import ImageError
from lesion_edge.preprocess import load_image, load_pixels

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


def round_field(width: int, height: int, radius: int) -> Image.Image:
    """What a dermatoscope shows: a disc of skin in black."""
    y, x = np.ogrid[:height, :width]
    levels = np.asarray(texture(width, height)).copy()
    levels[(x - width / 2) ** 2 + (y - height / 2) ** 2 > radius**2] = 0
    return Image.fromarray(levels)


def framed(width: int, height: int, left: int, top: int, right: int, bottom: int) -> Image.Image:
    image = Image.new("RGB", (width, height))
    image.paste(
        texture(width // 4 * 4, height // 4 * 4).crop((left, top, width - right, height - bottom)), (left, top)
    )
    return image


def aligned_tiff(image: Image.Image, row_per_strip: bool = False) -> bytes:
    """A TIFF whose pixels begin with a sector, as some scanners write it."""
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    rows = {"rowsperstrip": 1} if row_per_strip else {}
    tifffile.imwrite(stream, np.asarray(image), photometric="rgb", align=512, **rows)
    return stream.getvalue()


BLACK_SHAPES = [
    pytest.param(lambda: round_field(3000, 2250, 1125), id="round field that touches the borders"),
    pytest.param(lambda: round_field(2048, 1536, 1000), id="round field cut off, rows of whole sectors"),
    pytest.param(lambda: round_field(2400, 1600, 500), id="small round field"),
    pytest.param(lambda: framed(2048, 640, 0, 128, 0, 128), id="letterbox, rows of whole sectors"),
    pytest.param(lambda: framed(2048, 640, 512, 100, 512, 100), id="frame of whole sectors"),
    pytest.param(lambda: framed(4096, 128, 0, 0, 2048, 64), id="black quarter and half"),
    pytest.param(lambda: framed(4096, 128, 2048, 64, 0, 0), id="black quarter at the beginning"),
]


@pytest.mark.parametrize("picture", BLACK_SHAPES)
@pytest.mark.parametrize(
    "save",
    [
        pytest.param(lambda image: encode(image, "TIFF"), id="TIFF"),
        pytest.param(lambda image: encode(image, "BMP"), id="BMP"),
        pytest.param(aligned_tiff, id="TIFF with aligned pixels"),
        pytest.param(lambda image: aligned_tiff(image, row_per_strip=True), id="TIFF of aligned rows"),
        pytest.param(lambda image: encode(image, "JPEG", optimize=True, quality=90), id="JPEG"),
    ],
)
def test_black_that_belongs_there_is_no_lost_block(
    picture: Callable[[], Image.Image], save: Callable[[Image.Image], bytes]
) -> None:
    assert load_pixels(save(picture()), SIZE).shape == (SIZE, SIZE, 3)


@given(st.integers(1400, 2600), st.integers(100, 300), st.integers(20, 900), st.integers(-40, 40))
@settings(max_examples=60, deadline=None)
def test_round_field_of_any_size_is_read_in_formats_without_compression(
    width: int, height: int, radius: int, shift: int
) -> None:
    y, x = np.ogrid[:height, :width]
    levels = np.full((height, width, 3), (205, 150, 135), np.uint8)
    levels[(x - width / 2 - shift) ** 2 + (y - height / 2) ** 2 > radius**2] = 0
    for kind in ("TIFF", "BMP"):
        load_pixels(encode(Image.fromarray(levels), kind), SIZE)


@pytest.mark.parametrize("kind", ["TIFF", "BMP"])
@pytest.mark.parametrize("size", [(3000, 1600), (2048, 1400), (641, 480)])
def test_lost_block_is_found_beside_a_black_field(kind: str, size: tuple[int, int]) -> None:
    content = encode(round_field(*size, size[1] // 2 + 100), kind)
    start = len(content) // 2 // 512 * 512
    while not (
        content[start - 1] and np.count_nonzero(np.frombuffer(content[start : start + 4096], np.uint8)) > 4000
    ):
        start += 512
    with pytest.raises(ImageError, match="nothing but zeros from byte"):
        load_pixels(content[:start] + bytes(4096) + content[start + 4096 :], SIZE)


def letterbox(level: int, width: int = 640, height: int = 640) -> Image.Image:
    image = Image.new("RGB", (width, height), (level, level, level))
    image.paste(texture(width // 4 * 4, height // 2 // 4 * 4), (0, height // 4))
    return image


JPEGS: list[Any] = [
    pytest.param({}, id="baseline"),
    pytest.param({"progressive": True}, id="progressive"),
    pytest.param({"optimize": True}, id="optimized"),
    pytest.param({"subsampling": 0}, id="without subsampling"),
    pytest.param({"restart_marker_blocks": 7}, id="restart markers within rows"),
    pytest.param({"restart_marker_rows": 1}, id="a restart marker each row"),
]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("level", [127, 128])
@pytest.mark.parametrize("size", [32, 400], ids=["shrunk by the decoder", "at full scale"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_grey_corner_that_was_meant_is_read(options: dict[str, Any], level: int, size: int, mode: str) -> None:
    content = encode(letterbox(level).convert(mode), "JPEG", quality=92, **options)
    assert load_pixels(content, size).shape == (size, size, 3)
    assert load_pixels(content + bytes(999), size).shape == (size, size, 3)


@pytest.mark.parametrize("options", [case for case in JPEGS if "progressive" not in case.values[0]])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("size", [32, 400], ids=["shrunk by the decoder", "at full scale"])
def test_grey_corner_that_the_decoder_made_up_is_refused(options: dict[str, Any], part: float, size: int) -> None:
    content = encode(texture(), "JPEG", quality=92, **options)
    with pytest.raises(ImageError, match="its last rows are missing"):
        load_pixels(content[: int(len(content) * part)] + b"\xff\xd9", size)


def test_jpeg_that_ends_at_a_restart_marker_is_refused() -> None:
    content = encode(texture(), "JPEG", quality=92, restart_marker_rows=1)
    end = content.rindex(b"\xff\xd1")
    with pytest.raises(ImageError, match="its last rows are missing"):
        load_pixels(content[:end] + b"\xff\xd9", SIZE)


def test_grey_corner_of_an_mpo_and_of_a_view_for_people_is_read() -> None:
    stream = io.BytesIO()
    letterbox(128).save(stream, "MPO", save_all=True, append_images=[texture()])
    assert load_pixels(stream.getvalue(), SIZE).shape == (SIZE, SIZE, 3)
    assert load_image(encode(letterbox(128), "JPEG"), 200).size == (200, 200)


def test_tiff_whose_last_strip_is_cut_off_is_refused() -> None:
    tifffile = pytest.importorskip("tifffile")
    for compression in (None, "zlib"):
        stream = io.BytesIO()
        tifffile.imwrite(
            stream, np.asarray(texture()), photometric="rgb", rowsperstrip=16, compression=compression
        )
        with pytest.raises(ImageError, match="damaged or truncated"):
            load_pixels(stream.getvalue()[:-700], SIZE)
