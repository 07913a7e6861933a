"""Tables of labels: our own CSV, and the three that come with the public collections of lesions."""

from __future__ import annotations

import csv
import filecmp
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import find_images
from lesion_train.label_folders import SPLIT_WORDS, Split

GROUPS = ("group", "lesion_id", "patient_id")
"""Columns that tell which images belong together; images that share one of them do."""

UNKNOWN = frozenset({"", "na", "n/a", "nan", "none", "null", "unknown"})
"""What a group column holds where nobody knows the group."""

IMAGE_IDS = ("image_id", "isic_id", "image_name", "image")
"""Columns of the public tables that name an image without its ending."""

METADATA_WORDS = ("Metadata", "LesionGroupings")
"""What a challenge of the ISIC puts in the place of GroundTruth to name the table that knows the lesions."""

ABOUT_IMAGES = frozenset(
    [
        "lesion_id",
        "patient_id",
        "age",
        "sex",
        "localization",
        "dataset",
        "split",
        "score_weight",
        "validation_weight",
    ]
)
"""Columns that may stand beside the classes of a one-hot table."""

NEEDED = (
    "it needs the columns file,label and may have group,split,source,diagnosis; read as they are, with --images "
    "DIR, are HAM10000's metadata (image_id,dx), one-hot tables (image, and a column of 0 and 1 per class) and "
    "exports of the ISIC archive (isic_id, benign_malignant or diagnosis_1)"
)


@dataclass(frozen=True)
class Row:
    """One image of a table."""

    line: int
    file: str
    """Path or name, as the table has it."""
    label: str
    split: str = ""
    """What the table says in its column `split`, in any case; other words than `SPLIT_WORDS` leave the row out."""
    groups: tuple[str, ...] = ()
    source: str | None = None
    diagnosis: str | None = None

    @property
    def part(self) -> Split | None:
        """The part of the split, where the table says so."""
        return SPLIT_WORDS.get(self.split.casefold())


@dataclass(frozen=True)
class _Line:
    number: int
    cells: dict[str, str] = field(default_factory=dict)

    def get(self, *columns: str) -> str:
        """First of the columns that holds something."""
        return next((self.cells[name] for name in columns if self.cells.get(name)), "")


def read_rows(table: Path) -> list[Row]:
    """Read the rows of a table that a training uses: those of `train` and `validation`, where it has a split.

    Raises:
        LesionEdgeError: it is no CSV, its columns are not known, or its rows leave nothing to train on.
    """
    rows = read_table(table)
    _refuse_repeated(table, rows)
    if any(row.split for row in rows):
        skipped = Counter(row.split for row in rows if row.part not in ("train", "validation"))
        named = ", ".join(
            f"{count} '{word}'" if word else f"{count} empty" for word, count in sorted(skipped.items())
        )
        rows = [row for row in rows if row.part in ("train", "validation")]
        if skipped and not rows:
            raise LesionEdgeError(
                f"{table} has no rows to train on: its split column says {named}, not train or val"
            )
        if skipped:
            say(f"left out by the split column of {table}: {named}")
    if not rows:
        raise LesionEdgeError(f"{table} has no rows to train on")
    return rows


def read_table(table: Path) -> list[Row]:
    """Read all rows of a table of labels, whatever they hold.

    Raises:
        LesionEdgeError: it is no CSV, or its columns are not known.
    """
    columns, lines = _read_lines(table)
    if {"file", "label"} <= set(columns):
        rows = [_row(line, line.get("file"), line.get("label"), line.get("diagnosis")) for line in lines]
    elif {"image_id", "dx"} <= set(columns):
        rows = [_row(line, line.get("image_id"), line.get("dx"), line.get("dx"), "dataset") for line in lines]
    elif set(columns) & set(IMAGE_IDS) and {"benign_malignant", "diagnosis_1"} & set(columns):
        rows = _isic_archive(table, lines)
    elif classes := _one_hot_classes(columns, lines):
        lines = _with_metadata(table, lines)
        rows = [_row(line, line.get(*IMAGE_IDS), _one_hot_label(table, line, classes)) for line in lines]
    else:
        raise LesionEdgeError(f"{table} has the columns {', '.join(columns)}: {NEEDED}{_absent_column(columns)}")
    return rows


def find_files(table: Path, rows: Sequence[Row], root: Path) -> list[str]:
    """Find the file of each row below `root`: by its path, else by its name with or without an ending.

    Returns:
        Paths relative to `root`, with forward slashes.

    Raises:
        LesionEdgeError: a file is missing, several could be meant, or two rows mean one.
    """
    files, absent = [], []
    for row, matches in zip(rows, locate_files(rows, root), strict=True):
        if len(matches) > 1:
            raise LesionEdgeError(
                f"{table} names {row.file} (line {row.line}), and {root} has {len(matches)} of that name: "
                f"{', '.join(matches[:2])}"
            )
        if matches:
            files += matches
        else:
            absent.append(row.file)
    if absent:
        raise LesionEdgeError(
            f"{table} names {len(absent)} files that do not exist, first {absent[0]}, looked for in {root}: "
            "--images DIR names the folder of the images"
        )
    rows_of: dict[str, Row] = {}
    for file, row in zip(files, rows, strict=True):
        other = rows_of.setdefault(file, row)
        if other is not row:
            raise LesionEdgeError(f"{table} names {file} twice (lines {other.line} and {row.line})")
    return files


def locate_files(rows: Sequence[Row], root: Path) -> Iterator[list[str]]:
    """Files below `root` that each row could mean, sorted; of several with the same bytes, the first alone."""
    by_name: dict[str, set[str]] | None = None
    for row in rows:
        path = next((path for path in _spellings(row.file) if (root / path).is_file()), None)
        if path is not None:
            yield [path]
        elif "/" in row.file or "\\" in row.file:
            yield []
        else:
            by_name = _index(root) if by_name is None else by_name
            first, *others = sorted(by_name.get(row.file, ())) or [""]
            # An archive of HAM10000 that many people have holds each of its two folders twice.
            differing = [path for path in others if not filecmp.cmp(root / first, root / path, shallow=False)]
            yield [first, *differing] if first else []


def _read_lines(table: Path) -> tuple[list[str], list[_Line]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            delimiter = max(",;\t", key=header.count)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter)
            columns = [name.strip().lstrip("\ufeff").casefold().replace(" ", "_") for name in next(reader, [])]
            lines = [
                _Line(reader.line_num, dict(zip(columns, (cell.strip() for cell in cells), strict=False)))
                for cells in reader
                if any(cell.strip() for cell in cells)
            ]
    except OSError as error:
        raise LesionEdgeError(f"cannot read {table}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise LesionEdgeError(f"{table} is not a CSV in UTF-8: {error}") from None
    if twice := next((name for name, count in Counter(columns).items() if count > 1), None):
        raise LesionEdgeError(f"{table} has two columns called '{twice}'")
    return columns, lines


def _row(line: _Line, file: str, label: str, diagnosis: str = "", *source: str) -> Row:
    """Row of a line; `source` are columns of a public table that stand for the column of that name."""
    groups = tuple(line.get(name) for name in GROUPS if line.get(name).casefold() not in UNKNOWN)
    collection = line.get("source", *source) or None
    return Row(line.number, file, label, line.get("split"), groups, collection, diagnosis or None)


def _with_metadata(table: Path, lines: Sequence[_Line]) -> list[_Line]:
    """Lines of a challenge's GroundTruth table, with those of the table beside it that knows the lesions."""
    if not re.search("GroundTruth", table.name, re.IGNORECASE):
        return list(lines)
    names = [re.sub("GroundTruth", word, table.name, flags=re.IGNORECASE) for word in METADATA_WORDS]
    path = next((path for path in map(table.with_name, names) if path.is_file()), None)
    if path is None:
        say(
            f"warning: {table} names no lesions, so images of one can lie on both sides of a split: "
            f"put {' or '.join(names)} beside it"
        )
        return list(lines)
    about = {line.get(*IMAGE_IDS): line.cells for line in _read_lines(path)[1]}
    joined = [_Line(line.number, {**about.get(line.get(*IMAGE_IDS), {}), **line.cells}) for line in lines]
    say(f"lesions from {path}")
    return joined


def _isic_archive(table: Path, lines: Sequence[_Line]) -> list[Row]:
    rows = []
    unclear: Counter[str] = Counter()
    for line in lines:
        label = line.get("benign_malignant", "diagnosis_1")
        diagnosis = line.get("diagnosis_5", "diagnosis_4", "diagnosis_3", "diagnosis_2", "diagnosis")
        if label.casefold() not in ("benign", "malignant"):
            unclear[label] += 1
            continue
        rows.append(_row(line, line.get(*IMAGE_IDS), label.casefold(), diagnosis, "attribution"))
    if unclear:
        named = ", ".join(f"{count} '{word}'" if word else f"{count} empty" for word, count in unclear.items())
        say(f"left out of {table}, neither benign nor malignant: {named}")
    return rows


def _one_hot_classes(columns: Sequence[str], lines: Sequence[_Line]) -> list[str]:
    classes = [name for name in columns if name not in IMAGE_IDS and name not in ABOUT_IMAGES]
    numbers = {"0", "1", "0.0", "1.0"}
    marked = lines and all(line.cells.get(name) in numbers for line in lines for name in classes)
    return classes if marked and len(classes) > 1 and set(columns) & set(IMAGE_IDS) else []


def _one_hot_label(table: Path, line: _Line, classes: Sequence[str]) -> str:
    marked = [name for name in classes if line.cells[name] in ("1", "1.0")]
    if len(marked) != 1:
        image = line.get(*IMAGE_IDS)
        raise LesionEdgeError(f"{table} marks {len(marked)} classes for {image} (line {line.number}), not one")
    return marked[0]


def _absent_column(columns: Sequence[str]) -> str:
    absent = [name for name in ("file", "label") if name not in columns]
    return f" (it has no column '{absent[0]}')" if len(absent) == 1 else ""


def _refuse_repeated(table: Path, rows: Sequence[Row]) -> None:
    """Refuse an image without file or label, and one that two rows name."""
    seen: dict[str, Row] = {}
    for row in rows:
        path = os.path.normpath(row.file.replace("\\", "/"))
        other = seen.setdefault(path, row)
        if other is row or not row.file:
            continue
        if other.label != row.label:
            raise LesionEdgeError(
                f"{table} names {row.file} as '{other.label}' (line {other.line}) and as '{row.label}' "
                f"(line {row.line})"
            )
        raise LesionEdgeError(f"{table} names {row.file} twice (lines {other.line} and {row.line})")


def _spellings(file: str) -> Iterator[str]:
    """A path as it is, and with the slashes of this system."""
    for path in (file, file.replace("\\", "/")):
        if path:
            yield os.path.normpath(path).replace(os.sep, "/")


def _index(root: Path) -> dict[str, set[str]]:
    """Files below `root` by their name, and by their name without its ending."""
    index: dict[str, set[str]] = {}
    for file in find_images([str(root)]):
        path = PurePosixPath(Path(file).relative_to(root).as_posix())
        for name in {path.name, path.stem}:
            index.setdefault(name, set()).add(str(path))
    return index
