"""Summary of a run: counts per label and per reason of an error."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lesion_edge.prediction import Prediction


class Summary:
    """Counts per label, and per reason of an error.

    Args:
        device: device and variant, as the summary names them.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.labels: Counter[str] = Counter()
        """Images per label; per status where an image without an error has no label."""
        self.errors: Counter[str] = Counter()
        """Images per reason."""
        self._start = time.monotonic()
        self._earlier = 0

    def add(self, prediction: Prediction) -> None:
        """Count one prediction."""
        if prediction.error is None:
            self.labels[prediction.label or prediction.status] += 1
        else:
            # The numbers in a reason differ from image to image.
            self.errors[re.split(r"[:(]", prediction.error)[0].rstrip()] += 1

    def add_earlier(self, prediction: Prediction) -> None:
        """Count a prediction of an earlier run, left out of this run's rate."""
        self._earlier += 1
        self.add(prediction)

    def line(self) -> str:
        """Summary in one line, for a log."""
        counts = self.labels + Counter({f"error: {reason}": count for reason, count in self.errors.items()})
        listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        return f"{counts.total()} images on {self._device}: {listed}"

    def table(self) -> str:
        """Summary as a table with the rate, for a terminal."""
        total, errors = self.labels.total() + self.errors.total(), self.errors.total()
        seconds = time.monotonic() - self._start
        new = total - self._earlier
        earlier = f", {self._earlier} of them earlier" if self._earlier else ""
        rate = f"{new} in {seconds:.1f} s, {new / seconds:.1f} images/s on {self._device}"
        lines = [f"{total} images{earlier}; {rate}"]
        lines += [f"{count:>9}  {label}" for label, count in self.labels.most_common()]
        lines += [f"{errors:>9}  errors"] if errors else []
        lines += [f"{count:>13}  {reason}" for reason, count in self.errors.most_common(10)]
        lines += [f"{'':>13}  and {len(self.errors) - 10} other reasons"] if len(self.errors) > 10 else []
        return "\n".join(lines)
