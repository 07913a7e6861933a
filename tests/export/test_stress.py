"""How often labels change where only the picture-taking does."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_export.stress import ANY, CHANGES, MARKS, OVERSAMPLING, PICTURE_TAKING, label_changes

SIZE = 32


@pytest.fixture
def images() -> NDArray[np.uint8]:
    """Grey ramps from left to right, darker and brighter ones."""
    side = OVERSAMPLING * SIZE
    ramps = np.linspace(0, 100, side)[None, None, :, None] + np.array([20, 80, 120])[:, None, None, None]
    return np.broadcast_to(ramps, (3, side, side, 3)).astype(np.uint8)


def test_steady_labels_do_not_change(images: NDArray[np.uint8]) -> None:
    changed = label_changes(images, SIZE, lambda pixels: np.zeros(len(pixels), np.int64))
    assert changed == {ANY: 0, **dict.fromkeys(CHANGES, 0)}


def test_label_by_brighter_side_changes_with_the_side_alone(images: NDArray[np.uint8]) -> None:
    def brighter_side(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        assert pixels.shape == (3, SIZE, SIZE, 3)
        halves = pixels.astype(float)[:, 8:24, 8:24].mean(axis=(1, 3))
        return np.asarray(halves[:, 8:].mean(axis=1) > halves[:, :8].mean(axis=1) + 1, np.int64)

    changed = label_changes(images, SIZE, brighter_side)
    turned = {name for name in PICTURE_TAKING if changed[name] == 1}
    assert turned == {*(f"turned by {angle} degrees" for angle in (90, 180, 270)), "mirrored left to right"}
    assert changed[ANY] == 1
    assert not any(share for name, share in changed.items() if name in PICTURE_TAKING.keys() - turned)


def test_marks_lie_beside_the_lesion_and_do_not_count_as_picture_taking(images: NDArray[np.uint8]) -> None:
    middle = slice(12, 20)

    def touched(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.asarray(pixels[:, middle, middle].astype(int).sum(axis=(1, 2, 3)) % 2**31)

    def border(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.asarray(pixels.astype(int).sum(axis=(1, 2, 3)))

    assert not any(label_changes(images, SIZE, touched)[name] for name in MARKS)
    assert all(label_changes(images, SIZE, border)[name] > 0 for name in MARKS)
