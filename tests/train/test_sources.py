"""A source of one class would teach the camera: it is left out, and every other lesion counts for one source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_train.dataset import Dataset
from lesion_train.run import Sample
from lesion_train.sources import (
    assign_source,
    choose_evenly,
    drop_single_class_sources,
    one_image_per_lesion,
)


def samples(label: int, source: str | None, lesions: int, images: int = 1) -> list[Sample]:
    return [
        Sample(f"{source}/{label}/{lesion}-{image}.jpg", label, f"{source}-{label}-{lesion}", source)
        for lesion in range(lesions)
        for image in range(images)
    ]


def dataset(train: list[Sample], validation: list[Sample]) -> Dataset:
    return Dataset(Path(), ("benign", "malignant"), train, validation, [])


BOTH = [*samples(0, "both", 8), *samples(1, "both", 4)]


def test_a_lesion_of_two_sources_counts_for_the_larger() -> None:
    copy = Sample("again.jpg", 1, "both-1-0", "small")
    assert assign_source([copy, *BOTH])[0] == "both"


def test_a_source_of_one_class_is_left_out_of_both_parts_and_named() -> None:
    lone = samples(1, "lone", 5)
    cleaned, sentences = drop_single_class_sources(dataset([*lone[:3], *BOTH], [*BOTH, *lone[3:]]))
    assert cleaned.train == BOTH
    assert cleaned.validation == BOTH
    assert len(sentences) == 1
    assert "'lone'" in sentences[0]
    assert "its 5 images" in sentences[0]
    assert "'malignant'" in sentences[0]
    assert "camera" in sentences[0]


def test_images_of_it_whose_lesion_another_source_shows_stay() -> None:
    """As fanconic's nevi, which are HAM10000's."""
    shared = Sample("lone/shared.jpg", 1, "both-1-0", "lone")
    cleaned, _ = drop_single_class_sources(dataset([*samples(1, "lone", 3), shared, *BOTH], BOTH))
    assert cleaned.train == [shared, *BOTH]


@pytest.mark.parametrize("source", ["both", None])
def test_where_no_source_has_one_class_nothing_changes(source: str | None) -> None:
    whole = dataset([*samples(0, source, 3), *samples(1, source, 3)], samples(0, source, 1))
    assert drop_single_class_sources(whole) == (whole, [])


def test_classes_that_no_source_shows_together_are_refused() -> None:
    apart = [*samples(0, "clinic", 4), *samples(1, "hospital", 4)]
    with pytest.raises(LesionEdgeError, match="clinic, hospital"):
        drop_single_class_sources(dataset(apart, apart))


def test_a_lesion_is_judged_by_its_first_image_and_a_patient_by_one_of_each_class() -> None:
    lesion = samples(0, "both", 2, images=3)
    patient = [Sample(f"{index}.jpg", label, "patient", "other") for index, label in enumerate([0, 0, 1, 1])]
    assert one_image_per_lesion([*lesion, *patient]) == [lesion[0], lesion[3], patient[0], patient[2]]


def test_images_without_a_group_are_lesions_of_their_own() -> None:
    alone = [Sample(f"{index}.jpg", 0) for index in range(3)]
    assert one_image_per_lesion(alone) == alone


def test_even_choice_takes_at_most_so_many_of_each_source_and_class() -> None:
    drawn = [*BOTH, *samples(0, "rare", 2), *samples(1, "rare", 30)]
    chosen = [drawn[index] for index in choose_evenly(drawn, 5, seed=0)]
    assert Counter((sample.source, sample.label) for sample in chosen) == {
        ("both", 0): 5,
        ("both", 1): 4,
        ("rare", 0): 2,
        ("rare", 1): 5,
    }
    assert chosen == [drawn[index] for index in choose_evenly(drawn, 5, seed=0)]
