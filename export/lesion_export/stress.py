"""Stress test: how often a label changes where only the picture-taking does."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance

from lesion_edge.preprocess import load_pixels
from lesion_train import marks

if TYPE_CHECKING:
    from numpy.typing import NDArray

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
STRESS_IMAGES = 200
"""Validation images that are changed."""
OVERSAMPLING = 2
"""Side of the images that are changed, in sides of the network's input, to which they are shrunk afterwards."""


def _as_jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=60)
    return Image.open(stream).convert("RGB")


def _tighter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = image.size[0]
    low, high = round(side * 0.05), round(side * 0.95)
    return image.crop((low, low, high, high))


def _pasted(draw: Callable[[Image.Image, np.random.Generator], None]) -> Change:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        marked = image.copy()
        draw(marked, rng)
        return marked

    return change


PICTURE_TAKING: dict[str, Change] = {
    "turned by 90 degrees": lambda image, _: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda image, _: image.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 degrees": lambda image, _: image.transpose(Image.Transpose.ROTATE_270),
    "mirrored left to right": lambda image, _: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored top to bottom": lambda image, _: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "darker by 10 %": lambda image, _: ImageEnhance.Brightness(image).enhance(0.9),
    "brighter by 10 %": lambda image, _: ImageEnhance.Brightness(image).enhance(1.1),
    "less contrast by 10 %": lambda image, _: ImageEnhance.Contrast(image).enhance(0.9),
    "more contrast by 10 %": lambda image, _: ImageEnhance.Contrast(image).enhance(1.1),
    "JPEG of quality 60": _as_jpeg,
    "crop tighter by 10 %": _tighter,
}
MARKS: dict[str, Change] = {
    "ruler": _pasted(marks.draw_ruler),
    "sticker": _pasted(marks.draw_sticker),
    "pen": _pasted(marks.draw_pen),
    "black round field": marks.draw_round_field,
}
"""What is pasted beside the lesion."""
CHANGES = PICTURE_TAKING | MARKS
ANY = "any but the marks"


def label_changes(
    images: NDArray[np.uint8], size: int, classify: Callable[[NDArray[np.uint8]], NDArray[np.int64]]
) -> dict[str, float]:
    """Share of images whose label changes, for each of `CHANGES`, and under any of `PICTURE_TAKING`.

    The last is what Young et al. 2021 (doi:10.1038/s41746-020-00380-6) count: 6.5 to 22 % of the lesions, in their
    networks and test sets.

    Args:
        images: uint8 (N, S, S, 3), RGB, `OVERSAMPLING` times as large as the network's input.
        size: side of the network's input, pixels.
        classify: gives the class indices (N,) of uint8 (N, size, size, 3).
    """
    pictures = [Image.fromarray(image) for image in images]

    def labels(change: Change) -> NDArray[np.int64]:
        changed = (change(picture, np.random.default_rng(index)) for index, picture in enumerate(pictures))
        return classify(np.stack([load_pixels(picture, size) for picture in changed]))

    before = labels(lambda image, _: image)
    changed = {name: labels(change) != before for name, change in CHANGES.items()}
    any_of_them = np.any([changed[name] for name in PICTURE_TAKING], axis=0)
    return {ANY: float(any_of_them.mean())} | {name: float(each.mean()) for name, each in changed.items()}
