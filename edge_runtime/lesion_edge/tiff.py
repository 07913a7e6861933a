"""TIFF layouts that Pillow reads otherwise than other readers do: read right, or refused.

Found by writing every layout with tifffile and comparing; the tests do so again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from lesion_edge.errors import ImageError

BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, SAMPLES, STRIP_LENGTHS = 258, 259, 262, 273, 277, 279
ORIENTATION, PLANAR, SAMPLE_FORMAT, WIDTH, HEIGHT = 274, 284, 339, 256, 257
UNCOMPRESSED, SEPARATE, SIGNED, WHITE_IS_ZERO = 1, 2, 2, 0


def check_layout(image: Image.Image) -> None:
    """Refuse layouts whose brightness or color is not defined, or that Pillow is known to read wrong.

    Raises:
        ImageError: the layout, in a few words.
    """
    tags = _tags(image)
    if SIGNED in _values(tags, SAMPLE_FORMAT):
        raise ImageError("TIFF with signed levels has no defined brightness range")
    if image.mode == "LAB":
        raise ImageError("TIFF in CIELAB is not read: save it as RGB")
    if tags.get(PLANAR) == SEPARATE and len(image.getbands()) == 2:
        raise ImageError("TIFF with grey and alpha in separate planes is not read: save it as RGB")
    if _is_raw_planar16(image) and STRIP_OFFSETS not in tags:
        raise ImageError("TIFF with 16-bit planes in tiles is not read: save it with interleaved channels")


def decode_tiff(content: bytes, image: Image.Image) -> Image.Image:
    """Decode the first page; `image` is as Pillow opened it and is loaded where that reads it right."""
    tags = _tags(image)
    if _is_raw_planar16(image):
        decoded = _read_planes(content, image)
        decoded.info = image.info
        decoded.getexif()[ORIENTATION] = tags.get(ORIENTATION, 1)
        return decoded
    image.load()
    if image.mode.startswith("I;16"):
        if _values(tags, BITS) == (12,):
            image.info["white level"] = 4095
        image.info["white is zero"] = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    return image


def _tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]


def _values(tags: Any, tag: int) -> tuple[Any, ...]:
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _is_raw_planar16(image: Image.Image) -> bool:
    """Whether Pillow would take the 16-bit levels of one channel for 8-bit levels of two."""
    tags = _tags(image)
    separate = tags.get(PLANAR) == SEPARATE and tags.get(SAMPLES, 1) > 2
    return separate and tags.get(COMPRESSION, 1) == UNCOMPRESSED and max(_values(tags, BITS), default=1) == 16


def _read_planes(content: bytes, image: Image.Image) -> Image.Image:
    """High bytes of 16-bit levels, as Pillow takes them from interleaved ones, in the channels of the mode."""
    tags = _tags(image)
    strips = zip(_values(tags, STRIP_OFFSETS), _values(tags, STRIP_LENGTHS), strict=True)
    levels = b"".join(content[start : start + length] for start, length in strips)
    channels = len(image.getbands())
    width, height = tags[WIDTH], tags[HEIGHT]  # Pillow's are those of the image turned upright
    expected = 2 * width * height * tags[SAMPLES]
    if len(levels) < expected:
        raise ImageError("damaged or truncated (strips are missing)")
    order = "<u2" if tags.prefix == b"II" else ">u2"
    planes = np.frombuffer(levels, order, expected // 2).reshape(-1, height, width)[:channels]
    return Image.fromarray(np.ascontiguousarray(np.moveaxis((planes >> 8).astype(np.uint8), 0, 2)), image.mode)
