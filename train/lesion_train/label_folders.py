"""Folders of labels: one sub-folder per class, or train, val and test with such inside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import PassedOver, find_images, is_hidden, is_readable_format
from lesion_train.class_names import name_words, side, spelling_key
from lesion_train.run import Sample

Split = Literal["train", "validation", "test"]

SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "tests", "testing", "holdout"), "test"),
}
"""Words by which a part of a split is known: a folder that is no class, or a cell of a column `split`."""


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def existing_splits(root: Path) -> dict[Split, str]:
    """Folders of splits that exist already; empty where the folders are classes.

    Raises:
        LesionEdgeError: the folders are neither plainly parts of a split nor plainly classes.
    """
    names = _folders(root)
    first_words = {name: next((word for word in name_words(name) if word in SPLIT_WORDS), "") for name in names}
    splits = [(SPLIT_WORDS[word], name) for name, word in first_words.items() if word]
    if not splits or not (len(splits) == len(names) or "train" in dict(splits)):
        _refuse_deeper_classes(root, names)
        return {}
    by_split: dict[Split, str] = {}
    for split, name in splits:
        if by_split.setdefault(split, name) != name:
            raise LesionEdgeError(f"{root} has two folders for {split}, {by_split[split]} and {name}: give it one")
    if "train" not in by_split or len(_folders(root / by_split["train"])) < 2:
        raise LesionEdgeError(
            f"the folders {', '.join(names)} of {root} are parts of a split, not classes, and "
            + ("none is for training" if "train" not in by_split else f"{by_split['train']} has no class folders")
            + ": give a folder with one sub-folder per class, or a CSV"
        )
    for name in set(names) - set(by_split.values()):
        if next(find_images([str(root / name)]), None) is not None:
            raise LesionEdgeError(
                f"{root} has parts of a split ({', '.join(by_split.values())}) "
                f"and another folder of images, {name}"
            )
    return by_split


def _refuse_deeper_classes(root: Path, names: Sequence[str]) -> None:
    """Refuse folders that are no classes themselves and hold the classes."""
    for name in names:
        inner = _folders(root / name)
        known = [side(name_words(folder)) is not None for folder in inner]
        if len(inner) > 1 and all(known) and (len(names) == 1 or side(name_words(name)) is None):
            remedy = f"give {root / name}" if len(names) == 1 else "give one of these folders, or a CSV"
            raise LesionEdgeError(
                f"{root} has {len(names)} class folders that are no classes ({', '.join(names)}): the classes "
                f"({', '.join(inner)}) lie one level down; {remedy}"
            )


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted; at least two, none without images, none spelled in two ways."""
    class_names = tuple(_folders(root))
    if len(class_names) < 2:
        raise LesionEdgeError(f"{root} has {len(class_names)} class folders, at least two are needed")
    refuse_spellings(str(root), class_names)
    for name in class_names:
        if not any(map(is_readable_format, find_images([str(root / name)]))):
            raise LesionEdgeError(f"the class folder {root / name} holds no images")
    return class_names


def refuse_spellings(where: str, class_names: Iterable[str]) -> None:
    """Refuse two spellings of one class name."""
    spellings: dict[str, str] = {}
    for name in sorted(class_names):
        other = spellings.setdefault(spelling_key(name), name)
        if other != name:
            raise LesionEdgeError(f"{where} spells one class '{other}' and '{name}': give it one name")


def list_samples(
    root: Path, class_root: Path, class_names: Sequence[str], passed_over: PassedOver, skipped: list[str]
) -> list[Sample]:
    """List samples in the order of `image_dataset_from_directory`: by class, then folder, then name."""
    samples = []
    for label, name in enumerate(class_names):
        paths = find_images([str(class_root / name)], pass_over=passed_over.add)
        for path in sorted(paths, key=os.path.split):
            file = Path(path).relative_to(root).as_posix()
            if is_readable_format(path):
                samples.append(Sample(file, label))
            else:
                skipped.append(f"{file}: not an image in an accepted format")
    return samples


def outside_classes(root: Path, folder: Path, passed_over: PassedOver) -> list[str]:
    """Why the images that lie beside the class folders are left out."""
    files = sorted(str(entry) for entry in folder.iterdir() if not entry.is_dir() and not is_hidden(entry.name))
    images = [file for file in files if is_readable_format(file)]
    for file in set(files) - set(images):
        passed_over.add(file)
    return [f"{Path(file).relative_to(root).as_posix()}: lies in no class folder" for file in images]


def say_splits(root: Path, splits: dict[Split, str], class_roots: dict[Split, Path]) -> None:
    """Tell which folders are used for what."""
    used = f"training from {splits['train']}"
    if "validation" in splits:
        used += f", validation from {splits['validation']}, and --validation-split is not used"
    else:
        used += ", validation split from it"
    if "test" in splits:
        count = sum(1 for _ in find_images([str(class_roots["test"])]))
        used += f"; left out: {splits['test']}, {count} images"
    say(f"{root} is split already: {used}")
