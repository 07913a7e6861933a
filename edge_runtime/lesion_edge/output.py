"""Predictions as CSV or JSON Lines: written one whole row at a time, and read back."""

from __future__ import annotations

import csv
import io
import json
import os
import select
import sys
from typing import TYPE_CHECKING, Any, Literal

from lesion_edge.errors import LesionEdgeError
from lesion_edge.prediction import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Format = Literal["csv", "jsonl"]


class PredictionWriter:
    """Writer of one row per prediction, unbuffered, so that what is written survives the process.

    Columns, in this order: `path,status,label,confidence,p_<class>…,error`. CSV starts with the header; an
    empty cell, and null in JSON, stand for no value. Probabilities have six decimals.

    Args:
        path: the file; None takes standard output.
        resume_at: length in bytes of the rows of an existing file to append to; None makes a new file.

    Raises:
        LesionEdgeError: the file exists already or cannot be made.
        OSError: a row could not be written, with the file's name; a file then ends with the row before.
    """

    def __init__(
        self, path: Path | None, kind: Format, class_names: Sequence[str], resume_at: int | None = None
    ) -> None:
        self._columns = columns(class_names)
        self._kind = kind
        self._path = path
        self._whole = resume_at or 0
        if path is None:
            if sys.stdout is None:
                raise LesionEdgeError("standard output is closed: name a file with --output")
            self._file = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115
        else:
            try:
                self._file = open(path, "xb" if resume_at is None else "r+b", buffering=0)  # noqa: SIM115
                self._file.seek(self._whole)
                self._file.truncate()
            except FileExistsError:
                raise LesionEdgeError(f"{path} exists already: choose another --output or remove it") from None
            except OSError as error:
                raise LesionEdgeError(f"cannot write {path}: {error.strerror}") from None
        if kind == "csv" and not resume_at:
            self._write(csv_row(self._columns))

    def add(self, prediction: Prediction) -> None:
        """Write one prediction as one row."""
        if self._kind == "csv":
            self._write(csv_row(_cells(prediction, self._columns)))
        else:
            self._write(json_line(prediction, self._columns))

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _write(self, row: str) -> None:
        # File names may hold any bytes; they come out as they went in.
        content = row.encode("utf-8", "surrogateescape")
        written = 0
        try:
            while written < len(content):
                count = self._file.write(content[written:])
                if count is None:  # a pipe that never waits is full
                    select.select([], [self._file], [])
                else:
                    written += count
        except OSError as error:
            if self._path is not None:
                os.ftruncate(self._file.fileno(), self._whole)
            raise OSError(error.errno, error.strerror, str(self._path or "standard output")) from None
        self._whole += len(content)


def columns(class_names: Sequence[str]) -> list[str]:
    """Names of the columns."""
    return ["path", "status", "label", "confidence", *(f"p_{name}" for name in class_names), "error"]


def json_line(prediction: Prediction, names: Sequence[str]) -> str:
    """One prediction as a row of JSON Lines, with its line break.

    Args:
        names: the `columns`.
    """
    return json.dumps(dict(zip(names, _cells(prediction, names), strict=True))) + "\n"


def read_predictions(path: Path, kind: Format, class_names: Sequence[str]) -> Iterator[tuple[Prediction, int]]:
    """Read back what a `PredictionWriter` wrote, without a last row that is not whole.

    Yields:
        A prediction, and the byte at which its row ends.

    Raises:
        LesionEdgeError: the file cannot be read or holds something else.
    """
    names = columns(class_names)
    number = 1
    try:
        with path.open("rb") as file:
            # Whatever has no whole row yet must not be overwritten unless it is the beginning of one.
            start = file.read(1 << 16)
            first = (csv_row(names) if kind == "csv" else '{"path": "').encode()
            if not (start.startswith(first) or first.startswith(start)):
                raise ValueError
            file.seek(0)
            for number, (row, end) in enumerate(_whole_rows(file, quoted=kind == "csv"), start=1):
                if kind == "jsonl":
                    content = json.loads(row)
                    cells = [content[name] for name in names]
                else:
                    (cells,) = csv.reader([row.removesuffix("\n")])
                    if number == 1:
                        if cells != names:
                            raise ValueError
                        continue
                yield _prediction(cells, names), end
    except OSError as error:
        raise LesionEdgeError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, csv.Error):
        raise LesionEdgeError(
            f"{path}, row {number}: not a row of {','.join(names)} as {kind}; choose another --output"
        ) from None


def _whole_rows(file: Any, quoted: bool) -> Iterator[tuple[str, int]]:
    row, end = b"", 0
    for line in file:
        row += line
        # A line break inside quotes is part of a file name.
        if line.endswith(b"\n") and not (quoted and row.count(b'"') % 2):
            end += len(row)
            yield row.decode("utf-8", "surrogateescape"), end
            row = b""


def _prediction(cells: Sequence[Any], names: Sequence[str]) -> Prediction:
    path, _, label, confidence, *values, error = cells
    if len(values) != len(names) - 5 or not isinstance(path, str):
        raise ValueError
    probabilities = {
        name.removeprefix("p_"): float(value)
        for name, value in zip(names[4:-1], values, strict=True)
        if value not in ("", None)
    }
    return Prediction(
        path=path,
        label=label or None,
        confidence=None if confidence in ("", None) else float(confidence),
        probabilities=probabilities,
        error=error or None,
    )


def _cells(prediction: Prediction, names: Sequence[str]) -> list[str | float | None]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    probabilities = [rounded(prediction.probabilities.get(name.removeprefix("p_"))) for name in names[4:-1]]
    return [
        prediction.path,
        prediction.status,
        prediction.label,
        rounded(prediction.confidence),
        *probabilities,
        prediction.error,
    ]


def csv_row(cells: Sequence[str | float | None]) -> str:
    """Cells as a row of CSV, with its line break; None is an empty cell."""
    # Before Python 3.13, csv quotes a carriage return in a cell only where one ends the rows as well.
    row = io.StringIO(newline="")
    csv.writer(row, lineterminator="\r\n").writerow(cells)
    return row.getvalue().removesuffix("\r\n") + "\n"
