"""Fit of a side file to a site's own labelled images, and what it reaches there.

Probabilities: p' = sigmoid(logit(p) / temperature + offset), by maximum likelihood with the smoothed targets of
Platt (1999). Threshold: what a share `target_sensitivity` of new positives reaches on average, as in split
conformal prediction (Vovk et al. 2005). Refusal: `ACCEPTANCE_RATE` of new images get an answer, likewise.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.errors import LesionEdgeError
from lesion_edge.intervals import bootstrap_interval, roc_auc_interval, wilson
from lesion_edge.metrics import expected_calibration_error, format_metric, roc_auc, sensitivity_specificity
from lesion_edge.site import Site, log_odds, move

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lesion_edge.classifier import Classifier

SMALLEST_SITE = 50
"""Images that a fit needs."""
SMALLEST_CLASS = 15
"""Lesions of the positive class, and of the others, that a fit needs."""
ACCEPTANCE_RATE = 0.985
"""Share of the site's images that get an answer, as an export has it on its validation images."""
FOLDS = 5
"""Parts of a cross-validation; images of one lesion stay together."""
FIGURES = ("sensitivity", "specificity", "refused", "roc_auc", "ece")
"""What a cross-validation tells; the first two of the images that are answered."""


@dataclass(frozen=True)
class Sample:
    """Labelled images of a site, and what the bundle says of them."""

    is_positive: NDArray[np.bool_]
    """(N,)"""
    probability: NDArray[np.float64]
    """(N,) of the positive class, by the bundle."""
    outlier: NDArray[np.float64] | None
    """(N,) outlier score, 1 at the bundle's limit; None without one."""
    lesions: NDArray[np.int64]
    """(N,) number of the lesion."""

    def part(self, index: NDArray[Any]) -> Sample:
        """Some of the images."""
        outlier = None if self.outlier is None else self.outlier[index]
        return Sample(self.is_positive[index], self.probability[index], outlier, self.lesions[index])


@dataclass(frozen=True)
class Parameters:
    """What is fitted; see `Site`."""

    temperature: float
    offset: float
    threshold: float
    outlier_limit: float | None


def fit(sample: Sample, target_sensitivity: float) -> Parameters:
    """Fit all parameters on labelled images."""
    limit = None
    if sample.outlier is not None:
        ordered = np.sort(sample.outlier)
        limit = float(ordered[min(math.ceil(ACCEPTANCE_RATE * (len(ordered) + 1)), len(ordered)) - 1])
        sample = sample.part(sample.outlier <= limit)
    temperature, offset = fit_probabilities(sample.probability, sample.is_positive)
    p = move(sample.probability, temperature, offset)
    positives = np.sort(p[sample.is_positive])[::-1]
    threshold = positives[min(math.ceil(target_sensitivity * (len(positives) + 1)), len(positives)) - 1]
    return Parameters(temperature, offset, float(threshold), limit)


def fit_probabilities(probability: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Temperature and offset by Newton's method (Platt 1999, with Lin, Lin and Weng's 2007 targets).

    Args:
        probability: (N,) of the positive class.
        is_positive: (N,)

    Raises:
        LesionEdgeError: higher probabilities do not go with more positives.
    """
    x = log_odds(probability)
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    target = np.where(is_positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)

    def loss(weights: NDArray[np.float64]) -> float:
        z = design @ weights
        return float((np.logaddexp(0, z) - target * z).sum())

    weights = np.array([1.0, 0.0])
    for _ in range(100):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (p - target)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while loss(weights - length * step) > loss(weights) and length > 1e-6:
            length /= 2
        weights = weights - length * step
        if np.abs(step).max() < 1e-9:
            break
    if not weights[0] > 0:
        raise LesionEdgeError("the model ranks no better than chance on these images: nothing can be fitted")
    return float(1 / weights[0]), float(weights[1])


def fit_site(
    sample: Sample,
    classifier: Classifier,
    target_sensitivity: float,
    unreadable: int = 0,
) -> Site:
    """Fit a side file, and find out by cross-validation what it reaches.

    Raises:
        LesionEdgeError: too few images, or the model ranks them no better than chance.
    """
    counts = {
        "positive": int(sample.is_positive.sum()),
        "negative": int((~sample.is_positive).sum()),
        "lesions": len(np.unique(sample.lesions)),
        "unreadable": unreadable,
    }
    _check(sample, counts, classifier.manifest.positive_class)
    manifest, variant = classifier.manifest, classifier.manifest.variants[classifier.variant]
    shipped = Parameters(1.0, 0.0, 0.5 if variant.threshold is None else variant.threshold, 1.0)
    return Site(
        bundle=manifest.digest,
        variant=classifier.variant,
        positive_class=manifest.positive_class,
        **asdict(fit(sample, target_sensitivity)),
        target_sensitivity=target_sensitivity,
        prior=float(sample.is_positive.mean()),
        images=counts,
        cross_validation={
            "before": cross_validate(sample, lambda part: shipped),
            "after": cross_validate(sample, lambda part: fit(part, target_sensitivity)),
        },
    )


def cross_validate(sample: Sample, fit_part: Callable[[Sample], Parameters]) -> dict[str, Any]:
    """Figures on images that had no part in the fit, lesions kept together.

    Returns:
        Each of `FIGURES` to its `value` and `interval`.
    """
    fold = folds(sample)
    n = len(fold)
    p, predicted, answered = np.zeros(n), np.zeros(n, bool), np.ones(n, bool)
    for number in range(FOLDS):
        test = np.flatnonzero(fold == number)
        parameters = fit_part(sample.part(np.flatnonzero(fold != number)))
        p[test] = move(sample.probability[test], parameters.temperature, parameters.offset)
        predicted[test] = p[test] >= parameters.threshold
        if sample.outlier is not None and parameters.outlier_limit is not None:
            answered[test] = sample.outlier[test] <= parameters.outlier_limit
    return figures(sample.is_positive, p, predicted, answered, sample.lesions)


def figures(
    is_positive: NDArray[np.bool_],
    p: NDArray[Any],
    predicted: NDArray[np.bool_],
    answered: NDArray[np.bool_],
    lesions: NDArray[np.int64],
) -> dict[str, Any]:
    """Figures of N images: sensitivity and specificity of those that were answered, the others of all.

    Intervals are Wilson's and Newcombe's; where lesions have several images, a bootstrap over lesions, if there
    are enough of them.
    """

    def values(index: NDArray[np.int64]) -> list[float]:
        positive, labelled = is_positive[index], answered[index]
        rates = sensitivity_specificity(positive[labelled], predicted[index][labelled])
        auc = roc_auc(positive, p[index])
        return [*rates, 1 - float(labelled.mean()), auc, expected_calibration_error(positive, p[index])]

    n, positives = len(p), int((is_positive & answered).sum())
    result = values(np.arange(n))
    counts = (positives, int(answered.sum()) - positives, n)
    intervals: list[Any] = [wilson(rate * total, total) for rate, total in zip(result[:3], counts, strict=True)]
    total_positives = int(is_positive.sum())
    intervals += [roc_auc_interval(result[3], total_positives, n - total_positives), None]
    if len(np.unique(lesions)) < n:
        intervals = bootstrap_interval(values, is_positive.astype(np.int64), lesions) or intervals
    return {
        name: {"value": value, "interval": None if interval is None else list(interval)}
        for name, value, interval in zip(FIGURES, result, intervals, strict=True)
    }


def folds(sample: Sample, seed: int = 0) -> NDArray[np.int64]:
    """Number of the fold of each image (N,): lesions kept together, positive ones spread evenly."""
    rng = np.random.default_rng(seed)
    lesions, first, inverse = np.unique(sample.lesions, return_index=True, return_inverse=True)
    fold_of_lesion = np.zeros(len(lesions), np.int64)
    for value in (True, False):
        members = rng.permutation(np.flatnonzero(sample.is_positive[first] == value))
        fold_of_lesion[members] = np.arange(len(members)) % FOLDS
    return fold_of_lesion[inverse]


def describe_site(site: Site) -> str:
    """What a fit reaches, as a table."""
    before, after = site.cross_validation["before"], site.cross_validation["after"]
    counts = site.images
    lines = [
        f"fitted on {counts['positive']} {site.positive_class} and {counts['negative']} other images of "
        f"{counts['lesions']} lesions; on images without a part in the fit (cross-validation, 95 % intervals):",
        f"  {'':<12}{'bundle':<24}{'site':<24}",
    ]
    for name in FIGURES:
        cells = (format_metric(entry[name]["value"], entry[name]["interval"]) for entry in (before, after))
        lines.append(f"  {name:<12}" + "".join(f"{cell:<24}" for cell in cells))
    lines.append(
        f"threshold {site.threshold:.3f} on probabilities for a share of {site.prior:.1%} {site.positive_class}"
    )
    return "\n".join(line.rstrip() for line in lines)


def _check(sample: Sample, counts: dict[str, int], positive_class: str) -> None:
    total = len(sample.is_positive)
    if total < SMALLEST_SITE:
        raise LesionEdgeError(f"{total} labelled images: a fit needs at least {SMALLEST_SITE}")
    for name, chosen in ((positive_class, sample.is_positive), ("the other classes", ~sample.is_positive)):
        lesions = len(np.unique(sample.lesions[chosen]))
        if lesions < SMALLEST_CLASS:
            raise LesionEdgeError(f"{lesions} lesions of {name}: a fit needs at least {SMALLEST_CLASS}")
    auc = roc_auc(sample.is_positive, sample.probability)
    groups = [len(np.unique(sample.lesions[chosen])) for chosen in (sample.is_positive, ~sample.is_positive)]
    interval = roc_auc_interval(auc, groups[0], groups[1])
    if interval is not None and interval[0] <= 0.5:
        raise LesionEdgeError(
            f"ROC AUC on these images is {format_metric(auc, interval)}: the model ranks no better than chance "
            "there, and no threshold mends that"
        )
