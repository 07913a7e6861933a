"""Augmentation as clinics, cameras and file formats do it, so that only the lesion is left to learn.

Every function takes and returns RGB images of (H, W, 3) and draws from the generator `rng`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lesion_train import marks
from lesion_train.config import NOT_NEGATIVE, POSITIVE, SHARE

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the augmentation; pairs are the bounds of a uniform draw."""

    p_keep_whole: float = field(default=0.2, metadata=SHARE)
    """Probability that the whole image is kept."""
    min_crop_area: float = field(default=0.2, metadata=SHARE)
    """Smallest area of a crop, as a share of the image's."""
    max_stretch: float = field(default=1.6, metadata={"low": 1})
    """Widest change of the aspect ratio, a factor: from a cropped to a squashed 4:3 image, and a bit more."""
    p_flip: float = field(default=0.5, metadata=SHARE)
    """Probability of a mirror image."""
    quarter_turns: bool = True
    """Whether images are turned by 0, 90, 180 or 270 degrees, each as likely."""
    p_rotate: float = field(default=0.3, metadata=SHARE)
    """Probability of a turn by any angle."""
    max_rotation: float = field(default=45.0, metadata={"low": 0, "high": 180})
    """Largest such angle either way, degrees."""
    p_mean_corner: float = field(default=0.5, metadata=SHARE)
    """Probability of corners in the mean colour after such a turn; they are black otherwise."""
    p_mark: float = field(default=0.2, metadata=SHARE)
    """Probability of a ruler, a sticker or pen beside the lesion."""
    p_round_field: float = field(default=0.1, metadata=SHARE)
    """Probability of black around the round field of a dermatoscope."""
    p_borrow_color: float = field(default=0.0, metadata=SHARE)
    """Probability of mean and spread of the color channels of another training image."""
    p_color: float = field(default=0.9, metadata=SHARE)
    """Probability of another camera's colours, which the next five fields describe."""
    saturation: tuple[float, float] = field(default=(0.4, 1.6), metadata=NOT_NEGATIVE)
    """Factor of the distance from grey."""
    contrast: tuple[float, float] = field(default=(0.6, 1.4), metadata=NOT_NEGATIVE)
    """Factor of the distance from the mean value."""
    brightness: tuple[float, float] = field(default=(0.65, 1.35), metadata=NOT_NEGATIVE)
    """Factor of the mean value."""
    gamma: tuple[float, float] = field(default=(0.65, 1.5), metadata=NOT_NEGATIVE)
    """Exponent of the values, scaled to 0 to 1."""
    white_balance: float = field(default=0.2, metadata=NOT_NEGATIVE)
    """Widest change of a colour channel, as the natural logarithm of its factor."""
    p_illumination: float = field(default=0.3, metadata=SHARE)
    """Probability of uneven light, which the next four fields describe."""
    max_gradient: float = field(default=0.25, metadata=SHARE)
    """Steepest brightness gradient from the middle to the edge, as a share of the brightness in the middle."""
    p_vignette: float = field(default=0.4, metadata=SHARE)
    """Probability of the dark surround of a dermatoscope, where the light is uneven."""
    vignette_radius: tuple[float, float] = field(default=(1.0, 1.4), metadata=NOT_NEGATIVE)
    """Distance from the middle at which the surround is black, in halves of the side."""
    vignette_edge: tuple[float, float] = field(default=(0.03, 0.2), metadata=POSITIVE)
    """Width of its soft edge, in halves of the side."""
    p_downscale: float = field(default=0.3, metadata=SHARE)
    """Probability of a lower resolution."""
    downscale: tuple[float, float] = field(default=(0.4, 1.0), metadata={"low": 0.02, "high": 1})
    """Side at the lower resolution, as a share of the full one."""
    p_blur: float = field(default=0.15, metadata=SHARE)
    """Probability of Gaussian blur."""
    blur_radius: tuple[float, float] = field(default=(0.3, 1.5), metadata=NOT_NEGATIVE)
    """Standard deviation of the blur, pixels."""
    p_noise: float = field(default=0.15, metadata=SHARE)
    """Probability of Gaussian noise."""
    noise: tuple[float, float] = field(default=(1.0, 8.0), metadata=NOT_NEGATIVE)
    """Standard deviation of the noise, grey levels of 256."""
    p_jpeg: float = field(default=0.4, metadata=SHARE)
    """Probability of JPEG compression."""
    jpeg_quality: tuple[int, int] = field(default=(15, 94), metadata={"low": 1, "high": 100})
    """Quality of the JPEG as Pillow counts it, both bounds included."""
    p_erase: float = field(default=0.0, metadata=SHARE)
    """Probability of a covered rectangle (Zhong et al. 2020, arXiv:1708.04896)."""
    erased_side: tuple[float, float] = field(default=(0.1, 0.4), metadata=SHARE)
    """Its sides, as a share of the image's."""


NO_AUGMENTATION = Augmentation(
    p_keep_whole=1,
    p_flip=0,
    quarter_turns=False,
    p_rotate=0,
    p_mark=0,
    p_round_field=0,
    p_borrow_color=0,
    p_color=0,
    p_illumination=0,
    p_downscale=0,
    p_blur=0,
    p_noise=0,
    p_jpeg=0,
    p_erase=0,
)
"""Images as they are, to compare with."""


def augment(
    pixels: Pixels,
    size: int,
    config: Augmentation,
    rng: np.random.Generator,
    colors: NDArray[np.float32] | None = None,
) -> Pixels:
    """Draw one training view of an image: uint8 (size, size, 3), RGB.

    Args:
        colors: (M, 2, 3), as `measure_colors` gives them, of other images to borrow from; None borrows none.
    """
    image = random_resized_crop(pixels, size, config, rng)
    image = rotate(image, config, rng)
    image = mark(image, config, rng)
    values = np.asarray(image, np.float32)
    if colors is not None:
        values = borrow_color(values, colors, config, rng)
    values = color_jitter(values, config, rng)
    values = random_illumination(values, config, rng)
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return erase(np.asarray(degrade_quality(image, config, rng)), config, rng)


def random_resized_crop(pixels: Pixels, size: int, config: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Crop, squash or keep the whole: images reach a device squashed or centre-cropped, near or far."""
    height, width = pixels.shape[:2]
    box = (0.0, 0.0, float(width), float(height))
    if rng.random() >= config.p_keep_whole:
        side = np.sqrt(rng.uniform(config.min_crop_area, 1))
        stretch = np.exp(rng.uniform(-1, 1) * np.log(config.max_stretch) / 2)
        w, h = min(1, side * stretch) * width, min(1, side / stretch) * height
        # Lesions lie near the middle: the offset is drawn twice and averaged.
        left, top = rng.uniform(0, 1, (2, 2)).mean(axis=0) * (width - w, height - h)
        box = (left, top, left + w, top + h)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box)


def rotate(image: Image.Image, config: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Flip and turn: by quarter turns, and sometimes by any angle, the corners black or of the mean colour."""
    if rng.random() < config.p_flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if config.quarter_turns and (quarters := int(rng.integers(4))):
        image = image.transpose(
            (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)[quarters - 1]
        )
    if rng.random() < config.p_rotate:
        mean = tuple(int(value) for value in np.asarray(image.resize((8, 8))).mean(axis=(0, 1)))
        corner = mean if rng.random() < config.p_mean_corner else (0, 0, 0)
        image = image.rotate(
            rng.uniform(-config.max_rotation, config.max_rotation), Image.Resampling.BILINEAR, fillcolor=corner
        )
    return image


def mark(image: Image.Image, config: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Draw on both classes alike what lies beside lesions, so that it does not tell the class."""
    if rng.random() < config.p_mark:
        image = marks.draw_mark(image, rng)
    if rng.random() < config.p_round_field:
        image = marks.draw_round_field(image, rng)
    return image


def measure_colors(pixels: Pixels) -> NDArray[np.float32]:
    """Mean and standard deviation of each channel, (2, 3), of every eighth pixel."""
    values = pixels[::8, ::8].reshape(-1, 3).astype(np.float32)
    return np.stack([values.mean(axis=0), values.std(axis=0)])


def borrow_color(
    values: NDArray[np.float32], colors: NDArray[np.float32], config: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Move the channels towards mean and spread of another image's, by any share of the way.

    Other cameras and lights, as they occur (Reinhard et al. 2001, "Color transfer between images").
    """
    if rng.random() >= config.p_borrow_color:
        return values
    mean, spread = colors[rng.integers(len(colors))]
    share = np.float32(rng.uniform(0, 1))
    own_mean, own_spread = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    factor = np.clip((spread + 1) / (own_spread + 1), 0.5, 2) ** share
    return np.asarray((values - own_mean) * factor + own_mean + share * (mean - own_mean), np.float32)


def erase(pixels: Pixels, config: Augmentation, rng: np.random.Generator) -> Pixels:
    """Cover a rectangle with the mean or any color, so that no single place tells the class."""
    if rng.random() >= config.p_erase:
        return pixels
    height, width = pixels.shape[:2]
    h, w = (rng.uniform(*config.erased_side, 2) * (height, width)).astype(int)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    color = pixels.mean(axis=(0, 1)) if rng.random() < 0.5 else rng.integers(256, size=3)
    erased = pixels.copy()
    erased[top : top + h, left : left + w] = color
    return erased


def color_jitter(values: NDArray[np.float32], config: Augmentation, rng: np.random.Generator) -> NDArray[Any]:
    """Saturation, contrast, brightness, white balance and gamma of another camera; float32 (H, W, 3), 0 to 255."""
    if rng.random() < 1 - config.p_color:
        return values
    saturation = np.float32(rng.uniform(*config.saturation))
    gray = values @ np.array([0.299, 0.587, 0.114], np.float32)
    values = gray[..., None] + saturation * (values - gray[..., None])
    balance = np.exp(rng.uniform(-config.white_balance, config.white_balance, 3)).astype(np.float32)
    mean = values.mean(dtype=np.float32)
    contrast, brightness = np.float32(rng.uniform(*config.contrast)), np.float32(rng.uniform(*config.brightness))
    values = ((values - mean) * contrast + mean * brightness) * balance
    gamma = rng.uniform(*config.gamma)
    table = (255 * (np.arange(256, dtype=np.float32) / 255) ** gamma).astype(np.float32)
    return np.asarray(table[np.clip(values, 0, 255).astype(np.uint8)])


def random_illumination(values: NDArray[Any], config: Augmentation, rng: np.random.Generator) -> NDArray[Any]:
    """Brightness gradient across the image and, sometimes, the dark surround of a dermatoscope."""
    if rng.random() < 1 - config.p_illumination:
        return values
    height, width = values.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, config.max_gradient)
    light = 1 + slope * (x * np.cos(angle) + y * np.sin(angle))
    if rng.random() < config.p_vignette:
        radius, edge = rng.uniform(*config.vignette_radius), rng.uniform(*config.vignette_edge)
        light = light * np.clip((radius - np.hypot(x, y)) / edge, 0, 1)
    return np.asarray(values * light[..., None].astype(np.float32))


def degrade_quality(image: Image.Image, config: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Lose detail: a lower resolution, blur, noise and JPEG compression, in that order."""
    size = image.size
    if rng.random() < config.p_downscale:
        smaller = max(1, round(size[0] * rng.uniform(*config.downscale)))
        image = image.resize((smaller, smaller), Image.Resampling.BILINEAR)
    if rng.random() < config.p_blur:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*config.blur_radius)))
    if rng.random() < config.p_noise:
        noise = rng.normal(0, rng.uniform(*config.noise), (*image.size[::-1], 3))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    if rng.random() < config.p_jpeg:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(rng.integers(*config.jpeg_quality, endpoint=True)))
        image = Image.open(stream).convert("RGB")
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
