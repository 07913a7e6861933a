"""One answer per lesion from all its images (`--lesions`)."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lesion_edge import atomic
from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.output import csv_row
from lesion_edge.prediction import apply_threshold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lesion_edge.classifier import Classifier
    from lesion_edge.inference_options import InferenceOptions
    from lesion_edge.prediction import Prediction

STATUSES = ("ok", "out_of_distribution", "error", "absent")
"""What becomes of an image of the list, `absent` where the run did not have it; a lesion has its images' first."""

OK, OUT_OF_DISTRIBUTION, ERROR, ABSENT = range(len(STATUSES))


class Lesions:
    """Answers of listed lesions, from the rows of their images.

    A probability is the mean over the images with a label, or where none has one, over those out of distribution.
    It is made from what the rows say, so that an interrupted run ends with the same answers. The last row of an
    image counts.

    Args:
        options: `lesions` is the list; `lesions_output` the file to write, by default beside `output`.
        classifier: its classes and threshold hold for lesions, too.

    Raises:
        LesionEdgeError: the list is wrong, or the file to write is not named or exists already.
    """

    def __init__(self, options: InferenceOptions, classifier: Classifier) -> None:
        assert options.lesions is not None
        self._list = options.lesions
        self._kind = options.format
        self._output = _output(options)
        self._class_names = classifier.manifest.class_names
        self._positive_index = self._class_names.index(classifier.manifest.positive_class)
        self._threshold = classifier.threshold
        lesion_of = read_lesions(options.lesions)
        self._index = {path: index for index, path in enumerate(lesion_of)}
        self._names = list(dict.fromkeys(lesion_of.values()))
        numbers = {name: number for number, name in enumerate(self._names)}
        self._lesions = np.array([numbers[name] for name in lesion_of.values()])
        self._statuses = np.full(len(lesion_of), ABSENT, np.uint8)
        self._probabilities = np.zeros((len(lesion_of), len(self._class_names)))
        self._unlisted = 0

    def add(self, prediction: Prediction) -> None:
        """Take a prediction of this run or of an earlier one."""
        index = self._index.get(os.path.abspath(prediction.path))
        if index is None:
            self._unlisted += 1
            return
        self._statuses[index] = STATUSES.index(prediction.status)
        if prediction.error is None:
            self._probabilities[index] = [round(prediction.probabilities[name], 6) for name in self._class_names]

    @property
    def complete(self) -> bool:
        """Whether every listed image was among those of the run."""
        return not bool((self._statuses == ABSENT).any())

    def write(self) -> None:
        """Write the file whole, and say what is in it."""
        rows = list(self._rows())
        names = [
            *("lesion", "status", "label", "confidence"),
            *(f"p_{name}" for name in self._class_names),
            *("images", "out_of_distribution", "errors", "absent"),
        ]
        if self._kind == "csv":
            lines = [csv_row(names), *map(csv_row, rows)]
        else:
            lines = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows]
        atomic.write_bytes(self._output, "".join(lines).encode("utf-8", "surrogateescape"))
        counts = Counter(row[2] or row[1] for row in rows)
        listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        say(f"{self._output}: {len(rows)} lesions: {listed}")
        if not self.complete:
            absent = [path for path, index in self._index.items() if self._statuses[index] == ABSENT]
            say(f"{len(absent)} images of {self._list} were not among those of the run, first {absent[0]}")
        if self._unlisted:
            say(f"{self._unlisted} images are not in {self._list} and count for no lesion")

    def _rows(self) -> Iterator[list[str | float | None]]:
        order = np.argsort(self._lesions, kind="stable")
        ends = np.cumsum(np.bincount(self._lesions))
        for name, members in zip(self._names, np.split(order, ends[:-1]), strict=True):
            statuses = self._statuses[members]
            counts = [int((statuses == status).sum()) for status in range(len(STATUSES))]
            status = int(statuses.min())
            used = members[statuses == status]
            values: list[float | None] = [None] * len(self._class_names)
            label = confidence = None
            if status in (OK, OUT_OF_DISTRIBUTION):
                probabilities = self._probabilities[used].mean(axis=0)
                values = [round(float(value), 6) for value in probabilities]
            if status == OK:
                index = int(apply_threshold(probabilities[None], self._threshold, self._positive_index)[0])
                label, confidence = self._class_names[index], values[index]
            yield [name, STATUSES[status], label, confidence, *values, *counts]


def read_lesions(path: Path) -> dict[str, str]:
    """Lesion of each image of a list: CSV with the columns `file,lesion`, files relative to it.

    Returns:
        Absolute path to the name of the lesion, in the order of the list.

    Raises:
        LesionEdgeError: it cannot be read, a row is not whole, or a file is listed for two lesions.
    """
    lesions: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"file", "lesion"} <= set(reader.fieldnames or ()):
                columns = ", ".join(reader.fieldnames or ())
                raise LesionEdgeError(f"{path} has no columns file,lesion; it has {columns}")
            for row in reader:
                file, lesion = row["file"], row["lesion"]
                if not file or not lesion:
                    raise LesionEdgeError(f"{path} has a row without file or lesion: line {reader.line_num}")
                if lesions.setdefault(os.path.abspath(path.parent / file), lesion) != lesion:
                    raise LesionEdgeError(f"{path} lists {file} for two lesions (line {reader.line_num})")
    except OSError as error:
        raise LesionEdgeError(f"cannot read {path}: {error.strerror}") from None
    except csv.Error as error:
        raise LesionEdgeError(f"{path} is no CSV file: {error}") from None
    if not lesions:
        raise LesionEdgeError(f"{path} lists no images")
    return lesions


def _output(options: InferenceOptions) -> Path:
    """File for the answers; one that exists is written anew only with the rows that it came from."""
    output = options.lesions_output
    if output is None:
        if options.output is None:
            raise LesionEdgeError("--lesions needs a file to write: --lesions-output, or --output to be beside")
        output = options.output.with_name(f"{options.output.stem}.lesions{options.output.suffix}")
    if output.exists() and not (options.resume or options.watch):
        raise LesionEdgeError(f"{output} exists already: choose another --lesions-output or remove it")
    if not output.absolute().parent.is_dir():
        raise LesionEdgeError(f"cannot write {output}: its folder does not exist")
    return output
