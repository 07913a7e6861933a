"""Listing of labelled images for a check: everything that the data name, and what a training would refuse."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import PassedOver
from lesion_train.class_names import spelling_key
from lesion_train.duplicates import join_groups
from lesion_train.label_folders import Split, class_folders, existing_splits, list_samples, outside_classes
from lesion_train.label_table import Row, locate_files, read_table
from lesion_train.run import Sample


@dataclass(frozen=True)
class Finding:
    """One thing that a check has found."""

    severity: Literal["error", "warning"]
    """An error has to be mended before a training can be believed; a warning is to be known."""
    sentence: str
    """What is wrong, with how many and an example."""
    advice: str
    """What to do."""
    sets: list[list[int]] = field(default_factory=list)
    """Samples by index that show it; those of one set belong together."""
    details: list[str] = field(default_factory=list)
    """One line each, for the report."""


@dataclass(frozen=True)
class Listing:
    """Labelled files as the data name them."""

    root: Path
    """The folder that the samples' paths start from."""
    class_names: tuple[str, ...]
    samples: list[Sample]
    splits: Sequence[Split | None]
    """Part of each sample; None for all of them where the data are not split."""
    findings: list[Finding]
    """What is wrong with the table or the folders themselves."""

    @property
    def is_split(self) -> bool:
        """Whether the data say what is for training and what is not."""
        return any(self.splits)


def list_labeled(data: Path, images: Path | None = None) -> Listing:
    """List the images of DATA, as `lesion_train.dataset.load_dataset` takes it, those of a test set included.

    Raises:
        LesionEdgeError: DATA is neither a table nor a folder of classes.
    """
    if data.is_dir():
        if images is not None:
            raise LesionEdgeError(f"--images goes with a table of labels, and {data} is a folder")
        return _of_folder(data)
    if not data.is_file():
        raise LesionEdgeError(f"{data} does not exist: give a folder with one sub-folder per class, or a CSV")
    if images is not None and not images.is_dir():
        raise LesionEdgeError(f"--images {images} is no folder")
    return _of_table(data, images or data.parent)


def _of_folder(root: Path) -> Listing:
    splits = existing_splits(root)
    parts_in_order = [split for split in get_args(Split) if split in splits]
    class_roots: dict[Split | None, Path] = {part: root / splits[part] for part in parts_in_order} or {None: root}
    names = {split: class_folders(folder) for split, folder in class_roots.items()}
    class_names = tuple(sorted(set().union(*names.values())))
    passed_over, skipped, samples = PassedOver(), list[str](), list[Sample]()
    parts: list[Split | None] = []
    for split, folder in class_roots.items():
        for name in names[split]:
            listed = list_samples(root, folder, [name], passed_over, skipped)
            samples += [Sample(sample.file, class_names.index(name)) for sample in listed]
        parts += [split] * (len(samples) - len(parts))
    for folder in {root, *class_roots.values()}:
        skipped += outside_classes(root, folder, passed_over)
    if passed_over.count:
        say(passed_over.sentence())
    findings = _spellings(class_names)
    if skipped:
        findings.append(
            Finding(
                "error",
                f"{len(skipped)} files cannot be used, first {skipped[0]}",
                "move images into a class folder, convert others to JPEG or PNG",
                details=skipped,
            )
        )
    return Listing(root, class_names, samples, parts, findings)


def _of_table(table: Path, root: Path) -> Listing:
    rows = read_table(table)
    if any(row.split for row in rows):
        words = Counter(row.split for row in rows if not row.part)
        if words:
            named = ", ".join(f"{count} '{word}'" for word, count in sorted(words.items()))
            say(f"left out by the split column of {table}, and not checked: {named}")
        rows = [row for row in rows if row.part]
    incomplete = [row for row in rows if not row.file or not row.label]
    findings = []
    if incomplete:
        lines = [f"line {row.line}: {row.file or row.label}" for row in incomplete]
        sentence = f"{len(incomplete)} rows lack a file or a label, first {lines[0]}"
        findings.append(Finding("error", sentence, "complete or remove them", details=lines))
    rows = [row for row in rows if row.file and row.label]
    if not rows:
        raise LesionEdgeError(f"{table} has no rows with a file and a label")
    class_names = tuple(sorted({row.label for row in rows}))
    findings += _spellings(class_names)
    files: dict[str, Row] = {}
    absent, doubtful = [], []
    repeated: dict[str, list[Row]] = defaultdict(list)
    for row, matches in zip(rows, locate_files(rows, root), strict=True):
        if len(matches) > 1:
            doubtful.append(f"{row.file} (line {row.line}): {', '.join(matches)}")
        elif not matches:
            absent.append(f"{row.file} (line {row.line})")
        elif files.setdefault(matches[0], row) is not row:
            repeated[matches[0]].append(row)
    if absent:
        sentence = f"{len(absent)} files do not exist below {root}, first {absent[0]}"
        advice = "remove the rows, or name the folder of the images with --images"
        findings.append(Finding("error", sentence, advice, details=absent))
    if doubtful:
        sentence = f"{len(doubtful)} rows could mean several files each, first {doubtful[0]}"
        findings.append(Finding("error", sentence, "name the files by their paths", details=doubtful))
    if repeated:
        findings.append(_repeated(files, repeated))
    kept = list(files.values())
    groups = join_groups([row.groups for row in kept])
    samples = [
        Sample(file, class_names.index(row.label), group, row.source, row.diagnosis)
        for (file, row), group in zip(files.items(), groups, strict=True)
    ]
    return Listing(root, class_names, samples, [row.part for row in kept], findings)


def _repeated(files: dict[str, Row], repeated: dict[str, list[Row]]) -> Finding:
    lines = [
        f"{file}: " + ", ".join(f"'{row.label}' (line {row.line})" for row in [files[file], *others])
        for file, others in repeated.items()
    ]
    labels = sum(len({files[file].label, *(row.label for row in others)}) > 1 for file, others in repeated.items())
    under = f", {labels} of them under two labels" if labels else ""
    sentence = f"{len(lines)} files are named by several rows{under}, first {lines[0]}"
    sets = [[index] for index, file in enumerate(files) if file in repeated]
    return Finding("error", sentence, "keep one row of each", sets, lines)


def _spellings(class_names: tuple[str, ...]) -> list[Finding]:
    findings = []
    spellings: dict[str, str] = {}
    for name in class_names:
        other = spellings.setdefault(spelling_key(name), name)
        if other != name:
            findings.append(Finding("error", f"one class is spelled '{other}' and '{name}'", "give it one name"))
    if len(spellings) < 2:
        findings.append(Finding("error", f"there is only the class '{class_names[0]}'", "add images of another"))
    return findings
