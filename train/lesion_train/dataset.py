"""From a folder or a CSV to two lists of labelled files: training and validation."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import find_images
from lesion_train.run import Sample

SPLITS = {"train": "train", "training": "train", "validation": "validation", "val": "validation"}
"""What the `split` column may say; rows with another word (a test set, say) are left out."""


@dataclass(frozen=True)
class Dataset:
    """Labelled files, split; nothing is decoded yet."""

    root: Path
    """The folder that the samples' paths start from."""
    class_names: tuple[str, ...]
    """Sorted; at least two."""
    train: list[Sample]
    validation: list[Sample]
    left_out: list[str]
    """Why files of the data are in neither list, one sentence each."""


def load_dataset(data: Path, validation_split: float, seed: int) -> Dataset:
    """Read DATA: a folder with one sub-folder per class, or a CSV.

    The CSV has columns `file,label` and may have `group`, `split`, `source` and `diagnosis`.

    Raises:
        LesionEdgeError: nothing usable is there, or a group lies on both sides of the split.
    """
    if not 0 < validation_split < 1:
        raise LesionEdgeError(f"--validation-split {validation_split} is not between 0 and 1")
    if data.is_dir():
        dataset = _from_folder(data, validation_split, seed)
    elif data.is_file():
        dataset = _from_csv(data, validation_split, seed)
    else:
        raise LesionEdgeError(f"{data} does not exist: give a folder with one sub-folder per class, or a CSV")
    for name, samples in (("training", dataset.train), ("validation", dataset.validation)):
        missing = set(range(len(dataset.class_names))) - {sample.label for sample in samples}
        if missing:
            raise LesionEdgeError(
                f"the {name} part of {data} has no image of class '{dataset.class_names[min(missing)]}': "
                "add images, or choose another --seed or --validation-split"
            )
    return dataset


def _from_folder(root: Path, validation_split: float, seed: int) -> Dataset:
    """Split as `keras.utils.image_dataset_from_directory` does: that function decides what goes where."""
    class_names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if len(class_names) < 2:
        raise LesionEdgeError(f"{root} has {len(class_names)} class folders, at least two are needed")
    for name in class_names:
        if next(find_images([str(root / name)]), None) is None:
            raise LesionEdgeError(f"the class folder {root / name} holds no images")

    from keras.utils import image_dataset_from_directory

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            parts = image_dataset_from_directory(
                str(root), validation_split=validation_split, subset="both", seed=seed, shuffle=True
            )
    except ValueError as error:
        raise LesionEdgeError(f"{root} cannot be split: {' '.join(str(error).split())}") from None

    def samples(files: list[str]) -> list[Sample]:
        relative = [Path(file).relative_to(root) for file in files]
        return [Sample(path.as_posix(), class_names.index(path.parts[0])) for path in relative]

    train, validation = (samples(part.file_paths) for part in parts)
    known = {sample.file for sample in train + validation}
    found = (
        Path(file).relative_to(root).as_posix() for name in class_names for file in find_images([str(root / name)])
    )
    left_out = [f"{file}: a format that the split does not list" for file in found if file not in known]
    return Dataset(root, tuple(class_names), train, validation, left_out)


def _from_csv(table: Path, validation_split: float, seed: int) -> Dataset:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            if missing := {"file", "label"} - set(columns):
                raise LesionEdgeError(
                    f"{table} has no column '{min(missing)}': it needs file,label and may have group,split"
                )
            rows = [row for row in reader if "split" not in columns or row["split"] in SPLITS]
    except (UnicodeDecodeError, csv.Error) as error:
        raise LesionEdgeError(f"{table} is not a CSV in UTF-8: {error}") from None
    root = table.parent
    if not rows:
        raise LesionEdgeError(f"{table} has no rows to train on")
    if incomplete := next((row for row in rows if not row["file"] or not row["label"]), None):
        raise LesionEdgeError(f"{table} has a row without file or label: {incomplete}")
    if absent := [row["file"] for row in rows if not (root / row["file"]).is_file()]:
        raise LesionEdgeError(f"{table} names {len(absent)} files that do not exist, first {absent[0]}")
    class_names = tuple(sorted({row["label"] for row in rows}))
    if len(class_names) < 2:
        raise LesionEdgeError(f"{table} has only the class '{class_names[0]}', at least two are needed")
    samples = [
        Sample(
            row["file"].replace(os.sep, "/"),
            class_names.index(row["label"]),
            row.get("group") or None,
            row.get("source") or None,
            row.get("diagnosis") or None,
        )
        for row in rows
    ]
    if "split" in columns and any(SPLITS[row["split"]] == "validation" for row in rows):
        held_out = [SPLITS[row["split"]] == "validation" for row in rows]
    else:
        held_out = split_by_group(samples, validation_split, seed)
    train = [sample for sample, held in zip(samples, held_out, strict=True) if not held]
    validation = [sample for sample, held in zip(samples, held_out, strict=True) if held]
    straddling = {s.group for s in train if s.group} & {s.group for s in validation}
    if straddling:
        raise LesionEdgeError(
            f"{table} puts {len(straddling)} groups on both sides of the split: '{min(map(str, straddling))}' …"
        )
    return Dataset(root, class_names, train, validation, [])


def split_by_group(samples: list[Sample], fraction: float, seed: int) -> list[bool]:
    """Hold out whole groups, about the same fraction of every class.

    A sample without a group is a group of its own; a group counts for the class of its first sample.

    Returns:
        One entry per sample: whether it is held out.
    """
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(f"group {sample.group}" if sample.group else f"sample {index}", []).append(index)
    order = np.random.default_rng(seed).permutation(len(groups))
    members = list(groups.values())
    totals = np.bincount([sample.label for sample in samples])
    held_out, held = [False] * len(samples), np.zeros(len(totals), int)
    for position in order:
        label = samples[members[position][0]].label
        if held[label] < round(fraction * totals[label]):
            held[label] += len(members[position])
            for index in members[position]:
                held_out[index] = True
    return held_out
