"""What a check finds in labelled images, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesion_train.findings import find_all
from lesion_train.inspection import Inspection
from lesion_train.label_folders import Split
from lesion_train.listing import Finding, Listing
from lesion_train.run import Sample


def good(lesions: int = 150, sources: tuple[str, ...] = ("a", "b")) -> Inspection:
    """Data without a fault: as many lesions of both classes in every source, 200×200 pixels each."""
    samples = [
        Sample(f"{source}/{label}/{lesion}.jpg", label, f"{source}{label}{lesion}", source)
        for source in sources
        for label in (0, 1)
        for lesion in range(lesions)
    ]
    return inspection(samples)


def inspection(samples: list[Sample], splits: list[Split | None] | None = None) -> Inspection:
    listing = Listing(Path(), ("benign", "malignant"), samples, splits or [None] * len(samples), [])
    sizes = np.full((len(samples), 2), 200)
    return Inspection(listing, [str(index) for index in range(len(samples))], sizes, {}, [])


def split(before: Inspection, *parts: Split) -> Inspection:
    """Parts in turn, each with as many of every class and source."""
    splits = [parts[index % len(parts)] for index in range(len(before.listing.samples))]
    return replace(before, listing=replace(before.listing, splits=splits))


def relabel(before: Inspection, **changes: object) -> Inspection:
    """Change the last sample, which is malignant and of source b."""
    *samples, last = before.listing.samples
    changed = replace(last, **changes)  # type: ignore[arg-type]
    return replace(before, listing=replace(before.listing, samples=[*samples, changed]))


def with_copy(before: Inspection, first: int, second: int) -> Inspection:
    digests = list(before.digests)
    digests[second] = digests[first]
    return replace(before, digests=digests, near_duplicates=[(first, second)])


def with_sizes(before: Inspection, size: Callable[[Sample], tuple[int, int]]) -> Inspection:
    return replace(before, sizes=np.array([size(sample) for sample in before.listing.samples]))


def sources(**classes: tuple[int, int]) -> Inspection:
    """Numbers of benign and malignant lesions of each source."""
    return inspection(
        [
            Sample(f"{source}/{label}/{lesion}.jpg", label, f"{source}{label}{lesion}", source)
            for source, counts in classes.items()
            for label, count in enumerate(counts)
            for lesion in range(count)
        ]
    )


def found(subject: Inspection) -> list[Finding]:
    return find_all(subject, image_size=180, validation_split=0.2)


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(good(), id="without a split"),
        pytest.param(split(good(), "train", "validation", "test"), id="split"),
        pytest.param(good(sources=("a",)), id="one source"),
        pytest.param(relabel(with_copy(good(), 598, 599), group="b1148"), id="a copy of the same lesion"),
        pytest.param(
            with_sizes(good(), lambda sample: (200 + int(sample.file[-5]), 240)), id="sizes that tell nothing"
        ),
        pytest.param(sources(a=(300, 290), b=(150, 165)), id="shares within chance"),
        pytest.param(
            with_sizes(good(), lambda sample: (300, 240) if sample.source == "a" else (200, 200)),
            id="sizes that tell the source alone",
        ),
    ],
)
def test_good_data_have_no_findings(subject: Inspection) -> None:
    assert [finding.sentence for finding in found(subject)] == []


FAULTS = [
    pytest.param(
        replace(good(), errors={7: "empty file"}),
        "error: 1 images cannot be used, first a/0/7.jpg: empty file",
        id="an image that cannot be used",
    ),
    pytest.param(
        relabel(split(good(), "train", "validation"), group="a00"),
        "error: 1 groups lie on both sides of the split, first a00: a/0/0.jpg (benign, train) = b/1/149.jpg "
        "(malignant, validation)",
        id="a group on both sides",
    ),
    pytest.param(
        with_copy(good(), 1, 2),
        "warning: 1 sets of files are the same bytes and count as different lesions, first a/0/1.jpg (benign) = "
        "a/0/2.jpg (benign)",
        id="the same bytes",
    ),
    pytest.param(
        with_copy(good(), 1, 151),
        "error: 1 sets of files are the same bytes and have two labels, first a/0/1.jpg (benign) = a/1/1.jpg "
        "(malignant)",
        id="the same bytes, two labels",
    ),
    pytest.param(
        with_copy(split(good(), "train", "validation"), 1, 2),
        "error: 1 sets of files are the same bytes and lie on both sides of the split, first a/0/1.jpg (benign, "
        "validation) = a/0/2.jpg (benign, train)",
        id="the same bytes on both sides",
    ),
    pytest.param(
        replace(good(), near_duplicates=[(1, 2), (2, 300)]),
        "error: 1 sets of files are one photograph by their looks and count as different lesions, first a/0/1.jpg "
        "(benign) = a/0/2.jpg (benign) = b/0/0.jpg (benign)",
        id="near duplicates, one through another",
    ),
    pytest.param(
        replace(split(good(), "train", "test"), near_duplicates=[(1, 2)]),
        "error: 1 sets of files are one photograph by their looks and lie on both sides of the split, first "
        "a/0/1.jpg (benign, test) = a/0/2.jpg (benign, train)",
        id="near duplicates on both sides",
    ),
    pytest.param(
        replace(good(), near_duplicates=[(1, 151)]),
        "error: 1 sets of files are one photograph by their looks and have two labels, first a/0/1.jpg (benign) = "
        "a/1/1.jpg (malignant)",
        id="near duplicates with two labels",
    ),
    pytest.param(
        sources(a=(150, 150), lone=(0, 9)),
        "error: source 'lone' shows 'malignant' alone, in 9 images of lesions that no larger source shows",
        id="a source of one class",
    ),
    pytest.param(
        sources(a=(150, 150), b=(150, 0), c=(150, 0)),
        "error: class 'malignant' comes from source 'a' alone",
        id="a class of one source",
    ),
    pytest.param(
        sources(a=(150, 150), b=(290, 10)),
        "warning: source 'b' has 96.7% 'benign' [94.0%, 98.2%], where the others have 50.0%, beyond chance",
        id="shares that differ",
    ),
    pytest.param(
        sources(a=(150, 1)), "error: class 'malignant' has 1 lesions, where one is learned from", id="one lesion"
    ),
    pytest.param(
        good(lesions=40), "warning: class 'benign' has 16 images for validation: with all of them right", id="few"
    ),
    pytest.param(
        split(
            inspection([Sample(f"{index}.jpg", index % 2, f"{index}", "a") for index in range(90)]),
            "train",
            "validation",
        ),
        "error: class 'benign' has no image for validation",
        id="a class that a part lacks",
    ),
    pytest.param(
        with_sizes(good(), lambda sample: (84, 84) if sample.source == "b" else (200, 200)),
        "warning: 300 of 300 images of source 'b' have a side below 180 pixels, most often 84×84",
        id="small images",
    ),
    pytest.param(
        with_sizes(good(), lambda sample: (256, 256) if sample.label and sample.source == "b" else (200, 200)),
        "error: image sizes of source 'b' differ by class beyond chance: 200×200 in b/0: 150 benign, 0 malignant; "
        "256×256 in b/1: 0 benign, 150 malignant lesions",
        id="sizes that tell the class",
    ),
    pytest.param(
        relabel(good(), group="a00"),
        "warning: 1 groups hold several classes, first a00: a/0/0.jpg (benign) = b/1/149.jpg (malignant)",
        id="a group of both classes",
    ),
    pytest.param(
        inspection([replace(sample, source=None) for sample in good().listing.samples]),
        "warning: no image has a source",
        id="no sources",
    ),
    pytest.param(
        inspection([replace(sample, group=None) for sample in good().listing.samples]),
        "warning: no image has a group",
        id="no groups",
    ),
]


@pytest.mark.parametrize(("subject", "expected"), FAULTS)
def test_a_fault_is_named(subject: Inspection, expected: str) -> None:
    sentences = [f"{finding.severity}: {finding.sentence}" for finding in found(subject)]
    assert [sentence for sentence in sentences if sentence.startswith(expected)], sentences


def test_errors_come_first() -> None:
    subject = replace(good(lesions=40), errors={1: "empty file"})
    assert [finding.severity for finding in found(subject)] == ["error", "warning", "warning"]


def test_a_test_set_counts_for_copies_and_not_for_classes() -> None:
    """What is left out of the training cannot teach a camera."""
    lone = sources(a=(150, 150), lone=(0, 9))
    splits: list[Split | None] = [
        "test" if sample.source == "lone" else "train" for sample in lone.listing.samples
    ]
    subject = replace(lone, listing=replace(lone.listing, splits=splits), near_duplicates=[(0, 300)])
    sentences = [finding.sentence for finding in found(subject)]
    assert not [sentence for sentence in sentences if "'lone'" in sentence]
    assert [sentence for sentence in sentences if "lone/1/0.jpg (malignant, test)" in sentence]
