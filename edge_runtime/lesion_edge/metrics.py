"""Metrics of a classifier in NumPy alone, so that a device can evaluate itself.

Shapes: N images, K classes. scikit-learn is the reference in the tests.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Confusion matrix (K, K) of class indices (N,): rows labels, columns predictions."""
    flat = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def roc_auc(labels: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve, from the ranks of the scores (ties count half; Hanley and McNeil 1982).

    Args:
        labels: (N,) 1 for the positive class, else 0.
        score: (N,) any real numbers, higher for the positive class.

    Returns:
        0 to 1, or nan where one of the classes is missing.
    """
    is_positive = np.asarray(labels, bool)
    n_positive, n_negative = int(is_positive.sum()), int((~is_positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(np.asarray(score), return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    wins = rank[is_positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))


def expected_calibration_error(labels: ArrayLike, probability: ArrayLike, bins: int = 10) -> float:
    """Mean gap between predicted probability and observed frequency over equal-width bins, by their counts.

    Args:
        labels: (N,) 1 for the positive class, else 0.
        probability: (N,) 0 to 1, of the positive class.

    Returns:
        0 (calibrated) to 1, or nan for no images.
    """
    labels, probability = np.asarray(labels, float), np.asarray(probability, float)
    if not labels.size:
        return float("nan")
    index = np.minimum((probability * bins).astype(int), bins - 1)
    gap = np.bincount(index, weights=probability - labels, minlength=bins)
    return float(np.abs(gap).sum() / labels.size)


@dataclass(frozen=True)
class Metrics:
    """Metrics of N images of K classes at one threshold; None where a metric is undefined.

    Sensitivity, specificity, ROC AUC and ECE take the positive class against all others. Precision, recall and F1
    are those of the positive class for K = 2 and macro averages for K > 2, with 0 for a class that has none.
    """

    images: int
    """N."""
    accuracy: float | None
    """Proportion of the images with the right label."""
    precision: float
    """Proportion of the predicted positives that are positive."""
    recall: float
    """Proportion of the positives that are predicted positive."""
    f1: float
    """Harmonic mean of precision and recall."""
    sensitivity: float | None
    """Proportion of the positives that are predicted positive."""
    specificity: float | None
    """Proportion of the negatives that are predicted negative."""
    roc_auc: float | None
    """Area under the ROC curve; see `roc_auc`."""
    ece: float | None
    """Expected calibration error; see `expected_calibration_error`."""
    confusion_matrix: list[list[int]]
    """Counts (K, K): rows labels, columns predictions."""

    def as_dict(self) -> dict[str, Any]:
        """Fields by name, ready for JSON."""
        return asdict(self)


def evaluate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    predicted: ArrayLike,
    class_names: Sequence[str],
    positive_class: str,
) -> Metrics:
    """Metrics of predictions against labels.

    Args:
        labels: (N,) index of the class of each image.
        probabilities: (N, K), rows sum to 1.
        predicted: (N,) index of the predicted class, after the threshold.
        class_names: the K names, in the order of the probabilities.
        positive_class: the class to detect.
    """
    labels, probabilities = np.asarray(labels, np.int64), np.asarray(probabilities, float)
    predicted = np.asarray(predicted, np.int64)
    matrix = confusion_matrix(labels, predicted, len(class_names))
    correct, of_label, of_prediction = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    index = list(class_names).index(positive_class)
    is_positive = labels == index
    score = probabilities[:, index] if len(labels) else np.empty(0)
    averaged = [index] if len(class_names) == 2 else list(range(len(class_names)))
    sensitivity, specificity = sensitivity_specificity(is_positive, predicted == index)
    return Metrics(
        images=len(labels),
        accuracy=_defined(_ratio(correct.sum(), matrix.sum())),
        precision=_mean(_ratio(correct[c], of_prediction[c], empty=0.0) for c in averaged),
        recall=_mean(_ratio(correct[c], of_label[c], empty=0.0) for c in averaged),
        f1=_mean(_ratio(2 * correct[c], of_label[c] + of_prediction[c], empty=0.0) for c in averaged),
        sensitivity=_defined(sensitivity),
        specificity=_defined(specificity),
        roc_auc=_defined(roc_auc(is_positive, score)),
        ece=_defined(expected_calibration_error(is_positive, score)),
        confusion_matrix=matrix.tolist(),
    )


def sensitivity_specificity(is_positive: ArrayLike, predicted_positive: ArrayLike) -> tuple[float, float]:
    """Sensitivity and specificity of N images, 0 to 1; nan where there is no positive, or no negative.

    Args:
        is_positive: bool (N,), whether the label is the positive class.
        predicted_positive: bool (N,), whether the prediction is.
    """
    is_positive, predicted_positive = np.asarray(is_positive, bool), np.asarray(predicted_positive, bool)
    return (
        _ratio((predicted_positive & is_positive).sum(), is_positive.sum()),
        _ratio((~predicted_positive & ~is_positive).sum(), (~is_positive).sum()),
    )


def format_metric(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Metric with three decimals, and its interval in brackets; a dash where it is undefined."""
    text = "–" if value is None else f"{value:.3f}"
    return text if interval is None else f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _ratio(count: Any, total: Any, empty: float = float("nan")) -> float:
    return float(count / total) if total else empty


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
