"""Metrics of a variant on the validation images: overall, per class, per diagnosis and per source."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_edge import metrics
from lesion_edge.intervals import bootstrap_interval, roc_auc_interval, wilson
from lesion_export.run_images import lesion_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesion_edge.intervals import Interval
    from lesion_export.operating_point import Outputs
    from lesion_train.run import Sample

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
COLUMNS = ("diagnosis", "source")


def scores(
    outputs: Outputs,
    truth: NDArray[np.int64],
    class_names: Sequence[str],
    lesions: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Metrics at the threshold on the validation images, overall and per class, with 95 % intervals.

    Returns:
        What `lesion_edge.metrics.evaluate` gives, `intervals` of its rates, and `classes`: per class name its
        images, recall and precision with their intervals.
    """
    probabilities, labels = outputs.probabilities, outputs.labels
    positive = class_names[outputs.positive]

    def part(index: NDArray[np.int64]) -> dict[str, Any]:
        figures = metrics.evaluate(truth[index], probabilities[index], labels[index], class_names, positive)
        return figures.as_dict()

    classes = {}
    for label, name in enumerate(class_names):
        hit = (truth == label) & (labels == label)
        entry: dict[str, Any] = {"images": int((truth == label).sum())}
        for rate, among in (("recall", truth == label), ("precision", labels == label)):
            entry[rate] = float(hit[among].mean()) if among.any() else None
            entry[f"{rate}_interval"] = bootstrap_interval(partial(_share, among, hit), truth, lesions)
        classes[name] = entry
    rates = ("accuracy", "sensitivity", "specificity", "roc_auc", "ece")
    resampled = bootstrap_interval(lambda index: [part(index)[name] for name in rates], truth, lesions)
    intervals = dict(zip(rates, resampled, strict=True)) if resampled else dict.fromkeys(rates)
    return {**part(np.arange(len(truth))), "intervals": intervals, "classes": classes}


def _share(among: NDArray[np.bool_], hit: NDArray[np.bool_], index: NDArray[np.int64]) -> float:
    return float(hit[index][among[index]].mean()) if among[index].any() else float("nan")


def score_subgroups(
    outputs: Outputs, reference: Outputs, truth: NDArray[np.int64], examples: list[Sample]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores at the threshold on each part of the validation images, the class to detect against the rest.

    The intervals count lesions and not images, as if the images of one lesion always had one answer: rather too
    wide than too narrow.

    Args:
        outputs: of the variant.
        reference: of the float graph.
        truth: (N,) class indices.
        examples: the N images.

    Returns:
        For each of `COLUMNS` that the data have: value to `images`, `lesions`, `positives`, the counts `missed`,
        `false_alarms` and `flipped` (another label than the float graph's), and `sensitivity`, `specificity`,
        `roc_auc` and `ece`, None where undefined; all but the last with `…_interval`. A diagnosis of one class
        alone has its `roc_auc` against all images of the others.
    """
    parts = {column: _parts([getattr(example, column) for example in examples]) for column in COLUMNS}
    positive, lesions = truth == outputs.positive, lesion_numbers(examples)
    return {
        column: {
            value: _score(outputs, reference, positive, lesions, members, others=column == "diagnosis")
            for value, members in found.items()
        }
        for column, found in parts.items()
        if set(found) != {NOT_STATED}
    }


def _parts(values: list[str | None]) -> dict[str, NDArray[np.bool_]]:
    """Which images (N,) have each value, the most frequent value first."""
    names = np.array([DIAGNOSES.get(value, value) if value else NOT_STATED for value in values])
    found, counts = np.unique(names, return_counts=True)
    return {str(found[i]): names == found[i] for i in np.argsort(-counts, kind="stable")}


def _score(
    outputs: Outputs,
    reference: Outputs,
    positive: NDArray[np.bool_],
    lesions: NDArray[np.int64],
    members: NDArray[np.bool_],
    others: bool,
) -> dict[str, Any]:
    called, score = outputs.labels == outputs.positive, outputs.probabilities[:, outputs.positive]
    actual, rest = members & positive, members & ~positive
    entry: dict[str, Any] = {
        "images": int(members.sum()),
        "lesions": len(np.unique(lesions[members])),
        "positives": int(actual.sum()),
        "missed": int((actual & ~called).sum()),
        "false_alarms": int((rest & called).sum()),
        "flipped": int((members & (outputs.labels != reference.labels)).sum()),
        "ece": None,
    }
    if actual.any() and rest.any():
        entry["ece"] = metrics.expected_calibration_error(positive[members], score[members])
    elif others:
        actual, rest = (actual, ~positive) if actual.any() else (positive, rest)
    compared = actual | rest
    auc = metrics.roc_auc(positive[compared], score[compared])
    figures = {
        "sensitivity": _rate(members & positive, called, lesions),
        "specificity": _rate(members & ~positive, ~called, lesions),
        "roc_auc": (auc, roc_auc_interval(auc, *(len(np.unique(lesions[side])) for side in (actual, rest)))),
    }
    for name, (value, interval) in figures.items():
        entry |= {name: None if interval is None else value, f"{name}_interval": interval}
    return entry


def _rate(
    among: NDArray[np.bool_], right: NDArray[np.bool_], lesions: NDArray[np.int64]
) -> tuple[float, Interval | None]:
    """Share of right answers among images, and its interval."""
    if not among.any():
        return float("nan"), None
    share, count = float(right[among].mean()), len(np.unique(lesions[among]))
    return share, wilson(share * count, count)
