"""What a person is told at the end."""

from __future__ import annotations

import pytest

from lesion_edge import Prediction
from lesion_edge.evaluation import Evaluation
from lesion_edge.intervals import roc_auc_interval
from lesion_edge.summary import Summary

PROBABILITIES = {"benign": 0.4, "malignant": 0.6}


def answered(label: str | None, path: str = "a.jpg") -> Prediction:
    return Prediction(path=path, label=label, probabilities=PROBABILITIES)


def failed(reason: str) -> Prediction:
    return Prediction(path="a.jpg", error=reason)


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
    first, *lines = summary.table().splitlines()
    assert first.startswith("5 images, 1 of them earlier; 4 in ")
    assert first.endswith(" images/s on cpu (int8)")
    assert [line.split(None, 1) for line in lines] == [
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


def test_refused_image_is_counted_and_no_error() -> None:
    summary = Summary("cpu (int8)")
    for prediction in [answered("benign"), answered(None), answered(None)]:
        summary.add(prediction)
    assert not summary.errors
    assert summary.line() == "3 images on cpu (int8): 2 out_of_distribution, 1 benign"


# Class, probability of malignant, and label; of the out_of_distribution ones, one is malignant and ranks lowest.
JUDGED = [
    ("benign", 0.1, "benign"),
    ("benign", 0.3, "benign"),
    ("benign", 0.7, "malignant"),
    ("benign", 0.2, None),
    ("benign", 0.8, None),
    ("malignant", 0.9, "malignant"),
    ("malignant", 0.6, "malignant"),
    ("malignant", 0.4, "benign"),
    ("malignant", 0.05, None),
]


def test_refused_images_count_where_there_are_probabilities_and_not_where_there_is_no_label() -> None:
    reference = pytest.importorskip("sklearn.metrics")
    evaluation = Evaluation(["benign", "malignant"], "malignant")
    for folder, p, label in JUDGED:
        probabilities = {"benign": 1 - p, "malignant": p}
        evaluation.add(Prediction(path=f"{folder}/a.jpg", label=label, probabilities=probabilities))
    result, refused = evaluation.metrics(), evaluation.refused()
    answers = [(folder, label) for folder, _, label in JUDGED if label]
    actual, labels = zip(*answers, strict=True)
    assert refused == [2, 1]
    assert result.images == 6
    assert result.confusion_matrix == reference.confusion_matrix(actual, labels).tolist()
    assert result.sensitivity == pytest.approx(reference.recall_score(actual, labels, pos_label="malignant"))
    everyone = [folder == "malignant" for folder, _, _ in JUDGED]
    auc = reference.roc_auc_score(everyone, [p for _, p, _ in JUDGED])
    assert result.roc_auc == pytest.approx(auc)
    lines = [line.split() for line in evaluation.table().splitlines()]
    assert lines[-4:-1] == [
        ["label", "\\", "predicted", "benign", "malignant", "out_of_distribution"],
        ["benign", "2", "1", "2"],
        ["malignant", "1", "2", "1"],
    ]
    low, high = roc_auc_interval(auc, 4, 5) or (0, 0)
    assert next(line for line in lines if line[0] == "roc_auc")[2:] == [f"[{low:.3f},", f"{high:.3f}]"]
    assert " ".join(lines[-1]) == (
        "3 out of distribution: in roc_auc and ece, in no other figure; "
        "with them as not found, sensitivity is 0.500"
    )


def test_evaluation_of_nothing_but_refused_images_is_undefined() -> None:
    evaluation = Evaluation(["benign", "malignant"], "malignant")
    evaluation.add(answered(None, "benign/a.jpg"))
    result, refused = evaluation.metrics(), evaluation.refused()
    assert (result.images, result.accuracy, refused) == (0, None, [1, 0])
    assert "1 out of distribution: in roc_auc and ece, in no other figure\n" in evaluation.table() + "\n"


def test_evaluation_without_refused_images_has_no_column_for_them() -> None:
    evaluation = Evaluation(["benign", "malignant"], "malignant")
    evaluation.add(answered("malignant", "malignant/a.jpg"))
    assert "out_of_distribution" not in evaluation.table()
