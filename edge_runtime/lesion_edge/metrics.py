"""Metrics of a classifier in NumPy alone, so that a device can evaluate itself.

Shapes: N images, K classes. scikit-learn is the reference in the tests.
"""

from __future__ import annotations

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


def evaluate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    predicted: ArrayLike,
    class_names: Sequence[str],
    positive_class: str,
) -> dict[str, Any]:
    """Metrics of predictions against labels.

    Args:
        labels: (N,) index of the class of each image.
        probabilities: (N, K), rows sum to 1.
        predicted: (N,) index of the predicted class, after the threshold.
        class_names: the K names, in the order of the probabilities.
        positive_class: the class to detect; sensitivity, specificity, ROC AUC and calibration take it against the
            rest. Precision, recall and F1 are those of this class for K = 2 and macro averages for K > 2.

    Returns:
        JSON-ready: `images`, `accuracy`, `precision`, `recall`, `f1`, `sensitivity`, `specificity`, `roc_auc`,
        `ece` (None where undefined) and `confusion_matrix` (rows labels, columns predictions).
    """
    labels, probabilities = np.asarray(labels, np.int64), np.asarray(probabilities, float)
    matrix = confusion_matrix(labels, predicted, len(class_names))
    true_positives, actual, predicted_positive = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    index = list(class_names).index(positive_class)
    is_positive = labels == index
    score = probabilities[:, index] if len(labels) else np.empty(0)
    averaged = [index] if len(class_names) == 2 else list(range(len(class_names)))
    others = matrix.sum() - actual[index]
    figures = {
        "accuracy": _ratio(true_positives.sum(), matrix.sum()),
        "precision": _mean(_ratio(true_positives[c], predicted_positive[c], empty=0.0) for c in averaged),
        "recall": _mean(_ratio(true_positives[c], actual[c], empty=0.0) for c in averaged),
        "f1": _mean(_ratio(2 * true_positives[c], actual[c] + predicted_positive[c], empty=0.0) for c in averaged),
        "sensitivity": _ratio(true_positives[index], actual[index]),
        "specificity": _ratio(others - (predicted_positive[index] - true_positives[index]), others),
        "roc_auc": roc_auc(is_positive, score),
        "ece": expected_calibration_error(is_positive, score),
    }
    defined = {name: None if np.isnan(value) else float(value) for name, value in figures.items()}
    return {"images": len(labels), **defined, "confusion_matrix": matrix.tolist()}


def _ratio(count: Any, total: Any, empty: float = float("nan")) -> float:
    return float(count / total) if total else empty


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
