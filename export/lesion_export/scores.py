"""Metrics of a variant on the validation images: overall and per class."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_edge import metrics
from lesion_edge.intervals import bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesion_export.operating_point import Outputs


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
        return metrics.evaluate(truth[index], probabilities[index], labels[index], class_names, positive)

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
