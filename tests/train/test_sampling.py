"""Draws are even over classes, tempered over sources, and even over lesions."""

from __future__ import annotations

import numpy as np
import pytest

from lesion_train.dataset import Sample
from lesion_train.sampling import draw_weights


def samples(label: int, source: str | None, lesions: int, pictures: int = 1) -> list[Sample]:
    return [
        Sample(f"{source}/{label}/{lesion}-{picture}.jpg", label, f"{source}-{label}-{lesion}", source)
        for lesion in range(lesions)
        for picture in range(pictures)
    ]


def share(chosen: list[Sample], drawn: list[Sample]) -> float:
    weights = draw_weights(drawn)
    return float(sum(weights[drawn.index(sample)] for sample in chosen))


def test_weights_are_probabilities() -> None:
    weights = draw_weights(samples(0, "a", 7) + samples(1, "a", 2, pictures=3))
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()


@pytest.mark.parametrize(("common", "rare"), [(90, 10), (5, 5), (1000, 1)])
def test_classes_are_drawn_evenly(common: int, rare: int) -> None:
    benign, malignant = samples(0, "a", common), samples(1, "a", rare)
    assert share(malignant, benign + malignant) == pytest.approx(0.5)


def test_a_lesion_with_many_pictures_counts_once() -> None:
    often, once = samples(0, "a", 1, pictures=6), [Sample("x.jpg", 0, "other", "a")]
    assert share(once, often + once + samples(1, "a", 3)) == pytest.approx(0.25)


def test_a_source_counts_by_the_square_root_of_its_lesions() -> None:
    large, small = samples(0, "large", 100), samples(0, "small", 25)
    assert share(small, large + small + samples(1, "large", 4)) == pytest.approx(0.5 * 5 / 15)


def test_without_groups_and_sources_pictures_of_a_class_are_alike() -> None:
    plain = [Sample(f"{index}.jpg", index % 3 % 2) for index in range(9)]
    weights = draw_weights(plain)
    for label in (0, 1):
        assert (
            np.ptp([weight for weight, sample in zip(weights, plain, strict=True) if sample.label == label]) == 0
        )
