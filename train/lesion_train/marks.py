"""What lies beside lesions and says nothing about them: rulers, stickers, pen, the dark round of a dermatoscope.

In some collections one class has more of them. Drawn on both classes alike, they tell nothing.
Every function takes and gives a image, RGB, and draws from the generator it is given.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

PEN = [(40, 30, 110), (20, 20, 60), (70, 40, 130), (25, 60, 60)]
STICKERS = [(40, 110, 200), (60, 160, 90), (230, 200, 60), (220, 110, 160), (235, 120, 50), (130, 80, 170)]


def draw_mark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Copy of a square image with a ruler, a sticker or pen on it, each as likely."""
    marked = image.copy()
    (draw_ruler, draw_sticker, draw_pen)[rng.integers(3)](marked, rng)
    return marked


def draw_round_field(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Black outside a circle near the middle, its edge soft."""
    size = image.size[0]
    y, x = np.ogrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    offset = rng.uniform(-0.1, 0.1, 2)
    radius, softness = rng.uniform(0.8, 1.3), rng.uniform(0.01, 0.1)
    light = np.clip((radius - np.hypot(x - offset[0], y - offset[1])) / softness, 0, 1)
    dark = rng.uniform(0, 25)
    values = np.asarray(image, np.float32)
    return Image.fromarray((dark + (values - dark) * light[..., None]).round().astype(np.uint8))


def draw_ruler(image: Image.Image, rng: np.random.Generator) -> None:
    """A scale along one side: ticks, every tenth or fifth longer, on the skin or on a light strip."""
    size = image.size[0]
    depth = rng.uniform(0.03, 0.16) * size
    step, long = rng.uniform(0.015, 0.06) * size, int(rng.choice([5, 10]))
    base = rng.uniform(0, 0.08) * size
    color = tuple(int(value) for value in np.full(3, rng.uniform(0, 90)))
    strip = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(strip)
    if rng.random() < 0.4:
        draw.rectangle((0, 0, size, base + depth), fill=(*(int(v) for v in rng.uniform(190, 250, 3)), 230))
    width = int(rng.integers(1, 3))
    for index in range(int(size / step) + 1):
        length = depth if index % long == 0 else depth * 0.5
        draw.line((index * step, base, index * step, base + length), fill=(*color, 255), width=width)
    strip = strip.rotate(90 * int(rng.integers(4)) + rng.uniform(-6, 6), Image.Resampling.BILINEAR)
    image.paste(strip, (0, 0), strip)


def draw_sticker(image: Image.Image, rng: np.random.Generator) -> None:
    """A colored disc or rectangle, mostly outside, at a side or in a corner."""
    size = image.size[0]
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.48, 0.7) * size
    x, y = size / 2 + distance * np.cos(angle), size / 2 + distance * np.sin(angle)
    half = rng.uniform(0.08, 0.25, 2) * size
    color = np.clip(np.array(STICKERS[rng.integers(len(STICKERS))]) + rng.normal(0, 20, 3), 0, 255)
    draw = ImageDraw.Draw(image)
    box = (x - half[0], y - half[1], x + half[0], y + half[1])
    shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
    shape(box, fill=tuple(int(value) for value in color))


def draw_pen(image: Image.Image, rng: np.random.Generator) -> None:
    """Strokes of a skin marker around the lesion's place."""
    size = image.size[0]
    draw = ImageDraw.Draw(image)
    color = PEN[rng.integers(len(PEN))]
    width = max(1, round(rng.uniform(0.01, 0.03) * size))
    for _ in range(int(rng.integers(1, 4))):
        angle, radius = rng.uniform(0, 360), rng.uniform(0.36, 0.5) * size
        box = (size / 2 - radius, size / 2 - radius, size / 2 + radius, size / 2 + radius)
        draw.arc(box, angle, angle + rng.uniform(10, 60), fill=color, width=width)
