"""Near duplicates: a photograph is known again however it was saved, and no two lesions are taken for one."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from lesion_train.near_duplicates import BLOCK, find_near_duplicates, gray_image
from lesion_train.synthetic import draw_lesion

LESIONS = [draw_lesion(np.random.default_rng(seed), seed % 2 == 1) for seed in range(12)]


def as_jpeg(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=40)
    return Image.open(stream).convert("RGB")


def gray(*images: Image.Image) -> NDArray[np.uint8]:
    return np.stack([gray_image(image) for image in images])


COPIES: list[tuple[str, Callable[[Image.Image], Image.Image]]] = [
    ("the same", lambda image: image),
    ("smaller", lambda image: image.resize((image.width // 2, image.height // 2))),
    ("squashed", lambda image: image.resize((90, 90))),
    ("recompressed", as_jpeg),
    ("darker", lambda image: ImageEnhance.Brightness(image).enhance(0.8)),
    ("with less contrast", lambda image: ImageEnhance.Contrast(image).enhance(0.7)),
    ("with less color", lambda image: ImageEnhance.Color(image).enhance(0.3)),
]


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in COPIES])
def test_a_copy_is_found_and_no_other_lesion_is(change: Callable[[Image.Image], Image.Image]) -> None:
    copies = [change(image) for image in LESIONS]
    count = len(LESIONS)
    assert find_near_duplicates(gray(*LESIONS, *copies)) == [(index, index + count) for index in range(count)]


def test_the_dark_round_of_a_dermatoscope_makes_no_copies() -> None:
    images = [image.resize((120, 120)) for image in LESIONS]
    for image in images:
        image.paste(0, mask=Image.fromarray(~_round(0.35)))
    assert find_near_duplicates(gray(*images)) == []
    assert find_near_duplicates(gray(images[3], images[3])) == [(0, 1)]


def _round(radius: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[-0.5:0.5:120j, -0.5:0.5:120j]
    return np.asarray(np.hypot(x, y) < radius)


def test_black_images_are_no_copies_of_each_other() -> None:
    assert find_near_duplicates(np.zeros((2, 32, 32), np.uint8)) == []


def test_copies_are_found_across_blocks_and_counted_once() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(60, 255, (2 * BLOCK + 5, 32, 32), np.uint8)
    images[-1] = images[3]
    steps: list[int] = []
    assert find_near_duplicates(images, steps.append) == [(3, len(images) - 1)]
    assert sum(steps) == len(images)
