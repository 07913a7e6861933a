"""Compares predictions with the folder each image lies in, and words the outcome for a person."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lesion_edge import metrics

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from lesion_edge.classifier import Prediction


class Evaluation:
    """Collects predictions whose image lies in a folder named after a class."""

    def __init__(self, class_names: Sequence[str], positive_class: str) -> None:
        self.class_names = list(class_names)
        self.positive_class = positive_class
        self.without_truth = 0
        """Images whose parent folder is not called like a class."""
        self._truth: list[int] = []
        self._predicted: list[int] = []
        self._probabilities: list[list[float]] = []

    def add(self, prediction: Prediction) -> None:
        """Take in one prediction; an image that could not be used does not count."""
        if prediction.label is None:
            return
        folder = os.path.basename(os.path.dirname(os.path.abspath(prediction.path)))
        if folder not in self.class_names:
            self.without_truth += 1
            return
        self._truth.append(self.class_names.index(folder))
        self._predicted.append(self.class_names.index(prediction.label))
        self._probabilities.append(list(prediction.probabilities.values()))

    def result(self) -> dict[str, Any]:
        """The figures of `lesion_edge.metrics.evaluate`."""
        return metrics.evaluate(
            self._truth, self._probabilities, self._predicted, self.class_names, self.positive_class
        )

    def table(self) -> str:
        """The figures as text, with the confusion matrix."""
        result = self.result()
        matrix = result.pop("confusion_matrix")
        width = max(12, *(len(name) + 2 for name in self.class_names))
        lines = [f"against the folder names ({self.positive_class} against the rest):"]
        lines += [f"  {name:<14}{_figure(value)}" for name, value in result.items()]
        lines.append("  truth \\ label".ljust(width + 2) + "".join(name.rjust(width) for name in self.class_names))
        for name, row in zip(self.class_names, matrix, strict=True):
            lines.append(f"  {name:<{width}}" + "".join(str(count).rjust(width) for count in row))
        if self.without_truth:
            lines.append(f"  not compared: {self.without_truth} images whose folder is not called like a class")
        return "\n".join(lines)


def summary(counts: Counter[str]) -> str:
    """One line: how many images, by label and by reason of failure."""
    parts = ", ".join(f"{count} {key}" for key, count in counts.most_common())
    return f"{counts.total()} images: {parts}"


def _figure(value: float | int | None) -> str:
    return "undefined" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
