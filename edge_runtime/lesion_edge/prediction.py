"""Predictions, and the one rule from the outputs of the network to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

OUTLIER_LIMIT = 1.0
"""Outlier score above which an image gets no label; the graph scales its score to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Prediction for one image, or the reason why there is none."""

    path: str = ""
    """Path of the image as the caller named it; empty for bytes, arrays and Pillow images."""
    label: str | None = None
    """Class name after the threshold; None on an error, and where the image is `out_of_distribution`."""
    confidence: float | None = None
    """Probability of the label, 0 to 1; None without one."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """Class name to probability, in the bundle's order; they sum to 1. Empty on an error."""
    error: str | None = None
    """A short reason, or None."""
    cam: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """Class-activation map (h, w) of the positive class, 0 or more, where it was asked for."""
    outlier: float | None = None
    """Out-of-distribution score; above `OUTLIER_LIMIT` the image has no label. None on an error, where the bundle
    has no score, and for a prediction read back from a file."""
    sha256: str | None = None
    """Digest of the file's content, where it was asked for and the file could be read."""
    measurements: dict[str, float] | None = None
    """What the image looks like, `lesion_edge.monitor.QUANTITIES`, where it was asked for."""

    @property
    def status(self) -> str:
        """`ok`; `out_of_distribution` where the image shows no lesion that the network knows; or `error`."""
        if self.error is not None:
            return "error"
        return "out_of_distribution" if self.label is None else "ok"


def apply_threshold(
    probabilities: NDArray[Any], threshold: float | None, positive_index: int
) -> NDArray[np.int64]:
    """Class indices (N,) of probabilities (N, K); the one rule, for training, export and device.

    Args:
        probabilities: (N, K).
        threshold: from this probability on, the positive class is the answer; below it the most probable of
            the others. None: the most probable class.
        positive_index: index of the positive class.

    Returns:
        (N,) class indices.
    """
    if threshold is None:
        return np.asarray(probabilities.argmax(axis=1))
    others = np.array(probabilities, float)
    others[:, positive_index] = -1.0
    predicted_positive = probabilities[:, positive_index] >= threshold
    return np.where(predicted_positive, positive_index, others.argmax(axis=1)).astype(np.int64)


def label_outputs(
    outputs: dict[str, NDArray[Any]],
    class_names: Sequence[str],
    positive_class: str,
    threshold: float | None,
    paths: Iterable[str] = repeat(""),
) -> Iterator[Prediction]:
    """Predictions of the outputs of the network; the one rule from outputs to answers.

    Args:
        outputs: `probabilities` (N, K), and `cam` (N, h, w) and `outlier` (N,) where there are.
        class_names: K names, in the order of the probabilities.
        positive_class: the class to detect.
        threshold: as for `apply_threshold`.
        paths: N paths of the images.
    """
    labels = apply_threshold(outputs["probabilities"], threshold, class_names.index(positive_class))
    rows = outputs["probabilities"].tolist()
    for index, (path, row, label) in enumerate(zip(paths, rows, labels, strict=False)):
        outlier = float(outputs["outlier"][index]) if "outlier" in outputs else None
        if not np.isfinite([*row, outlier or 0]).all():
            yield Prediction(path=path, error="the network gave no number")
            continue
        refused = outlier is not None and outlier > OUTLIER_LIMIT
        yield Prediction(
            path=path,
            label=None if refused else class_names[label],
            confidence=None if refused else row[label],
            probabilities=dict(zip(class_names, row, strict=True)),
            cam=outputs["cam"][index] if "cam" in outputs else None,
            outlier=outlier,
        )
