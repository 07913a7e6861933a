"""95 % confidence intervals of metrics.

`wilson` and `roc_auc_interval` take the images as independent; `bootstrap_interval` resamples whole lesions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy.typing import NDArray

Z = 1.959964
"""97.5 % quantile of the normal distribution."""

Interval = tuple[float, float]

RESAMPLES = 1000
SMALLEST_CLASS = 20
"""Lesions that each class needs for a bootstrap interval; with fewer it would be too narrow."""


def wilson(successes: float, total: int) -> Interval | None:
    """Interval of a proportion (Wilson 1927, score method); None for no images."""
    if not total:
        return None
    proportion = successes / total
    center = (proportion + Z * Z / (2 * total)) / (1 + Z * Z / total)
    half = Z / (1 + Z * Z / total) * math.sqrt(proportion * (1 - proportion) / total + Z * Z / (4 * total * total))
    return max(0.0, center - half), min(1.0, center + half)


def roc_auc_interval(auc: float, positives: int, negatives: int) -> Interval | None:
    """Interval of an area under the ROC curve (Newcombe 2006, method 5); None where it is undefined.

    It inverts the score test with Hanley and McNeil's variance, and so holds near 1 and for few images too.
    """
    if not positives or not negatives:
        return None
    mean = (positives + negatives) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + mean * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(theta - auc) - Z * math.sqrt(theta * (1 - theta) * spread / (positives * negatives))

    def crossing(inside: float, outside: float) -> float:
        if excess(outside) <= 0:
            return outside
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if excess(middle) > 0 else (middle, outside)
        return inside

    return crossing(auc, 0.0), crossing(auc, 1.0)


def confidence_intervals(
    matrix: Sequence[Sequence[int]], class_names: Sequence[str], positive: str, auc: float | None
) -> dict[str, Interval]:
    """Intervals of what `lesion_edge.metrics.evaluate` gives, by its names; the undefined ones are left out.

    Proportions get Wilson's interval, ROC AUC Newcombe's, F1 and macro averages the percentile bootstrap over the
    confusion matrix (2,000 draws, always the same).

    Args:
        matrix: (K, K) counts, rows labels, columns prediction.
        class_names: the K names.
        positive: the class to detect.
        auc: 0 to 1, or None.
    """
    counts = np.asarray(matrix, np.int64)
    index = list(class_names).index(positive)
    successes, actual, called = int(counts[index, index]), int(counts[index].sum()), int(counts[:, index].sum())
    total = int(counts.sum())
    others = total - actual
    found = {
        "accuracy": wilson(int(counts.trace()), total),
        "precision": wilson(successes, called),
        "recall": wilson(successes, actual),
        "sensitivity": wilson(successes, actual),
        "specificity": wilson(others - (called - successes), others),
        "roc_auc": None if auc is None else roc_auc_interval(auc, actual, others),
    }
    if total:
        drawn = np.random.default_rng(0).multinomial(total, counts.ravel() / total, 2000)
        averages = _averages(drawn.reshape(-1, *counts.shape), index)
        wanted = ["f1"] if len(class_names) == 2 else ["precision", "recall", "f1"]
        for name in wanted:
            low, high = np.quantile(averages[name], [0.025, 0.975])
            found[name] = float(low), float(high)
    return {name: interval for name, interval in found.items() if interval is not None}


def _averages(matrices: NDArray[np.int64], positive: int) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 of (B, K, K) matrices: of the positive class for K = 2, else macro averages."""
    successes = np.diagonal(matrices, axis1=1, axis2=2)
    actual, called = matrices.sum(axis=2), matrices.sum(axis=1)
    averaged = [positive] if matrices.shape[1] == 2 else list(range(matrices.shape[1]))
    return {
        name: (part / np.maximum(whole, 1))[:, averaged].mean(axis=1)
        for name, part, whole in (
            ("precision", successes, called),
            ("recall", successes, actual),
            ("f1", 2 * successes, actual + called),
        )
    }


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], Any],
    labels: NDArray[np.int64],
    lesions: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Any:
    """Bootstrap interval of any statistic: lesions drawn again with replacement within each class.

    Args:
        statistic: takes indices of images; gives a number, or a list of them.
        labels: (N,) class indices.
        lesions: (N,) numbers of the lesions; the images of one come together, since they are no more independent
            than that. None: each image is a lesion of its own.

    Returns:
        `[low, high]`, or a list of them for a list; None where a class has fewer than `SMALLEST_CLASS` lesions.
    """
    classes = _images_by_lesion(labels, np.arange(len(labels)) if lesions is None else lesions)
    if len(classes) < 2 or min(map(len, classes)) < SMALLEST_CLASS:
        return None
    rng = np.random.default_rng(seed)

    def draw() -> NDArray[np.int64]:
        return np.concatenate([found[i] for found in classes for i in rng.integers(len(found), size=len(found))])

    values = np.array([statistic(draw()) for _ in range(RESAMPLES)], float)
    bounds = np.nanpercentile(values, (2.5, 97.5), axis=0).T
    return bounds.tolist()


def _images_by_lesion(labels: NDArray[np.int64], lesions: NDArray[np.int64]) -> list[list[NDArray[np.int64]]]:
    """For each class, the indices of the images of each lesion."""
    classes = []
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        images = images[np.argsort(lesions[images], kind="stable")]
        _, starts = np.unique(lesions[images], return_index=True)
        classes.append(np.split(images, starts[1:]))
    return classes
