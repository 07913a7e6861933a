"""Metrics and plots of a trained model on both splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import metrics
from lesion_train import plots

if TYPE_CHECKING:
    from lesion_train.recipe import TrainingResult

WORST_MISTAKES = 24


def evaluate(trained: TrainingResult) -> dict[str, Any]:
    """Metrics of `lesion_edge.metrics.evaluate` for `train` and `validation`, by the most probable class."""
    return {
        name: metrics.evaluate(
            trained.data.labels(name).tolist(),
            probabilities,
            probabilities.argmax(axis=1),
            trained.data.class_names,
            trained.data.positive_class,
        ).as_dict()
        for name, probabilities in trained.probabilities.items()
    }


def draw_plots(trained: TrainingResult, figures: dict[str, Any], folder: Path) -> None:
    """Write training curves, ROC, confusion matrix, reliability diagram and the worst mistakes as PNG."""
    names = trained.data.class_names
    positive_index = names.index(trained.data.positive_class)
    curves = {
        name: (trained.data.labels(name) == positive_index, probabilities[:, positive_index])
        for name, probabilities in trained.probabilities.items()
    }
    plots.plot_history(trained.history, folder / "curves.png")
    plots.plot_roc(curves, folder / "roc.png")
    plots.plot_confusion(np.array(figures["validation"]["confusion_matrix"]), names, folder / "confusion.png")
    plots.plot_reliability(*curves["validation"], folder / "reliability.png")
    plots.contact_sheet(_worst_mistakes(trained), folder / "mistakes.png")


def table(figures: dict[str, Any]) -> str:
    """Text table of the metrics, splits side by side."""
    names = [key for key in next(iter(figures.values())) if key != "confusion_matrix"]
    lines = [" " * 14 + "".join(split.rjust(12) for split in figures)]
    for name in names:
        cells = (figures[split][name] for split in figures)
        lines.append(
            f"{name:<14}"
            + "".join((str(c) if isinstance(c, int) else metrics.format_metric(c)).rjust(12) for c in cells)
        )
    return "\n".join(lines)


def _worst_mistakes(trained: TrainingResult) -> list[tuple[Path, str, str, float]]:
    """Validation images with a wrong label, the most confident first."""
    data, probabilities = trained.data, trained.probabilities["validation"]
    names, samples = data.class_names, data.splits["validation"].samples
    mistakes = [
        (data.root / sample.file, names[sample.label], names[label], float(row[label]))
        for sample, row, label in zip(samples, probabilities, probabilities.argmax(axis=1), strict=True)
        if label != sample.label
    ]
    return sorted(mistakes, key=lambda mistake: -mistake[3])[:WORST_MISTAKES]
