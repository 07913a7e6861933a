"""Refuses files of which a part is missing although they decode: decoders fill such a part in without a word.

JPEG, WebP and BMP hold no checksum, so a few changed bytes can stay unseen; a lost block does not.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from lesion_edge.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

SECTOR = 512
"""Bytes; what a disk or a memory card loses begins at a multiple of it."""

RAW_LOST = 8 * SECTOR
"""Bytes of zeros that count as lost where a black border is stored as zeros, too."""

ENOUGH = 12
"""Pixels of plain grey in the last corner of a JPEG that cannot be chance."""

PADDING = 64
"""Bytes; more zeros than these at the end of a WebP file are no part of it."""

DEFLATE = (8, 32946)
"""TIFF's two numbers for zlib compression."""


def check_content(content: bytes, image: Image.Image) -> None:
    """Check a file before it is decoded.

    Args:
        content: the whole file.
        image: as Pillow opened it, not decoded yet.

    Raises:
        ImageError: a block is missing, or a checksum of a PNG or of a TIFF with zlib compression differs.
    """
    if image.format == "PNG":
        _check_png(content)
        return
    first, end = 0, len(content)
    if image.format in ("JPEG", "MPO"):
        # Within the compressed data alone: what cameras write before and behind may well be empty.
        first, end = image.fp.tell(), content.rfind(b"\xff\xd9")  # type: ignore[attr-defined]
        if end < first:
            raise ImageError("damaged or truncated (it has no end)")
    elif image.format == "WEBP" and content.endswith(bytes(PADDING)):
        raise ImageError("damaged or truncated (it ends with zeros)")
    _check_blocks(content, first, end, RAW_LOST if image.format in ("BMP", "TIFF") else SECTOR)
    if image.format == "TIFF" and image.tag_v2.get(259) in DEFLATE:  # type: ignore[attr-defined]
        tags = image.tag_v2  # type: ignore[attr-defined]
        places, lengths = (273, 279) if 273 in tags else (324, 325)
        for start, length in zip(tags[places], tags[lengths], strict=True):
            zlib.decompress(content[start : start + length])


def check_decoded_jpeg(image: Image.Image, full_height: int) -> None:
    """Refuse a JPEG whose end the decoder made up.

    Where the data ends early, libjpeg leaves all coefficients at zero: plain grey of level 128 down to the last
    block, which no photograph has.

    Args:
        image: decoded, not turned yet, perhaps at a smaller scale.
        full_height: of the file's image, pixels.
    """
    block = 8 * max(vertical for _, _, vertical, _ in image.layer)  # type: ignore[attr-defined]
    last_rows = (full_height - 1) % block + 1
    # The upper half of the last blocks takes some colour from those above, so look at the lower one.
    rows = max(1, last_rows * image.height // (2 * full_height))
    columns = min(max(image.width // 16, -(-ENOUGH // rows)), image.width // 2)
    corner = image.crop((image.width - columns, image.height - rows, image.width, image.height))
    levels = np.asarray(corner)
    if rows * columns >= ENOUGH and np.isin(levels, (127, 128)).all():
        raise ImageError("damaged or truncated (its last rows are missing)")


def _check_blocks(content: bytes, first: int, end: int, shortest: int) -> None:
    """Look for a block of zeros that begins with a sector, right behind something else."""
    words = np.frombuffer(content, np.uint64, len(content) // SECTOR * (SECTOR // 8))
    empty = np.concatenate([[False], ~words.reshape(-1, SECTOR // 8).any(axis=1), [False]])
    edges = np.flatnonzero(empty[1:] != empty[:-1]) * SECTOR
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if stop - start >= shortest and first < start < end and content[start - 1]:
            raise ImageError(f"damaged or truncated (nothing but zeros from byte {start} on)")


def _check_png(content: bytes) -> None:
    """Check the CRC of every chunk that is needed for the image (PNG specification, section 5)."""
    place = 8
    while place < len(content):
        length, name = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        end = place + 8 + length
        if name[:1].isupper() and zlib.crc32(content[place + 4 : end]) != int.from_bytes(
            content[end : end + 4], "big"
        ):
            raise ImageError(f"damaged or truncated (checksum of its {name.decode('ascii', 'replace')} differs)")
        if name == b"IEND":
            return
        place = end + 4
    raise ImageError("damaged or truncated (it has no end)")
