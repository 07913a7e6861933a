"""Drift: do the images of late look like those that the bundle was released on?

The manifest holds, for each variant, quantiles of what `measure` gives on the validation images, of probability
and of outlier score. A window of the last images is compared with them by the Kolmogorov–Smirnov test, at a level
at which less than one window in a hundred of the same distribution raises an alarm, over all quantities together
(Bonferroni). It says that images changed, not that answers are wrong: a new camera or lamp is a reason to check.
"""

from __future__ import annotations

import json
import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import atomic
from lesion_edge.errors import DriftAlarm, LesionEdgeError
from lesion_edge.manifest import MAX_TEXT_BYTES, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lesion_edge.classifier import Classifier
    from lesion_edge.prediction import Prediction

SCHEMA_VERSION = 1
QUANTILES = np.linspace(0, 1, 41)
"""Of each quantity, in the manifest."""
WINDOW = 200
"""Images that are compared."""
SMALLEST_WINDOW = 50
"""Images from which on the end of a run is compared, too."""
FALSE_ALARMS = 0.005
"""Share of windows of the same distribution that raise an alarm where images are independent. Images of one lesion
are not: with those of HAM10000 together, 1 window in 400 raises one at this level, and 5 in 400 at twice of it."""
MAX_REFUSED = 0.2
"""Share of a window that may be `out_of_distribution`."""
QUANTITIES = ("probability", "outlier", "brightness", "warmth", "tint", "sharpness")


def measure(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """What one image looks like to the network.

    Args:
        pixels: uint8 (S, S, 3), RGB.

    Returns:
        `brightness` (mean luma, 0 to 255), `warmth` (log2 of red to blue), `tint` (log2 of green to red and blue)
        and `sharpness` (log2 of the variance of the Laplacian of the luma).
    """
    red, green, blue = pixels.reshape(-1, 3).mean(axis=0, dtype=np.float64) + 1
    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    return {
        "brightness": float(luma.mean()),
        "warmth": math.log2(red / blue),
        "tint": math.log2(green / math.sqrt(red * blue)),
        "sharpness": math.log2(float(laplacian.var()) + 1),
    }


def reference_distributions(values: Mapping[str, Sequence[float] | NDArray[Any]]) -> dict[str, Any]:
    """Distributions of N images, for the manifest: number of images, and `QUANTILES` of each quantity.

    Args:
        values: quantity to its N values; those that are no numbers are left out.
    """
    finite = {name: np.asarray(value, float) for name, value in values.items()}
    finite = {name: value[np.isfinite(value)] for name, value in finite.items()}
    return {
        "images": min(map(len, finite.values())),
        "quantiles": {name: np.quantile(value, QUANTILES).round(5).tolist() for name, value in finite.items()},
    }


def distance(window: NDArray[np.float64], quantiles: Sequence[float]) -> float:
    """Largest difference between the distribution of a window (n,) and that with these quantiles, 0 to 1."""
    ordered = np.sort(window)
    knots = np.asarray(quantiles, float)
    # Equal quantiles are a step: from its lowest level on the left to its highest on the right.
    left, right = (np.interp(ordered, *step(knots), left=0.0, right=1.0) for step in (_lower, _upper))
    n = len(ordered)
    above = np.searchsorted(ordered, ordered, "right") / n - right
    below = left - np.searchsorted(ordered, ordered, "left") / n
    return float(max(above.max(), below.max(), 0.0))


def critical_distance(window: int, images: int) -> float:
    """Distance that windows of the same distribution exceed with `FALSE_ALARMS`, over all quantities together.

    Args:
        window: images of the window.
        images: images of the reference.
    """
    level = FALSE_ALARMS / len(QUANTITIES)
    return math.sqrt(-math.log(level / 2) / 2 * (1 / window + 1 / images))


class Monitor:
    """Window of the last images, kept in a file from run to run.

    Args:
        path: the state file; one that is not there is made.
        classifier: that the predictions come from; they need their `measurements`.
        say: takes each sentence.
        stop: whether `add` ends the run at an alarm.

    Raises:
        LesionEdgeError: the bundle has no reference, or the file is of another bundle or something else.
    """

    def __init__(
        self, path: Path, classifier: Classifier, say: Callable[[str], object], stop: bool = False
    ) -> None:
        self._path, self._say, self._stop = path, say, stop
        variant = classifier.manifest.variants[classifier.variant]
        if not variant.reference:
            raise LesionEdgeError(
                f"the bundle holds no reference distributions for {classifier.variant}: export it again"
            )
        self._images: int = variant.reference["images"]
        self._quantiles: dict[str, list[float]] = variant.reference["quantiles"]
        self._model = {"bundle": classifier.manifest.digest, "variant": classifier.variant}
        self._window: deque[list[float]] = deque(maxlen=WINDOW)
        self._refused: deque[bool] = deque(maxlen=WINDOW)
        self._new = 0
        self.alarm = False
        """Whether any window of this run was unlike the reference, or had too many refusals."""
        if path.exists():
            self._load()

    def add(self, prediction: Prediction) -> None:
        """Take one prediction, and compare once a window is full of new images.

        Raises:
            DriftAlarm: there is an alarm, and the run is to end there.
        """
        if prediction.measurements is None:
            return
        self._window.append([prediction.measurements[name] for name in self._quantiles])
        self._refused.append(prediction.label is None)
        self._new += 1
        if self._new == WINDOW:
            self._compare()
            if self.alarm and self._stop:
                raise DriftAlarm("ended, since the images are unlike those of the release")

    def close(self) -> None:
        """Compare what came since the last window, and keep the state."""
        if self._new and len(self._window) >= SMALLEST_WINDOW:
            self._compare()
        else:
            self._save()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _compare(self) -> None:
        self._new = 0
        window = np.array(self._window)
        limit = critical_distance(len(window), self._images)
        moved = []
        for column, (name, quantiles) in zip(window.T, self._quantiles.items(), strict=True):
            if (value := distance(column, quantiles)) > limit:
                middle, usual = float(np.median(column)), quantiles[len(quantiles) // 2]
                moved.append(f"{name} (median {middle:.3g}, released with {usual:.3g}; distance {value:.2f})")
        if moved:
            self.alarm = True
            self._say(f"DRIFT in the last {len(window)} images: {', '.join(moved)}")
        refused = sum(self._refused) / len(self._refused)
        if refused > MAX_REFUSED:
            self.alarm = True
            self._say(
                f"REFUSALS: {refused:.0%} of the last {len(self._refused)} images are out of distribution, "
                f"at most {MAX_REFUSED:.0%} are expected"
            )
        self._save()

    def _save(self) -> None:
        content = {
            "schema_version": SCHEMA_VERSION,
            **self._model,
            "quantities": list(self._quantiles),
            "window": [[round(value, 5) for value in row] for row in self._window],
            "refused": list(self._refused),
        }
        atomic.write_text(self._path, json.dumps(content) + "\n")

    def _load(self) -> None:
        try:
            content = json.loads(read_file(self._path, MAX_TEXT_BYTES))
            if {name: content[name] for name in self._model} != self._model:
                raise LesionEdgeError(
                    f"--monitor {self._path} is of another bundle or variant: choose another file"
                )
            window = np.array(content["window"], float).reshape(-1, len(self._quantiles))
            known = (content["schema_version"], content["quantities"], len(content["refused"]))
            if known != (SCHEMA_VERSION, list(self._quantiles), len(window)) or not np.isfinite(window).all():
                raise ValueError("it holds something else")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise LesionEdgeError(f"--monitor {self._path} is damaged: {error}; remove it") from None
        self._window.extend(window.tolist())
        self._refused.extend(bool(value) for value in content["refused"])


def _lower(knots: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places, first = np.unique(knots, return_index=True)
    return places, QUANTILES[first]


def _upper(knots: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places, first = np.unique(knots[::-1], return_index=True)
    return places, QUANTILES[::-1][first]
