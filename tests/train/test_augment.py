"""Augmentation changes how an image was taken, never its size, type or range, and follows its generator alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesion_train.augment import (
    NO_AUGMENTATION,
    Augmentation,
    augment,
    borrow_color,
    color_jitter,
    degrade_quality,
    erase,
    measure_colors,
    random_illumination,
    random_resized_crop,
    rotate,
)
from lesion_train.synthetic import draw_lesion

SIZE = 48
CONFIG = Augmentation()


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    lesion = draw_lesion(np.random.default_rng(3), malignant=True)
    return np.asarray(lesion.resize((64, 64)))


def views(image: NDArray[np.uint8], count: int = 60) -> list[NDArray[np.uint8]]:
    return [augment(image, SIZE, CONFIG, np.random.default_rng(seed)) for seed in range(count)]


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


def test_with_every_probability_zero_only_the_size_changes(image: NDArray[np.uint8]) -> None:
    resized = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    for seed in range(10):
        assert np.array_equal(augment(image, SIZE, NO_AUGMENTATION, np.random.default_rng(seed)), resized)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"p_keep_whole": 0}, id="crop"),
        pytest.param({"p_flip": 1}, id="flip"),
        pytest.param({"quarter_turns": True}, id="quarter turns"),
        pytest.param({"p_rotate": 1}, id="any angle"),
        pytest.param({"p_mark": 1}, id="mark"),
        pytest.param({"p_round_field": 1}, id="round field"),
        pytest.param({"p_color": 1}, id="color"),
        pytest.param({"p_illumination": 1}, id="light"),
        pytest.param({"p_downscale": 1}, id="resolution"),
        pytest.param({"p_blur": 1}, id="blur"),
        pytest.param({"p_noise": 1}, id="noise"),
        pytest.param({"p_jpeg": 1}, id="jpeg"),
        pytest.param({"p_erase": 1}, id="erased rectangle"),
    ],
)
def test_each_probability_switches_its_change_on(change: dict[str, Any], image: NDArray[np.uint8]) -> None:
    config = replace(NO_AUGMENTATION, **change)
    plain = augment(image, SIZE, NO_AUGMENTATION, np.random.default_rng(0))
    views = [augment(image, SIZE, config, np.random.default_rng(seed)) for seed in range(8)]
    assert sum(not np.array_equal(view, plain) for view in views) >= 4


def test_crop_keeps_at_least_the_smallest_area() -> None:
    config = Augmentation(p_keep_whole=0)
    ramp = np.broadcast_to(np.arange(0, 250, 2, dtype=np.uint8)[None, :, None], (125, 125, 3))
    shares = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        view = np.asarray(random_resized_crop(np.ascontiguousarray(ramp), 64, config, rng))
        shares.append((int(view.max()) - int(view.min())) / 248)
    narrowest = np.sqrt(config.min_crop_area / config.max_stretch)
    assert narrowest - 0.03 < min(shares) < 0.75
    assert max(shares) > 0.95


Change = Callable[[Any, Augmentation, np.random.Generator], Any]
CHANGES: list[tuple[str, Change, bool, float]] = [
    ("color", color_jitter, True, 0.6),
    ("light", random_illumination, True, 0.2),
    ("rotation", rotate, False, 0.6),
    ("degrading", degrade_quality, False, 0.5),
]


@pytest.mark.parametrize(("name", "change", "on_values", "share"), CHANGES, ids=[name for name, *_ in CHANGES])
def test_each_change_happens_often_and_keeps_the_shape(
    name: str,
    change: Change,
    on_values: bool,
    share: float,
    image: NDArray[np.uint8],
) -> None:
    before: Any = image.astype(np.float32) if on_values else Image.fromarray(image)
    changed = 0
    for seed in range(100):
        after = np.asarray(change(before, CONFIG, np.random.default_rng(seed)))
        assert after.shape == image.shape
        changed += not np.array_equal(after, np.asarray(before))
    assert 100 * share <= changed < 100


def test_degrading_loses_detail_sometimes_much_of_it() -> None:
    """What differs between neighbouring pixels is the first to go."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8))
    roughness = [
        float(
            np.abs(
                np.diff(np.asarray(degrade_quality(noise, CONFIG, np.random.default_rng(seed)), float), axis=1)
            ).mean()
        )
        for seed in range(60)
    ]
    untouched = float(np.abs(np.diff(np.asarray(noise, float), axis=1)).mean())
    assert min(roughness) < untouched / 3
    assert max(roughness) == pytest.approx(untouched, rel=0.2)


def test_colors_are_borrowed_by_any_share_of_the_way() -> None:
    own = np.random.default_rng(0).normal(120, 20, (32, 32, 3)).astype(np.float32)
    other = np.array([[[40, 90, 160], [20, 20, 20]]], np.float32)
    config = replace(NO_AUGMENTATION, p_borrow_color=1)
    views = [borrow_color(own, other, config, np.random.default_rng(seed)) for seed in range(200)]
    means = np.stack([view.mean(axis=(0, 1)) for view in views])
    assert means.min(axis=0) == pytest.approx([40, 90, 120], abs=4)
    assert means.max(axis=0) == pytest.approx([120, 120, 160], abs=4)


def test_measured_colors_are_mean_and_spread_of_each_channel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    pixels[..., 2] = 7
    mean, spread = measure_colors(pixels)
    assert mean == pytest.approx([128, 128, 7], abs=25)
    assert spread == pytest.approx([74, 74, 0], abs=15)


def test_an_erased_rectangle_is_small_and_of_one_color(image: NDArray[np.uint8]) -> None:
    for seed in range(30):
        erased = erase(image, replace(NO_AUGMENTATION, p_erase=1), np.random.default_rng(seed))
        changed = (erased != image).any(axis=2)
        assert changed.mean() <= 0.16
        assert len(np.unique(erased[changed], axis=0)) == 1
