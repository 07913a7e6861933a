"""Findings about labelled images: what makes a training wrong, or its scores better than they are."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lesion_edge.intervals import wilson
from lesion_train.dataset import FEW_IMAGES
from lesion_train.duplicates import join_groups
from lesion_train.inspection import Inspection
from lesion_train.listing import Finding, Listing
from lesion_train.run import Sample
from lesion_train.sources import assign_source, lesion_keys

SIGNIFICANCE = 0.001
"""p-value, corrected for the number of comparisons, below which a difference is called beyond chance."""

SMALL_EFFECT, MEDIUM_EFFECT = 0.1, 0.3
"""Cramér's V of a small and of a medium effect (Cohen 1988); less is beyond chance, too, where images are many."""

SMALLEST_CELL = 10
"""Lesions of a source or an image size below which it is not compared with the others."""


def find_all(inspection: Inspection, image_size: int, validation_split: float) -> list[Finding]:
    """All findings, errors first.

    Args:
        image_size: input size of the network, pixels.
        validation_split: share of validation images where the data are not split.
    """
    findings = [
        *inspection.listing.findings,
        *unusable_images(inspection),
        *straddling_groups(inspection.listing),
        *copies(inspection),
        *classes_of_sources(inspection),
        *small_classes(inspection, validation_split),
        *image_sizes(inspection, image_size),
        *mixed_groups(inspection.listing),
        *absent_columns(inspection.listing),
    ]
    return sorted(findings, key=lambda finding: finding.severity != "error")


def unusable_images(inspection: Inspection) -> Iterator[Finding]:
    """Images that cannot be decoded."""
    samples = inspection.listing.samples
    if lines := [f"{samples[index].file}: {reason}" for index, reason in inspection.errors.items()]:
        sentence = f"{len(lines)} images cannot be used, first {lines[0]}"
        yield Finding("error", sentence, "replace or remove them", details=lines)


def straddling_groups(listing: Listing) -> Iterator[Finding]:
    """Groups on both sides of a given split."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(listing.samples):
        if sample.group:
            members[sample.group].append(index)
    sets = [_one_of_each_part(listing, group) for group in members.values()]
    sets = [group for group in sets if len(group) > 1]
    if sets:
        lines = [f"{listing.samples[group[0]].group}: {_shown(listing, group)}" for group in sets]
        sentence = f"{len(sets)} groups lie on both sides of the split, first {lines[0]}"
        yield Finding("error", sentence, "put all images of a lesion into one part", sets, lines)


def copies(inspection: Inspection) -> Iterator[Finding]:
    """Files of the same bytes, and near duplicates, that count as different lesions or have different labels."""
    listing = inspection.listing
    keys = lesion_keys(listing.samples)

    def contradict(first: int, second: int) -> bool:
        return keys[first] != keys[second] or listing.samples[first].label != listing.samples[second].label

    by_digest: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(inspection.digests):
        by_digest[digest or f"unread {index}"].append(index)
    exact = [members for members in by_digest.values() if any(contradict(members[0], other) for other in members)]
    yield from _copies(listing, exact, "the same bytes")
    links: list[list[str]] = [[] for _ in listing.samples]
    for pair in inspection.near_duplicates:
        if contradict(*pair) and len({inspection.digests[index] for index in pair}) == 2:
            for index in pair:
                links[index].append("{} {}".format(*pair))
    near: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(join_groups(links)):
        if name is not None:
            near[name].append(index)
    yield from _copies(listing, list(near.values()), "one photograph by their looks")


def _copies(listing: Listing, sets: Sequence[list[int]], what: str) -> Iterator[Finding]:
    two_labels, both_sides, others = list[list[int]](), list[list[int]](), list[list[int]]()
    for members in sets:
        if len({listing.samples[index].label for index in members}) > 1:
            two_labels.append(members)
        else:
            (both_sides if len(_one_of_each_part(listing, members)) > 1 else others).append(members)
    for chosen, problem, advice in (
        (two_labels, "and have two labels", "one label is wrong: mend it, or remove the files"),
        (both_sides, "and lie on both sides of the split", "keep them on one side, and give them one group"),
        (others, "and count as different lesions", "give them one group, or keep one of them"),
    ):
        if chosen:
            lines = [_shown(listing, members) for members in chosen]
            sentence = f"{len(chosen)} sets of files are {what} {problem}, first {lines[0]}"
            # lesion-train takes files of the same bytes for one lesion by itself.
            harmless = chosen is others and what == "the same bytes"
            yield Finding("warning" if harmless else "error", sentence, advice, chosen, lines)


def classes_of_sources(inspection: Inspection) -> Iterator[Finding]:
    """Sources that show one class, classes that one source shows, and class shares that differ by source."""
    samples = [inspection.listing.samples[index] for index in inspection.used]
    sources, labels = assign_source(samples), [sample.label for sample in samples]
    class_names = inspection.listing.class_names
    if len(set(sources)) < 2 or len(class_names) < 2:
        return
    for source in sorted(set(sources)):
        members = [position for position, name in enumerate(sources) if name == source]
        classes = {labels[position] for position in members}
        if len(classes) == 1:
            yield Finding(
                "error",
                f"source '{source}' shows '{class_names[classes.pop()]}' alone, in {len(members)} images of "
                "lesions that no larger source shows: its camera would come to mean that class",
                "leave the source out (the robust recipe does), or add its images of the other classes",
                [[inspection.used[position]] for position in members],
            )
    for label in sorted(set(labels)):
        of_class = {source for source, other in zip(sources, labels, strict=True) if other == label}
        if len(of_class) == 1:
            yield Finding(
                "error",
                f"class '{class_names[label]}' comes from source '{of_class.pop()}' alone: it would come to mean "
                "its camera",
                "add images of the class from other sources, or leave it out",
            )
    cells = class_counts(sources, samples, len(class_names))
    for source, own, others in unlike_the_rest(cells):
        if np.count_nonzero(own) > 1:
            yield Finding(
                "warning",
                f"source '{source}' has {_share(own, others, class_names)}, beyond chance: a network can tell the "
                "class by the camera",
                "balance the classes within each source (the robust recipe does), or leave the source out",
            )


def small_classes(inspection: Inspection, validation_split: float) -> Iterator[Finding]:
    """Classes that are missing from a part, or too few to learn from or to be judged on."""
    listing = inspection.listing
    is_given = "validation" in listing.splits
    used: dict[str, list[int]] = {part: [] for part in (("train", "validation") if is_given else ("data",))}
    for index in inspection.used:
        used[(listing.splits[index] or "train") if is_given else "data"].append(index)
    lesions = lesion_keys(listing.samples)
    for label, name in enumerate(listing.class_names):
        images = {
            part: [index for index in members if listing.samples[index].label == label]
            for part, members in used.items()
        }
        number = len({lesions[index] for index in images.get("data", ())})
        if is_given and (absent := [part for part, members in images.items() if not members]):
            sentence = f"class '{name}' has no image for {absent[0].replace('train', 'training')}"
            yield Finding("error", sentence, "add images, or split anew")
        elif not is_given and number < 2:
            sentence = f"class '{name}' has {number} lesions, where one is learned from and another judged on"
            yield Finding("error", sentence, "add images, or leave the class out")
        else:
            count = len(images["validation"]) if is_given else round(validation_split * len(images["data"]))
            interval = wilson(count, count)
            if count < FEW_IMAGES and interval is not None:
                yield Finding(
                    "warning",
                    f"class '{name}' has {count} images for validation: with all of them right, the true rate "
                    f"lies anywhere from {interval[0]:.2f} to 1",
                    f"add images: with {FEW_IMAGES} or more for validation, a figure begins to say something",
                )


def image_sizes(inspection: Inspection, image_size: int) -> Iterator[Finding]:
    """Sources whose images are smaller than the network's input, or whose image sizes tell the class."""
    listing = inspection.listing
    by_source: dict[str, list[int]] = defaultdict(list)
    for index in inspection.used:
        by_source[listing.samples[index].source or ""].append(index)
    for source, members in sorted(by_source.items()):
        where = f"of source '{source}'" if source else "without a source"
        small = [index for index in members if inspection.sizes[index].min() < image_size]
        if len(small) > len(members) / 2:
            size, _ = Counter(_size(inspection, index) for index in small).most_common(1)[0]
            yield Finding(
                "warning",
                f"{len(small)} of {len(members)} images {where} have a side below {image_size} pixels, most often "
                f"{size}: enlarged they are blurred, and sharpness tells the source",
                "take larger originals, or train with a smaller --image-size",
                [[index] for index in small],
            )
        sizes = [_size(inspection, index) for index in members]
        cells = class_counts(sizes, [listing.samples[index] for index in members], len(listing.class_names))
        if unlike := unlike_the_rest(cells):
            sets = [[index for index in members if _size(inspection, index) == size] for size, *_ in unlike]
            lines = [
                f"{size}{_folder(listing, chosen)}: "
                + ", ".join(f"{count} {name}" for count, name in zip(own, listing.class_names, strict=True))
                for (size, own, _), chosen in zip(unlike, sets, strict=True)
            ]
            remaining = np.sum(list(cells.values()), axis=0) - np.sum([own for _, own, _ in unlike], axis=0)
            telling = np.stack([*(own for _, own, _ in unlike), remaining])
            yield Finding(
                "error" if cramers_v(telling) >= MEDIUM_EFFECT else "warning",
                f"image sizes {where} differ by class beyond chance: {'; '.join(lines)} lesions: framing and "
                "sharpness can tell the class",
                "prepare the images of all classes alike, from their originals",
                sets,
                lines,
            )


def mixed_groups(listing: Listing) -> Iterator[Finding]:
    """Groups that hold several classes."""
    members: dict[str, dict[int, int]] = defaultdict(dict)
    for index, sample in enumerate(listing.samples):
        if sample.group:
            members[sample.group].setdefault(sample.label, index)
    sets = [list(by_label.values()) for by_label in members.values() if len(by_label) > 1]
    if sets:
        lines = [f"{listing.samples[group[0]].group}: {_shown(listing, group)}" for group in sets]
        sentence = f"{len(sets)} groups hold several classes, first {lines[0]}"
        yield Finding(
            "warning", sentence, "right where a group is a patient, a mistake where it is a lesion", sets, lines
        )


def absent_columns(listing: Listing) -> Iterator[Finding]:
    """What cannot be checked, since the data do not say it."""
    if not any(sample.group for sample in listing.samples):
        sentence = "no image has a group: photographs of one lesion may lie on both sides of a split unseen"
        yield Finding("warning", sentence, "give a CSV with the column group, the lesion or the patient")
    if not any(sample.source for sample in listing.samples):
        sentence = "no image has a source: whether a camera or clinic shows one class alone cannot be seen"
        yield Finding("warning", sentence, "give a CSV with the column source")


def class_counts(
    categories: Sequence[str], samples: Sequence[Sample], classes: int
) -> dict[str, NDArray[np.int64]]:
    """Lesions of each class (K,) in each category, in the order of first appearance."""
    cells: dict[str, NDArray[np.int64]] = {}
    for category, _, label in dict.fromkeys(
        zip(categories, lesion_keys(samples), (sample.label for sample in samples), strict=True)
    ):
        cells.setdefault(category, np.zeros(classes, np.int64))[label] += 1
    return cells


def unlike_the_rest(
    cells: dict[str, NDArray[np.int64]],
) -> list[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
    """Categories whose classes are distributed otherwise than in the rest, beyond chance and not by a trifle.

    Args:
        cells: counts (K,) of each category.

    Returns:
        Category, its counts and those of the rest (K,), the most numerous category first.
    """
    from scipy.stats import chi2_contingency

    total = np.sum(list(cells.values()), axis=0)
    large = {name: own for name, own in cells.items() if own.sum() >= SMALLEST_CELL}
    unlike = []
    for name, own in sorted(large.items(), key=lambda item: -int(item[1].sum())):
        table = np.stack([own, total - own])
        table = table[:, table.any(axis=0)]
        if table.shape[1] < 2 or not table.any(axis=1).all():
            continue
        p_value = float(chi2_contingency(table).pvalue)
        if p_value * len(large) < SIGNIFICANCE and cramers_v(table) >= SMALL_EFFECT:
            unlike.append((name, own, total - own))
    return unlike


def cramers_v(table: NDArray[np.int64]) -> float:
    """Cramér's V of a contingency table (R, C), 0 to 1; 0 where there is nothing to compare."""
    from scipy.stats.contingency import association

    table = table[table.any(axis=1)][:, table.any(axis=0)]
    return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0


def _share(own: NDArray[np.int64], others: NDArray[np.int64], class_names: Sequence[str]) -> str:
    """Share of the class that differs most, with its interval, against that of the others."""
    label = int(np.abs(own / own.sum() - others / others.sum()).argmax())
    low, high = wilson(int(own[label]), int(own.sum())) or (0.0, 1.0)
    return (
        f"{own[label] / own.sum():.1%} '{class_names[label]}' [{low:.1%}, {high:.1%}], where the others have "
        f"{others[label] / others.sum():.1%}"
    )


def _one_of_each_part(listing: Listing, members: Sequence[int]) -> list[int]:
    """First sample of each part of the split."""
    return list({listing.splits[index]: index for index in reversed(members)}.values())[::-1]


def _shown(listing: Listing, members: Sequence[int]) -> str:
    """Files with their label and part, in one line."""
    parts = [
        f"{sample.file} ({', '.join(filter(None, (listing.class_names[sample.label], listing.splits[index])))})"
        for index, sample in ((index, listing.samples[index]) for index in members)
    ]
    return " = ".join(parts)


def _folder(listing: Listing, members: Sequence[int]) -> str:
    """Folder that holds all of the samples, in words; empty where it is the root."""
    folder = os.path.commonpath([os.path.dirname(listing.samples[index].file) for index in members])
    return f" in {folder}" if folder else ""


def _size(inspection: Inspection, index: int) -> str:
    width, height = inspection.sizes[index]
    return f"{width}×{height}"
