"""The only code that turns a picture into pixels: training, calibration, checks and the device call it.

Everything after it (RGB to BGR, mean subtraction, softmax) is inside the exported graph.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lesion_edge.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
"""Written into every bundle; raised when the same file would give other pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""Pillow's names of the formats that are accepted, whatever the file is called."""

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
"""Lower-case file name endings by which a folder is searched for images."""

MAX_PIXELS = 100_000_000
"""Pictures with more pixels are refused before they are decoded (a decompression bomb, or a slide scan)."""

Resize = Literal["squash", "crop", "pad"]
RESIZE_MODES: tuple[Resize, ...] = ("squash", "crop", "pad")

Source: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]"

# The limit above is ours and checked on every open; Pillow's own would only print a warning first.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def load_pixels(source: Source, image_size: int, resize: Resize = "squash") -> NDArray[np.uint8]:
    """Decode a picture, upright and in RGB, at the size the network takes.

    Args:
        source: a file, the bytes of one, a Pillow image, or a uint8 array (H, W, 3) in RGB.
        image_size: side S of the square result, in pixels.
        resize: `squash` ignores the aspect ratio (the paper's way), `crop` takes the centre square,
            `pad` keeps all of the picture and fills with black.

    Returns:
        uint8 (S, S, 3), RGB, 0 to 255.

    Raises:
        ImageError: the picture is missing, damaged, too large or in a format that is not accepted.
    """
    try:
        with _open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"too large: {image.width}x{image.height} pixels, limit {MAX_PIXELS}")
            # The JPEG decoder shrinks by 2, 4 or 8 almost for free; twice the target keeps the detail.
            image.draft(None, (2 * image_size, 2 * image_size))
            ImageOps.exif_transpose(image, in_place=True)
            return np.asarray(_resize(_to_rgb(image), image_size, resize))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except UnidentifiedImageError:
        raise ImageError(f"not a picture in an accepted format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:  # Pillow's own limit, far above ours, is met when the file is opened
        raise ImageError(f"too large: more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged bytes
        raise ImageError(f"damaged or truncated ({_one_line(error)})") from error


def _open(source: Source) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise ImageError(f"array is {source.dtype} {source.shape}, expected uint8 (H, W, 3)")
        return Image.fromarray(source)
    if isinstance(source, bytes):
        if not source:
            raise ImageError("empty file")
        return Image.open(io.BytesIO(source), formats=FORMATS)
    status = os.stat(source)
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("a folder that cannot be read")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size == 0:
        raise ImageError("empty file")
    return Image.open(Path(source), formats=FORMATS)


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
