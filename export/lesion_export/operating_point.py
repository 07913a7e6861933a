"""Operating point of a variant: temperature, threshold and limit, fitted on its own validation outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_edge.prediction import apply_threshold
from lesion_export.outlier_graph import fit_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET_SENSITIVITY = 0.95
SMALLEST_CROSS_FIT = 4
"""Lesions of each class for a half to be fitted on and a half to be measured on."""
SMALLEST_BETA, LARGEST_BETA = 0.02, 20.0
"""Bounds of 1 / temperature."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of one variant for N images."""

    logits: NDArray[np.float32]
    """(N, K)."""
    outliers: NDArray[np.float32] | None = None
    """(N,), before they are divided by the limit; None where the run has no score."""

    def part(self, members: NDArray[np.bool_]) -> Outputs:
        """Outputs for some of the images; `members` is a mask (N,)."""
        return Outputs(self.logits[members], None if self.outliers is None else self.outliers[members])


@dataclass(frozen=True)
class Answers:
    """Answers of a device for N images."""

    probabilities: NDArray[np.float64]
    """(N, K), after the temperature."""
    labels: NDArray[np.int64]
    """(N,) class indices by the threshold, those of refused images too, which the device does not give."""
    refused: NDArray[np.bool_] | None
    """(N,), whether an image is `out_of_distribution`, as one is whose score is no number; None: no score."""
    positive_index: int

    @property
    def answered(self) -> NDArray[np.bool_]:
        """(N,), whether the device gives the label."""
        return np.ones(len(self.labels), bool) if self.refused is None else ~self.refused

    @property
    def predicted_positive(self) -> NDArray[np.bool_]:
        """(N,), whether the device labels an image as of the class to detect."""
        return np.asarray(self.answered & (self.labels == self.positive_index))

    @property
    def predicted_negative(self) -> NDArray[np.bool_]:
        """(N,), whether the device labels an image otherwise."""
        return np.asarray(self.answered & (self.labels != self.positive_index))

    @property
    def positive_score(self) -> NDArray[np.float64]:
        """(N,), probability of the class to detect."""
        return self.probabilities[:, self.positive_index]


@dataclass(frozen=True)
class OperatingPoint:
    """Temperature, threshold and limit that turn a variant's outputs into answers."""

    temperature: float
    """What the logits are divided by before the softmax."""
    threshold: float | None
    """Probability of the class to detect from which on it is the label; None: the most probable class."""
    positive_index: int
    outlier_limit: float | None = None
    """Score above which an image is `out_of_distribution`; None: none is."""

    def apply(self, outputs: Outputs) -> Answers:
        """Answers of the device for these outputs."""
        probabilities = softmax(outputs.logits / self.temperature)
        labels = apply_threshold(probabilities, self.threshold, self.positive_index)
        refused = None
        if outputs.outliers is not None and self.outlier_limit is not None:
            refused = ~(outputs.outliers <= self.outlier_limit)
        return Answers(probabilities, labels, refused, self.positive_index)


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities (N, K) of logits (N, K)."""
    exponents = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def fit_operating_point(
    outputs: Outputs,
    labels: NDArray[np.int64],
    positive_index: int,
    method: str = "sensitivity",
    target: float = TARGET_SENSITIVITY,
    sources: Sequence[str | None] | None = None,
) -> OperatingPoint:
    """Fit temperature, threshold and the outlier score's limit; more than two classes have no threshold.

    Args:
        labels: (N,) class indices.
        method: one of `METHODS`.
        target: sensitivity that the method of that name keeps.
        sources: (N,), where each image comes from, for the limit.
    """
    temperature = fit_temperature(outputs.logits, labels)
    threshold = None
    if outputs.logits.shape[1] == 2:
        score = softmax(outputs.logits / temperature)[:, positive_index]
        threshold = METHODS[method](labels == positive_index, score, target)
    limit = None if outputs.outliers is None else fit_limit(outputs.outliers, sources)
    return OperatingPoint(temperature, threshold, positive_index, limit)


def cross_fit(
    outputs: Outputs,
    labels: NDArray[np.int64],
    lesions: NDArray[np.int64],
    positive_index: int,
    method: str = "sensitivity",
    target: float = TARGET_SENSITIVITY,
    sources: Sequence[str | None] | None = None,
) -> Answers | None:
    """Answers for each half of the lesions at the operating point fitted on the other half.

    What is fitted and measured on the same images flatters itself: a threshold for a sensitivity of 0.95 has it on
    them whatever the model is.

    Args:
        labels: (N,) class indices.
        lesions: (N,) numbers of the lesions; all images of one are in the same half.

    Returns:
        None where a class has fewer than four lesions.
    """
    halves = _halves(labels, lesions)
    classes = np.unique(labels)
    if any(len(np.unique(lesions[labels == label])) < SMALLEST_CROSS_FIT for label in classes):
        return None
    probabilities = np.empty(outputs.logits.shape)
    chosen, refused = np.empty(len(labels), np.int64), np.zeros(len(labels), bool)
    for fitted, measured in ((halves, ~halves), (~halves, halves)):
        theirs = None if sources is None else [sources[index] for index in np.flatnonzero(fitted).tolist()]
        point = fit_operating_point(outputs.part(fitted), labels[fitted], positive_index, method, target, theirs)
        answers = point.apply(outputs.part(measured))
        probabilities[measured], chosen[measured] = answers.probabilities, answers.labels
        if answers.refused is not None:
            refused[measured] = answers.refused
    return Answers(probabilities, chosen, None if outputs.outliers is None else refused, positive_index)


def _halves(labels: NDArray[np.int64], lesions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images (N,) are in the first half: every other lesion of each class, in random order."""
    rng = np.random.default_rng(0)
    first = np.zeros(len(labels), bool)
    _, starts, numbers = np.unique(lesions, return_index=True, return_inverse=True)
    class_of_lesion = labels[starts]
    for label in np.unique(class_of_lesion):
        members = rng.permutation(np.flatnonzero(class_of_lesion == label))
        first |= np.isin(numbers, members[::2])
    return first


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Temperature with the least cross-entropy (Guo et al. 2017, arXiv:1706.04599).

    The targets of a class with n of the images are (n + 1) / (n + K) rather than 1 (Platt 1999), so that a few
    images that are all right do not make the model certain.

    Args:
        logits: (N, K).
        labels: (N,) class indices.
    """
    values = logits.astype(float)
    classes = values.shape[1]
    counts = np.bincount(labels, minlength=classes)
    target = (np.eye(classes) * counts[:, None] + 1) / (counts[:, None] + classes)
    expected = (target[labels] * values).sum(axis=1)

    def slope(beta: float) -> float:
        """Of the cross-entropy by beta = 1 / temperature, in which it is convex."""
        return float(((softmax(beta * values) * values).sum(axis=1) - expected).mean())

    low, high = SMALLEST_BETA, LARGEST_BETA
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / low


def threshold_for_sensitivity(
    is_positive: NDArray[np.bool_], score: NDArray[np.float64], target: float = TARGET_SENSITIVITY
) -> float:
    """Highest threshold at which at least `target` of the positives are labelled so.

    Args:
        is_positive: (N,) whether the image is of the class to detect.
        score: (N,) its probability.
    """
    descending = np.sort(score[is_positive])[::-1]
    last = descending[int(np.ceil(target * len(descending) - 1e-9)) - 1]
    return _just_below(float(last), score)


def threshold_for_balanced_accuracy(
    is_positive: NDArray[np.bool_], score: NDArray[np.float64], target: float = 0.0
) -> float:
    """Threshold with the highest mean of sensitivity and specificity; of several, the lowest."""
    steps = np.unique(score)
    false_negatives = np.searchsorted(np.sort(score[is_positive]), steps)
    true_negatives = np.searchsorted(np.sort(score[~is_positive]), steps)
    balance = true_negatives / max((~is_positive).sum(), 1) - false_negatives / max(is_positive.sum(), 1)
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
