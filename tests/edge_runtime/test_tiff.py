"""Every TIFF layout gives what a second reader sees, or is refused: none is read as another image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge.errors import ImageError
from lesion_edge.preprocess import load_pixels

tifffile = pytest.importorskip("tifffile")

SIZE = 32
LEVELS = np.random.default_rng(0).integers(1, 255, (6, 8, 4)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
SCALES: dict[str, Any] = {
    "uint8": lambda levels: levels,
    "uint16": lambda levels: levels.astype(np.uint16) * 257,
    "uint32": lambda levels: levels.astype(np.uint32) * 16843009,
    "int8": lambda levels: (levels // 2).astype(np.int8),
    "int16": lambda levels: levels.astype(np.int16) * 128,
    "float32": lambda levels: (levels / 255).astype(np.float32),
}
READ = {("uint8", 1), ("uint16", 1), ("uint8", 3), ("uint16", 3), ("uint8", 4), ("uint16", 4), ("uint8", 2)}
"""Depths and channels of which at least interleaved ones are read and not refused."""


def write(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize("depth", SCALES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("separate", [False, True], ids=["interleaved", "in planes"])
@pytest.mark.parametrize("compression", [None, "zlib"], ids=["raw", "zlib"])
@pytest.mark.parametrize(
    "rows", [{}, {"rowsperstrip": 16}, {"tile": (16, 16)}], ids=["one strip", "strips", "tiles"]
)
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
def test_layout_is_read_right_or_refused(
    depth: str, channels: int, separate: bool, compression: str | None, rows: dict[str, Any], order: str
) -> None:
    levels = LEVELS[..., :channels].copy()
    extra: dict[str, Any] = {}
    if channels in (2, 4):
        levels[..., -1] = 255
        extra["extrasamples"] = ["unassalpha"]
    stored = SCALES[depth](levels if channels > 1 else levels[..., 0])
    if channels > 1:
        extra["planarconfig"] = "separate" if separate else "contig"
        stored = np.moveaxis(stored, 2, 0) if separate else stored
    color = "rgb" if channels > 2 else "minisblack"
    content = write(stored, photometric=color, compression=compression, byteorder=order, **rows, **extra)
    expected = levels[..., :3] if channels > 2 else levels[..., :1].repeat(3, -1)
    try:
        pixels = load_pixels(content, SIZE)
    except ImageError:
        assert (depth, channels) not in READ or separate
    else:
        np.testing.assert_array_equal(pixels, load_pixels(np.ascontiguousarray(expected), SIZE))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("white_is_zero", [False, True], ids=["black is zero", "white is zero"])
def test_grey_of_any_depth_has_its_whole_range(bits: int, white_is_zero: bool) -> None:
    stored = (LEVELS[..., 0].astype(np.uint16) * 257) >> (16 - bits)
    grey = np.round(stored / (2**bits - 1) * 255).astype(np.uint8)
    expected = (255 - grey if white_is_zero else grey)[..., None].repeat(3, -1)
    array = stored.astype(bool) if bits == 1 else stored.astype(np.uint8) if bits < 9 else stored
    if bits not in (1, 8, 16):
        pytest.importorskip("imagecodecs")
    content = write(array, photometric="miniswhite" if white_is_zero else "minisblack", bitspersample=bits)
    try:
        pixels = load_pixels(content, SIZE)
    except ImageError:
        assert (bits, white_is_zero) == (12, True)  # which Pillow does not know
    else:
        assert np.abs(pixels.astype(int) - load_pixels(expected, SIZE)).max() <= 1


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize("separate", [False, True], ids=["interleaved", "in planes"])
def test_cmyk(depth: str, separate: bool) -> None:
    stored = SCALES[depth](LEVELS)
    stored = np.moveaxis(stored, 2, 0) if separate else stored
    content = write(stored, photometric="separated", planarconfig="separate" if separate else "contig")
    expected = np.asarray(Image.fromarray(LEVELS, "CMYK").convert("RGB"))
    np.testing.assert_array_equal(load_pixels(content, SIZE), load_pixels(expected, SIZE))


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_channels_beyond_the_color_are_dropped(depth: str) -> None:
    content = write(SCALES[depth](LEVELS), photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(load_pixels(content, SIZE), load_pixels(LEVELS[..., :3].copy(), SIZE))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"photometric": "cielab"}, "CIELAB", id="CIELAB"),
        pytest.param(
            {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}, "16-bit planes", id="tiles"
        ),
    ],
)
def test_doubtful_layout_is_refused_by_name(options: dict[str, Any], reason: str) -> None:
    depth = "uint8" if options["photometric"] == "cielab" else "uint16"
    stored = SCALES[depth](LEVELS[..., :3])
    stored = np.moveaxis(stored, 2, 0) if "planarconfig" in options else stored
    with pytest.raises(ImageError, match=reason):
        load_pixels(write(stored, **options), SIZE)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("separate", [False, True], ids=["interleaved", "in planes"])
def test_orientation_is_applied_once(orientation: int, separate: bool) -> None:
    levels = LEVELS[..., :3].copy()
    stored = SCALES["uint16"](np.moveaxis(levels, 2, 0) if separate else levels)
    planar = "separate" if separate else "contig"
    tag = (274, 3, 1, orientation, True)
    content = write(stored, photometric="rgb", planarconfig=planar, extratags=[tag])
    turned = np.ascontiguousarray(np.rot90(levels, 2 if orientation == 3 else -1))
    np.testing.assert_array_equal(load_pixels(content, SIZE), load_pixels(turned, SIZE))
