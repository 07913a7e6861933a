"""Rows of an interrupted run, and the images that remain."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lesion_edge.errors import LesionEdgeError
from lesion_edge.output import Format, read_predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from lesion_edge.classifier import Classifier, Prediction

TOLERANCE = 1e-3
"""Largest difference of probability that rounding and batching may make within one model."""


class CompletedRows:
    """Whole rows of an output file.

    Args:
        path: the file; one that is not there has no rows.
        kind: its format.
        class_names: the classes of the model that goes on with it.
        restore: called with the prediction of each row.

    Raises:
        LesionEdgeError: the file holds something else.
    """

    def __init__(
        self, path: Path, kind: Format, class_names: Iterable[str], restore: Callable[[Prediction], None]
    ) -> None:
        self.bytes: int | None = None
        """Length of the whole rows; None where there is no file."""
        self.paths: Counter[str] = Counter()
        """Number of rows of each path."""
        self._path = path
        self._least_sure: dict[str | None, Prediction] = {}
        if not path.exists():
            return
        self.bytes = 0
        for prediction, self.bytes in read_predictions(path, kind, list(class_names)):
            self.paths[prediction.path] += 1
            restore(prediction)
            if prediction.error is None:
                # One that is `out_of_distribution` has no confidence; the first stands for all of them.
                least = self._least_sure.setdefault(prediction.label, prediction)
                if (prediction.confidence or 0) < (least.confidence or 0):
                    self._least_sure[prediction.label] = prediction

    def check_model(self, classifier: Classifier) -> None:
        """Answer the least sure image of each label again, and one without a label: another model or threshold
        shows there first.

        Raises:
            LesionEdgeError: the answer is another one.
        """
        for before in self._least_sure.values():
            (now,) = classifier.predict([before.path])
            if now.error is None and (
                now.label != before.label
                or any(abs(now.probabilities[name] - p) > TOLERANCE for name, p in before.probabilities.items())
            ):
                raise LesionEdgeError(
                    f"{self._path} comes from another model, variant or threshold (or {before.path} has changed): "
                    "choose another --output"
                )

    def remaining(self, images: Iterable[str]) -> Iterator[str]:
        """Images without a row, in order; an image named twice has two rows."""
        done = self.paths.copy()
        for image in images:
            if done[image]:
                done[image] -= 1
            else:
                yield image
