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
    matrix: Sequence[Sequence[int]], class_names: Sequence[str], positive_class: str
) -> dict[str, Interval]:
    """Wilson intervals of the metrics that are proportions of images, by their names in `lesion_edge.metrics`.

    F1, macro averages and ECE are no proportions and have none; for ROC AUC see `roc_auc_interval`.

    Args:
        matrix: (K, K) counts, rows labels, columns predictions.
        class_names: the K names.
        positive_class: the class to detect.
    """
    counts = np.asarray(matrix, np.int64)
    index = list(class_names).index(positive_class)
    total, positives, predicted_positives = counts.sum(), counts[index].sum(), counts[:, index].sum()
    true_positives, negatives = counts[index, index], total - positives
    true_negatives = negatives - (predicted_positives - true_positives)
    proportions = {
        "accuracy": (counts.trace(), total),
        "sensitivity": (true_positives, positives),
        "specificity": (true_negatives, negatives),
    }
    if len(class_names) == 2:
        proportions["precision"] = (true_positives, predicted_positives)
        proportions["recall"] = proportions["sensitivity"]
    intervals = {name: wilson(int(successes), int(of)) for name, (successes, of) in proportions.items()}
    return {name: interval for name, interval in intervals.items() if interval is not None}


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

    def resample() -> NDArray[np.int64]:
        return np.concatenate(
            [lesions[i] for lesions in classes for i in rng.integers(len(lesions), size=len(lesions))]
        )

    values = np.array([statistic(resample()) for _ in range(RESAMPLES)], float)
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
