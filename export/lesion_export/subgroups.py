"""How a variant does on each diagnosis and on each source of the validation images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import metrics
from lesion_edge.intervals import roc_auc_interval, wilson
from lesion_export.run_images import lesion_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
