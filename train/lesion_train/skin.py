"""Generated skin without a lesion: what the outlier score refuses, and the ground of generated lesions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Plane = NDArray[np.floating[Any]]  # height × width, or height × width × 3 in RGB order

# RGB in [0, 1]. Skin runs from fair to dark, pigment from light brown to almost black.
FAIR, ROSY, TAN = [0.93, 0.81, 0.79], [0.91, 0.67, 0.64], [0.80, 0.60, 0.49]
SKIN = np.array([FAIR, ROSY, TAN, [0.60, 0.41, 0.31], [0.40, 0.27, 0.21]])
BROWN = np.array([[0.66, 0.44, 0.32], [0.45, 0.26, 0.18], [0.22, 0.13, 0.11]])


def blend(anchors: NDArray[np.float64], position: float) -> Plane:
    """RGB colour at position in [0, 1] along a row of anchor colours."""
    stops = np.linspace(0, 1, len(anchors))
    return np.array([np.interp(position, stops, channel) for channel in anchors.T], dtype=np.float32)


def noise(rng: np.random.Generator, height: int, width: int, cell: float) -> Plane:
    """Smooth zero-mean noise, height × width, whose blobs are about `cell` pixels wide."""
    rows, columns = (max(2, round(side / cell) + 1) for side in (height, width))
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def skin_texture(rng: np.random.Generator, height: int, width: int, tone: Plane) -> Plane:
    """Skin without a lesion: `tone` with blotches of redness and a fine relief."""
    blotches = noise(rng, height, width, min(height, width) / 5) * rng.uniform(0.01, 0.05)
    relief = noise(rng, height, width, 7) * rng.uniform(0.005, 0.03)
    relief = relief + noise(rng, height, width, 2.5) * rng.uniform(0.005, 0.025)
    redness = np.array([0.2, 1.0, 0.8], dtype=np.float32)
    return tone * (1 + blotches[..., None] * redness + relief[..., None])


def draw_skin(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Draw skin without a lesion, some of it with hair: uint8 (size, size, 3), RGB."""
    tone = blend(SKIN, rng.uniform(0, 1))
    skin = skin_texture(rng, size, size, tone)
    hair = hair_opacity(rng, size, size)[..., None]
    skin = skin * (1 - hair) + blend(BROWN, rng.uniform(0.5, 1)) * np.float32(0.7) * hair
    light = rng.uniform(0.85, 1.1)
    return np.asarray(np.clip(skin * light, 0, 1) * 255, np.uint8)


def hair_opacity(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Opacity in [0, 1] of the hairs: none on more than half of the images."""
    canvas = Image.new("L", (2 * width, 2 * height))  # drawn double and halved, because lines are not antialiased
    pen = ImageDraw.Draw(canvas)
    count = int(rng.integers(2, 16)) if rng.random() < 0.45 else 0
    along, spread = rng.uniform(0, np.pi), rng.uniform(0.1, 0.9)
    t = np.linspace(0, 1, 16)[:, None]
    for _ in range(count):
        middle = rng.uniform(0, 1, 2) * canvas.size
        angle = along + spread * rng.standard_normal()
        direction = np.array([np.cos(angle), np.sin(angle)]) * min(canvas.size) * rng.uniform(0.2, 0.8)
        bend = np.array([-direction[1], direction[0]]) * rng.uniform(-0.5, 0.5)
        curve = middle + (2 * t - 1) * direction + 4 * t * (1 - t) * bend
        shade = int(rng.integers(120, 240))
        pen.line([(float(x), float(y)) for x, y in curve], fill=shade, width=int(rng.integers(1, 4)))
    return np.asarray(canvas.reduce(2), dtype=np.float32) / 255
