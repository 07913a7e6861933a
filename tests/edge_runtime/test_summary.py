"""What a person is told at the end."""

from __future__ import annotations

from lesion_edge import Prediction
from lesion_edge.evaluation import Evaluation
from lesion_edge.summary import Summary

PROBABILITIES = {"benign": 0.4, "malignant": 0.6}


def answered(label: str | None, path: str = "a.jpg") -> Prediction:
    return Prediction(path, label, None, PROBABILITIES)


def failed(reason: str) -> Prediction:
    return Prediction("a.jpg", None, None, {}, reason)


def test_line_for_a_log() -> None:
    summary = Summary("cpu (int8)")
    for prediction in [answered("benign"), answered("malignant"), answered("malignant"), failed("empty file")]:
        summary.add(prediction)
    assert summary.line() == "4 images on cpu (int8): 2 malignant, 1 benign, 1 error: empty file"


def test_table_for_a_terminal() -> None:
    summary = Summary("cpu (int8)")
    summary.add_earlier(answered("benign"))
    summary.add(answered("malignant"))
    for size in (3, 4):
        summary.add(failed(f"too large: {size} pixels"))
    summary.add(failed("damaged (7 bytes)"))
    first, *rest = summary.table().splitlines()
    assert first.startswith("5 images, 1 of them earlier; 4 in ")
    assert first.endswith(" images/s on cpu (int8)")
    assert [line.split(None, 1) for line in rest] == [
        ["1", "benign"],
        ["1", "malignant"],
        ["3", "errors"],
        ["2", "too large"],
        ["1", "damaged"],
    ]


def test_many_kinds_of_errors_are_cut_short() -> None:
    summary = Summary("cpu (int8)")
    for index in range(13):
        summary.add(failed(f"reason {index}"))
    assert summary.table().splitlines()[-1].split() == ["and", "3", "other", "reasons"]


def test_image_with_probabilities_and_no_label_is_no_error() -> None:
    summary = Summary("cpu (int8)")
    summary.add(answered(None))
    assert not summary.errors
    assert summary.labels.total() == 1
    evaluation = Evaluation(["benign", "malignant"], "malignant")
    evaluation.add(answered(None, "malignant/a.jpg"))
    evaluation.add(answered("malignant", "malignant/b.jpg"))
    assert (evaluation.without_label, evaluation.result()["images"]) == (1, 1)
    assert "not compared: 1 images without a label" in evaluation.table()
