"""From a folder or a table to two lists of labelled files: training and validation."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import PassedOver
from lesion_edge.intervals import wilson
from lesion_train.duplicates import group_copies
from lesion_train.label_folders import (
    Split,
    class_folders,
    existing_splits,
    list_samples,
    outside_classes,
    refuse_spellings,
    say_splits,
)
from lesion_train.label_table import find_files, read_rows
from lesion_train.run import Sample

FEW_IMAGES = 20
"""Validation images of a class below which its figures are called next to meaningless."""


@dataclass(frozen=True)
class Dataset:
    """Labelled files, split; nothing is decoded yet."""

    root: Path
    """The folder that the samples' paths start from."""
    class_names: tuple[str, ...]
    """Sorted; at least two."""
    train: list[Sample]
    validation: list[Sample]
    skipped: list[str]
    """Why files of the data are in neither list, one sentence each."""


def load_dataset(data: Path, validation_split: float, seed: int, images: Path | None = None) -> Dataset:
    """Read DATA: a folder with one sub-folder per class, folders `train`, `val` and `test` of such, or a table.

    A class that the split would leave out of one split is divided by itself, and that is said.

    Args:
        images: folder that the paths of a table start from, or that holds the images it names; None: its own.

    Raises:
        LesionEdgeError: nothing usable is there, or a group lies on both sides of the split.
    """
    if not 0 < validation_split < 1:
        raise LesionEdgeError(f"--validation-split {validation_split} is not between 0 and 1")
    if data.is_dir():
        if images is not None:
            raise LesionEdgeError(f"--images goes with a table of labels, and {data} is a folder")
        dataset = _from_folder(data, validation_split, seed)
    elif data.is_file():
        if images is not None and not images.is_dir():
            raise LesionEdgeError(f"--images {images} is no folder")
        dataset = _from_table(data, validation_split, seed, images or data.parent)
    else:
        raise LesionEdgeError(f"{data} does not exist: give a folder with one sub-folder per class, or a CSV")
    for name, samples in (("training", dataset.train), ("validation", dataset.validation)):
        missing = _missing_classes(samples, dataset.class_names)
        if missing:
            raise LesionEdgeError(
                f"the {name} part of {data} has no image of class '{missing[0]}': "
                "add images, or choose another --seed or --validation-split"
            )
    _warn_of_few(dataset)
    return dataset


def split_by_group(samples: Sequence[Sample], fraction: float, seed: int) -> list[bool]:
    """Hold out whole groups, about the same fraction of every class.

    A sample without a group is a group of its own; a group counts for the class of its first sample.

    Returns:
        One entry per sample: whether it is held out.
    """
    members = _groups(samples)
    order = np.random.default_rng(seed).permutation(len(members))
    totals = np.bincount([sample.label for sample in samples])
    held_out, held = [False] * len(samples), np.zeros(len(totals), int)
    for position in order:
        label = samples[members[position][0]].label
        if held[label] < round(fraction * totals[label]):
            held[label] += len(members[position])
            for index in members[position]:
                held_out[index] = True
    return held_out


def _groups(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of each group's samples."""
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(f"group {sample.group}" if sample.group else f"sample {index}", []).append(index)
    return list(groups.values())


def _split_every_class(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split by group, and hold out the smallest group of a class of which nothing would be."""
    held_out = split_by_group(samples, fraction, seed)
    missing = {sample.label for sample in samples}
    missing -= {sample.label for sample, held in zip(samples, held_out, strict=True) if held}
    for label in missing:
        groups = [members for members in _groups(samples) if samples[members[0]].label == label]
        for index in min(groups, key=len, default=[]) if len(groups) > 1 else []:
            held_out[index] = True
    return _divide(samples, held_out)


def _from_folder(root: Path, validation_split: float, seed: int) -> Dataset:
    splits = existing_splits(root)
    class_roots: dict[Split, Path] = {split: root / name for split, name in splits.items()} or {"train": root}
    class_names = class_folders(class_roots["train"])
    if "validation" in class_roots:
        others = class_folders(class_roots["validation"])
        refuse_spellings(f"{root}", {*class_names, *others})
        if others != class_names:
            raise LesionEdgeError(
                f"{root} has other classes in {splits['train']} ({', '.join(class_names)}) than in "
                f"{splits['validation']} ({', '.join(others)})"
            )
    passed_over, skipped = PassedOver(), list[str]()
    listed: dict[Split, list[Sample]] = {}
    for split in [split for split in class_roots if split != "test"]:
        listed[split] = list_samples(root, class_roots[split], class_names, passed_over, skipped)
    for folder in {root, *class_roots.values()} - {class_roots.get("test")}:
        skipped += outside_classes(root, folder, passed_over)
    if passed_over.count:
        say(passed_over.sentence())
    if splits:
        say_splits(root, splits, class_roots)
    everything = listed["train"] + listed.get("validation", [])
    grouped = group_copies(root, everything, [[]] * len(everything))
    if "validation" in listed:
        train, validation = grouped[: len(listed["train"])], grouped[len(listed["train"]) :]
    else:
        train, validation = _split_as_keras(root, grouped, class_names, validation_split, seed)
    learned = {sample.group for sample in train if sample.group}
    if copies := [sample for sample in validation if sample.group in learned]:
        say(f"{len(copies)} validation images are copies of training images and are learned from, too")
        train, validation = train + copies, [sample for sample in validation if sample.group not in learned]
    empty = any(_missing_classes(samples, class_names) for samples in (train, validation))
    if empty and "validation" not in listed:
        say(f"too few images in {root} for image_dataset_from_directory: each class is split by itself")
        train, validation = _split_every_class(grouped, validation_split, seed)
    return Dataset(root, class_names, train, validation, skipped)


def _from_table(table: Path, validation_split: float, seed: int, root: Path) -> Dataset:
    rows = read_rows(table)
    if incomplete := next((row for row in rows if not row.file or not row.label), None):
        raise LesionEdgeError(
            f"{table} has a row without file or label: line {incomplete.line}, {incomplete.file}"
        )
    files = find_files(table, rows, root)
    class_names = tuple(sorted({row.label for row in rows}))
    refuse_spellings(str(table), class_names)
    if len(class_names) < 2:
        raise LesionEdgeError(f"{table} has only the class '{class_names[0]}', at least two are needed")
    samples = [
        Sample(file, class_names.index(row.label), None, row.source, row.diagnosis)
        for file, row in zip(files, rows, strict=True)
    ]
    samples = group_copies(root, samples, [row.groups for row in rows])
    if any(row.part == "validation" for row in rows):
        train, validation = _divide(samples, [row.part == "validation" for row in rows])
    else:
        train, validation = _split_every_class(samples, validation_split, seed)
    learned = {sample.group: sample for sample in train if sample.group}
    straddling = {sample.group: sample for sample in validation if sample.group in learned}
    if straddling:
        group = min(map(str, straddling))
        raise LesionEdgeError(
            f"{table} puts {len(straddling)} groups on both sides of the split: '{group}' has "
            f"{learned[group].file} in training and {straddling[group].file} in validation"
        )
    return Dataset(root, class_names, train, validation, [])


def _split_as_keras(
    root: Path, samples: Sequence[Sample], class_names: Sequence[str], validation_split: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Split as `keras.utils.image_dataset_from_directory` does: that function decides what goes where.

    It is shown empty files in the order of ours, since it knows an image by its name and not every ending.
    """
    from keras.utils import image_dataset_from_directory

    with tempfile.TemporaryDirectory() as folder:
        for label in range(len(class_names)):
            Path(folder, f"{label:04}").mkdir()
        for index, sample in enumerate(samples):
            Path(folder, f"{sample.label:04}", f"{index:08}.png").touch()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                splits = image_dataset_from_directory(
                    folder, validation_split=validation_split, subset="both", seed=seed, shuffle=True
                )
        except ValueError:  # a split would be empty
            return [], []
    train, validation = ([samples[int(Path(file).stem)] for file in split.file_paths] for split in splits)
    return train, validation


def _divide(samples: Sequence[Sample], held_out: Sequence[bool]) -> tuple[list[Sample], list[Sample]]:
    train = [sample for sample, held in zip(samples, held_out, strict=True) if not held]
    return train, [sample for sample, held in zip(samples, held_out, strict=True) if held]


def _missing_classes(samples: Sequence[Sample], class_names: Sequence[str]) -> list[str]:
    present = {sample.label for sample in samples}
    return [name for label, name in enumerate(class_names) if label not in present]


def _warn_of_few(dataset: Dataset) -> None:
    counts = Counter(sample.label for sample in dataset.validation)
    label, count = min(counts.items(), key=lambda item: (item[1], item[0]))
    interval = wilson(count, count)
    if count < FEW_IMAGES and interval is not None:
        say(
            f"warning: {count} validation images of class '{dataset.class_names[label]}' say next to nothing: "
            f"with all of them right, the true rate lies anywhere from {interval[0]:.2f} to 1"
        )
