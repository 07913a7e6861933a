"""Temperature, thresholds and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_edge.classifier import apply_threshold
from lesion_edge.intervals import SMALLEST_CLASS, bootstrap_interval
from lesion_export.operating_point import (
    METHODS,
    decide_outputs,
    fit_temperature,
    softmax,
    threshold_for_balanced_accuracy,
    threshold_for_sensitivity,
    threshold_table,
)
from lesion_export.scores import scores


@pytest.fixture
def drawn() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits (400, 2) whose softmax is the true probability, and labels drawn from it."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (400, 2)).astype(np.float32)
    return logits, (rng.random(400) < softmax(logits)[:, 1]).astype(np.int64)


def test_softmax_of_known_logits() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1, 3], [2, 2]], np.float32))), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(softmax(np.array([[1000, 0, -1000]], np.float32)), [[1, 0, 0]])


def test_temperature_undoes_too_much_certainty(drawn: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, truth = drawn
    fitted = fit_temperature(logits, truth)
    assert fitted == pytest.approx(1, abs=0.2)
    assert fit_temperature(logits * 5, truth) == pytest.approx(5 * fitted, rel=1e-3)

    def cross_entropy(temperature: float) -> float:
        return float(-np.log(softmax(logits / temperature)[np.arange(len(truth)), truth]).mean())

    assert cross_entropy(fitted) <= min(cross_entropy(fitted * 0.9), cross_entropy(fitted * 1.1))


def test_few_images_that_are_all_right_give_no_certainty() -> None:
    logits, truth = np.array([[9, 0], [0, 9]], np.float32), np.array([0, 1])
    certain = softmax(logits / fit_temperature(logits, truth))[0, 0]
    assert certain == pytest.approx(2 / 3, rel=1e-6)
    many = np.tile(logits, (100, 1))
    assert softmax(many / fit_temperature(many, np.tile(truth, 100)))[0, 0] == pytest.approx(101 / 102, rel=1e-6)
    assert np.isfinite(fit_temperature(logits, truth[::-1]))


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 1.0])
def test_threshold_keeps_the_sensitivity_and_no_higher_one_does(
    target: float, drawn: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> None:
    logits, truth = drawn
    positive, score = truth == 1, softmax(logits)[:, 1]
    threshold = threshold_for_sensitivity(positive, score, target)
    assert (score[positive] >= threshold).mean() >= target
    higher = score[positive][score[positive] > threshold].min() + 1e-12
    assert (score[positive] >= higher).mean() < target


def test_threshold_lies_between_scores() -> None:
    positive, score = np.array([0, 0, 1, 1], bool), np.array([0.1, 0.2, 0.6, 0.9])
    assert threshold_for_sensitivity(positive, score) == pytest.approx(0.4)
    assert threshold_for_balanced_accuracy(positive, score) == pytest.approx(0.4)
    assert 0 < threshold_for_sensitivity(positive, np.array([0.3, 0.3, 0.3, 0.3])) < 0.3


def test_balanced_accuracy_is_the_highest_there_is(
    drawn: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    logits, truth = drawn
    positive, score = truth == 1, softmax(logits)[:, 1]

    def balanced(threshold: float) -> float:
        return float((score[positive] >= threshold).mean() + (score[~positive] < threshold).mean())

    best = threshold_for_balanced_accuracy(positive, score)
    assert balanced(best) == pytest.approx(max(balanced(value) for value in np.linspace(0, 1, 1001)), abs=0.01)
    assert balanced(best) >= max(balanced(value) for value in score)


@pytest.mark.parametrize("method", METHODS)
def test_described_threshold_is_the_one_that_decides(
    method: str, drawn: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> None:
    logits, truth = drawn
    outputs = decide_outputs(logits, truth, 1, method)
    described = threshold_table(outputs.probabilities, truth, 1)[method]
    assert described["threshold"] == outputs.threshold
    np.testing.assert_array_equal(outputs.labels, apply_threshold(outputs.probabilities, outputs.threshold, 1))
    found = scores(outputs, truth, ["benign", "malignant"])
    assert found["sensitivity"] == described["sensitivity"]
    assert found["specificity"] == described["specificity"]
    for name in ("threshold", "sensitivity", "specificity"):
        low, high = described[f"{name}_interval"]
        assert low <= described[name] <= high
        assert low < high


def test_scores_per_class(drawn: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, truth = drawn
    found = scores(decide_outputs(logits, truth, 1), truth, ["benign", "malignant"])
    assert found["classes"]["malignant"]["recall"] == found["sensitivity"]
    assert found["classes"]["benign"]["recall"] == found["specificity"]
    assert found["classes"]["malignant"]["precision"] == pytest.approx(found["precision"])
    assert sum(entry["images"] for entry in found["classes"].values()) == len(truth)
    assert all(low < found[name] < high for name, (low, high) in found["intervals"].items() if name != "ece")


def test_more_classes_have_no_threshold() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] * 4
    outputs = decide_outputs(logits, np.array([0, 1, 2, 1]), 2)
    assert outputs.threshold is None
    assert outputs.labels.tolist() == [0, 1, 2, 0]
    assert scores(outputs, np.array([0, 1, 2, 1]), ["a", "b", "c"])["classes"]["b"]["recall"] == 0.5


def test_interval_of_a_mean_is_that_of_statistics() -> None:
    values = np.random.default_rng(0).normal(0, 1, 400)
    truth = np.repeat([0, 1], 200)
    low, high = bootstrap_interval(lambda index: float(values[index].mean()), truth)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(400), rel=0.15)
    assert bootstrap_interval(lambda index: float(values[index].mean()), truth) == [low, high]


def test_too_few_images_give_no_interval() -> None:
    few = np.repeat([0, 1], [200, SMALLEST_CLASS - 1])
    assert bootstrap_interval(lambda index: 0.0, few) is None
    assert bootstrap_interval(lambda index: 0.0, np.append(few, 1)) == [0.0, 0.0]
    assert bootstrap_interval(lambda index: 0.0, np.zeros(100, int)) is None
