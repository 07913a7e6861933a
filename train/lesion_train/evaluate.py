"""Judges a trained model on both parts of the split, in figures and in images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import metrics
from lesion_train import plots

if TYPE_CHECKING:
    from lesion_train.recipe import TrainingResult

WORST_MISTAKES = 24


def evaluate(trained: TrainingResult, positive_class: str) -> dict[str, Any]:
    """Metrics of `lesion_edge.metrics.evaluate` for `train` and `validation`, by the most probable class."""
    return {
        name: metrics.evaluate(
            [sample.label for sample in part.samples],
            trained.probabilities[name],
            trained.probabilities[name].argmax(axis=1),
            trained.class_names,
            positive_class,
        )
        for name, part in trained.parts.items()
        if name in trained.probabilities
    }


def draw_plots(trained: TrainingResult, figures: dict[str, Any], positive_class: str, folder: Path) -> None:
    """Write training curves, ROC, confusion matrix, reliability diagram and the worst mistakes as PNG."""
    positive = trained.class_names.index(positive_class)
    truth = {name: np.array([sample.label for sample in part.samples]) for name, part in trained.parts.items()}
    scores = {name: values[:, positive] for name, values in trained.probabilities.items()}
    plots.plot_history(trained.history, folder / "curves.png")
    plots.plot_roc({name: (truth[name] == positive, scores[name]) for name in scores}, folder / "roc.png")
    matrix = np.array(figures["validation"]["confusion_matrix"])
    plots.plot_confusion(matrix, trained.class_names, folder / "confusion.png")
    plots.plot_reliability(truth["validation"] == positive, scores["validation"], folder / "reliability.png")
    plots.contact_sheet(_worst_mistakes(trained), folder / "mistakes.png")


def table(figures: dict[str, Any]) -> str:
    """The figures of all parts side by side."""
    names = [key for key in next(iter(figures.values())) if key != "confusion_matrix"]
    lines = [" " * 14 + "".join(part.rjust(12) for part in figures)]
    for name in names:
        cells = (figures[part][name] for part in figures)
        lines.append(
            f"{name:<14}"
            + "".join(
                ("-" if c is None else f"{c:.4f}" if isinstance(c, float) else str(c)).rjust(12) for c in cells
            )
        )
    return "\n".join(lines)


def _worst_mistakes(trained: TrainingResult) -> list[tuple[Path, str, str, float]]:
    """Validation images with a wrong label, the most confident first."""
    part, probabilities = trained.parts["validation"], trained.probabilities["validation"]
    predicted, names = probabilities.argmax(axis=1), trained.class_names
    wrong = [
        (trained.root / sample.file, names[sample.label], names[label], float(row[label]))
        for sample, row, label in zip(part.samples, probabilities, predicted, strict=True)
        if label != sample.label
    ]
    return sorted(wrong, key=lambda mistake: -mistake[3])[:WORST_MISTAKES]
