"""Generated dermoscopy-like images: a stand-in for the labelled images that cannot be distributed.

The two classes differ only inside the lesion. Benign ones are round or oval and evenly brown; malignant
ones have an irregular border and several colours. Size, skin, lighting, hair, glints, the dermatoscope's
field, lesion area and JPEG quality are drawn without looking at the class. The images exercise the
pipeline; a score measured on them says nothing about real skin.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lesion_train.skin import BROWN, SKIN, Plane, blend, hair_opacity, noise, skin_texture

CLASSES = ("benign", "malignant")
MIN_SIDE, MAX_SIDE = 120, 320
ASPECT_RATIOS = (1.0, 4 / 3, 3 / 2)

# RGB in [0, 1].
BLACK, BLUE_GREY, RED, WHITE = [0.09, 0.06, 0.06], [0.36, 0.37, 0.43], [0.62, 0.29, 0.26], [0.80, 0.64, 0.60]


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """(height, width) in pixels, each from MIN_SIDE to MAX_SIDE; about one in seven is turned upright."""
    aspect = rng.choice(ASPECT_RATIOS)
    short = int(rng.integers(MIN_SIDE, int(MAX_SIDE / aspect) + 1))
    long = round(short * aspect)
    return (long, short) if rng.random() < 0.15 else (short, long)


def _glints(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Strength in [0, 1] of reflections: bubbles in the immersion fluid, each with a bright spot."""
    canvas = Image.new("L", (2 * width, 2 * height))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(1, 7)) if rng.random() < 0.3 else 0):
        (x, y), radius = rng.uniform(0, 1, 2) * canvas.size, rng.uniform(3, 14)
        rim = int(rng.integers(60, 140))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=25, outline=rim)
        x, y, spot = x - radius / 2, y - radius / 2, radius / 5
        pen.ellipse((x - spot, y - spot, x + spot, y + spot), fill=220)
    return np.asarray(canvas.reduce(2), dtype=np.float32) / 255


def _light(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Brightness factor: a soft gradient and, on some images, the black surround of a dermatoscope.

    x and y are pixel offsets from the image's centre.
    """
    corner = np.hypot(x[0, 0], y[0, 0])
    angle, slope, falloff = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.12), rng.uniform(0, 0.15)
    distance = np.hypot(x, y) / corner
    light = 1 + slope * (x * np.cos(angle) + y * np.sin(angle)) / corner - falloff * distance**2
    has_field, radius, blur = rng.random() < 0.3, rng.uniform(0.80, 0.95), rng.uniform(0.02, 0.08)
    if has_field:
        light = light * np.clip((radius - distance) / blur, 0.02, 1)
    return np.asarray(light)


def _border(rng: np.random.Generator, malignant: bool) -> NDArray[np.float64]:
    """Lesion radius at 361 angles over a full turn, scaled to enclose the area of a unit disc."""
    angle = np.linspace(0, 2 * np.pi, 361)
    radius = np.ones_like(angle)
    irregularity = rng.uniform(0.16, 0.30) if malignant else rng.uniform(0.0, 0.04)
    for order in range(1, 10):
        wave = np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        radius += irregularity * rng.standard_normal() / order**0.8 * wave
    for _ in range(int(rng.integers(1, 4)) if malignant else 0):
        from_notch = np.abs((angle - rng.uniform(0, 2 * np.pi) + np.pi) % (2 * np.pi) - np.pi)
        radius -= rng.uniform(0.1, 0.4) * np.exp(-((from_notch / rng.uniform(0.1, 0.3)) ** 2))
    radius = np.clip(radius, 0.4, 1.3)
    return np.asarray(radius / np.sqrt(np.mean(radius**2)))


def _density(rng: np.random.Generator, across: Plane, down: Plane, radius: float, malignant: bool) -> Plane:
    """Share of pigment over skin in [0, 1] at every pixel.

    across and down are pixel positions along the lesion's own axes, in units of its mean radius; `radius`
    is that radius in pixels.
    """
    angle = np.arctan2(down, across) % (2 * np.pi)
    outline = np.interp(angle, np.linspace(0, 2 * np.pi, 361), _border(rng, malignant))
    outwards = np.hypot(across, down) / outline
    softness, roughness = (rng.uniform(0.10, 0.45), 0.08) if malignant else (rng.uniform(0.20, 0.50), 0.03)
    ragged = roughness * noise(rng, across.shape[0], across.shape[1], radius / 5)
    inside = np.clip((1 - outwards + ragged) / softness + 0.5, 0, 1)
    thinning = rng.uniform(0.0, 0.4) * np.minimum(outwards, 1) ** 2
    return rng.uniform(0.85, 0.98) * inside * (1 - thinning)


def _pigment(rng: np.random.Generator, height: int, width: int, radius: float, malignant: bool) -> Plane:
    """Lesion colour at every pixel, RGB: one brown, or patches of four or five colours."""
    brown = blend(BROWN, rng.uniform(0, 0.8))
    mottle = 0.6 * noise(rng, height, width, max(2.5, radius / 12)) + 0.4 * noise(rng, height, width, radius / 4)
    shading = 1 + rng.uniform(0.05, 0.22) * mottle[..., None]
    if not malignant:
        return brown * shading
    others = np.array([blend(BROWN, rng.uniform(0.5, 1)), BLACK, BLUE_GREY, RED, WHITE])
    colours = np.array([brown, *others[rng.permutation(5)[: rng.integers(3, 5)]]])
    cell, contrast = radius * rng.uniform(0.4, 0.9), rng.uniform(3.5, 6)
    shares = np.exp([contrast * noise(rng, height, width, cell) for _ in colours])
    return np.asarray(np.tensordot(shares / shares.sum(axis=0), colours, axes=(0, 0)) * shading)


def draw_lesion(rng: np.random.Generator, malignant: bool) -> Image.Image:
    """Draw one image: 8-bit RGB, each side MIN_SIDE to MAX_SIDE pixels, one lesion near the centre.

    Two generators in the same state give the same scene for both classes: only the lesion changes.
    """
    # Everything the classes share is drawn first, so that the class cannot shift the random stream under it.
    height, width = _size(rng)
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32((width - 1) / 2)
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32((height - 1) / 2)
    tone = blend(SKIN, rng.uniform(0, 1))
    skin = skin_texture(rng, height, width, tone)
    hair, glints, light = hair_opacity(rng, height, width), _glints(rng, height, width), _light(rng, x, y)
    hair_colour = blend(BROWN, rng.uniform(0.5, 1)) * np.float32(0.7)
    grain = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(rng.uniform(0.002, 0.012))
    radius = min(height, width) * rng.uniform(0.24, 0.36)
    shift_x, shift_y = (min(height, width) * rng.uniform(-0.06, 0.06) for _ in range(2))
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.2)
    cos, sin = math.cos(turn), math.sin(turn)
    across = ((x - shift_x) * cos + (y - shift_y) * sin) / (radius * stretch)
    down = ((y - shift_y) * cos - (x - shift_x) * sin) / radius * stretch

    density = _density(rng, across, down, radius, malignant)[..., None]
    # Darker skin darkens the lesion too, but less: pigment has to stay visible on it.
    pigment = _pigment(rng, height, width, radius, malignant) * np.sqrt(tone / SKIN[0].astype(np.float32))

    image = skin * (1 - density) + pigment * density
    image = image * (1 - hair[..., None]) + hair_colour * hair[..., None]
    image = (image + glints[..., None] * (1 - image)) * light[..., None] + grain
    return Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))


def write_dataset(folder: Path, per_class: int, seed: int) -> None:
    """Write folder/benign/0000.jpg … and folder/malignant/0000.jpg …, `per_class` images each.

    An image depends on the seed, its class and its number alone, so a larger set extends a smaller one.
    """
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            rng = np.random.default_rng([seed, label, index])
            quality = int(rng.integers(85, 98))
            image = draw_lesion(rng, malignant=name == "malignant")
            image.save(folder / name / f"{index:04d}.jpg", quality=quality)


def main(argv: list[str] | None = None) -> None:
    """Command line: FOLDER, --per-class and --seed."""
    parser = argparse.ArgumentParser(description="Write a folder of generated benign and malignant images.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where benign/ and malignant/ are written")
    parser.add_argument("--per-class", type=int, default=200, help="images in each class (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same images (default: 0)")
    arguments = parser.parse_args(argv)
    write_dataset(arguments.folder, arguments.per_class, arguments.seed)


if __name__ == "__main__":
    main()
