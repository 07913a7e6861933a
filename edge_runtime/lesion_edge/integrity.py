"""Refuses files of which a part is missing although they decode: decoders fill such a part in without a word.

An image may hold any levels, so that none of them proves damage: a black field is as many zeros as a lost block,
and the grey that libjpeg puts in place of what is missing may be meant. What proves it are checksums, lengths and
markers, the borders of sectors, which an image does not know, and whether the decoder would have read on.
JPEG, WebP and BMP hold no checksum, so a few changed bytes can stay unseen; a lost block does not.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, JpegImagePlugin

from lesion_edge.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTOR = 512
"""Bytes; what a disk or a memory card loses begins at a multiple of it."""

RAW_LOST = 8 * SECTOR
"""Bytes of zeros that count as lost where black is stored as zeros, too."""

NEIGHBORS = 3
"""Bytes before and behind a lost block of which one is no zero; one alone may be a zero by chance."""

EDGE = 16
"""Bytes; a black field that begins this close to the end of a row is taken for one that begins with the next."""

ENOUGH = 12
"""Pixels of plain grey in the last corner of a JPEG that are reason to look closer."""

MORE_DATA = bytes(range(1, 255)) * 2
"""What a decoder that lacks data would read; one that has all of its blocks never gets to it."""

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
    elif image.format in ("JPEG", "MPO"):
        # Within the compressed data alone: what cameras write before and behind may well be empty.
        first, end = image.fp.tell(), content.rfind(b"\xff\xd9")  # type: ignore[attr-defined]
        if end < first:
            raise ImageError("damaged or truncated (it has no end)")
        for start, _ in _lost_blocks(content, first, end, SECTOR):
            _refuse_zeros(start)
    elif image.format in ("BMP", "TIFF"):
        rows = dict(_raw_rows(content, image))
        for start, stop in _lost_blocks(content, 0, len(content), RAW_LOST if rows else SECTOR):
            _check_black(content, start, stop, rows)
        if image.format == "TIFF":
            _check_tiff(content, image)
    else:
        if image.format == "WEBP" and content.endswith(bytes(PADDING)):
            raise ImageError("damaged or truncated (it ends with zeros)")
        for start, _ in _lost_blocks(content, 0, len(content), SECTOR):
            _refuse_zeros(start)


def check_decoded_jpeg(content: bytes, image: Image.Image, stored: tuple[int, int], shortest_side: int) -> None:
    """Refuse a JPEG whose end the decoder made up.

    Where the data ends early, libjpeg leaves all coefficients at zero: plain grey of level 128 down to the last
    block. Such a corner is only a reason to look closer, since a picture may have it, too. Then restart markers
    are counted, and the file is decoded again with more data before its end: only missing blocks would take it.

    Args:
        content: the whole file.
        image: decoded, not turned yet, perhaps at a smaller scale.
        stored: width and height of the file's image, pixels.
        shortest_side: that the decoder was asked for, pixels.

    Raises:
        ImageError: the data ends before the image does.
    """
    block = 8 * max(vertical for _, _, vertical, _ in image.layer)  # type: ignore[attr-defined]
    last_rows = (stored[1] - 1) % block + 1
    # The upper half of the last blocks takes some color from those above, so look at the lower one.
    rows = max(1, last_rows * image.height // (2 * stored[1]))
    columns = min(max(image.width // 16, -(-ENOUGH // rows)), image.width // 2)
    corner = image.crop((image.width - columns, image.height - rows, image.width, image.height))
    if rows * columns < ENOUGH or not np.isin(np.asarray(corner), (127, 128)).all():
        return
    end = _end_of_jpeg(content)
    again = JpegImagePlugin.JpegImageFile(io.BytesIO(content[:end] + MORE_DATA + content[end:]))
    first = again.fp.tell()  # type: ignore[union-attr]
    lacks_restarts = _lacks_restarts(content[first:end], content[:first], again)
    again.draft(None, (shortest_side, shortest_side))
    if lacks_restarts or again.tobytes() != image.tobytes():
        raise ImageError("damaged or truncated (its last rows are missing)")


def _refuse_zeros(start: int) -> None:
    raise ImageError(f"damaged or truncated (nothing but zeros from byte {start} on)")


def _lost_blocks(content: bytes, first: int, end: int, shortest: int) -> Iterator[tuple[int, int]]:
    """Blocks of zeros that begin with a sector and end with one or with the file, right between other bytes."""
    words = np.frombuffer(content, np.uint64, len(content) // SECTOR * (SECTOR // 8))
    empty = np.concatenate([[False], ~words.reshape(-1, SECTOR // 8).any(axis=1), [False]])
    edges = np.flatnonzero(empty[1:] != empty[:-1]) * SECTOR
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if stop - start < shortest or not first < start < end or not any(content[start - NEIGHBORS : start]):
            continue
        if len(content) - stop < SECTOR and not any(content[stop:]):
            stop = len(content)
        if stop == len(content) or any(content[stop : stop + NEIGHBORS]):
            yield start, stop


def _raw_rows(content: bytes, image: Image.Image) -> Iterator[tuple[tuple[int, int], int]]:
    """Where uncompressed rows lie: the first byte and the one behind the last, and the length of a row."""
    if image.format == "BMP":
        bits = int.from_bytes(content[28:30], "little")
        if int.from_bytes(content[30:34], "little") in (0, 3):  # neither is compressed
            yield (int.from_bytes(content[10:14], "little"), len(content)), (image.width * bits + 31) // 32 * 4
        return
    tags = image.tag_v2  # type: ignore[attr-defined]
    if tags.get(259, 1) != 1:
        return
    bits, samples = max(_values(tags.get(258, 1))), tags.get(277, 1) if tags.get(284, 1) == 1 else 1
    row = (tags.get(322, image.width) * bits * samples + 7) // 8
    first = end = 0
    for start, length in _strips(tags):
        if start != end:  # strips that follow one another are one field of rows
            yield (first, end), row
            first = start
        end = start + length
    yield (first, end), row


def _check_black(content: bytes, start: int, stop: int, rows: dict[tuple[int, int], int]) -> None:
    """Tell a lost block from black pixels: a shape goes on in the rows above and below, a lost block does not."""
    for (first, end), row in rows.items():
        if not first <= start < end:
            continue
        left = (start - first) % row
        length = min(stop - start, row - left)
        if length < EDGE or left == 0 or start - row < first:
            return
        above = content[start - row : start - row + length]
        # What is shorter than a row has to end on both sides; what is longer covers the row below itself.
        below = content[start + row : start + row + length] if stop - start < row and start + row < end else b"\1"
        if all(2 * np.count_nonzero(np.frombuffer(part, np.uint8)) >= len(part) for part in (above, below)):
            _refuse_zeros(start)
        return
    _refuse_zeros(start)


def _check_tiff(content: bytes, image: Image.Image) -> None:
    """Check that all strips or tiles are there, and the checksum of those that have one."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    for start, length in _strips(tags):
        if start + length > len(content):
            raise ImageError("damaged or truncated (strips are missing)")
        if tags.get(259) in DEFLATE:
            zlib.decompress(content[start : start + length])


def _strips(tags: Any) -> Iterator[tuple[int, int]]:
    """Place and length of each strip or tile, bytes."""
    places, lengths = (273, 279) if 273 in tags else (324, 325)
    return zip(_values(tags.get(places, ())), _values(tags.get(lengths, ())), strict=False)


def _values(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _end_of_jpeg(content: bytes) -> int:
    """Where the last scan of the first image of a file ends; segments are passed over by their lengths."""
    place = 2
    while place + 4 <= len(content):
        if content[place] != 0xFF:  # not in due form: what is left counts as the last scan
            break
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == 0xD9:
            return place
        if marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        place += 2 + length
        if marker == 0xDA and (found := _MARKER.search(content, place)):
            place = found.start()
    return content.rfind(b"\xff\xd9")


_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]", re.DOTALL)
"""A marker in compressed data: neither a stuffed byte nor a restart."""


def _lacks_restarts(scan: bytes, header: bytes, image: Image.Image) -> bool:
    """Whether the one scan of a JPEG holds fewer restart markers than its blocks need."""
    interval = re.search(rb"\xff\xdd\x00\x04(..)", header, re.DOTALL)
    every = int.from_bytes(interval[1], "big") if interval else 0
    if not every or "progressive" in image.info:
        return False
    across, down = (8 * max(int(layer[index]) for layer in image.layer) for index in (1, 2))  # type: ignore[attr-defined]
    blocks = -(-image.width // across) * -(-image.height // down)
    restarts = len(re.findall(rb"\xff[\xd0-\xd7]", scan))
    return restarts < -(-blocks // every) - 1


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
