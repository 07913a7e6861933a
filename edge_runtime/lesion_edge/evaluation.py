"""Metrics of a run against the class-named folders of its images (`--evaluate`)."""

from __future__ import annotations

import os
from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lesion_edge.intervals import confidence_intervals, roc_auc_interval
from lesion_edge.metrics import Metrics, evaluate, format_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesion_edge.prediction import Prediction


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

    def metrics(self) -> Metrics:
        """Metrics of the images with a label; ROC AUC and ECE of all images that have probabilities."""
        labels, predicted = np.array(self._labels, np.int64), np.array(self._predicted, np.int64)
        probabilities = np.array(self._probabilities).reshape(-1, len(self.class_names))
        has_label = predicted != self._no_label
        names, positive_class = self.class_names, self.positive_class
        labelled = evaluate(
            labels[has_label], probabilities[has_label], predicted[has_label], names, positive_class
        )
        everything = evaluate(labels, probabilities, np.where(has_label, predicted, 0), names, positive_class)
        return replace(labelled, roc_auc=everything.roc_auc, ece=everything.ece)

    def refused(self) -> list[int]:
        """Number of images of each class (K,) that are `out_of_distribution`."""
        labels, predicted = np.array(self._labels, np.int64), np.array(self._predicted, np.int64)
        counts = np.bincount(labels[predicted == self._no_label], minlength=len(self.class_names))
        return [int(count) for count in counts]

    def table(self) -> str:
        """Table of the metrics with 95 % confidence intervals, and the confusion matrix."""
        metrics = self.metrics()
        intervals = confidence_intervals(metrics.confusion_matrix, self.class_names, self.positive_class)
        if metrics.roc_auc is not None:
            positives = self._labels.count(self.class_names.index(self.positive_class))
            interval = roc_auc_interval(metrics.roc_auc, positives, len(self._labels) - positives)
            intervals |= {"roc_auc": interval} if interval is not None else {}
        values = metrics.as_dict()
        matrix, images = values.pop("confusion_matrix"), values.pop("images")
        lines = [f"against the folder names ({self.positive_class} against the rest), 95 % intervals:"]
        lines.append(f"  {'images':<14}{images}")
        for name, value in values.items():
            text = "undefined" if value is None else format_metric(value, intervals.get(name))
            lines.append(f"  {name:<14}{text}")
        lines += self._matrix_lines(matrix)
        if self.without_label:
            lines.append(f"  not compared: {self.without_label} images whose folder is not called like a class")
        return "\n".join(lines)

    def _matrix_lines(self, matrix: Sequence[Sequence[int]]) -> list[str]:
        refused = self.refused()
        names = [*self.class_names, *(["out_of_distribution"] if any(refused) else [])]
        width = max(12, *(len(name) + 2 for name in names))
        lines = ["  label \\ predicted".ljust(width + 2) + "".join(name.rjust(width) for name in names)]
        for name, row, count in zip(self.class_names, matrix, refused, strict=True):
            cells = [*row, count][: len(names)]
            lines.append(f"  {name:<{width}}" + "".join(str(cell).rjust(width) for cell in cells))
        if any(refused):
            lines.append(self._refused_line(matrix, refused))
        return lines

    def _refused_line(self, matrix: Sequence[Sequence[int]], refused: Sequence[int]) -> str:
        index = self.class_names.index(self.positive_class)
        line = f"  {sum(refused)} out of distribution: in roc_auc and ece, in no other figure"
        if total := sum(matrix[index]) + refused[index]:
            line += f"; with them as not found, sensitivity is {format_metric(matrix[index][index] / total)}"
        return line
