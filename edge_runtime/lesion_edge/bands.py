"""Large images in bands of rows, so that one of 100 megapixels does not fill a device's memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

from PIL import Image

from lesion_edge.color import to_rgb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BAND_PIXELS = 1 << 20
"""Pixels of a band, about; smaller images are not cut."""

PNG_MODES = {2: "RGB", 4: "LA", 6: "RGBA"}
"""Color types of PNG that are decoded in bands, at 8 bits; others take a quarter of the memory, or are rare."""


def reduce_bands(image: Image.Image, bands: Iterable[Image.Image], factor: int) -> Image.Image:
    """Convert bands to RGB and average squares of `factor` pixels.

    Args:
        image: whose size and profile count; its pixels are not looked at.
        bands: in order from the top, each but the last with a multiple of `factor` rows.
    """
    reduced = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    top = 0
    for band in bands:
        band.info = image.info
        converted = to_rgb(band)
        reduced.paste(converted.reduce(factor) if factor > 1 else converted, (0, top))
        top += -(-band.height // factor)
    return reduced


def cut_bands(image: Image.Image, factor: int) -> Iterator[Image.Image]:
    """Bands of an image in memory."""
    rows = _rows(image, factor)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def png_bands(content: bytes, image: Image.Image, factor: int) -> Iterator[Image.Image] | None:
    """Bands of a PNG, decoded one after the other; None where its kind has to be decoded whole.

    Each band is handed to Pillow as a PNG of its own, behind the row above it, on which its filters depend.
    """
    depth, color, _, _, interlace = content[24:29]
    if depth != 8 or interlace or color not in PNG_MODES:
        return None
    return _png_bands(content, image, color, _rows(image, factor))


def _rows(image: Image.Image, factor: int) -> int:
    return max(1, BAND_PIXELS // image.width // factor) * factor


def _png_bands(content: bytes, image: Image.Image, color: int, rows: int) -> Iterator[Image.Image]:
    stride = image.width * len(PNG_MODES[color])
    inflated = _inflate(content, rows * (stride + 1))
    above = b""
    buffer = b""
    for top in range(0, image.height, rows):
        count = min(rows, image.height - top)
        while len(buffer) < count * (stride + 1):
            more = next(inflated, b"")
            if not more:
                raise OSError("image file is truncated")
            buffer += more
        filtered, buffer = buffer[: count * (stride + 1)], buffer[count * (stride + 1) :]
        lead = b"\0" + above if above else b""
        with Image.open(io.BytesIO(_png(image.width, count + bool(lead), color, lead + filtered))) as opened:
            opened.load()
            band = opened.crop((0, bool(lead), image.width, opened.height))
        above = band.crop((0, count - 1, image.width, count)).tobytes()
        yield band


def png_info(content: bytes, image: Image.Image) -> dict[Any, Any]:
    """What a PNG says besides its pixels, also behind them; Pillow would decode it to find out."""
    behind = next((body for name, body in _chunks(content) if name == b"eXIf"), None)
    return image.info if behind is None else {**image.info, "exif": b"Exif\0\0" + behind}


def _inflate(content: bytes, size: int) -> Iterator[bytes]:
    """Filtered rows out of all IDAT chunks, at most `size` bytes at once."""
    inflater = zlib.decompressobj()
    for name, chunk in _chunks(content):
        while name == b"IDAT" and chunk:
            yield from filter(None, [inflater.decompress(chunk, size)])
            chunk = inflater.unconsumed_tail
    yield from filter(None, [inflater.flush()])


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        yield name, content[place + 8 : place + 8 + length]
        place += 12 + length


def _png(width: int, height: int, color: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))

    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
