"""The only code that turns an image into pixels: training, calibration, checks and the device call it.

Everything after it (RGB to BGR, mean subtraction, softmax) is inside the exported graph.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lesion_edge.errors import ImageError
from lesion_edge.integrity import check_content, check_decoded_jpeg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

VERSION = 1
"""Written into every bundle; raised when the same file would give other pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""Pillow's names of the formats that are accepted, whatever the file is called."""

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused before they are decoded (a decompression bomb, or a slide scan)."""

MAX_BYTES = 8 * MAX_PIXELS
"""Files with more bytes are refused unread; what is let through by pixels has at most 8 bytes for each."""

Resize = Literal["squash", "crop", "pad"]
RESIZE_MODES: tuple[Resize, ...] = ("squash", "crop", "pad")

Source: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]"

# What matters becomes an error row; the rest (an odd EXIF block, Pillow's own lower limit of pixels) does not.
warnings.filterwarnings("ignore", module="PIL")


def load_pixels(source: Source, image_size: int, resize: Resize = "squash") -> NDArray[np.uint8]:
    """Decode an image, upright and in RGB, at the size the network takes.

    Args:
        source: a file, the bytes of one, a Pillow image, or a uint8 array (H, W, 3) in RGB.
        image_size: side S of the square result, in pixels.
        resize: `squash` ignores the aspect ratio (the paper's way), `crop` takes the centre square,
            `pad` keeps all of the image and fills with black.

    Returns:
        uint8 (S, S, 3), RGB, 0 to 255.

    Raises:
        ImageError: the image is missing, damaged, too large or in a format that is not accepted.
    """
    with _short_reasons():
        # The JPEG decoder shrinks by 2, 4 or 8 almost for free; twice the target keeps the detail.
        return np.asarray(_resize(_decode(source, 2 * image_size), image_size, resize))


def read_content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file, for who needs them besides the pixels.

    Raises:
        ImageError: it cannot be read.
    """
    with _short_reasons():
        return _read(path)


def load_image(source: Source, longest_side: int) -> Image.Image:
    """Decode an image for people to look at: upright, RGB, its own aspect ratio.

    Args:
        source: as for `load_pixels`.
        longest_side: pixels; a smaller image stays as it is.

    Raises:
        ImageError: as for `load_pixels`.
    """
    with _short_reasons():
        image = _decode(source, longest_side)
        image.thumbnail((longest_side, longest_side))
        return image


@contextlib.contextmanager
def _short_reasons() -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except UnidentifiedImageError:
        raise ImageError(f"not an image in an accepted format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:  # Pillow's own limit, far above ours, is met when the file is opened
        raise ImageError(f"too large: more than {MAX_PIXELS} pixels") from None
    except MemoryError:
        raise ImageError("too large for the memory that is free") from None
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"cannot be read ({error.strerror})") from None
        raise ImageError(f"damaged or truncated ({_one_line(error)})") from error


def _decode(source: Source, shortest_side: int) -> Image.Image:
    """Decode upright and in RGB; a JPEG perhaps smaller, but with no side below `shortest_side` for it."""
    if isinstance(source, Image.Image):
        image = source.copy()
    elif isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise ImageError(f"array is {source.dtype} {source.shape}, expected uint8 (H, W, 3)")
        image = Image.fromarray(source)
    else:
        content = source if isinstance(source, bytes) else _read(source)
        if not content:
            raise ImageError("empty file")
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        _check_size(image)
        check_content(content, image)
        height = image.height
        image.draft(None, (shortest_side, shortest_side))
        image.load()
        if image.format in ("JPEG", "MPO"):
            check_decoded_jpeg(image, height)
    _check_size(image)
    ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image)


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"too large: {image.width}x{image.height} pixels, limit {MAX_PIXELS}")


def _read(path: str | os.PathLike[str]) -> bytes:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("a folder that cannot be read")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"too large: {status.st_size} bytes, limit {MAX_BYTES}")
    with open(path, "rb") as file:
        return file.read()


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any colour mode to RGB: alpha over white, 16 bit scaled to 8 rather than clipped."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
        grey[wide == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError("32-bit grey has no defined brightness range")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _resize(image: Image.Image, size: int, mode: Resize) -> Image.Image:
    width, height = image.size
    if mode == "pad":
        scale = size / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        square = Image.new("RGB", (size, size))
        small = image.resize(inner, Image.Resampling.BILINEAR, reducing_gap=2.0)
        square.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return square
    left = top = 0.0
    if mode == "crop":
        side = min(width, height)
        left, top, width, height = (width - side) / 2, (height - side) / 2, side, side
    box = (left, top, left + width, top + height)
    return image.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap=2.0)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
