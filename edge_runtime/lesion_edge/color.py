"""Color of a decoded image: every mode and every embedded profile becomes sRGB."""

from __future__ import annotations

import functools
import io
import struct
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lesion_edge.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import ImageCms

SAME_COLOR = 2
"""Levels; a profile that moves no color further is sRGB by another name, and the pixels stay as they are."""

EXIF_IFD, INTEROP_IFD, COLOR_SPACE, INTEROP_INDEX = 0x8769, 0xA005, 0xA001, 1
"""Tags by which a camera says `Adobe RGB` without a profile (DCF 2.0, optional color space)."""

MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's mode of the images that a profile of a color space describes."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any color mode to sRGB: profiles applied, alpha over white, 16 bit scaled to 8 rather than clipped.

    A profile that is damaged, or that describes another kind of image, is passed over, as browsers do.

    Raises:
        ImageError: the levels have no defined brightness, or this Pillow cannot apply a profile.
    """
    if profile := _profile(image):
        image = _to_srgb(image, profile)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _eight_bits(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError("32-bit grey has no defined brightness range")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    wide = np.asarray(image).astype(np.uint32)
    top = image.info.get("white level", 65535)
    grey: NDArray[np.uint8] = ((np.minimum(wide, top) * 255 + top // 2) // top).astype(np.uint8)
    if image.info.get("white is zero"):
        grey = 255 - grey
    grey[wide == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


def _profile(image: Image.Image) -> bytes | None:
    profile: bytes | None = image.info.get("icc_profile")
    if profile or "exif" not in image.info or image.mode != "RGB":
        return profile
    try:
        exif = image.getexif()
        adobe = exif.get_ifd(EXIF_IFD).get(COLOR_SPACE) == 0xFFFF
        return adobe_rgb() if adobe and exif.get_ifd(INTEROP_IFD).get(INTEROP_INDEX) == "R03" else None
    except Exception:  # a damaged EXIF block says nothing about the color
        return None


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply a profile; the result is RGB or RGBA, or the image itself where the profile changes nothing."""
    from PIL import ImageCms, features  # few images have a profile, and every start would pay for the import

    if not features.check("littlecms2"):
        raise ImageError("it has a color profile, and this Pillow is built without LittleCMS")
    space, transform = _transform(profile)
    if transform is None or (space == "CMYK") != (image.mode == "CMYK"):
        return image
    if space == "L" and image.mode not in ("1", "L", "LA", "I;16", "I;16B", "I;16L"):
        return image
    alpha = None
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.getchannel("R") if space == "L" else image.convert("RGB")
    if image.mode != space:
        image = image.convert(space)
    converted = ImageCms.applyTransform(image, transform, inPlace=space == "RGB") or image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Mode that a profile describes, and what brings it to sRGB; None where nothing has to, or can, be done."""
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = MODES.get(opened.profile.xcolor_space, "")
        if not space:
            return "", None
        transform = ImageCms.buildTransform(
            opened,
            ImageCms.createProfile("sRGB"),
            space,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, TypeError, ValueError, ImageCms.PyCMSError):
        return "", None
    if space != "CMYK":
        steps = np.linspace(0, 255, 18).astype(np.uint8)
        levels = (
            np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
            if space == "RGB"
            else steps[None]
        )
        shown = np.asarray(ImageCms.applyTransform(Image.fromarray(levels), transform)).astype(int)
        if np.abs(shown - (levels if space == "RGB" else levels[..., None])).max() <= SAME_COLOR:
            return space, None
    return space, transform


@functools.cache
def adobe_rgb() -> bytes:
    """An ICC profile of Adobe RGB (1998): primaries adapted to D50, gamma 563/256."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    description = b"desc" + bytes(4) + struct.pack(">I", 10) + b"Adobe RGB\0" + bytes(78)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 563)
    tags = [
        (b"desc", description),
        (b"cprt", b"text" + bytes(4) + b"none\0"),
        (b"wtpt", xyz(0.9642, 1, 0.8249)),
        (b"rXYZ", xyz(0.60974, 0.31111, 0.01947)),
        (b"gXYZ", xyz(0.20528, 0.62567, 0.06087)),
        (b"bXYZ", xyz(0.14919, 0.06322, 0.74457)),
        *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    place, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags:
        table += name + struct.pack(">II", place + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 1998, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body
