"""Metrics of a run against the class-named folders of its images (`--evaluate`)."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import metrics
from lesion_edge.intervals import Interval, confidence_intervals, roc_auc_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesion_edge.classifier import Prediction


class Evaluation:
    """Labels and predictions of images in class-named folders, and their metrics.

    An image that is `out_of_distribution` has probabilities and no label: it counts in the figures of
    probabilities (ROC AUC, ECE) and not in those of labels.
    """

    def __init__(self, class_names: Sequence[str], positive_class: str) -> None:
        self.class_names = list(class_names)
        self.positive_class = positive_class
        self._index = {name.casefold(): index for index, name in enumerate(class_names)}
        self.without_label = 0
        """Number of images whose parent folder does not bear the name of a class, in any case."""
        # Arrays and not lists, for 100,000 images and more.
        self._labels, self._predicted, self._probabilities = array("H"), array("H"), array("f")
        self._no_label = len(self.class_names)  # among the indices of predicted classes

    def add(self, prediction: Prediction) -> None:
        """Add one prediction; an image that could not be used does not count."""
        if prediction.error is not None:
            return
        folder = os.path.basename(os.path.dirname(os.path.abspath(prediction.path)))
        if (index := self._index.get(folder.casefold())) is None:
            self.without_label += 1
            return
        label = self._no_label if prediction.label is None else self.class_names.index(prediction.label)
        self._labels.append(index)
        self._predicted.append(label)
        self._probabilities.extend(prediction.probabilities[name] for name in self.class_names)

    def result(self) -> dict[str, Any]:
        """Metrics of `lesion_edge.metrics.evaluate`, and `out_of_distribution`: images (K,) without a label.

        `images`, `confusion_matrix` and what follows from it are about the other images.
        """
        labels, predicted = np.array(self._labels, np.int64), np.array(self._predicted, np.int64)
        probabilities = np.array(self._probabilities).reshape(-1, len(self.class_names))
        has_label = predicted != self._no_label

        def figures(selected: NDArray[np.bool_], predicted: NDArray[np.int64]) -> dict[str, Any]:
            return metrics.evaluate(
                labels[selected],
                probabilities[selected],
                predicted[selected],
                self.class_names,
                self.positive_class,
            )

        everything = figures(np.ones_like(has_label), np.where(has_label, predicted, 0))
        of_probabilities = {name: everything[name] for name in ("roc_auc", "ece")}
        refused = np.bincount(labels[~has_label], minlength=len(self.class_names)).tolist()
        return {**figures(has_label, predicted), **of_probabilities, "out_of_distribution": refused}

    def table(self) -> str:
        """Table of the metrics with 95 % confidence intervals, and the confusion matrix."""
        result = self.result()
        matrix, refused = result.pop("confusion_matrix"), result.pop("out_of_distribution")
        intervals: dict[str, Interval | None] = {
            **confidence_intervals(matrix, self.class_names, self.positive_class, None)
        }
        if (auc := result["roc_auc"]) is not None:
            positives = self._labels.count(self.class_names.index(self.positive_class))
            intervals["roc_auc"] = roc_auc_interval(auc, positives, len(self._labels) - positives)
        names = [*self.class_names, *(["out_of_distribution"] if any(refused) else [])]
        width = max(12, *(len(name) + 2 for name in names))
        lines = [f"against the folder names ({self.positive_class} against the rest), 95 % intervals:"]
        lines += [
            f"  {name:<14}{_figure(value)}{_interval(intervals.get(name))}" for name, value in result.items()
        ]
        lines.append("  label \\ predicted".ljust(width + 2) + "".join(name.rjust(width) for name in names))
        for name, row, count in zip(self.class_names, matrix, refused, strict=True):
            cells = [*row, count][: len(names)]
            lines.append(f"  {name:<{width}}" + "".join(str(cell).rjust(width) for cell in cells))
        if any(refused):
            lines.append(self._about_refused(matrix, refused))
        if self.without_label:
            lines.append(f"  not compared: {self.without_label} images whose folder is not called like a class")
        return "\n".join(lines)

    def _about_refused(self, matrix: Sequence[Sequence[int]], refused: Sequence[int]) -> str:
        index = self.class_names.index(self.positive_class)
        line = f"  {sum(refused)} out of distribution: in roc_auc and ece, in no other figure"
        if total := sum(matrix[index]) + refused[index]:
            line += f"; with them as not found, sensitivity is {matrix[index][index] / total:.4f}"
        return line


def _figure(value: float | int | None) -> str:
    return "undefined" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"  {interval[0]:.4f} to {interval[1]:.4f}"
