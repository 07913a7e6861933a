"""Augmentation changes how an image was taken, never its size, type or range, and follows its generator alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesion_train import augment
from lesion_train.synthetic import draw_lesion

SIZE = 48


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    lesion = draw_lesion(np.random.default_rng(3), malignant=True)
    return np.asarray(lesion.resize((64, 64)))


def views(image: NDArray[np.uint8], count: int = 60) -> list[NDArray[np.uint8]]:
    return [augment.augment(image, SIZE, np.random.default_rng(seed)) for seed in range(count)]


def test_views_are_images_of_the_size_asked_for(image: NDArray[np.uint8]) -> None:
    for view in views(image):
        assert view.shape == (SIZE, SIZE, 3)
        assert view.dtype == np.uint8


def test_views_differ_and_repeat_with_their_seed(image: NDArray[np.uint8]) -> None:
    first, again = views(image), views(image)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({view.tobytes() for view in first}) == len(first)


def test_views_keep_something_of_the_lesion(image: NDArray[np.uint8]) -> None:
    """A view that is all one brightness would teach that any class may look like nothing."""
    assert np.quantile([view.mean(axis=2).std() for view in views(image)], 0.05) > 4


def test_the_image_itself_stays_as_it_is(image: NDArray[np.uint8]) -> None:
    before = image.copy()
    views(image)
    assert np.array_equal(image, before)


def test_reframing_keeps_at_least_the_smallest_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "P_KEEP_WHOLE", 0)
    ramp = np.broadcast_to(np.arange(0, 250, 2, dtype=np.uint8)[None, :, None], (125, 125, 3))
    shares = []
    for seed in range(100):
        view = np.asarray(augment.random_resized_crop(np.ascontiguousarray(ramp), 64, np.random.default_rng(seed)))
        shares.append((int(view.max()) - int(view.min())) / 248)
    narrowest = np.sqrt(augment.MIN_AREA / augment.MAX_STRETCH)
    assert narrowest - 0.03 < min(shares) < 0.75
    assert max(shares) > 0.95


CHANGES: list[tuple[str, Callable[[Any, np.random.Generator], Any], bool, float]] = [
    ("colours", augment.color_jitter, True, 0.6),
    ("light", augment.random_illumination, True, 0.2),
    ("rotation", augment.rotate, False, 0.6),
    ("degrading", augment.degrade_quality, False, 0.5),
]


@pytest.mark.parametrize(("name", "change", "on_values", "share"), CHANGES, ids=[name for name, *_ in CHANGES])
def test_each_change_happens_often_and_keeps_the_shape(
    name: str,
    change: Callable[[Any, np.random.Generator], Any],
    on_values: bool,
    share: float,
    image: NDArray[np.uint8],
) -> None:
    before: Any = image.astype(np.float32) if on_values else Image.fromarray(image)
    changed = 0
    for seed in range(100):
        after = np.asarray(change(before, np.random.default_rng(seed)))
        assert after.shape == image.shape
        changed += not np.array_equal(after, np.asarray(before))
    assert 100 * share <= changed < 100


def test_degrading_loses_detail_sometimes_much_of_it() -> None:
    """What differs between neighbouring pixels is the first to go."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8))
    roughness = [
        float(
            np.abs(
                np.diff(np.asarray(augment.degrade_quality(noise, np.random.default_rng(seed)), float), axis=1)
            ).mean()
        )
        for seed in range(60)
    ]
    untouched = float(np.abs(np.diff(np.asarray(noise, float), axis=1)).mean())
    assert min(roughness) < untouched / 3
    assert max(roughness) == pytest.approx(untouched, rel=0.2)
