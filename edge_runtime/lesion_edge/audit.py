"""Audit log: which image got which answer, by which model, and when; one JSON line each, chained by digests.

Each line holds the digest of the line before (`previous`) and its own (`digest`): the SHA-256 of the canonical
form (see `lesion_edge.manifest`) of all its other fields. A line that is changed, removed or moved breaks the
chain. Lines removed from the end do not, and neither does a log that somebody writes anew: note the last digest
elsewhere. The log holds no pixels, and names images by the digest of their bytes.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lesion_edge.atomic import lock
from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import split_frame
from lesion_edge.manifest import canonical_json, digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from lesion_edge.classifier import Classifier
    from lesion_edge.prediction import Prediction

FIRST = "0" * 64
"""`previous` of the first line."""

MAX_LINE_BYTES = 1 << 16
"""No line is longer; a path has at most 4 KiB."""

BEGINNING = b'{"audit":'
"""Of every line."""


class AuditLog:
    """Audit log that is appended to, one unbuffered line per prediction, so that none is lost with the process.

    A last line that is not whole, as `kill -9` or a power cut leaves it, is removed, and said on standard error.

    Args:
        path: the file; one that is not there is made.
        classifier: that the predictions come from.
        with_paths: whether lines name the image's path.

    Raises:
        LesionEdgeError: the file cannot be written, is in use by another run, or holds something else.
    """

    def __init__(self, path: Path, classifier: Classifier, with_paths: bool = False) -> None:
        self._path = path
        self._with_paths = with_paths
        self._positive_class = classifier.manifest.positive_class
        self._model = {
            "bundle": classifier.manifest.digest,
            "site": classifier.site and classifier.site.digest,
            "variant": classifier.variant,
            "device": classifier.device,
            "threshold": classifier.threshold,
        }
        try:
            self._file = os.fdopen(
                os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644), "r+b", 0
            )
            lock(self._file.fileno())
        except BlockingIOError:
            raise LesionEdgeError(f"{path} is in use by another run: choose another --audit") from None
        except OSError as error:
            raise LesionEdgeError(f"cannot write --audit {path}: {error.strerror}") from None
        self._length = self._file.seek(0, os.SEEK_END)
        self._line, self._digest = self._last_line()

    def _last_line(self) -> tuple[int, str]:
        """Number and digest of the last whole line, behind which the file is cut off."""
        self._file.seek(max(0, self._length - 2 * MAX_LINE_BYTES))
        whole, _, torn = self._file.read().rpartition(b"\n")
        if not (torn.startswith(BEGINNING) or BEGINNING.startswith(torn)):
            raise LesionEdgeError(f"{self._path} is no audit log: choose another --audit")
        try:
            entry: dict[str, Any] = {"audit": 0, "digest": FIRST}
            if whole:
                entry = _read_line(whole.rpartition(b"\n")[2])
        except ValueError as error:
            raise LesionEdgeError(f"{self._path}: its last line {error}; see --verify-audit") from None
        if torn:
            self._length -= len(torn)
            self._file.truncate(self._length)
            say(f"{self._path}: its last line was not whole and is removed ({len(torn)} bytes)")
        self._file.seek(self._length)
        return entry["audit"], entry["digest"]

    def add(self, prediction: Prediction) -> None:
        """Append the line of one prediction.

        Raises:
            OSError: it could not be written; the file then ends with the line before.
        """
        _, frame = split_frame(prediction.path)
        entry: dict[str, Any] = {
            "audit": self._line + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "image": prediction.sha256,
            **({} if frame is None else {"frame": frame}),
            **({"path": _printable(prediction.path)} if self._with_paths else {}),
            **self._model,
            "status": prediction.status,
            "label": prediction.label,
            "probability": prediction.probabilities.get(self._positive_class),
            "error": prediction.error,
            "previous": self._digest,
        }
        entry["digest"] = digest_of(entry)
        content = _line(entry)
        try:
            written = 0
            while written < len(content):
                written += self._file.write(content[written:])
        except OSError as error:
            os.ftruncate(self._file.fileno(), self._length)
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        self._length += len(content)
        self._line, self._digest = entry["audit"], entry["digest"]

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()


def verify_audit(path: Path) -> tuple[int, str]:
    """Follow the chain of an audit log from its first line to its last.

    Returns:
        Number of lines, and the digest of the last.

    Raises:
        LesionEdgeError: the file cannot be read, or a line was changed, removed or moved: the first is named.
    """
    count, previous = 0, FIRST
    try:
        with path.open("rb") as stream:
            for line in iter(lambda: stream.readline(MAX_LINE_BYTES), b""):
                try:
                    entry = _read_line(line.removesuffix(b"\n"), whole=line.endswith(b"\n"))
                except ValueError as error:
                    raise LesionEdgeError(f"{path}: line {count + 1} {error}") from None
                if entry["previous"] != previous or entry["audit"] != count + 1:
                    raise LesionEdgeError(f"{path}: {_reason(entry['audit'], count)}")
                count, previous = count + 1, entry["digest"]
    except OSError as error:
        raise LesionEdgeError(f"cannot read {path}: {error.strerror}") from None
    return count, previous


def _printable(path: str) -> str:
    """A path that may hold any bytes, as text."""
    return path.encode(errors="surrogateescape").decode(errors="replace")


def _reason(number: int, count: int) -> str:
    """What became of the chain, where line `number` of a log comes behind `count` good ones."""
    if number == count + 1:
        return (
            f"line {count} was changed: line {number} does not follow it" if count else "line 1 is not the first"
        )
    if number > count + 1:
        return f"line {count + 1} was removed or moved: line {number} stands in its place"
    return f"line {count + 1} is line {number} of this log or of another"


def _read_line(line: bytes, whole: bool = True) -> dict[str, Any]:
    """Entry of a line without its end.

    Raises:
        ValueError: it is not whole, was changed or is none, in words that follow "line 3".
    """
    if not whole:
        raise ValueError("is not whole: the run that wrote it was ended; the next run removes it")
    try:
        entry = json.loads(line)
        content = {name: value for name, value in entry.items() if name != "digest"}
        unchanged = entry["digest"] == digest_of(content) and _line(entry) == line + b"\n"
        numbered = isinstance(entry["audit"], int) and isinstance(entry["previous"], str)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        unchanged = numbered = False
    if not (unchanged and numbered):
        raise ValueError("was changed")
    return dict(entry)


def _line(entry: dict[str, Any]) -> bytes:
    return canonical_json(entry) + b"\n"
