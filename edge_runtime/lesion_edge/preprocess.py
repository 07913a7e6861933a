"""The only code that turns an image into pixels: training, calibration, checks and the device call it.

Everything after it (RGB to BGR, mean subtraction, softmax) is inside the exported graph.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import threading
import warnings
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from lesion_edge.bands import BAND_PIXELS, cut_bands, png_bands, png_info, reduce_bands
from lesion_edge.color import to_rgb
from lesion_edge.errors import ImageError
from lesion_edge.images import PROBE, is_dicom, split_frame
from lesion_edge.integrity import check_content, check_decoded_jpeg
from lesion_edge.tiff import check_layout, decode_tiff

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

VERSION = 2
"""Written into every bundle; raised when the same file would give other pixels.

2: embedded color profiles are applied, as is a camera's mark of Adobe RGB; some rare TIFF layouts are read right;
above `LARGE` pixels, whole pixels are averaged first. All other images give the pixels of version 1.
"""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""Pillow's names of the formats that are accepted, whatever the file is called."""
JPEG_START = b"\xff\xd8\xff"

MAX_PIXELS = 100_000_000
"""Images of which more pixels would be decoded are refused (a decompression bomb, or a slide scan)."""

MAX_STORED_PIXELS = 10 * MAX_PIXELS
"""Limit for a JPEG as it is stored: its decoder shrinks it, but has to read all of it."""

LARGE = 24_000_000
"""Decoded pixels above which an image is brought down in bands, one at a time where it has to be held whole."""

LARGE_FILE = 64 << 20
"""Bytes of a file above which no other is held at the same time."""

MAX_BYTES = 8 * MAX_PIXELS
"""Files with more bytes are refused unread; what is let through by pixels has at most 8 bytes for each."""

Resize = Literal["squash", "crop", "pad"]
RESIZE_MODES: tuple[Resize, ...] = ("squash", "crop", "pad")

ORIENTATION = 0x0112

_one_large_image = threading.RLock()

Source: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]"

# What matters becomes an error row; the rest (an odd EXIF block, Pillow's own lower limit of pixels) does not.
warnings.filterwarnings("ignore", module="PIL")


def load_pixels(
    source: Source, image_size: int, resize: Resize = "squash", frame: int | None = None
) -> NDArray[np.uint8]:
    """Decode an image, upright and in RGB, at the size the network takes.

    Args:
        source: a file, the bytes of one, a Pillow image, or a uint8 array (H, W, 3) in RGB.
        image_size: side S of the square result, in pixels.
        resize: `squash` ignores the aspect ratio (the paper's way), `crop` takes the centre square,
            `pad` keeps all of the image and fills with black.
        frame: number of a frame, from 1, where `source` holds the bytes of a multi-frame DICOM file; a path names
            it itself.

    Returns:
        uint8 (S, S, 3), RGB, 0 to 255.

    Raises:
        ImageError: the image is missing, damaged, too large or in a format that is not accepted.
    """
    with _short_reasons():
        # The JPEG decoder shrinks by 2, 4 or 8 almost for free; twice the target keeps the detail.
        return np.asarray(_resize(_decode(source, 2 * image_size, frame), image_size, resize))


def read_content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file, for who needs them besides the pixels.

    Raises:
        ImageError: it cannot be read.
    """
    with _short_reasons():
        name, _ = split_frame(os.fspath(path))
        _regular_size(name)
        with open(name, "rb") as file:
            return file.read()


def upright_size(content: bytes) -> tuple[int, int]:
    """Width and height of an image in pixels, as it is shown; nothing is decoded.

    Raises:
        ImageError: as for `load_pixels`.
    """
    with _short_reasons():
        image = _open(content)
        turned = image.getexif().get(ORIENTATION, 1) >= 5
        return (image.height, image.width) if turned else image.size


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


def _decode(source: Source, shortest_side: int, frame: int | None = None) -> Image.Image:
    """Decode upright and in RGB; perhaps smaller, but with no side below `shortest_side` for it."""
    if isinstance(source, Image.Image):
        image = source.copy()
    elif isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise ImageError(f"array is {source.dtype} {source.shape}, expected uint8 (H, W, 3)")
        image = Image.fromarray(source)
    elif isinstance(source, bytes):
        return _decode_stream(io.BytesIO(source), shortest_side, frame)
    else:
        path, frame = split_frame(os.fspath(source))
        size = _regular_size(path)
        with _one_large_image if size > LARGE_FILE else contextlib.nullcontext(), open(path, "rb") as file:
            return _decode_stream(file, shortest_side, frame)
    _check_size(image.size)
    ImageOps.exif_transpose(image, in_place=True)
    return to_rgb(image)


def _decode_stream(file: BinaryIO, shortest_side: int, frame: int | None) -> Image.Image:
    dicom = is_dicom(file.read(PROBE))
    file.seek(0)
    if dicom:
        return _decode_dicom(file, shortest_side, frame)
    if frame is not None:
        raise ImageError("it has no frames, since it is no DICOM file")
    return _decode_file(file.read(), shortest_side)


def _decode_dicom(file: BinaryIO, shortest_side: int, frame: int | None) -> Image.Image:
    from lesion_edge.dicom import DicomFile

    dicom = DicomFile(file)
    dicom.check()
    _check_size(dicom.size)
    large = dicom.size[0] * dicom.size[1] > LARGE
    with _one_large_image if large else contextlib.nullcontext():
        image = dicom.decode(frame)
        factor = max(1, min(image.size) // shortest_side) if large else 1
        return reduce_bands(image, cut_bands(image, factor), factor) if large else to_rgb(image)


def _decode_file(content: bytes, shortest_side: int) -> Image.Image:
    if not content:
        raise ImageError("empty file")
    image = _open(content)
    is_jpeg, stored = image.format in ("JPEG", "MPO"), image.size
    if is_jpeg:
        image.draft(None, (shortest_side, shortest_side))
        _check_size(stored, MAX_STORED_PIXELS)
        # All coefficients of a progressive JPEG are held at once, at whatever scale it is decoded.
        _check_size(stored if "progressive" in image.info else image.size)
    else:
        _check_size(image.size)
    check_content(content, image)
    if image.format == "TIFF":
        check_layout(image)
    if image.width * image.height > LARGE:
        return _decode_large(content, image, stored, shortest_side)
    image = _load(content, image, stored, shortest_side)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "RGB" or image.width * image.height <= BAND_PIXELS:
        return to_rgb(image)
    # Other modes take several copies on the way: of bands better than of the whole.
    return reduce_bands(image, cut_bands(image, 1), 1)


def _decode_large(content: bytes, image: Image.Image, stored: tuple[int, int], shortest_side: int) -> Image.Image:
    """Decode in bands, and average whole pixels as far as `shortest_side` allows."""
    factor = max(1, min(image.size) // shortest_side)
    bands = png_bands(content, image, factor) if image.format == "PNG" else None
    if bands is not None:
        reduced = reduce_bands(image, bands, factor)
        reduced.info = png_info(content, image)
    else:
        with _one_large_image:
            image = _load(content, image, stored, shortest_side)  # which turns a TIFF already
            reduced = reduce_bands(image, cut_bands(image, factor), factor)
        reduced.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    ImageOps.exif_transpose(reduced, in_place=True)
    return reduced


def _load(content: bytes, image: Image.Image, stored: tuple[int, int], shortest_side: int) -> Image.Image:
    if image.format == "TIFF":
        return decode_tiff(content, image)
    image.load()
    if image.format in ("JPEG", "MPO"):
        check_decoded_jpeg(content, image, stored, shortest_side)
    return image


def _open(content: bytes) -> Image.Image:
    if not content.startswith(JPEG_START):
        return Image.open(io.BytesIO(content), formats=FORMATS)
    # As Image.open does, which imports five formats first, and refuses a JPEG that is too large before it is known
    # that it will be decoded smaller.
    try:
        return JpegImagePlugin.jpeg_factory(io.BytesIO(content))
    except (SyntaxError, IndexError, TypeError, struct.error):
        raise UnidentifiedImageError from None


def _check_size(size: tuple[int, int], limit: int | None = None) -> None:
    limit = limit or MAX_PIXELS
    if size[0] * size[1] > limit:
        raise ImageError(f"too large: {size[0]}x{size[1]} pixels, limit {limit}")


def _regular_size(path: str | os.PathLike[str]) -> int:
    """Size of a regular file, bytes."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("a folder that cannot be read")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"too large: {status.st_size} bytes, limit {MAX_BYTES}")
    return status.st_size


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
