"""Metrics of a variant on the validation images: overall, per class, per diagnosis and per source."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_edge import metrics
from lesion_edge.intervals import bootstrap_interval, roc_auc_interval, wilson
from lesion_export.operating_point import METHODS, TARGET_SENSITIVITY, Answers

if TYPE_CHECKING:
    from lesion_edge.intervals import Interval
    from lesion_export.run_images import ValidationSet

DIAGNOSES = {
    "akiec": "actinic keratosis or Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "nevus",
    "vasc": "vascular lesion",
}
"""The codes of the ISIC challenges (Tschandl et al. 2018, table 1) in words; anything else stays as it is."""
NOT_STATED = "not stated"
COVERAGES = (1.0, 0.98, 0.95, 0.9, 0.8)
"""Shares of the images that are answered in `risk_coverage`."""
RATES = ("accuracy", "sensitivity", "specificity", "roc_auc", "ece")


def score_variant(answers: Answers, validation: ValidationSet) -> dict[str, Any]:
    """Metrics at the threshold on the validation images, overall and per class, with 95 % intervals.

    Rates are about what the device labels: a refused image is neither found nor cleared, and none of them right.

    Intervals of rates (Wilson) and of ROC AUC (Newcombe) count lesions and not images, as if the images of one
    lesion always had one answer: rather too wide than too narrow. That of ECE is the bootstrap over lesions.

    Returns:
        `images`, those of `RATES` with their `intervals`, `classes`: per class name its images, recall and
        precision with their intervals, and `answered`: what `lesion_edge.metrics.evaluate` gives of the images
        that are not refused, so that both can be told where they differ.
    """
    names, labels, is_positive = validation.class_names, validation.labels, validation.is_positive
    answered, score, lesions = answers.answered, answers.positive_score, validation.lesions
    right = answered & (answers.labels == labels)
    classes = {}
    for label, name in enumerate(names):
        entry: dict[str, Any] = {"images": int((labels == label).sum())}
        for rate, among in (("recall", labels == label), ("precision", answered & (answers.labels == label))):
            entry[rate], entry[f"{rate}_interval"] = _rate(among, right, lesions)
        classes[name] = entry
    figures = {
        "accuracy": _rate(np.ones_like(right), right, lesions),
        "sensitivity": _rate(is_positive, answers.predicted_positive, lesions),
        "specificity": _rate(~is_positive, answers.predicted_negative, lesions),
        "roc_auc": _roc_auc(is_positive, ~is_positive, score, lesions),
        "ece": (
            metrics.expected_calibration_error(is_positive, score),
            bootstrap_interval(
                lambda index: metrics.expected_calibration_error(is_positive[index], score[index]), labels, lesions
            ),
        ),
    }
    of_answered = metrics.evaluate(
        labels[answered],
        answers.probabilities[answered],
        answers.labels[answered],
        names,
        names[validation.positive_index],
    )
    return {
        "images": len(labels),
        **{name: value for name, (value, _) in figures.items()},
        "intervals": {name: interval for name, (_, interval) in figures.items()},
        "classes": classes,
        "answered": of_answered.as_dict(),
    }


def score_cross_fitted(answers: Answers, validation: ValidationSet) -> dict[str, Any]:
    """Metrics of `lesion_export.operating_point.cross_fit`, as `score_variant` gives them, without ROC AUC.

    ROC AUC needs no operating point, and takes none from two.
    """
    metrics = score_variant(answers, validation)
    names = [name for name in RATES if name != "roc_auc"]
    return {
        **{name: metrics[name] for name in names},
        "intervals": {name: metrics["intervals"][name] for name in names},
    }


def score_subgroups(
    answers: Answers, reference: Answers, validation: ValidationSet
) -> dict[str, dict[str, dict[str, Any]]]:
    """Metrics at the threshold for each diagnosis and each source, the class to detect against the others.

    Intervals are as those of `score_variant`.

    Args:
        answers: of the variant.
        reference: of the float model.

    Returns:
        For `diagnosis` and `source`, where the data have them: value to `images`, `lesions`, `positives`, the
        counts `false_negatives`, `false_positives`, `refused_positives`, `refused_negatives` and `flipped` (unlike
        the float model's label), and `sensitivity`, `specificity`, `roc_auc` and `ece`, None where undefined; all
        but the last with `…_interval`. A diagnosis of one class alone has its `roc_auc` against the other class.
    """
    columns = {"diagnosis": validation.diagnoses, "source": validation.sources}
    return {
        column: {
            value: _score_subgroup(answers, reference, validation, members, across=column == "diagnosis")
            for value, members in _members(values).items()
        }
        for column, values in columns.items()
        if any(values)
    }


def _members(values: tuple[str | None, ...]) -> dict[str, NDArray[np.bool_]]:
    """Which images (N,) have each value, the most frequent value first."""
    names = np.array([DIAGNOSES.get(value, value) if value else NOT_STATED for value in values])
    different, counts = np.unique(names, return_counts=True)
    return {str(different[i]): names == different[i] for i in np.argsort(-counts, kind="stable")}


def _score_subgroup(
    answers: Answers, reference: Answers, validation: ValidationSet, members: NDArray[np.bool_], across: bool
) -> dict[str, Any]:
    """Metrics of the images (N,) that are members; `across`: ROC AUC of one class against all of the other."""
    predicted_positive, predicted_negative = answers.predicted_positive, answers.predicted_negative
    score, lesions = answers.positive_score, validation.lesions
    positives, negatives = members & validation.is_positive, members & ~validation.is_positive
    entry: dict[str, Any] = {
        "images": int(members.sum()),
        "lesions": len(np.unique(lesions[members])),
        "positives": int(positives.sum()),
        "false_negatives": int((positives & ~predicted_positive).sum()),
        "false_positives": int((negatives & predicted_positive).sum()),
        "refused_positives": int((positives & ~answers.answered).sum()),
        "refused_negatives": int((negatives & ~answers.answered).sum()),
        "flipped": int((members & (answers.labels != reference.labels)).sum()),
        "ece": None,
    }
    figures = {
        "sensitivity": _rate(positives, predicted_positive, lesions),
        "specificity": _rate(negatives, predicted_negative, lesions),
    }
    if positives.any() and negatives.any():
        entry["ece"] = metrics.expected_calibration_error(validation.is_positive[members], score[members])
    elif across and positives.any():
        negatives = ~validation.is_positive
    elif across:
        positives = validation.is_positive
    figures["roc_auc"] = _roc_auc(positives, negatives, score, lesions)
    for name, (value, interval) in figures.items():
        entry |= {name: value, f"{name}_interval": interval}
    return entry


def _rate(
    among: NDArray[np.bool_], right: NDArray[np.bool_], lesions: NDArray[np.int64]
) -> tuple[float | None, Interval | None]:
    """Share of right answers among images, and its interval; None where there are no images."""
    if not among.any():
        return None, None
    share, count = float(right[among].mean()), len(np.unique(lesions[among]))
    return share, wilson(share * count, count)


def _roc_auc(
    positives: NDArray[np.bool_],
    negatives: NDArray[np.bool_],
    score: NDArray[np.float64],
    lesions: NDArray[np.int64],
) -> tuple[float | None, Interval | None]:
    """ROC AUC of images (N,) of two sides, and its interval; None where there are none of one side."""
    if not positives.any() or not negatives.any():
        return None, None
    compared = positives | negatives
    auc = metrics.roc_auc(positives[compared], score[compared])
    return auc, roc_auc_interval(auc, *(len(np.unique(lesions[side])) for side in (positives, negatives)))


def risk_coverage(
    answers: Answers, outliers: NDArray[np.float32], validation: ValidationSet
) -> dict[str, list[dict[str, Any]]]:
    """Metrics of the images that are left when those with the highest outlier scores are refused.

    El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification". A score that knows where
    the classifier errs makes the rest better; one that does not, only smaller.

    Args:
        outliers: (N,) scores that the images are refused by.

    Returns:
        For all images, `all`, and for each source: a row for each of `COVERAGES` with `coverage`, `positives` and
        `negatives` that are answered, and their `roc_auc`, `sensitivity` and `specificity` (None where undefined).
    """
    members = {"all": np.ones(len(outliers), bool)}
    if any(validation.sources):
        members |= _members(validation.sources)
    is_positive = validation.is_positive
    predicted_positive = answers.labels == answers.positive_index
    table = {}
    for name, group in members.items():
        ordered = np.flatnonzero(group)[np.argsort(outliers[group], kind="stable")]
        rows = []
        for coverage in COVERAGES:
            kept = np.zeros(len(outliers), bool)
            kept[ordered[: round(coverage * len(ordered))]] = True
            positives, negatives = kept & is_positive, kept & ~is_positive
            row: dict[str, Any] = {
                "coverage": coverage,
                "positives": int(positives.sum()),
                "negatives": int(negatives.sum()),
                "roc_auc": _roc_auc(positives, negatives, answers.positive_score, validation.lesions)[0],
                "sensitivity": _rate(positives, predicted_positive, validation.lesions)[0],
                "specificity": _rate(negatives, ~predicted_positive, validation.lesions)[0],
            }
            rows.append(row)
        table[name] = rows
    return table


def threshold_table(
    answers: Answers, validation: ValidationSet, target: float = TARGET_SENSITIVITY
) -> dict[str, dict[str, Any]]:
    """Both thresholds with what they reach on the validation images of two classes.

    Returns:
        For each of `METHODS`: `threshold`, `sensitivity` and `specificity`, each with its 95 % interval under the
        same name and `_interval`: as those of `score_variant`, and the bootstrap over lesions for the threshold
        (None where there are too few).
    """
    is_positive, score, answered = validation.is_positive, answers.positive_score, answers.answered
    table = {}
    for method, fit in METHODS.items():
        threshold = fit(is_positive, score, target)
        predicted = score >= threshold
        sensitivity, of_sensitivity = _rate(is_positive, answered & predicted, validation.lesions)
        specificity, of_specificity = _rate(~is_positive, answered & ~predicted, validation.lesions)
        table[method] = {
            "threshold": threshold,
            "threshold_interval": bootstrap_interval(
                partial(_refit, fit, is_positive, score, target), validation.labels, validation.lesions
            ),
            "sensitivity": sensitivity,
            "sensitivity_interval": of_sensitivity,
            "specificity": specificity,
            "specificity_interval": of_specificity,
        }
    return table


def _refit(
    fit: Callable[[NDArray[np.bool_], NDArray[np.float64], float], float],
    is_positive: NDArray[np.bool_],
    score: NDArray[np.float64],
    target: float,
    index: NDArray[np.int64],
) -> float:
    return fit(is_positive[index], score[index], target)
