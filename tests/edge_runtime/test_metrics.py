"""The device's own metrics agree with scikit-learn, and with plain loops where it has none."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesion_edge.metrics import (
    Metrics,
    confusion_matrix,
    evaluate,
    expected_calibration_error,
    format_metric,
    roc_auc,
)

reference = pytest.importorskip("sklearn.metrics")

NAMES = ("benign", "malignant", "naevus", "keratosis")


def sample(
    classes: int, images: int, seed: int, levels: int | None = None, absent: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Labels (N,), probabilities (N, K) that know something of them, predictions (N,)."""
    random = np.random.default_rng(seed)
    labels = random.choice([c for c in range(classes) if c != absent], images)
    scores = random.random((images, classes)) + 0.5 * np.eye(classes)[labels]
    if levels:
        scores = np.ceil(scores * levels)
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    return labels, probabilities, probabilities.argmax(axis=1)


@pytest.mark.parametrize(
    ("classes", "data"),
    [
        pytest.param(2, {"images": 200}, id="two classes"),
        pytest.param(2, {"images": 200, "levels": 2}, id="two classes, tied scores"),
        pytest.param(2, {"images": 3}, id="two classes, three images"),
        pytest.param(4, {"images": 300}, id="four classes, macro averages"),
        pytest.param(4, {"images": 300, "levels": 2}, id="four classes, tied scores"),
        pytest.param(4, {"images": 3}, id="a class neither there nor predicted"),
        pytest.param(4, {"images": 50, "absent": 3}, id="a class without a single image"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_scikit_learn(classes: int, data: dict[str, int], seed: int) -> None:
    labels, probabilities, predicted = sample(classes, seed=seed, **data)
    names, indices = NAMES[:classes], list(range(classes))
    result = evaluate(labels, probabilities, predicted, names, "malignant").as_dict()
    averaging = {"average": "binary", "pos_label": 1} if classes == 2 else {"average": "macro", "labels": indices}
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        labels, predicted, zero_division=0, **averaging
    )
    is_positive, predicted_positive = labels == 1, predicted == 1
    expected = {
        "images": len(labels),
        "accuracy": reference.accuracy_score(labels, predicted),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "sensitivity": recall_by_scikit_learn(is_positive, predicted_positive),
        "specificity": recall_by_scikit_learn(~is_positive, ~predicted_positive),
        "roc_auc": roc_auc_by_scikit_learn(is_positive, probabilities[:, 1]),
        "ece": calibration_error_by_loop(is_positive, probabilities[:, 1]),
    }
    assert result.pop("confusion_matrix") == reference.confusion_matrix(labels, predicted, labels=indices).tolist()
    assert result == pytest.approx(expected, abs=1e-12)
    assert list(result) == list(expected), "the order in which a person reads them"


def recall_by_scikit_learn(labels: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float | None:
    return float(reference.recall_score(labels, predicted)) if labels.any() else None


def roc_auc_by_scikit_learn(labels: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    return float(reference.roc_auc_score(labels, score)) if len(set(labels)) == 2 else None


def calibration_error_by_loop(
    labels: NDArray[np.bool_], probability: NDArray[np.float64], bins: int = 10
) -> float:
    total = 0.0
    for k in range(bins):
        inside = (probability >= k / bins) & ((probability < (k + 1) / bins) | (k == bins - 1))
        if inside.any():
            total += inside.sum() * abs(labels[inside].mean() - probability[inside].mean())
    return total / len(labels)


@pytest.mark.parametrize(
    ("labels", "probability", "bins", "error"),
    [
        pytest.param([1, 0], [1.0, 0.0], 10, 0.0, id="sure and right"),
        pytest.param([0, 1], [1.0, 0.0], 10, 1.0, id="sure and wrong"),
        pytest.param([0, 0, 0, 1], [0.25] * 4, 10, 0.0, id="one of four at a quarter is calibrated"),
        pytest.param([1, 1], [0.25, 0.85], 10, 0.45, id="a bin each: the mean of 0.75 and 0.15"),
        pytest.param([0, 1], [0.2, 0.8], 1, 0.0, id="in one bin, errors cancel"),
        pytest.param([0, 1], [0.2, 0.8], 2, 0.2, id="in two bins they do not"),
        pytest.param([0, 1], [1.0, 0.95], 10, 0.475, id="probability 1 belongs to the last bin"),
    ],
)
def test_calibration_error(labels: list[int], probability: list[float], bins: int, error: float) -> None:
    assert expected_calibration_error(labels, probability, bins) == pytest.approx(error)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=60))
@settings(deadline=None)
def test_roc_auc_counts_ties_half_like_scikit_learn(pairs: list[tuple[bool, int]]) -> None:
    labels, score = zip(*pairs, strict=True)
    if len(set(labels)) == 2:
        assert roc_auc(labels, score) == pytest.approx(reference.roc_auc_score(labels, score))
    else:
        assert np.isnan(roc_auc(labels, score))


@pytest.mark.parametrize(
    ("labels", "predicted", "classes", "matrix"),
    [
        pytest.param([0, 0, 0, 1], [0, 1, 1, 0], 2, [[1, 2], [1, 0]], id="rows labels, columns prediction"),
        pytest.param([2], [0], 3, [[0, 0, 0], [0, 0, 0], [1, 0, 0]], id="absent classes keep their place"),
        pytest.param([], [], 2, [[0, 0], [0, 0]], id="no images"),
    ],
)
def test_confusion_matrix(labels: list[int], predicted: list[int], classes: int, matrix: list[list[int]]) -> None:
    assert confusion_matrix(labels, predicted, classes).tolist() == matrix


CERTAIN = [[1.0, 0.0], [0.0, 1.0]]
UNDEFINED = {"accuracy": None, "sensitivity": None, "specificity": None, "roc_auc": None, "ece": None}
ONLY_BENIGN = {"accuracy": 0.5, "sensitivity": None, "specificity": 0.5, "roc_auc": None}
ONLY_MALIGNANT = {"accuracy": 0.5, "sensitivity": 0.5, "specificity": None, "roc_auc": None}
NONE_POSITIVE = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "specificity": 1.0}
ALL_RIGHT = {"accuracy": 1.0, "f1": 1.0, "roc_auc": 1.0, "ece": 0.0}
EDGE_CASES: list[Any] = [
    pytest.param([], [], {"images": 0, **UNDEFINED}, id="no images"),
    pytest.param([0, 0], [0, 1], ONLY_BENIGN, id="all benign"),
    pytest.param([1, 1], [0, 1], ONLY_MALIGNANT, id="all malignant"),
    pytest.param([0, 1], [0, 0], NONE_POSITIVE, id="nothing is predicted malignant"),
    pytest.param([0, 1], [0, 1], ALL_RIGHT, id="all right"),
]


@pytest.mark.parametrize(("labels", "predicted", "figures"), EDGE_CASES)
def test_figure_that_has_no_value_is_none(
    labels: list[int], predicted: list[int], figures: dict[str, Any]
) -> None:
    result = evaluate(labels, [CERTAIN[label] for label in predicted], predicted, NAMES[:2], "malignant")
    assert {name: getattr(result, name) for name in figures} == figures


def test_positive_class_need_not_be_the_second() -> None:
    labels, probabilities, predicted = sample(2, 100, seed=0)
    one = evaluate(labels, probabilities, predicted, ("benign", "malignant"), "malignant")
    other = evaluate(1 - labels, probabilities[:, ::-1], 1 - predicted, ("malignant", "benign"), "malignant")
    for field in fields(Metrics):
        if field.name != "confusion_matrix":
            assert getattr(one, field.name) == pytest.approx(getattr(other, field.name)), field.name


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        pytest.param(0.94567, None, "0.946", id="a metric"),
        pytest.param(0.94567, (0.9, 0.98765), "0.946 [0.900, 0.988]", id="with its interval"),
        pytest.param(None, None, "–", id="undefined"),
    ],
)
def test_one_number_format(value: float | None, interval: tuple[float, float] | None, text: str) -> None:
    assert format_metric(value, interval) == text
