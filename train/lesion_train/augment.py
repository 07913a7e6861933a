"""Changes a training image as clinics, cameras and file formats do, so that only the lesion is left to learn.

Every function takes and gives uint8 (H, W, 3), RGB, and draws from the generator it is given.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]

MIN_AREA = 0.2
"""Smallest part of an image that a crop keeps."""
MAX_STRETCH = 1.6
"""Widest change of the aspect ratio: from a centre-cropped to a squashed 4:3 image, and a little more."""
P_KEEP_WHOLE = 0.2
"""How often the whole image is kept."""
SATURATION = (0.4, 1.6)
CONTRAST = (0.6, 1.4)
BRIGHTNESS = (0.65, 1.35)
GAMMA = (0.65, 1.5)
BALANCE = 0.2
"""Widest change of a colour channel, as the logarithm of its factor."""


def augment(pixels: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    """Draw one training view of an image: uint8 (size, size, 3), RGB."""
    image = random_resized_crop(pixels, size, rng)
    image = rotate(image, rng)
    values = color_jitter(np.asarray(image, np.float32), rng)
    values = random_illumination(values, rng)
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return np.asarray(degrade_quality(image, rng))


def random_resized_crop(pixels: Pixels, size: int, rng: np.random.Generator) -> Image.Image:
    """Crop, squash or keep the whole: images reach a device squashed or centre-cropped, near or far."""
    height, width = pixels.shape[:2]
    box = (0.0, 0.0, float(width), float(height))
    if rng.random() >= P_KEEP_WHOLE:
        side = np.sqrt(rng.uniform(MIN_AREA, 1))
        stretch = np.exp(rng.uniform(-1, 1) * np.log(MAX_STRETCH) / 2)
        w, h = min(1, side * stretch) * width, min(1, side / stretch) * height
        # Lesions lie near the middle: the offset is drawn twice and averaged.
        left, top = rng.uniform(0, 1, (2, 2)).mean(axis=0) * (width - w, height - h)
        box = (left, top, left + w, top + h)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box)


def rotate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Flip and turn: by quarter turns always, by any angle sometimes, the corners black or of the mean colour."""
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if quarters := int(rng.integers(4)):
        image = image.transpose(
            (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)[quarters - 1]
        )
    if rng.random() < 0.3:
        mean = tuple(int(value) for value in np.asarray(image.resize((8, 8))).mean(axis=(0, 1)))
        corner = mean if rng.random() < 0.5 else (0, 0, 0)
        image = image.rotate(rng.uniform(-45, 45), Image.Resampling.BILINEAR, fillcolor=corner)
    return image


def color_jitter(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
    """Another camera: white balance, brightness, contrast, saturation and gamma; float32 (H, W, 3), 0 to 255."""
    if rng.random() < 0.1:
        return values
    saturation = np.float32(rng.uniform(*SATURATION))
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    values = grey[..., None] + saturation * (values - grey[..., None])
    balance = np.exp(rng.uniform(-BALANCE, BALANCE, 3)).astype(np.float32)
    mean = values.mean(dtype=np.float32)
    contrast, brightness = np.float32(rng.uniform(*CONTRAST)), np.float32(rng.uniform(*BRIGHTNESS))
    values = ((values - mean) * contrast + mean * brightness) * balance
    gamma = rng.uniform(*GAMMA)
    table = (255 * (np.arange(256, dtype=np.float32) / 255) ** gamma).astype(np.float32)
    return np.asarray(table[np.clip(values, 0, 255).astype(np.uint8)])


def random_illumination(values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """A brightness gradient across the image and, sometimes, the dark surround of a dermatoscope."""
    if rng.random() < 0.7:
        return values
    height, width = values.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25)
    light = 1 + slope * (x * np.cos(angle) + y * np.sin(angle))
    if rng.random() < 0.4:
        light = light * np.clip((rng.uniform(1.0, 1.4) - np.hypot(x, y)) / rng.uniform(0.03, 0.2), 0, 1)
    return np.asarray(values * light[..., None].astype(np.float32))


def degrade_quality(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Lose detail: a lower resolution, blur, noise and JPEG compression, in that order."""
    size = image.size
    if rng.random() < 0.3:
        smaller = round(size[0] * rng.uniform(0.4, 1))
        image = image.resize((smaller, smaller), Image.Resampling.BILINEAR)
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    if rng.random() < 0.15:
        noise = rng.normal(0, rng.uniform(1, 8), (*image.size[::-1], 3))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    if rng.random() < 0.4:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(rng.integers(15, 95)))
        image = Image.open(stream).convert("RGB")
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
