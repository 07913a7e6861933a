"""Writes predictions as CSV or JSON Lines, one whole row at a time."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lesion_edge.classifier import Prediction

Format = Literal["csv", "jsonl"]


def open_writer(stream: TextIO, kind: Format, class_names: Sequence[str]) -> Callable[[Prediction], None]:
    """Return a function that writes one prediction as one row, flushed.

    Columns, in this order: `path,status,label,confidence,p_<class>…,error`. CSV starts with the header; an
    empty cell, and null in JSON, stand for no value. Probabilities have six decimals.
    """
    columns = ["path", "status", "label", "confidence", *(f"p_{name}" for name in class_names), "error"]
    if kind == "jsonl":

        def write_json(prediction: Prediction) -> None:
            row = dict(zip(columns, _row(prediction, class_names), strict=True))
            stream.write(json.dumps(row) + "\n")
            stream.flush()

        return write_json

    def write_cells(cells: Sequence[str | float | None]) -> None:
        # Before Python 3.13, csv quotes a carriage return in a cell only where one ends the rows as well.
        row = io.StringIO(newline="")
        csv.writer(row, lineterminator="\r\n").writerow(cells)
        stream.write(row.getvalue().removesuffix("\r\n") + "\n")
        stream.flush()

    write_cells(columns)
    return lambda prediction: write_cells(_row(prediction, class_names))


def _row(prediction: Prediction, class_names: Sequence[str]) -> list[str | float | None]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    probabilities = [rounded(prediction.probabilities.get(name)) for name in class_names]
    confidence = rounded(prediction.confidence)
    return [
        prediction.path,
        prediction.status,
        prediction.label,
        confidence,
        *probabilities,
        prediction.error,
    ]
