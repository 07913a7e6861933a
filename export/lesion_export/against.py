"""Comparison with an earlier bundle, on the same validation images."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import Classifier, metrics
from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.intervals import bootstrap_interval
from lesion_export.gates import Gate
from lesion_export.operating_point import Answers

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from numpy.typing import NDArray

    from lesion_edge.intervals import Interval
    from lesion_export.pipeline import MeasuredVariant
    from lesion_export.run_images import ValidationSet
    from lesion_train.run import Run

COLUMNS = ("file", "label", "diagnosis", "old_answer", "new_answer", "old_probability", "new_probability")
RATES = ("ROC AUC", "sensitivity", "specificity")


@dataclass(frozen=True)
class Comparison:
    """A variant less an earlier bundle's."""

    bundle: str
    """Digest of the earlier manifest."""
    variant: str
    old_variant: str
    differences: dict[str, float]
    """For each of `RATES`."""
    intervals: dict[str, Interval | None]
    """95 %, of lesions drawn again for both; None where a class has too few."""
    changed: list[dict[str, Any]]
    """A row of `COLUMNS` for each image with another answer."""

    def gates(self, max_loss: float) -> list[Gate]:
        """Gates of what the new variant loses."""
        return [
            Gate(self.variant, f"{rate} lost to old bundle", -self.differences[rate], max_loss) for rate in RATES
        ]

    def write_changed(self, stream: TextIO) -> None:
        """Write the changed answers as CSV."""
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.changed)

    def record(self) -> dict[str, Any]:
        """Fields of the comparison in the manifest's provenance."""
        return {**asdict(self), "changed": len(self.changed)}

    def sentence(self) -> str:
        """Differences with their intervals, and how many answers changed."""
        figures = ", ".join(
            f"{rate} {self.differences[rate]:+.3f}" + (" [{:+.3f}, {:+.3f}]".format(*interval) if interval else "")
            for rate, interval in self.intervals.items()
        )
        names = f"{self.variant} less the old bundle's {self.old_variant}"
        return f"{names}: {figures}; {len(self.changed)} answers changed"


def open_earlier(bundle: Path, run: Run) -> Classifier:
    """Open the earlier bundle as a device without a GPU does.

    Raises:
        LesionEdgeError: it cannot be used, or tells other classes apart.
    """
    classifier = Classifier.load(bundle, "cpu")
    old = classifier.manifest
    if (old.class_names, old.positive_class) != (run.class_names, run.positive_class):
        raise LesionEdgeError(
            f"--against {bundle} tells {', '.join(old.class_names)} apart, to detect {old.positive_class}: "
            f"not {', '.join(run.class_names)}, to detect {run.positive_class}"
        )
    if old.provenance.get("data_digest") != run.record["data"]["digest"]:
        say(f"warning: {bundle} was trained on other images, perhaps on some of those of the comparison")
    return classifier


def earlier_answers(classifier: Classifier, run: Run) -> Answers:
    """Answers of an earlier bundle for the validation images, each read at the size that it takes.

    Raises:
        LesionEdgeError: an image cannot be read.
    """
    names = list(run.class_names)
    predictions = list(classifier.predict([run.root / sample.file for sample in run.validation]))
    for prediction in predictions:
        if prediction.error is not None:
            raise LesionEdgeError(f"{prediction.path}: {prediction.error}")
    probabilities = np.array([[each.probabilities[name] for name in names] for each in predictions])
    refused = np.array([each.label is None for each in predictions])
    labels = np.array([0 if each.label is None else names.index(each.label) for each in predictions], np.int64)
    return Answers(probabilities, labels, refused, names.index(run.positive_class))


def compare_with_earlier(
    classifier: Classifier, variant: MeasuredVariant, run: Run, validation: ValidationSet
) -> Comparison:
    """Compare with an earlier bundle: a refused image is neither found nor cleared.

    Raises:
        LesionEdgeError: an image cannot be read.
    """
    old, new, is_positive = earlier_answers(classifier, run), variant.answers, validation.is_positive

    def differences(index: NDArray[np.int64]) -> list[float]:
        return [after - before for before, after in zip(rates(old, index), rates(new, index), strict=True)]

    def rates(answers: Answers, index: NDArray[np.int64]) -> list[float]:
        positive = is_positive[index]
        return [
            metrics.roc_auc(positive, answers.positive_score[index]),
            float(answers.predicted_positive[index][positive].mean()),
            float(answers.predicted_negative[index][~positive].mean()),
        ]

    intervals = bootstrap_interval(differences, validation.labels, validation.lesions) or [None] * len(RATES)
    return Comparison(
        classifier.manifest.digest,
        variant.name,
        classifier.variant,
        dict(zip(RATES, differences(np.arange(len(is_positive))), strict=True)),
        dict(zip(RATES, intervals, strict=True)),
        changed_answers(old, new, run),
    )


def changed_answers(old: Answers, new: Answers, run: Run) -> list[dict[str, Any]]:
    """A row of `COLUMNS` for each validation image with another answer."""
    names = run.class_names
    rows = []
    for index, sample in enumerate(run.validation):
        before, after = (
            names[answers.labels[index]] if answers.answered[index] else "out_of_distribution"
            for answers in (old, new)
        )
        if before != after:
            scores = (f"{answers.positive_score[index]:.4f}" for answers in (old, new))
            row = (sample.file, names[sample.label], sample.diagnosis or "", before, after, *scores)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows
