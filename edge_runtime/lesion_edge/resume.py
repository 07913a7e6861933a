"""Interrupted runs: the record beside an output, its whole rows, and the images that remain.

The record of `NAME` is `.NAME.resume` in the same folder, one JSON value a line: first what decides the answers
(bundle, variant, threshold, preprocessing, side file), then the stamp of the image of each row. A line is written
before its row and without a buffer, so that after any end of the process each row has its line.
"""

from __future__ import annotations

import json
import os
from collections import deque
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from lesion_edge.atomic import lock
from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import split_frame
from lesion_edge.output import Format, read_predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from lesion_edge.classifier import Classifier
    from lesion_edge.prediction import Prediction

TOLERANCE = 1e-3
"""Largest difference of probability that rounding and batching may make within one model."""

Stamp = tuple[int, int]
"""Size in bytes and modification time in ns of a file; `MISSING` where there is none."""

MISSING: Stamp = (-1, 0)


def stamp_of(path: str) -> Stamp:
    """Stamp of a file, or of the file of a frame, by which a later content under the same name is known."""
    try:
        status = os.stat(split_frame(path)[0])
    except OSError:
        return MISSING
    return status.st_size, status.st_mtime_ns


def say_changed(path: str) -> None:
    """Tell that an image gets a second row."""
    say(f"{path} has changed since its row was written: answered again")


class Record:
    """Record beside an output, which also keeps other runs from writing to that output.

    Args:
        output: the file of predictions.

    Raises:
        LesionEdgeError: another run has it, or it cannot be written.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        path = output.with_name(f".{output.name}.resume")
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(path, flags, 0o644), "r+b", 0)
            lock(self._file.fileno())
        except BlockingIOError:
            raise LesionEdgeError(f"{output} is being written by another run: choose another --output") from None
        except OSError as error:
            raise LesionEdgeError(f"cannot write {path}: {error.strerror}") from None
        self._file.seek(0)  # a lock may have moved it
        self._content = self._file.read()
        self._pending: deque[Stamp] = deque()
        self._stamp: Stamp = MISSING

    def model(self) -> dict[str, Any] | None:
        """What decided the answers of the rows; None where nobody recorded it."""
        first = next(self._lines(), None)
        return first if isinstance(first, dict) else None

    def stamps(self) -> Iterator[Stamp | None]:
        """Stamp of each row in order, then None for ever."""
        lines = self._lines()
        next(lines, None)
        for line in lines:
            yield (line[0], line[1]) if isinstance(line, list) and len(line) == 2 else None
        yield from repeat(None)

    def begin(self, model: dict[str, Any], stamps: Sequence[Stamp | None]) -> None:
        """Bring the record to the rows that are there, which is no change of what is recorded already."""
        content = b"".join(json.dumps(line).encode() + b"\n" for line in [model, *stamps])
        if not self._content.startswith(content):
            self._file.seek(0)
            self._write(content)
        self._file.truncate(len(content))
        self._file.seek(len(content))
        self._content = b""

    def stamped(self, images: Iterable[str]) -> Iterator[str]:
        """Images, each stamped before it is read."""
        for image in images:
            self._pending.append(stamp_of(image))
            yield image

    def matched(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Predictions of what `stamped` gave out, in its order."""
        for prediction in predictions:
            self._stamp = self._pending.popleft()
            yield prediction

    def add(self, prediction: Prediction) -> None:
        """Append the stamp of the prediction that `matched` gave out last."""
        self._write(json.dumps(self._stamp).encode() + b"\n")

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _lines(self) -> Iterator[Any]:
        for line in self._content.split(b"\n")[:-1]:  # the last is not whole, or empty
            try:
                yield json.loads(line)
            except ValueError:
                return

    def _write(self, content: bytes) -> None:
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._output)) from None


def recorded_model(classifier: Classifier) -> dict[str, Any]:
    """What decides the answers, as the record holds it."""
    return {
        "bundle": classifier.manifest.digest,
        "variant": classifier.variant,
        "threshold": classifier.threshold,
        "site": classifier.site and classifier.site.digest,
        "preprocessing": classifier.manifest.preprocessing_version,
    }


class CompletedRows:
    """Whole rows of an output file.

    Args:
        path: the file; one that is not there has no rows.
        kind: its format.
        class_names: the classes of the model that goes on with it.
        restore: called with the prediction of each row.
        stamps: stamp of the image of each row, None where it is not known.

    Raises:
        LesionEdgeError: the file holds something else.
    """

    def __init__(
        self,
        path: Path,
        kind: Format,
        class_names: Iterable[str],
        restore: Callable[[Prediction], None],
        stamps: Iterable[Stamp | None] = (),
    ) -> None:
        self.bytes: int | None = None
        """Length of the whole rows; None where there is no file."""
        self.stamps: list[Stamp | None] = []
        """Stamp of each row's image, None where it is not known."""
        self._path = path
        self._by_path: dict[str, list[Stamp | None]] = {}
        self._least_sure: dict[str | None, Prediction] = {}
        if not path.exists():
            return
        self.bytes = 0
        rows = read_predictions(path, kind, list(class_names))
        for (prediction, self.bytes), stamp in zip(rows, chain(stamps, repeat(None)), strict=False):
            self.stamps.append(stamp)
            self._by_path.setdefault(os.path.abspath(prediction.path), []).append(stamp)
            restore(prediction)
            if prediction.error is None:
                # One that is `out_of_distribution` has no confidence; the first stands for all of them.
                least = self._least_sure.setdefault(prediction.label, prediction)
                if (prediction.confidence or 0) < (least.confidence or 0):
                    self._least_sure[prediction.label] = prediction

    def check_model(self, classifier: Classifier, recorded: dict[str, Any] | None = None) -> None:
        """Compare what decided the answers of the rows with what decides them now.

        Without a record, the least sure image of each label is answered again, and one without a label: another
        model or threshold shows there first.

        Raises:
            LesionEdgeError: it is another.
        """
        if recorded is not None:
            current = recorded_model(classifier)
            changes = [
                f"{name} {recorded.get(name)}, now {value}"
                for name, value in current.items()
                if value != recorded.get(name)
            ]
            if self.stamps and changes:
                raise self._another_model("; ".join(changes))
            return
        for before in self._least_sure.values():
            (now,) = classifier.predict([before.path])
            if now.error is None and (
                now.label != before.label
                or any(abs(now.probabilities[name] - p) > TOLERANCE for name, p in before.probabilities.items())
            ):
                raise self._another_model(f"or {before.path} has changed")

    def remaining(self, images: Iterable[str]) -> Iterator[str]:
        """Images without a row, in order, and those that have changed since; an image named twice has two rows.

        Names are compared as absolute paths: `a.jpg` and `./a.jpg` are one image.
        """
        rows = {path: list(stamps) for path, stamps in self._by_path.items()}
        for image in images:
            stamps = rows.get(os.path.abspath(image))
            if not stamps:
                yield image
                continue
            current = stamp_of(image)
            if current in stamps:
                stamps.remove(current)
            elif None in stamps:
                stamps.remove(None)
            else:
                stamps.pop()
                say_changed(image)
                yield image

    def latest_stamps(self) -> dict[str, Stamp | None]:
        """Stamp of the last row of each image, by its absolute path."""
        return {path: stamps[-1] for path, stamps in self._by_path.items()}

    def _another_model(self, difference: str) -> LesionEdgeError:
        return LesionEdgeError(
            f"{self._path} comes from another model, variant or threshold ({difference}): choose another --output"
        )
