"""From logits to labels: temperature and threshold, fitted on a variant's own validation outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_edge import metrics
from lesion_edge.classifier import apply_threshold
from lesion_edge.intervals import bootstrap_interval
from lesion_export.outlier_graph import fit_limit

if TYPE_CHECKING:
    pass

TARGET_SENSITIVITY = 0.95
SMALLEST_BETA, LARGEST_BETA = 0.02, 20.0
"""Bounds of 1 / temperature."""


@dataclass(frozen=True)
class Outputs:
    """What one variant makes of the validation images, and how it decides."""

    logits: NDArray[np.float32]
    """(N, K)."""
    temperature: float
    threshold: float | None
    """Probability of the positive class from which on it is the label; None: the most probable class."""
    positive: int
    outliers: NDArray[np.float32] | None = None
    """(N,), before they are divided by the limit; None where the run has no score."""
    outlier_limit: float | None = None
    """The score above which an image is `out_of_distribution`."""

    @property
    def refused(self) -> NDArray[np.bool_] | None:
        """(N,), what the device does not answer for; a score that is no number counts among it."""
        if self.outliers is None or self.outlier_limit is None:
            return None
        return ~(self.outliers <= self.outlier_limit)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, K)."""
        return softmax(self.logits / self.temperature)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices (N,), as the device gives them."""
        return apply_threshold(self.probabilities, self.threshold, self.positive)


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities (N, K) of logits (N, K)."""
    exponents = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def fit_temperature(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """The temperature with the least cross-entropy (Guo et al. 2017, arXiv:1706.04599).

    The targets of a class with n of the images are (n + 1) / (n + K) rather than 1 (Platt 1999), so that a few
    images that are all right do not make the model certain.

    Args:
        logits: (N, K).
        truth: (N,) class indices.
    """
    values = logits.astype(float)
    classes = values.shape[1]
    counts = np.bincount(truth, minlength=classes)
    target = (np.eye(classes) * counts[:, None] + 1) / (counts[:, None] + classes)
    wanted = (target[truth] * values).sum(axis=1)

    def slope(beta: float) -> float:
        """Of the cross-entropy by beta = 1 / temperature, in which it is convex."""
        return float(((softmax(beta * values) * values).sum(axis=1) - wanted).mean())

    low, high = SMALLEST_BETA, LARGEST_BETA
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / low


def threshold_for_sensitivity(
    positive: NDArray[np.bool_], score: NDArray[np.float64], target: float = TARGET_SENSITIVITY
) -> float:
    """The highest threshold at which at least `target` of the positives are found.

    Args:
        positive: (N,) whether the image is of the class to detect.
        score: (N,) its probability.
    """
    found = np.sort(score[positive])[::-1]
    last = found[int(np.ceil(target * len(found) - 1e-9)) - 1]
    return _just_below(float(last), score)


def threshold_for_balanced_accuracy(
    positive: NDArray[np.bool_], score: NDArray[np.float64], target: float = 0.0
) -> float:
    """The threshold with the highest mean of sensitivity and specificity; of several, the lowest."""
    steps = np.unique(score)
    missed = np.searchsorted(np.sort(score[positive]), steps)
    refused = np.searchsorted(np.sort(score[~positive]), steps)
    balance = refused / max((~positive).sum(), 1) - missed / max(positive.sum(), 1)
    return _just_below(float(steps[balance.argmax()]), score)


def _just_below(value: float, score: NDArray[np.float64]) -> float:
    """Half-way to the next lower score, so that rounding elsewhere moves nothing over the threshold."""
    lower = score[score < value]
    return (value + float(lower.max())) / 2 if len(lower) else value / 2


METHODS: dict[str, Callable[[NDArray[np.bool_], NDArray[np.float64], float], float]] = {
    "sensitivity": threshold_for_sensitivity,
    "balanced-accuracy": threshold_for_balanced_accuracy,
}
"""Ways to choose a threshold; each takes positives (N,), scores (N,) and the target sensitivity."""


def threshold_table(
    probabilities: NDArray[np.float64],
    truth: NDArray[np.int64],
    positive: int,
    target: float = TARGET_SENSITIVITY,
    lesions: NDArray[np.int64] | None = None,
) -> dict[str, dict[str, Any]]:
    """Both thresholds with what they reach on the validation images.

    Args:
        probabilities: (N, K), of two classes.
        truth: (N,) class indices.
        lesions: (N,) numbers of the lesions, for the intervals.

    Returns:
        For each of `METHODS`: `threshold`, `sensitivity` and `specificity`, each with its 95 % bootstrap interval
        under the same name and `_interval` (None where there are too few images).
    """
    is_positive, score = truth == positive, probabilities[:, positive]
    everything = np.arange(len(truth))

    def rates(index: NDArray[np.int64], threshold: float) -> list[float]:
        return list(metrics.sensitivity_specificity(is_positive[index], score[index] >= threshold))

    described = {}
    for method, fit in METHODS.items():
        threshold = fit(is_positive, score, target)
        entry: dict[str, Any] = {
            "threshold": threshold,
            "threshold_interval": bootstrap_interval(
                partial(_refit, fit, is_positive, score, target), truth, lesions
            ),
        }
        intervals = bootstrap_interval(partial(rates, threshold=threshold), truth, lesions) or [None, None]
        names = ("sensitivity", "specificity")
        for name, value, bounds in zip(names, rates(everything, threshold), intervals, strict=True):
            entry |= {name: value, f"{name}_interval": bounds}
        described[method] = entry
    return described


def _refit(
    fit: Callable[[NDArray[np.bool_], NDArray[np.float64], float], float],
    positive: NDArray[np.bool_],
    score: NDArray[np.float64],
    target: float,
    index: NDArray[np.int64],
) -> float:
    return fit(positive[index], score[index], target)


def decide_outputs(
    logits: NDArray[np.float32],
    truth: NDArray[np.int64],
    positive: int,
    method: str = "sensitivity",
    target: float = TARGET_SENSITIVITY,
    outliers: NDArray[np.float32] | None = None,
) -> Outputs:
    """Fit temperature, threshold and the outlier score's limit; more than two classes have no threshold."""
    temperature = fit_temperature(logits, truth)
    threshold = None
    if logits.shape[1] == 2:
        threshold = METHODS[method](truth == positive, softmax(logits / temperature)[:, positive], target)
    limit = None if outliers is None else fit_limit(outliers)
    return Outputs(logits, temperature, threshold, positive, outliers, limit)
