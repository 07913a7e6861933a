"""Marks leave an image of the same size and its middle, where the lesion is, as it was."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesion_train import marks

SIZE = 64
SKIN = Image.new("RGB", (SIZE, SIZE), (200, 150, 130))


def drawn(name: str, seed: int) -> NDArray[np.uint8]:
    image = SKIN.copy()
    result = getattr(marks, name)(image, np.random.default_rng(seed))
    return np.asarray(result or image)


@pytest.mark.parametrize("name", ["draw_ruler", "draw_sticker", "draw_pen", "draw_round_field"])
def test_marks_are_drawn_beside_the_middle(name: str) -> None:
    views = np.stack([drawn(name, seed) for seed in range(40)])
    changed = (views != np.asarray(SKIN)).any(axis=3)
    assert views.shape == (40, SIZE, SIZE, 3)
    assert changed.any(axis=(1, 2)).mean() > 0.6
    middle = slice(3 * SIZE // 8, 5 * SIZE // 8)
    assert changed[:, middle, middle].mean() < 0.02
    assert len({view.tobytes() for view in views}) > 20


def test_the_image_itself_stays_as_it_is() -> None:
    before = np.asarray(SKIN).copy()
    for seed in range(20):
        marks.draw_mark(SKIN, np.random.default_rng(seed))
        marks.draw_round_field(SKIN, np.random.default_rng(seed))
    assert np.array_equal(np.asarray(SKIN), before)
