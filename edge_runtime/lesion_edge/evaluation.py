"""Compares predictions with the folder each image lies in, and words the outcome for a person."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import metrics
from lesion_edge.intervals import confidence_intervals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesion_edge.classifier import Prediction


class Evaluation:
    """Collects predictions whose image lies in a folder named after a class."""

    def __init__(self, class_names: Sequence[str], positive_class: str) -> None:
        self.class_names = list(class_names)
        self.positive_class = positive_class
        self.without_truth = 0
        """Images whose parent folder is not called like a class."""
        self.without_label = 0
        """Images that could be used, but got no label; they are in no figure."""
        # Arrays and not lists, for 100,000 images and more.
        self._truth, self._predicted, self._probabilities = array("H"), array("H"), array("f")

    def add(self, prediction: Prediction) -> None:
        """Take in one prediction; an image that could not be used does not count."""
        if prediction.error is not None:
            return
        folder = os.path.basename(os.path.dirname(os.path.abspath(prediction.path)))
        if folder not in self.class_names:
            self.without_truth += 1
            return
        if prediction.label is None:
            self.without_label += 1
            return
        self._truth.append(self.class_names.index(folder))
        self._predicted.append(self.class_names.index(prediction.label))
        self._probabilities.extend(prediction.probabilities[name] for name in self.class_names)

    def result(self) -> dict[str, Any]:
        """The figures of `lesion_edge.metrics.evaluate`."""
        probabilities = np.array(self._probabilities).reshape(-1, len(self.class_names))
        return metrics.evaluate(self._truth, probabilities, self._predicted, self.class_names, self.positive_class)

    def table(self) -> str:
        """The figures as text, with 95 % confidence intervals and the confusion matrix."""
        result = self.result()
        matrix = result.pop("confusion_matrix")
        intervals = confidence_intervals(matrix, self.class_names, self.positive_class, result["roc_auc"])
        width = max(12, *(len(name) + 2 for name in self.class_names))
        lines = [f"against the folder names ({self.positive_class} against the rest), 95 % intervals:"]
        lines += [
            f"  {name:<14}{_figure(value)}{_interval(intervals.get(name))}" for name, value in result.items()
        ]
        lines.append("  truth \\ label".ljust(width + 2) + "".join(name.rjust(width) for name in self.class_names))
        for name, row in zip(self.class_names, matrix, strict=True):
            lines.append(f"  {name:<{width}}" + "".join(str(count).rjust(width) for count in row))
        if self.without_truth:
            lines.append(f"  not compared: {self.without_truth} images whose folder is not called like a class")
        if self.without_label:
            lines.append(f"  not compared: {self.without_label} images without a label")
        return "\n".join(lines)


def _figure(value: float | int | None) -> str:
    return "undefined" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"  {interval[0]:.4f} to {interval[1]:.4f}"
