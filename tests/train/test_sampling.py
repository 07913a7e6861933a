"""Draws are even over classes in every source, tempered over sources, and even over lesions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lesion_train.run import Sample
from lesion_train.sampling import sampling_weights


def samples(label: int, source: str | None, lesions: int, images: int = 1) -> list[Sample]:
    return [
        Sample(f"{source}/{label}/{lesion}-{image}.jpg", label, f"{source}-{label}-{lesion}", source)
        for lesion in range(lesions)
        for image in range(images)
    ]


def share(chosen: list[Sample], drawn: list[Sample]) -> float:
    weights = sampling_weights(drawn, 0.5)
    return float(sum(weights[drawn.index(sample)] for sample in chosen))


def test_weights_are_probabilities() -> None:
    weights = sampling_weights(samples(0, "a", 7) + samples(1, "a", 2, images=3), 0.5)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()


@pytest.mark.parametrize(("common", "rare"), [(90, 10), (5, 5), (1000, 1)])
def test_classes_are_drawn_evenly(common: int, rare: int) -> None:
    benign, malignant = samples(0, "a", common), samples(1, "a", rare)
    assert share(malignant, benign + malignant) == pytest.approx(0.5)


def test_a_lesion_with_many_images_counts_once() -> None:
    often, once = samples(0, "a", 1, images=6), [Sample("x.jpg", 0, "other", "a")]
    assert share(once, often + once + samples(1, "a", 3)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [
        pytest.param(0, 1 / 2, id="every source alike"),
        pytest.param(0.5, 6 / 18, id="by the square root of its lesions"),
        pytest.param(1, 36 / 180, id="by its lesions"),
    ],
)
def test_a_source_counts_by_a_power_of_its_lesions(exponent: float, expected: float) -> None:
    large = samples(0, "large", 100) + samples(1, "large", 44)
    small = samples(0, "small", 5) + samples(1, "small", 31)
    weights = sampling_weights(large + small, exponent)
    assert weights[len(large) :].sum() == pytest.approx(expected)


def test_classes_are_even_in_every_source() -> None:
    """Otherwise the camera would tell the class."""
    small = samples(1, "small", 30)
    drawn = samples(0, "large", 100) + samples(1, "large", 3) + samples(0, "small", 5) + small
    assert share(small, drawn) == pytest.approx(share(drawn[103:], drawn) / 2)


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [
        pytest.param(1, 0.05, id="every lesion of a class alike"),
        pytest.param(0.5, 1 / 8, id="tempered"),
        pytest.param(0, 0.25, id="every diagnosis of a class alike"),
    ],
)
def test_a_diagnosis_counts_by_a_power_of_its_lesions(exponent: float, expected: float) -> None:
    common = [replace(sample, diagnosis="nv") for sample in samples(0, "a", 9)]
    rare = Sample("rare.jpg", 0, "rare", "a", "df")
    weights = sampling_weights([*common, rare, *samples(1, "a", 4)], 0.5, exponent)
    assert weights[9] == pytest.approx(expected)


def test_a_lesion_of_two_sources_is_drawn_as_one_of_the_larger() -> None:
    copy = Sample("again.jpg", 1, "large-1-0", "small")
    drawn = [
        copy,
        *samples(0, "large", 9),
        *samples(1, "large", 9),
        *samples(0, "small", 3),
        *samples(1, "small", 3),
    ]
    assert share([copy], drawn) == pytest.approx(share([drawn[10]], drawn))


def test_without_groups_and_sources_images_of_a_class_are_alike() -> None:
    plain = [Sample(f"{index}.jpg", index % 3 % 2) for index in range(9)]
    weights = sampling_weights(plain, 0.5)
    for label in (0, 1):
        assert (
            np.ptp([weight for weight, sample in zip(weights, plain, strict=True) if sample.label == label]) == 0
        )
